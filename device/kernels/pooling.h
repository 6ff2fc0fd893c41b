/* SPDX-License-Identifier: Apache-2.0 */
/* The pixels of a pooling window that lie in the image. */
#ifndef TEPI_KERNELS_POOLING_H
#define TEPI_KERNELS_POOLING_H

#include "kernels/kernels.h"
#include "kernels/scalar/window.h"

struct tepi_window2 {
    const uint8_t *first; /* channel 0 of the first pixel */
    size_t rows, columns; /* how many; one may be 0 */
    size_t row_step, column_step;
};

/* As tepi_clip_window, without its divisions where the whole axis lies inside. */
static inline struct tepi_window tepi_clip_axis(int64_t start, uint32_t kernel, uint32_t dilation,
                                                uint32_t extent)
{
    if (start >= 0 && start + (int64_t)(kernel - 1) * dilation < extent)
        return (struct tepi_window){(size_t)start, kernel};
    return tepi_clip_window(start, kernel, dilation, extent);
}

static inline struct tepi_window tepi_rows_of(const struct tepi_pool *pool, size_t y)
{
    return tepi_clip_axis((int64_t)(y * pool->stride_h) - pool->pad_top, pool->kernel_h,
                          pool->dilation_h, pool->in_h);
}

static inline struct tepi_window2 tepi_window_at(const struct tepi_pool *pool, size_t n,
                                                 struct tepi_window rows, size_t x)
{
    const struct tepi_window columns =
        tepi_clip_axis((int64_t)(x * pool->stride_w) - pool->pad_left, pool->kernel_w,
                       pool->dilation_w, pool->in_w);
    return (struct tepi_window2){
        .first = pool->input + n * pool->in_stride_n + rows.first * pool->in_stride_h +
                 columns.first * pool->in_stride_w,
        .rows = rows.count,
        .columns = columns.count,
        .row_step = pool->dilation_h * pool->in_stride_h,
        .column_step = pool->dilation_w * pool->in_stride_w,
    };
}

#endif
