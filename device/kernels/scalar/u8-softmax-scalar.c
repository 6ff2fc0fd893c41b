/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of one pixel's channels by a table of exponentials; the sum runs in order of channels. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

void tepi_u8_softmax_scalar(const float *table, float ratio, int32_t zero_point, const uint8_t *a,
                            uint8_t *out, size_t count)
{
    uint8_t largest = 0;
    for (size_t c = 0; c < count; c++)
        largest = a[c] > largest ? a[c] : largest;
    const float *exponentials = table + (255 - largest);
    float sum = 0.0f;
    for (size_t c = 0; c < count; c++)
        sum += exponentials[a[c]];
    for (size_t c = 0; c < count; c++) {
        const uint32_t rounded = tepi_round_u8(exponentials[a[c]] * ratio / sum, 0);
        const uint32_t shifted = rounded + (uint32_t)zero_point;
        out[c] = (uint8_t)(shifted < 255 ? shifted : 255);
    }
}
