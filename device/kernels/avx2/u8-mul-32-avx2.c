/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized multiplication, 32 elements at a time. The integer product is below 2^16, so float32
 * holds it exactly. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

TEPI_INLINE __m256i product(const struct tepi_mul *op, __m256i a, const __m256 b[4],
                            const struct tepi_store_vectors *store)
{
    const __m256 ratio = _mm256_set1_ps(op->ratio), zero = _mm256_set1_ps(op->zero);
    __m256 v[4];
    tepi_widen_lanes(a, op->a_zero_point, v);
    TEPI_UNROLL
    for (int i = 0; i < 4; i++)
        v[i] = _mm256_add_ps(_mm256_mul_ps(_mm256_mul_ps(v[i], b[i]), ratio), zero);
    return tepi_round_lanes(v, store);
}

void tepi_u8_mul_32_avx2(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                         size_t b_step, uint8_t *out, size_t count)
{
    const struct tepi_store_vectors store =
        tepi_store_range(op->out_offset, op->store.lo, op->store.hi);
    __m256 factors[4];
    tepi_widen_lanes(_mm256_set1_epi8((char)*b), op->b_zero_point, factors);
    for (size_t i = 0; i < count; i += 32) {
        if (b_step)
            tepi_widen_lanes(tepi_load32(b + i), op->b_zero_point, factors);
        tepi_store32(out + i, product(op, tepi_load32(a + i), factors, &store), count - i);
    }
    if (op->store.table)
        tepi_u8_table_32_avx2(op->store.table, out, out, count);
}
