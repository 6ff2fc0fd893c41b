/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized multiplication, 64 elements at a time. The integer product is below 2^16, so float32
 * holds it exactly. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

TEPI_INLINE __m512i product(const struct tepi_mul *op, __m512i a, const __m512 b[4],
                            const struct tepi_store_vectors *store)
{
    const __m512 ratio = _mm512_set1_ps(op->ratio), zero = _mm512_set1_ps(op->zero);
    __m512 v[4];
    tepi_widen64(a, (float)op->a_zero_point, v);
    TEPI_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512 scaled = _mm512_mul_ps(_mm512_mul_ps(v[i], b[i]), ratio);
        v[i] = _mm512_add_ps(scaled, zero);
    }
    return tepi_round64(v, store);
}

void tepi_u8_mul_64_avx512vnni(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                               size_t b_step, uint8_t *out, size_t count)
{
    const struct tepi_store_vectors store =
        tepi_store_range(op->out_offset, op->store.lo, op->store.hi);
    const float b_zero_point = (float)op->b_zero_point;
    __m512 factors[4];
    tepi_widen64(_mm512_set1_epi8((char)*b), b_zero_point, factors);
    for (size_t i = 0; i < count; i += 64) {
        const __mmask64 mask = tepi_mask64(count - i);
        if (b_step)
            tepi_widen64(_mm512_maskz_loadu_epi8(mask, b + i), b_zero_point, factors);
        tepi_store64(out + i, mask,
                     product(op, _mm512_maskz_loadu_epi8(mask, a + i), factors, &store));
    }
    if (op->store.table)
        tepi_u8_table_64_avx512vnni(op->store.table, out, out, count);
}
