/* SPDX-License-Identifier: Apache-2.0 */
/* A pooling window clipped to the image along one axis. */
#ifndef TEPI_KERNELS_SCALAR_WINDOW_H
#define TEPI_KERNELS_SCALAR_WINDOW_H

#include <stddef.h>
#include <stdint.h>

/* Taps at first, first + dilation, …: `count` of them lie in the image. */
struct tepi_window {
    size_t first, count;
};

/* The taps start + k * dilation, k < kernel, that lie in [0, extent); dilation >= 1. */
static inline struct tepi_window tepi_clip_window(int64_t start, uint32_t kernel, uint32_t dilation,
                                                  uint32_t extent)
{
    const int64_t begin = start < 0 ? (-start + dilation - 1) / dilation : 0;
    int64_t end = start < extent ? ((int64_t)extent - start + dilation - 1) / dilation : 0;
    end = end < kernel ? end : kernel;
    if (end <= begin)
        return (struct tepi_window){0, 0};
    return (struct tepi_window){(size_t)(start + begin * dilation), (size_t)(end - begin)};
}

#endif
