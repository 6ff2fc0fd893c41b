/* SPDX-License-Identifier: Apache-2.0 */
/* Requantized mean of each window, 64 channels at a time: pixels in fours, interleaved as in a
 * depthwise convolution whose weights are ones. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/depthwise.h"
#include "kernels/pooling.h"

TEPI_INLINE void add_four(__m512i sums[4], const uint8_t *const taps[4], size_t count)
{
    const __m512i zero = _mm512_setzero_si512(), ones = _mm512_set1_epi8(1);
    __m512i four[4];
    tepi_interleave4(_mm512_loadu_si512(taps[0]), count > 1 ? _mm512_loadu_si512(taps[1]) : zero,
                     count > 2 ? _mm512_loadu_si512(taps[2]) : zero,
                     count > 3 ? _mm512_loadu_si512(taps[3]) : zero, four);
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        sums[v] = tepi_dot4(sums[v], four[v], ones);
}

/* Sums of 64 channels from channel c on, in the order of depthwise.h. */
static void add_window(const struct tepi_window2 *window, size_t c, __m512i sums[4])
{
    const uint8_t *taps[4];
    size_t waiting = 0;
    for (size_t y = 0; y < window->rows; y++) {
        const uint8_t *tap = window->first + c + y * window->row_step;
        for (size_t x = 0; x < window->columns; x++, tap += window->column_step) {
            taps[waiting++] = tap;
            if (waiting == 4) {
                add_four(sums, taps, 4);
                waiting = 0;
            }
        }
    }
    if (waiting)
        add_four(sums, taps, waiting);
}

static void pixel(const struct tepi_pool *pool, const struct tepi_window2 *window,
                  const struct tepi_store_vectors *store, uint8_t *out)
{
    const size_t pixels = window->rows * window->columns;
    const size_t divisor =
        pool->count_include_pad ? (size_t)pool->kernel_h * pool->kernel_w : pixels;
    const __m512 multiplier = _mm512_set1_ps(pool->in_scale / (pool->out_scale * (float)divisor));
    const __m512i zero_points =
        _mm512_set1_epi32((int32_t)(0u - (uint32_t)pixels * (uint32_t)pool->in_zero_point));
    for (size_t c = 0; c < pool->channels; c += 64) {
        __m512i sums[4] = {zero_points, zero_points, zero_points, zero_points};
        add_window(window, c, sums);
        const __m512i bytes =
            tepi_saturate4(tepi_scale(sums[0], multiplier, store->highest),
                           tepi_scale(sums[1], multiplier, store->highest),
                           tepi_scale(sums[2], multiplier, store->highest),
                           tepi_scale(sums[3], multiplier, store->highest), store);
        _mm512_mask_storeu_epi8(out + c, tepi_mask64(pool->channels - c), bytes);
    }
}

void tepi_u8_avgpool_64_avx512vnni(const struct tepi_pool *pool, uint32_t row_begin,
                                   uint32_t row_end)
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
