/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution with a window 3 wide that moves by 1, to at most 16 channels: so few channels that
 * broadcasting inputs, not multiplying, would be the limit. 16 neighbouring pixels share 18 input
 * columns, and each 4 bytes broadcast meet the weights of all three columns of the window.
 *
 * Packed weights: [row of the window][step of 4 channels][column][16 channels][4 bytes]. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/tile_store.h"

enum { PIXELS = 16, WIDE = 3, VECTOR = TEPI_BLOCK * 4, STEP = WIDE * VECTOR };

static size_t steps_of(const struct tepi_conv *conv)
{
    return ((size_t)conv->group_in + 3) / 4;
}

static bool takes(const struct tepi_conv *conv)
{
    return !conv->floats && conv->groups == 1 && conv->group_out <= TEPI_BLOCK &&
           conv->kernel_w == WIDE && conv->stride_w == 1 && conv->dilation_w == 1 &&
           conv->out_w >= PIXELS;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return conv->kernel_h * steps_of(conv) * STEP;
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    memset(packed, 0, packed_bytes(conv));
    for (size_t o = 0; o < conv->group_out; o++) {
        for (size_t tap = 0; tap < (size_t)conv->kernel_h * WIDE; tap++) {
            int8_t *out =
                (int8_t *)packed + tap / WIDE * steps_of(conv) * STEP + tap % WIDE * VECTOR + o * 4;
            for (size_t c = 0; c < conv->group_in; c++)
                out[c / 4 * STEP + c % 4] = *canonical++;
        }
    }
}

/* 4 channels of 18 columns against their weights in one row of the window. */
TEPI_INLINE void step(__m512i acc[PIXELS], const uint8_t *in, size_t pitch, const int8_t *weights)
{
    const __m512i left = _mm512_load_si512(weights), middle = _mm512_load_si512(weights + VECTOR);
    const __m512i right = _mm512_load_si512(weights + 2 * VECTOR);
    TEPI_UNROLL
    for (int column = 0; column < PIXELS + WIDE - 1; column++, in += pitch) {
        const __m512i a = tepi_broadcast4(in);
        if (column < PIXELS)
            acc[column] = tepi_dot4(acc[column], a, left);
        if (column >= 1 && column <= PIXELS)
            acc[column - 1] = tepi_dot4(acc[column - 1], a, middle);
        if (column >= 2)
            acc[column - 2] = tepi_dot4(acc[column - 2], a, right);
    }
}

static void tile(const struct tepi_conv *conv, const struct tepi_channels *channels,
                 const struct tepi_store_vectors *store, const uint8_t *in, uint8_t *out)
{
    const size_t steps = steps_of(conv);
    const int8_t *weights = conv->weights;
    uint8_t *pixels[PIXELS];
    __m512i acc[PIXELS];
    TEPI_UNROLL
    for (size_t i = 0; i < PIXELS; i++)
        acc[i] = channels->bias[0];
    for (size_t y = 0; y < conv->kernel_h; y++, in += conv->dilation_h * conv->in_stride_h)
        for (size_t s = 0; s < steps; s++, weights += STEP)
            step(acc, in + s * 4, conv->in_stride_w, weights);
    TEPI_UNROLL
    for (size_t i = 0; i < PIXELS; i++)
        pixels[i] = out + i * conv->out_stride_w;
    tepi_store_tile(channels, store, pixels, 0, acc, PIXELS, 1);
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const struct tepi_store_vectors store = tepi_store_vectors(&conv->store);
    const struct tepi_channels channels = tepi_channels_at(conv, 0, conv->group_out);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t x = 0; x < conv->out_w; x += PIXELS) {
            /* The last tile overlaps the one before. */
            const size_t first = conv->out_w - x < PIXELS ? conv->out_w - PIXELS : x;
            tile(conv, &channels, &store, in + first * conv->in_stride_w,
                 out + first * conv->out_stride_w);
        }
        tepi_store_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_conv3w_16x16_avx512vnni = {
    .name = "u8s8-conv3w-16x16-avx512vnni",
    .isa = TEPI_KERNEL_AVX512VNNI,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
