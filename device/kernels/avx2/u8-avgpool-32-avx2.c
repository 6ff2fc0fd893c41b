/* SPDX-License-Identifier: Apache-2.0 */
/* Requantized mean of each window, 32 channels at a time. Sums grow in 16 bits, which hold 257
 * pixels, and move to 32 bits before that. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"
#include "kernels/pooling.h"

enum { HELD = 257 };

struct sums {
    __m256i words[2], all[4];
    uint32_t held;
};

TEPI_INLINE void move(struct sums *s)
{
    TEPI_UNROLL
    for (int v = 0; v < 4; v++) {
        const __m128i half = v % 2 ? _mm256_extracti128_si256(s->words[v / 2], 1)
                                   : _mm256_castsi256_si128(s->words[v / 2]);
        s->all[v] = _mm256_add_epi32(s->all[v], _mm256_cvtepu16_epi32(half));
    }
    s->words[0] = s->words[1] = _mm256_setzero_si256();
    s->held = 0;
}

/* 32 channels from channel c on. */
TEPI_INLINE void add_window(const struct tepi_window2 *window, size_t c, struct sums *s)
{
    for (size_t y = 0; y < window->rows; y++) {
        const uint8_t *tap = window->first + c + y * window->row_step;
        for (size_t x = 0; x < window->columns; x++, tap += window->column_step) {
            s->words[0] = _mm256_add_epi16(s->words[0], _mm256_cvtepu8_epi16(tepi_load16(tap)));
            s->words[1] =
                _mm256_add_epi16(s->words[1], _mm256_cvtepu8_epi16(tepi_load16(tap + 16)));
            if (++s->held == HELD)
                move(s);
        }
    }
    move(s);
}

static void pixel(const struct tepi_pool *pool, const struct tepi_window2 *window,
                  const struct tepi_store_vectors *store, uint8_t *out)
{
    const size_t pixels = window->rows * window->columns;
    const size_t divisor =
        pool->count_include_pad ? (size_t)pool->kernel_h * pool->kernel_w : pixels;
    const __m256 multiplier = _mm256_set1_ps(pool->in_scale / (pool->out_scale * (float)divisor));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i zero_points =
        _mm256_set1_epi32((int32_t)(0u - (uint32_t)pixels * (uint32_t)pool->in_zero_point));
    for (size_t c = 0; c < pool->channels; c += 32) {
        struct sums s = {{zero, zero}, {zero_points, zero_points, zero_points, zero_points}, 0};
        add_window(window, c, &s);
        const __m256i bytes =
            tepi_saturate4(tepi_scale(s.all[0], multiplier, store->highest),
                           tepi_scale(s.all[1], multiplier, store->highest),
                           tepi_scale(s.all[2], multiplier, store->highest),
                           tepi_scale(s.all[3], multiplier, store->highest), store);
        tepi_store32(out + c, bytes, pool->channels - c);
    }
}

void tepi_u8_avgpool_32_avx2(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end)
{
    const struct tepi_store_vectors store = tepi_store_range(pool->out_zero_point, 0, 255);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / pool->out_h, y = row % pool->out_h;
        const struct tepi_window rows = tepi_rows_of(pool, y);
        uint8_t *out = pool->output + n * pool->out_stride_n + y * pool->out_stride_h;
        for (size_t x = 0; x < pool->out_w; x++, out += pool->out_stride_w) {
            const struct tepi_window2 window = tepi_window_at(pool, n, rows, x);
            pixel(pool, &window, &store, out);
        }
    }
}
