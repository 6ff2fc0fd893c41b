/* SPDX-License-Identifier: Apache-2.0 */
/* Largest value of each window, 64 channels at a time; 0 where a window holds no pixel. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"
#include "kernels/pooling.h"

static void pixel(const struct tepi_window2 *window, size_t channels, uint8_t *out)
{
    for (size_t c = 0; c < channels; c += 64) {
        __m512i largest = _mm512_setzero_si512();
        const uint8_t *row = window->first + c;
        for (size_t y = 0; y < window->rows; y++, row += window->row_step) {
            const uint8_t *tap = row;
            for (size_t x = 0; x < window->columns; x++, tap += window->column_step)
                largest = _mm512_max_epu8(largest, _mm512_loadu_si512(tap));
        }
        _mm512_mask_storeu_epi8(out + c, tepi_mask64(channels - c), largest);
    }
}

void tepi_u8_maxpool_64_avx512vnni(const struct tepi_pool *pool, uint32_t row_begin,
                                   uint32_t row_end)
{
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / pool->out_h, y = row % pool->out_h;
        const struct tepi_window rows = tepi_rows_of(pool, y);
        uint8_t *out = pool->output + n * pool->out_stride_n + y * pool->out_stride_h;
        for (size_t x = 0; x < pool->out_w; x++, out += pool->out_stride_w) {
            const struct tepi_window2 window = tepi_window_at(pool, n, rows, x);
            pixel(&window, pool->channels, out);
        }
    }
}
