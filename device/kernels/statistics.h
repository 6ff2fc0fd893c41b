/* SPDX-License-Identifier: Apache-2.0 */
/* Mean and spread of LAYERNORM from exact sums, in the order of abi/program.h. */
#ifndef TEPI_KERNELS_STATISTICS_H
#define TEPI_KERNELS_STATISTICS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

struct tepi_statistics {
    float mean, factor;
};

/* `count` at most 2^24, so that both sums are below 2^53 and exact in float64. */
static inline struct tepi_statistics tepi_statistics_of(uint64_t sum, uint64_t squares,
                                                        size_t count, float epsilon)
{
    const double mean = (double)sum / (double)count;
    const double spread = (double)squares / (double)count - mean * mean;
    const double variance = spread > 0.0 ? spread : 0.0;
    return (struct tepi_statistics){(float)mean, (float)(1.0 / sqrt(variance + (double)epsilon))};
}

#endif
