/* SPDX-License-Identifier: Apache-2.0 */
/* Byte substitution, 32 bytes at a time: the low half of a byte picks from each of the table's 16
 * rows, then its upper four bits choose among the rows, halving their number each. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { ROWS = 16, WORTH_ROWS = 96 };

TEPI_INLINE __m256i either(__m256i low, __m256i high, __m256i bit)
{
    return _mm256_blendv_epi8(low, high, bit); /* looks at the top bit of each byte alone */
}

TEPI_INLINE __m256i four_rows(const __m256i *rows, __m256i picks, __m256i bit4, __m256i bit5)
{
    const __m256i low =
        either(_mm256_shuffle_epi8(rows[0], picks), _mm256_shuffle_epi8(rows[1], picks), bit4);
    const __m256i high =
        either(_mm256_shuffle_epi8(rows[2], picks), _mm256_shuffle_epi8(rows[3], picks), bit4);
    return either(low, high, bit5);
}

TEPI_INLINE __m256i substitute(const __m256i rows[ROWS], __m256i x)
{
    const __m256i picks = _mm256_and_si256(x, _mm256_set1_epi8(15));
    const __m256i bit4 = _mm256_slli_epi16(x, 3), bit5 = _mm256_slli_epi16(x, 2);
    const __m256i bit6 = _mm256_slli_epi16(x, 1);
    const __m256i low =
        either(four_rows(rows, picks, bit4, bit5), four_rows(rows + 4, picks, bit4, bit5), bit6);
    const __m256i high = either(four_rows(rows + 8, picks, bit4, bit5),
                                four_rows(rows + 12, picks, bit4, bit5), bit6);
    return either(low, high, x);
}

/* Reads nothing past `count`: `a` may be the host's own memory. */
void tepi_u8_table_32_avx2(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count)
{
    size_t i = 0;
    if (count >= WORTH_ROWS) {
        __m256i rows[ROWS];
        for (size_t row = 0; row < ROWS; row++)
            rows[row] = _mm256_broadcastsi128_si256(tepi_load16(table + row * 16));
        for (; i + 32 <= count; i += 32)
            _mm256_storeu_si256((__m256i *)(out + i), substitute(rows, tepi_load32(a + i)));
    }
    for (; i < count; i++)
        out[i] = table[a[i]];
}
