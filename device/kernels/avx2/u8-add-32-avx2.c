/* SPDX-License-Identifier: Apache-2.0 */
/* Quantized addition, 32 elements at a time: two fused multiply-adds in float32 each. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

/* ratio_b * b' + fixed of 32 elements. */
TEPI_INLINE void addend(const struct tepi_add *op, __m256i b, __m256 out[4])
{
    tepi_widen_lanes(b, op->b_offset, out);
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = _mm256_fmadd_ps(out[v], _mm256_set1_ps(op->ratio_b), _mm256_set1_ps(op->fixed));
}

TEPI_INLINE __m256i sum(const struct tepi_add *op, __m256i a, const __m256 addends[4],
                        const struct tepi_store_vectors *store)
{
    __m256 sums[4];
    tepi_widen_lanes(a, op->a_offset, sums);
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        sums[v] = _mm256_fmadd_ps(sums[v], _mm256_set1_ps(op->ratio_a), addends[v]);
    return tepi_round_lanes(sums, store);
}

void tepi_u8_add_32_avx2(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                         size_t b_step, uint8_t *out, size_t count)
{
    const struct tepi_store_vectors store =
        tepi_store_range(op->out_offset, op->store.lo, op->store.hi);
    __m256 addends[4];
    addend(op, _mm256_set1_epi8((char)*b), addends);
    for (size_t i = 0; i < count; i += 32) {
        if (b_step)
            addend(op, tepi_load32(b + i), addends);
        tepi_store32(out + i, sum(op, tepi_load32(a + i), addends, &store), count - i);
    }
    if (op->store.table)
        tepi_u8_table_32_avx2(op->store.table, out, out, count);
}
