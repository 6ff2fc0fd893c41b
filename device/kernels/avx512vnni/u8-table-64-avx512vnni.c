/* SPDX-License-Identifier: Apache-2.0 */
/* Byte substitution, 64 bytes at a time where the machine has AVX512-VBMI, else one by one. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

__attribute__((target("avx512vbmi"))) static void
with_permute(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count)
{
    const __m512i t0 = _mm512_loadu_si512(table), t1 = _mm512_loadu_si512(table + 64);
    const __m512i t2 = _mm512_loadu_si512(table + 128), t3 = _mm512_loadu_si512(table + 192);
    for (size_t i = 0; i < count; i += 64) {
        const __mmask64 mask = tepi_mask64(count - i);
        const __m512i x = _mm512_maskz_loadu_epi8(mask, a + i);
        const __m512i low = _mm512_permutex2var_epi8(t0, x, t1);
        const __m512i high = _mm512_permutex2var_epi8(t2, x, t3);
        tepi_store64(out + i, mask, _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), low, high));
    }
}

void tepi_u8_table_64_avx512vnni(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count)
{
    if (__builtin_cpu_supports("avx512vbmi")) {
        with_permute(table, a, out, count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        out[i] = table[a[i]];
}

void tepi_store_table(const struct tepi_conv *conv, uint8_t *row)
{
    const uint8_t *table = conv->store.table;
    if (!table)
        return;
    const size_t channels = (size_t)conv->groups * conv->group_out;
    if (channels == conv->out_stride_w) {
        tepi_u8_table_64_avx512vnni(table, row, row, channels * conv->out_w);
        return;
    }
    for (size_t x = 0; x < conv->out_w; x++, row += conv->out_stride_w)
        tepi_u8_table_64_avx512vnni(table, row, row, channels);
}
