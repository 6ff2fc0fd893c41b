/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of the channels of each pixel. There are only 256 different elements: the quotient is
 * made once for each and looked up. The sum alone runs element by element, since its order counts.
 */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"
#include "kernels/scalar/scalar.h"

enum { WORTH_A_TABLE = 64 };

static uint8_t largest_of(const uint8_t *a, size_t count)
{
    uint8_t best = 0;
    size_t i = 0;
    __m256i largest = _mm256_setzero_si256();
    for (; i + 32 <= count; i += 32)
        largest = _mm256_max_epu8(largest, tepi_load32(a + i));
    for (; i < count; i++)
        best = a[i] > best ? a[i] : best;
    uint8_t bytes[32];
    _mm256_storeu_si256((__m256i *)bytes, largest);
    for (i = 0; i < 32; i++)
        best = bytes[i] > best ? bytes[i] : best;
    return best;
}

static void pixel(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    const size_t largest = largest_of(a, op->count);
    const float *exponentials = op->table + (255 - largest);
    float sum = 0.0f;
    for (size_t i = 0; i < op->count; i++)
        sum += exponentials[a[i]];
    const struct tepi_store_vectors store = tepi_store_range(0, 0, 255);
    const __m256i zero_points = _mm256_set1_epi8((char)op->zero_point);
    const __m256 ratios = _mm256_set1_ps(op->ratio), sums = _mm256_set1_ps(sum);
    uint8_t quotients[256];
    for (size_t i = 0; i <= largest; i += 32) {
        __m256 four[4];
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const size_t first = i + v * 8;
            const __m256i mask = tepi_mask8(first > largest ? 0 : largest + 1 - first);
            const __m256 e = _mm256_maskload_ps(exponentials + first, mask);
            four[v] = _mm256_div_ps(_mm256_mul_ps(e, ratios), sums);
        }
        _mm256_storeu_si256((__m256i *)(quotients + i),
                            _mm256_adds_epu8(tepi_round32(four, &store), zero_points));
    }
    tepi_u8_table_32_avx2(quotients, a, out, op->count);
}

void tepi_u8_softmax_32_avx2(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    if (op->count < WORTH_A_TABLE) {
        tepi_u8_softmax_scalar(op, a, out);
        return;
    }
    for (size_t row = 0; row < op->rows; row++)
        pixel(op, a + row * op->a_step, out + row * op->out_step);
}
