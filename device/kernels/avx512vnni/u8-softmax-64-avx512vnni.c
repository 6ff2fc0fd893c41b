/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of one pixel's channels. There are only 256 different elements: the quotient is made
 * once for each and looked up. The sum alone runs element by element, since its order counts. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"
#include "kernels/scalar/scalar.h"

enum { WORTH_A_TABLE = 48 };

static uint8_t largest_of(const uint8_t *a, size_t count)
{
    __m512i largest = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += 64)
        largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(tepi_mask64(count - i), a + i));
    uint8_t bytes[64], best = 0;
    _mm512_storeu_si512(bytes, largest);
    for (size_t i = 0; i < 64; i++)
        best = bytes[i] > best ? bytes[i] : best;
    return best;
}

void tepi_u8_softmax_64_avx512vnni(const float *table, float ratio, int32_t zero_point,
                                   const uint8_t *a, uint8_t *out, size_t count)
{
    if (count < WORTH_A_TABLE) {
        tepi_u8_softmax_scalar(table, ratio, zero_point, a, out, count);
        return;
    }
    const size_t largest = largest_of(a, count);
    const float *exponentials = table + (255 - largest);
    float sum = 0.0f;
    for (size_t i = 0; i < count; i++)
        sum += exponentials[a[i]];
    const struct tepi_store_vectors store = tepi_store_range(0, 0, 255);
    const __m512i zero_points = _mm512_set1_epi8((char)zero_point);
    const __m512 ratios = _mm512_set1_ps(ratio), sums = _mm512_set1_ps(sum);
    uint8_t quotients[256];
    for (size_t i = 0; i <= largest; i += 64) {
        __m512 four[4];
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const size_t first = i + v * 16;
            const __mmask16 mask = first > largest ? 0 : tepi_mask16(largest + 1 - first);
            const __m512 e = _mm512_maskz_loadu_ps(mask, exponentials + first);
            four[v] = _mm512_div_ps(_mm512_mul_ps(e, ratios), sums);
        }
        const __m512i bytes = tepi_in_order(tepi_round64(four, &store));
        _mm512_storeu_si512(quotients + i, _mm512_adds_epu8(bytes, zero_points));
    }
    tepi_u8_table_64_avx512vnni(quotients, a, out, count);
}
