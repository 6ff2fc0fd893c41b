/* SPDX-License-Identifier: Apache-2.0 */
/* Layer normalization of one pixel's channels, 32 at a time. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"
#include "kernels/statistics.h"

/* Vectors whose squares one 32-bit lane can add up: 2 x 255^2 for each. */
enum { FLUSH = 16384 };

TEPI_INLINE uint64_t total_of(__m256i lanes)
{
    const __m128i two =
        _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
    return (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

/* Unsigned 32-bit lanes, in pairs, as 64 bits. */
TEPI_INLINE __m256i pairs_of(__m256i lanes)
{
    const __m256i low = _mm256_and_si256(lanes, _mm256_set1_epi64x(0xffffffff));
    return _mm256_add_epi64(low, _mm256_srli_epi64(lanes, 32));
}

static void add_up(const uint8_t *a, size_t count, uint64_t *sum, uint64_t *squares)
{
    const __m256i zero = _mm256_setzero_si256();
    __m256i sums = zero, total = zero;
    for (size_t begin = 0; begin < count; begin += (size_t)FLUSH * 32) {
        const size_t left = count - begin < (size_t)FLUSH * 32 ? count - begin : (size_t)FLUSH * 32;
        __m256i low = zero, high = zero;
        for (size_t i = begin; i < begin + left; i += 32) {
            const __m256i x = tepi_first32(a + i, begin + left - i);
            const __m256i even = _mm256_unpacklo_epi8(x, zero), odd = _mm256_unpackhi_epi8(x, zero);
            sums = _mm256_add_epi64(sums, _mm256_sad_epu8(x, zero));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(even, even));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(odd, odd));
        }
        total = _mm256_add_epi64(total, _mm256_add_epi64(pairs_of(low), pairs_of(high)));
    }
    *sum = total_of(sums);
    *squares = total_of(total);
}

struct normal {
    __m256 mean, factor;
    struct tepi_store_vectors store;
};

TEPI_INLINE __m256i normalize(const struct normal *n, __m256i x, const __m256 gamma[4],
                              const __m256 beta[4])
{
    __m256 v[4];
    tepi_widen32(x, 0, v);
    TEPI_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m256 normal = _mm256_mul_ps(_mm256_sub_ps(v[i], n->mean), n->factor);
        v[i] = _mm256_fmadd_ps(normal, gamma[i], beta[i]);
    }
    return tepi_round32(v, &n->store);
}

void tepi_u8_layernorm_32_avx2(const struct tepi_layernorm *op, const uint8_t *a, uint8_t *out,
                               size_t count)
{
    uint64_t sum, squares;
    add_up(a, count, &sum, &squares);
    const struct tepi_statistics s = tepi_statistics_of(sum, squares, count, op->epsilon);
    const struct normal n = {
        .mean = _mm256_set1_ps(s.mean),
        .factor = _mm256_set1_ps(s.factor),
        .store = tepi_store_range(op->zero_point, 0, 255),
    };
    __m256 gamma[4], beta[4];
    size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            gamma[v] = _mm256_loadu_ps(op->gamma + i + v * 8);
            beta[v] = _mm256_loadu_ps(op->beta + i + v * 8);
        }
        _mm256_storeu_si256((__m256i *)(out + i), normalize(&n, tepi_load32(a + i), gamma, beta));
    }
    if (i == count)
        return;
    for (size_t v = 0; v < 4; v++) {
        const size_t left = count - i;
        const __m256i mask = tepi_mask8(left > v * 8 ? left - v * 8 : 0);
        gamma[v] = _mm256_maskload_ps(op->gamma + i + v * 8, mask);
        beta[v] = _mm256_maskload_ps(op->beta + i + v * 8, mask);
    }
    tepi_store32(out + i, normalize(&n, tepi_load32(a + i), gamma, beta), count - i);
}
