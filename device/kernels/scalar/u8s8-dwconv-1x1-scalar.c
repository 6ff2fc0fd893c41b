/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution with one channel in and out per group: weights are packed tap by tap so
 * that the innermost loop runs over channels, CHANNELS at a time. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

enum { CHANNELS = 64 };

static bool takes(const struct tepi_conv *conv)
{
    return conv->group_in == 1 && conv->group_out == 1 && !conv->floats;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return (size_t)conv->groups * conv->kernel_h * conv->kernel_w;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const size_t taps = (size_t)conv->kernel_h * conv->kernel_w;
    int8_t *out = packed;
    for (size_t tap = 0; tap < taps; tap++)
        for (size_t c = 0; c < conv->groups; c++)
            *out++ = canonical[c * taps + tap];
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

/* `count` channels of one output pixel from channel c on. */
static void pixel(const struct tepi_conv *conv, const uint8_t *input, uint8_t *output, size_t c,
                  size_t count)
{
    const int8_t *weights = (const int8_t *)conv->weights + c;
    uint32_t sums[CHANNELS];
    for (size_t i = 0; i < count; i++)
        sums[i] = (uint32_t)conv->bias[c + i];
    for (uint32_t ky = 0; ky < conv->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < conv->kernel_w; kx++) {
            const uint8_t *tap = input + c + (size_t)ky * conv->dilation_h * conv->in_stride_h +
                                 (size_t)kx * conv->dilation_w * conv->in_stride_w;
            for (size_t i = 0; i < count; i++)
                sums[i] += (uint32_t)((int16_t)tap[i] * (int16_t)weights[i]);
            weights += conv->groups;
        }
    }
    for (size_t i = 0; i < count; i++)
        output[c + i] = tepi_requantize_u8(sums[i], conv->multiplier[c + i], &conv->store);
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *input =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *output = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (uint32_t x = 0; x < conv->out_w; x++) {
            for (size_t c = 0; c < conv->groups; c += CHANNELS) {
                const size_t left = conv->groups - c;
                pixel(conv, input, output, c, left < CHANNELS ? left : CHANNELS);
            }
            input += conv->stride_w * conv->in_stride_w;
            output += conv->out_stride_w;
        }
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv_1x1_scalar = {
    .name = "u8s8-dwconv-1x1-scalar",
    .isa = TEPI_KERNEL_SCALAR,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
