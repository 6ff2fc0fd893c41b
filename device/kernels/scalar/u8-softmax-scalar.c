/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of each pixel's channels by a table of exponentials; sums run in order of channels. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

static void pixel(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    uint8_t largest = 0;
    for (size_t c = 0; c < op->count; c++)
        largest = a[c] > largest ? a[c] : largest;
    const float *exponentials = op->table + (255 - largest);
    float sum = 0.0f;
    for (size_t c = 0; c < op->count; c++)
        sum += exponentials[a[c]];
    for (size_t c = 0; c < op->count; c++) {
        const uint32_t rounded = tepi_round_u8(exponentials[a[c]] * op->ratio / sum, 0);
        const uint32_t shifted = rounded + (uint32_t)op->zero_point;
        out[c] = (uint8_t)(shifted < 255 ? shifted : 255);
    }
}

void tepi_u8_softmax_scalar(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    for (size_t row = 0; row < op->rows; row++)
        pixel(op, a + row * op->a_step, out + row * op->out_step);
}
