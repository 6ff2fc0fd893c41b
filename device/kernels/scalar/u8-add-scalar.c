/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized addition: two fused multiply-adds in float32, each with one rounding. fmaf is exact on
 * machines without an FMA unit too (the C library computes it in software there). */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

void tepi_u8_add_scalar(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                        size_t b_step, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const float value_a = (float)(a[i] - op->a_offset);
        const float value_b = (float)(b[i * b_step] - op->b_offset);
        const float sum = fmaf(value_a, op->ratio_a, fmaf(value_b, op->ratio_b, op->fixed));
        out[i] = tepi_store_u8(tepi_round_u8(sum, op->out_offset), &op->store);
    }
}
