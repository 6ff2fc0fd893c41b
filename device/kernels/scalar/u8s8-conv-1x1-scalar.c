/* SPDX-License-Identifier: Apache-2.0 */
/* Reference convolution: any groups, strides, dilation; one output pixel and channel at a time.
 * Packed weights are the canonical ones. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include <string.h>

static bool takes(const struct tepi_conv *conv)
{
    (void)conv;
    return true;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return (size_t)conv->groups * conv->group_out * conv->kernel_h * conv->kernel_w *
           conv->group_in;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    memcpy(packed, canonical, packed_bytes(conv));
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

static uint32_t dot(const uint8_t *restrict a, const int8_t *restrict b, size_t count)
{
    /* A product fits int16 (255 * -128), and 2^16 of them fit int32; longer sums wrap. */
    uint32_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (uint32_t)((int16_t)a[i] * (int16_t)b[i]);
    return sum;
}

/* Sum over the window of one output channel; `input` is the window's first tap and channel. */
static uint32_t window(const struct tepi_conv *conv, const uint8_t *input, const int8_t *weights)
{
    const size_t step_h = conv->dilation_h * conv->in_stride_h;
    const size_t step_w = conv->dilation_w * conv->in_stride_w;
    uint32_t sum = 0;
    for (uint32_t ky = 0; ky < conv->kernel_h; ky++) {
        for (uint32_t kx = 0; kx < conv->kernel_w; kx++) {
            sum += dot(input + ky * step_h + kx * step_w, weights, conv->group_in);
            weights += conv->group_in;
        }
    }
    return sum;
}

static void store_float(const struct tepi_conv *conv, uint32_t sum, size_t o, uint8_t *output)
{
    float value = (float)(int32_t)sum * conv->multiplier[o];
    if (conv->addend)
        value += conv->addend[o];
    memcpy(output + o * sizeof(value), &value, sizeof(value));
}

static void pixel(const struct tepi_conv *conv, const uint8_t *input, uint8_t *output)
{
    const size_t filter = (size_t)conv->kernel_h * conv->kernel_w * conv->group_in;
    const int8_t *weights = conv->weights;
    size_t o = 0;
    for (uint32_t group = 0; group < conv->groups; group++) {
        for (uint32_t i = 0; i < conv->group_out; i++, o++) {
            const uint32_t sum =
                (uint32_t)conv->bias[o] + window(conv, input, weights + o * filter);
            if (conv->floats)
                store_float(conv, sum, o, output);
            else
                output[o] = tepi_requantize_u8(sum, conv->multiplier[o], &conv->store);
        }
        input += conv->group_in;
    }
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *input =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *output = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (uint32_t x = 0; x < conv->out_w; x++) {
            pixel(conv, input, output);
            input += conv->stride_w * conv->in_stride_w;
            output += conv->out_stride_w;
        }
    }
}

const struct tepi_conv_kernel tepi_u8s8_conv_1x1_scalar = {
    .name = "u8s8-conv-1x1-scalar",
    .isa = TEPI_KERNEL_SCALAR,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
