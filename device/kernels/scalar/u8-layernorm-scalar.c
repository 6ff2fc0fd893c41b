/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalization of one pixel's channels: integer sums, float64 statistics, float32 results.
 */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include "kernels/statistics.h"

void tepi_u8_layernorm_scalar(const struct tepi_layernorm *op, const uint8_t *a, uint8_t *out,
                              size_t count)
{
    uint64_t sum = 0, squares = 0;
    for (size_t c = 0; c < count; c++) {
        sum += a[c];
        squares += (uint64_t)a[c] * a[c];
    }
    const struct tepi_statistics s = tepi_statistics_of(sum, squares, count, op->epsilon);
    for (size_t c = 0; c < count; c++) {
        const float normal = ((float)a[c] - s.mean) * s.factor;
        out[c] = tepi_round_u8(fmaf(normal, op->gamma[c], op->beta[c]), op->zero_point);
    }
}
