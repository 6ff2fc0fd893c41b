/* SPDX-License-Identifier: Apache-2.0 */
/* Requantized mean of each window of the image. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include "kernels/scalar/window.h"

enum { CHANNELS = 64 };

/* `count` channels from channel c on. */
static void pixel(const struct tepi_pool *pool, const uint8_t *image, struct tepi_window rows,
                  struct tepi_window columns, uint8_t *out, size_t c, size_t count)
{
    const size_t pixels = rows.count * columns.count;
    const size_t divisor =
        pool->count_include_pad ? (size_t)pool->kernel_h * pool->kernel_w : pixels;
    const float multiplier = pool->in_scale / (pool->out_scale * (float)divisor);
    uint32_t sums[CHANNELS];
    for (size_t i = 0; i < count; i++)
        sums[i] = 0u - (uint32_t)pixels * (uint32_t)pool->in_zero_point;
    for (size_t ky = 0; ky < rows.count; ky++) {
        for (size_t kx = 0; kx < columns.count; kx++) {
            const uint8_t *tap = image + c +
                                 (rows.first + ky * pool->dilation_h) * pool->in_stride_h +
                                 (columns.first + kx * pool->dilation_w) * pool->in_stride_w;
            for (size_t i = 0; i < count; i++)
                sums[i] += tap[i];
        }
    }
    for (size_t i = 0; i < count; i++)
        out[c + i] = tepi_round_u8((float)(int32_t)sums[i] * multiplier, pool->out_zero_point);
}

void tepi_u8_avgpool_scalar(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end)
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
            for (size_t c = 0; c < pool->channels; c += CHANNELS) {
                const size_t left = pool->channels - c;
                pixel(pool, image, rows, columns, out, c, left < CHANNELS ? left : CHANNELS);
            }
            out += pool->out_stride_w;
        }
    }
}
