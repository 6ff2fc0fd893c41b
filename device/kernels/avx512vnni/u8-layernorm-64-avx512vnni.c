/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalization of one pixel's channels, 64 at a time. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"
#include "kernels/statistics.h"

/* Vectors whose squares one 32-bit lane can add up: 4 x 255^2 for each. */
enum { FLUSH = 8192 };

static void add_up(const uint8_t *a, size_t count, uint64_t *sum, uint64_t *squares)
{
    const __m512i zero = _mm512_setzero_si512();
    __m512i sums = zero, total = zero;
    for (size_t begin = 0; begin < count; begin += (size_t)FLUSH * 64) {
        const size_t left = count - begin < (size_t)FLUSH * 64 ? count - begin : (size_t)FLUSH * 64;
        __m512i low = zero, high = zero;
        for (size_t i = begin; i < begin + left; i += 64) {
            const __m512i x = _mm512_maskz_loadu_epi8(tepi_mask64(begin + left - i), a + i);
            const __m512i even = _mm512_unpacklo_epi8(x, zero), odd = _mm512_unpackhi_epi8(x, zero);
            sums = _mm512_add_epi64(sums, _mm512_sad_epu8(x, zero));
            low = _mm512_add_epi32(low, _mm512_madd_epi16(even, even));
            high = _mm512_add_epi32(high, _mm512_madd_epi16(odd, odd));
        }
        const __m512i mask = _mm512_set1_epi64(0xffffffff);
        total = _mm512_add_epi64(total, _mm512_and_si512(low, mask));
        total = _mm512_add_epi64(total, _mm512_srli_epi64(low, 32));
        total = _mm512_add_epi64(total, _mm512_and_si512(high, mask));
        total = _mm512_add_epi64(total, _mm512_srli_epi64(high, 32));
    }
    *sum = (uint64_t)_mm512_reduce_add_epi64(sums);
    *squares = (uint64_t)_mm512_reduce_add_epi64(total);
}

/* 16 consecutive bytes as floats. */
TEPI_INLINE __m512 widen16(__m128i bytes)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}

void tepi_u8_layernorm_64_avx512vnni(const struct tepi_layernorm *op, const uint8_t *a,
                                     uint8_t *out, size_t count)
{
    uint64_t sum, squares;
    add_up(a, count, &sum, &squares);
    const struct tepi_statistics s = tepi_statistics_of(sum, squares, count, op->epsilon);
    const struct tepi_store_vectors store = tepi_store_range(op->zero_point, 0, 255);
    const __m512 mean = _mm512_set1_ps(s.mean), factor = _mm512_set1_ps(s.factor);
    for (size_t i = 0; i < count; i += 64) {
        const __mmask64 mask = tepi_mask64(count - i);
        const __m512i x = _mm512_maskz_loadu_epi8(mask, a + i);
        const __m128i parts[4] = {_mm512_castsi512_si128(x), _mm512_extracti32x4_epi32(x, 1),
                                  _mm512_extracti32x4_epi32(x, 2), _mm512_extracti32x4_epi32(x, 3)};
        __m512 four[4];
        TEPI_UNROLL
        for (int v = 0; v < 4; v++) {
            const __mmask16 some = (__mmask16)(mask >> v * 16);
            const __m512 gamma = _mm512_maskz_loadu_ps(some, op->gamma + i + v * 16);
            const __m512 beta = _mm512_maskz_loadu_ps(some, op->beta + i + v * 16);
            const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(widen16(parts[v]), mean), factor);
            four[v] = _mm512_fmadd_ps(normal, gamma, beta);
        }
        tepi_store64(out + i, mask, tepi_in_order(tepi_round64(four, &store)));
    }
}
