/* SPDX-License-Identifier: Apache-2.0 */
/* Largest value of each window of the image; 0 where a window holds no pixel of it. */
#include "kernels/scalar/scalar.h"
#include "kernels/scalar/window.h"
#include <string.h>

static void pixel(const struct tepi_pool *pool, const uint8_t *image, struct tepi_window rows,
                  struct tepi_window columns, uint8_t *restrict out)
{
    memset(out, 0, pool->channels);
    for (size_t ky = 0; ky < rows.count; ky++) {
        for (size_t kx = 0; kx < columns.count; kx++) {
            const uint8_t *tap = image + (rows.first + ky * pool->dilation_h) * pool->in_stride_h +
                                 (columns.first + kx * pool->dilation_w) * pool->in_stride_w;
            for (size_t c = 0; c < pool->channels; c++)
                out[c] = tap[c] > out[c] ? tap[c] : out[c];
        }
    }
}

void tepi_u8_maxpool_scalar(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end)
{
    for (uint32_t row = row_begin; row < row_end; row++) {
        const uint32_t n = row / pool->out_h, y = row % pool->out_h;
        const uint8_t *image = pool->input + n * pool->in_stride_n;
        uint8_t *out = pool->output + n * pool->out_stride_n + y * pool->out_stride_h;
        const struct tepi_window rows =
            tepi_clip_window((int64_t)y * pool->stride_h - pool->pad_top, pool->kernel_h,
                             pool->dilation_h, pool->in_h);
        for (uint32_t x = 0; x < pool->out_w; x++) {
            const struct tepi_window columns =
                tepi_clip_window((int64_t)x * pool->stride_w - pool->pad_left, pool->kernel_w,
                                 pool->dilation_w, pool->in_w);
            pixel(pool, image, rows, columns, out);
            out += pool->out_stride_w;
        }
    }
}
