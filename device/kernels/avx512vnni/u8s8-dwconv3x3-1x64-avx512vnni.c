/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution with a 3x3 window that moves by 1 or 2 pixels: each input column is
 * interleaved once (its three rows and a zero) and then multiplied into every output pixel that
 * sees it, so that up to three pixels are under way at a time.
 *
 * Packed weights: [chunk of 64 channels][column of the window][4 vectors][64 bytes]
 * (depthwise.h), the fourth tap of each lane zero. */
#include "kernels/avx512vnni/depthwise.h"

enum { COLUMN = 4 * TEPI_CHUNK, WINDOW = 3 * COLUMN };

/* One row of output pixels of one chunk. */
struct line {
    const uint8_t *in;
    uint8_t *out;
    size_t row_step, in_step, out_step, pixels;
    __mmask64 mask;
};

static bool takes(const struct tepi_conv *conv)
{
    return !conv->floats && conv->group_in == 1 && conv->group_out == 1 && conv->kernel_h == 3 &&
           conv->kernel_w == 3 && conv->dilation_w == 1 && conv->stride_w <= 2;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * WINDOW;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    memset(packed, 0, packed_bytes(conv));
    for (size_t c = 0; c < conv->groups; c++) {
        int8_t *chunk = (int8_t *)packed + c / TEPI_CHUNK * WINDOW;
        for (size_t ky = 0; ky < 3; ky++)
            for (size_t kx = 0; kx < 3; kx++)
                chunk[kx * COLUMN + tepi_dw_place(c % TEPI_CHUNK, ky)] =
                    canonical[c * 9 + ky * 3 + kx];
    }
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * sizeof(struct tepi_dw_constants);
}

TEPI_INLINE void load_column(const struct line *line, size_t column, __m512i out[4])
{
    const uint8_t *in = line->in + column * line->in_step;
    tepi_interleave4(_mm512_loadu_si512(in), _mm512_loadu_si512(in + line->row_step),
                     _mm512_loadu_si512(in + 2 * line->row_step), _mm512_setzero_si512(), out);
}

/* out = acc + column * weights */
TEPI_INLINE void add_column(__m512i out[4], const __m512i acc[4], const __m512i column[4],
                            const __m512i weights[4])
{
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = tepi_dot4(acc[v], column[v], weights[v]);
}

TEPI_INLINE void store(const struct line *line, size_t x, const __m512i acc[4],
                       const struct tepi_dw_constants *k, const struct tepi_store_vectors *s)
{
    _mm512_mask_storeu_epi8(line->out + x * line->out_step, line->mask, tepi_dw_finish(acc, k, s));
}

TEPI_INLINE void load_weights(__m512i weights[3][4], const int8_t *packed)
{
    TEPI_UNROLL
    for (int i = 0; i < 12; i++)
        weights[i / 4][i % 4] = _mm512_load_si512(packed + i * 64);
}

static void stride_1(const struct line *line, const int8_t *packed,
                     const struct tepi_dw_constants *k, const struct tepi_store_vectors *s)
{
    __m512i weights[3][4], column[4], first[4], second[4];
    load_weights(weights, packed);
    load_column(line, 0, column);
    add_column(first, k->bias, column, weights[0]);
    load_column(line, 1, column);
    add_column(first, first, column, weights[1]);
    add_column(second, k->bias, column, weights[0]);
    for (size_t x = 0; x < line->pixels; x++) {
        load_column(line, x + 2, column);
        add_column(first, first, column, weights[2]);
        store(line, x, first, k, s);
        add_column(first, second, column, weights[1]);
        add_column(second, k->bias, column, weights[0]);
    }
}

static void stride_2(const struct line *line, const int8_t *packed,
                     const struct tepi_dw_constants *k, const struct tepi_store_vectors *s)
{
    __m512i weights[3][4], column[4], acc[4];
    load_weights(weights, packed);
    load_column(line, 0, column);
    for (size_t x = 0; x < line->pixels; x++) {
        add_column(acc, k->bias, column, weights[0]);
        load_column(line, 2 * x + 1, column);
        add_column(acc, acc, column, weights[1]);
        load_column(line, 2 * x + 2, column);
        add_column(acc, acc, column, weights[2]);
        store(line, x, acc, k, s);
    }
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    struct tepi_dw_constants *constants = conv->scratch;
    const struct tepi_store_vectors vectors = tepi_store_vectors(&conv->store);
    tepi_dw_prepare(conv, constants);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t c = 0; c < conv->groups; c += TEPI_CHUNK) {
            const struct line line = {.in = in + c,
                                      .out = out + c,
                                      .row_step = conv->dilation_h * conv->in_stride_h,
                                      .in_step = conv->in_stride_w,
                                      .out_step = conv->out_stride_w,
                                      .pixels = conv->out_w,
                                      .mask = tepi_mask64(conv->groups - c)};
            const size_t chunk = c / TEPI_CHUNK;
            const int8_t *packed = (const int8_t *)conv->weights + chunk * WINDOW;
            if (conv->stride_w == 1)
                stride_1(&line, packed, constants + chunk, &vectors);
            else
                stride_2(&line, packed, constants + chunk, &vectors);
        }
        tepi_store_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x64_avx512vnni = {
    .name = "u8s8-dwconv3x3-1x64-avx512vnni",
    .isa = TEPI_KERNEL_AVX512VNNI,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
