/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution with a 3x3 window that moves by 1 or 2 pixels, with VPDPBUSD: the three
 * rows of an input column (and a zero) are interleaved once, so that one lane holds one channel's,
 * and then multiplied into every output pixel that sees the column.
 *
 * Vector v of a column's four holds channels 4v..4v+3 and 16+4v..16+4v+3 of the chunk, which
 * tepi_saturate_lanes puts back in order. Packed weights: [chunk of 32 channels][column of the
 * window][4 vectors][8 channels in that order][4 rows], zeros for the fourth row. */
#include "kernels/avx2/depthwise.h"

enum { CHUNK = 32, VECTORS = 4, COLUMN = CHUNK * 4, WINDOW = 3 * COLUMN };

/* Bias and multiplier of a chunk in the order of its vectors; zeros past the last channel. */
struct constants {
    __m256i bias[VECTORS];
    __m256 multiplier[VECTORS];
};

/* One row of output pixels of one chunk. */
struct line {
    const uint8_t *in;
    uint8_t *out;
    size_t row_step, in_step, out_step, pixels, channels;
};

static size_t chunks_of(const struct tepi_conv *conv)
{
    return ((size_t)conv->groups + CHUNK - 1) / CHUNK;
}

static bool takes(const struct tepi_conv *conv)
{
    return conv->group_in == 1 && conv->group_out == 1 && conv->kernel_h == 3 &&
           conv->kernel_w == 3 && conv->dilation_w == 1 && conv->stride_w <= 2 && !conv->floats;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return chunks_of(conv) * WINDOW;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    memset(packed, 0, packed_bytes(conv));
    for (size_t c = 0; c < conv->groups; c++) {
        int8_t *chunk = (int8_t *)packed + c / CHUNK * WINDOW;
        const size_t place = c % 16 / 4 * 32 + c % CHUNK / 16 * 16 + c % 4 * 4;
        for (size_t ky = 0; ky < 3; ky++)
            for (size_t kx = 0; kx < 3; kx++)
                chunk[kx * COLUMN + place + ky] = canonical[c * 9 + ky * 3 + kx];
    }
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

static struct constants constants_at(const struct tepi_conv *conv, size_t c)
{
    const size_t count = conv->groups - c < CHUNK ? conv->groups - c : CHUNK;
    int32_t bias[CHUNK] = {0};
    float multiplier[CHUNK] = {0};
    memcpy(bias, conv->bias + c, count * sizeof(bias[0]));
    memcpy(multiplier, conv->multiplier + c, count * sizeof(multiplier[0]));
    struct constants k;
    for (size_t v = 0; v < VECTORS; v++) {
        k.bias[v] = _mm256_set_m128i(tepi_load16(bias + 16 + 4 * v), tepi_load16(bias + 4 * v));
        k.multiplier[v] = _mm256_set_m128(_mm_loadu_ps(multiplier + 16 + 4 * v),
                                          _mm_loadu_ps(multiplier + 4 * v));
    }
    return k;
}

TEPI_INLINE void load_column(const struct line *line, size_t column, __m256i out[VECTORS])
{
    const uint8_t *in = line->in + column * line->in_step;
    const __m256i a = tepi_load32(in), b = tepi_load32(in + line->row_step);
    const __m256i c = tepi_load32(in + 2 * line->row_step), zero = _mm256_setzero_si256();
    const __m256i ab_low = _mm256_unpacklo_epi8(a, b), ab_high = _mm256_unpackhi_epi8(a, b);
    const __m256i c_low = _mm256_unpacklo_epi8(c, zero), c_high = _mm256_unpackhi_epi8(c, zero);
    out[0] = _mm256_unpacklo_epi16(ab_low, c_low);
    out[1] = _mm256_unpackhi_epi16(ab_low, c_low);
    out[2] = _mm256_unpacklo_epi16(ab_high, c_high);
    out[3] = _mm256_unpackhi_epi16(ab_high, c_high);
}

/* out = acc + column * weights */
TEPI_INLINE void add_column(__m256i out[VECTORS], const __m256i acc[VECTORS],
                            const __m256i column[VECTORS], const int8_t *weights)
{
    TEPI_UNROLL
    for (int v = 0; v < VECTORS; v++)
        out[v] = tepi_dot4(acc[v], column[v], tepi_load32(weights + v * 32));
}

TEPI_INLINE void store(const struct line *line, size_t x, const __m256i acc[VECTORS],
                       const struct constants *k, const struct tepi_store_vectors *s)
{
    const __m256i bytes = tepi_saturate_lanes(tepi_scale(acc[0], k->multiplier[0], s->highest),
                                              tepi_scale(acc[1], k->multiplier[1], s->highest),
                                              tepi_scale(acc[2], k->multiplier[2], s->highest),
                                              tepi_scale(acc[3], k->multiplier[3], s->highest), s);
    tepi_store32(line->out + x * line->out_step, bytes, line->channels);
}

static void stride_1(const struct line *line, const int8_t *weights, const struct constants *k,
                     const struct tepi_store_vectors *s)
{
    __m256i first[VECTORS], second[VECTORS], column[VECTORS];
    load_column(line, 0, column);
    add_column(first, k->bias, column, weights);
    load_column(line, 1, column);
    add_column(first, first, column, weights + COLUMN);
    add_column(second, k->bias, column, weights);
    for (size_t x = 0; x < line->pixels; x++) {
        load_column(line, x + 2, column);
        add_column(first, first, column, weights + 2 * COLUMN);
        store(line, x, first, k, s);
        add_column(first, second, column, weights + COLUMN);
        add_column(second, k->bias, column, weights);
    }
}

static void stride_2(const struct line *line, const int8_t *weights, const struct constants *k,
                     const struct tepi_store_vectors *s)
{
    __m256i acc[VECTORS], column[VECTORS];
    load_column(line, 0, column);
    for (size_t x = 0; x < line->pixels; x++) {
        add_column(acc, k->bias, column, weights);
        load_column(line, 2 * x + 1, column);
        add_column(acc, acc, column, weights + COLUMN);
        load_column(line, 2 * x + 2, column);
        add_column(acc, acc, column, weights + 2 * COLUMN);
        store(line, x, acc, k, s);
    }
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const struct tepi_store_vectors vectors =
        tepi_store_range(conv->store.zero_point, conv->store.lo, conv->store.hi);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t c = 0; c < conv->groups; c += CHUNK) {
            const struct constants k = constants_at(conv, c);
            const struct line line = {.in = in + c,
                                      .out = out + c,
                                      .row_step = conv->dilation_h * conv->in_stride_h,
                                      .in_step = conv->in_stride_w,
                                      .out_step = conv->out_stride_w,
                                      .pixels = conv->out_w,
                                      .channels = conv->groups - c};
            const int8_t *weights = (const int8_t *)conv->weights + c / CHUNK * WINDOW;
            if (conv->stride_w == 1)
                stride_1(&line, weights, &k, &vectors);
            else
                stride_2(&line, weights, &k, &vectors);
        }
        tepi_dw_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x32_avxvnni = {
    .name = "u8s8-dwconv3x3-1x32-avxvnni",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
