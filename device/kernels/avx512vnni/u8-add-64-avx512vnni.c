/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized addition, 64 elements at a time: two fused multiply-adds in float32 each. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

/* ratio_b * b' + fixed of 64 elements. */
TEPI_INLINE void addend(const struct tepi_add *op, __m512i b, __m512 out[4])
{
    tepi_widen64(b, (float)op->b_offset, out);
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = _mm512_fmadd_ps(out[v], _mm512_set1_ps(op->ratio_b), _mm512_set1_ps(op->fixed));
}

TEPI_INLINE __m512i sum(const struct tepi_add *op, __m512i a, const __m512 addends[4],
                        const struct tepi_store_vectors *store)
{
    __m512 sums[4];
    tepi_widen64(a, (float)op->a_offset, sums);
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        sums[v] = _mm512_fmadd_ps(sums[v], _mm512_set1_ps(op->ratio_a), addends[v]);
    return tepi_round64(sums, store);
}

void tepi_u8_add_64_avx512vnni(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                               size_t b_step, uint8_t *out, size_t count)
{
    const struct tepi_store_vectors store =
        tepi_store_range(op->out_offset, op->store.lo, op->store.hi);
    __m512 addends[4];
    addend(op, _mm512_set1_epi8((char)*b), addends);
    for (size_t i = 0; i < count; i += 64) {
        const __mmask64 mask = tepi_mask64(count - i);
        if (b_step)
            addend(op, _mm512_maskz_loadu_epi8(mask, b + i), addends);
        tepi_store64(out + i, mask, sum(op, _mm512_maskz_loadu_epi8(mask, a + i), addends, &store));
    }
    if (op->store.table)
        tepi_u8_table_64_avx512vnni(op->store.table, out, out, count);
}
