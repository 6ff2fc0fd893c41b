/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized multiplication: exact integer product, then a float32 product and a sum, each rounded.
 */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

void tepi_u8_mul_scalar(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                        size_t b_step, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const int32_t product = (a[i] - op->a_zero_point) * (b[i * b_step] - op->b_zero_point);
        const float scaled = (float)product * op->ratio;
        out[i] = tepi_store_u8(tepi_round_u8(scaled + op->zero, op->out_offset), &op->store);
    }
}
