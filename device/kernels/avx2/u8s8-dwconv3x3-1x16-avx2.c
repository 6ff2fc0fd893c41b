/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution with a 3x3 window that moves by 1 or 2 pixels: each input column is widened
 * once (two rows as pairs, the third row with zeros) and then multiplied into every output pixel
 * that sees it, so that up to three pixels are under way at a time.
 *
 * Packed weights: [chunk of 16 channels][column of the window][rows 0 and 1, row 2 and none]
 * [16 channels][2] as int16. */
#include "kernels/avx2/depthwise.h"

enum { COLUMN = 2 * TEPI_CHUNK * 2, WINDOW = 3 * COLUMN }; /* int16s */

/* One row of output pixels of one chunk. */
struct line {
    const uint8_t *in;
    uint8_t *out;
    size_t row_step, in_step, out_step, pixels, channels;
};

struct column {
    __m256i upper[2], lower[2];
};

static bool takes(const struct tepi_conv *conv)
{
    return conv->group_in == 1 && conv->group_out == 1 && conv->kernel_h == 3 &&
           conv->kernel_w == 3 && conv->dilation_w == 1 && conv->stride_w <= 2 && !conv->floats;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * WINDOW * sizeof(int16_t);
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    memset(packed, 0, packed_bytes(conv));
    for (size_t c = 0; c < conv->groups; c++) {
        int16_t *chunk = (int16_t *)packed + c / TEPI_CHUNK * WINDOW;
        for (size_t ky = 0; ky < 3; ky++)
            for (size_t kx = 0; kx < 3; kx++)
                tepi_dw_put(chunk + kx * COLUMN + ky / 2 * TEPI_CHUNK * 2, c % TEPI_CHUNK, ky % 2,
                            canonical[c * 9 + ky * 3 + kx]);
    }
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

TEPI_INLINE struct column load_column(const struct line *line, size_t column)
{
    const uint8_t *in = line->in + column * line->in_step;
    struct column c;
    tepi_dw_pair(in, in + line->row_step, c.upper);
    const __m128i third = tepi_load16(in + 2 * line->row_step);
    c.lower[0] = _mm256_cvtepu8_epi32(third);
    c.lower[1] = _mm256_cvtepu8_epi32(_mm_srli_si128(third, 8));
    return c;
}

/* out = acc + column * weights */
TEPI_INLINE void add_column(__m256i out[2], const __m256i acc[2], const struct column *column,
                            const int16_t *weights)
{
    tepi_dw_add(out, acc, column->upper, weights);
    tepi_dw_add(out, out, column->lower, weights + TEPI_CHUNK * 2);
}

static void stride_1(const struct line *line, const int16_t *weights,
                     const struct tepi_dw_constants *k, const struct tepi_store_vectors *s)
{
    __m256i first[2], second[2];
    struct column column = load_column(line, 0);
    add_column(first, k->bias, &column, weights);
    column = load_column(line, 1);
    add_column(first, first, &column, weights + COLUMN);
    add_column(second, k->bias, &column, weights);
    for (size_t x = 0; x < line->pixels; x++) {
        column = load_column(line, x + 2);
        add_column(first, first, &column, weights + 2 * COLUMN);
        tepi_dw_store(line->out + x * line->out_step, first, k, s, line->channels);
        add_column(first, second, &column, weights + COLUMN);
        add_column(second, k->bias, &column, weights);
    }
}

static void stride_2(const struct line *line, const int16_t *weights,
                     const struct tepi_dw_constants *k, const struct tepi_store_vectors *s)
{
    __m256i acc[2];
    struct column column = load_column(line, 0);
    for (size_t x = 0; x < line->pixels; x++) {
        add_column(acc, k->bias, &column, weights);
        column = load_column(line, 2 * x + 1);
        add_column(acc, acc, &column, weights + COLUMN);
        column = load_column(line, 2 * x + 2);
        add_column(acc, acc, &column, weights + 2 * COLUMN);
        tepi_dw_store(line->out + x * line->out_step, acc, k, s, line->channels);
    }
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const struct tepi_store_vectors store =
        tepi_store_range(conv->store.zero_point, conv->store.lo, conv->store.hi);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t c = 0; c < conv->groups; c += TEPI_CHUNK) {
            const struct tepi_dw_constants k = tepi_dw_constants_at(conv, c);
            const struct line line = {.in = in + c,
                                      .out = out + c,
                                      .row_step = conv->dilation_h * conv->in_stride_h,
                                      .in_step = conv->in_stride_w,
                                      .out_step = conv->out_stride_w,
                                      .pixels = conv->out_w,
                                      .channels = conv->groups - c};
            const int16_t *weights = (const int16_t *)conv->weights + c / TEPI_CHUNK * WINDOW;
            if (conv->stride_w == 1)
                stride_1(&line, weights, &k, &store);
            else
                stride_2(&line, weights, &k, &store);
        }
        tepi_dw_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x16_avx2 = {
    .name = "u8s8-dwconv3x3-1x16-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
