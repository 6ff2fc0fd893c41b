/* SPDX-License-Identifier: Apache-2.0 */
/* What every AVX2 int8 loop is made of: the requantized store of eight accumulators a vector, bytes
 * widened to float32, and stores of less than a vector, for which AVX2 has no mask. */
#ifndef TEPI_KERNELS_AVX2_VECTOR_H
#define TEPI_KERNELS_AVX2_VECTOR_H

#include "kernels/kernels.h"
#include <immintrin.h>
#include <string.h>

#define TEPI_INLINE static inline __attribute__((always_inline))
#define TEPI_UNROLL _Pragma("GCC unroll 32")

TEPI_INLINE __m128i tepi_load16(const void *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

TEPI_INLINE __m256i tepi_load32(const void *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

TEPI_INLINE __m256i tepi_broadcast4(const void *bytes)
{
    int32_t four;
    memcpy(&four, bytes, sizeof(four));
    return _mm256_set1_epi32(four);
}

/* acc += u8 * s8 over the 4 bytes of each lane, modulo 2^32: AVX-VNNI, for *-avxvnni.c alone. As an
 * instruction that works in place: from the intrinsic GCC 12 copies accumulators around. */
TEPI_INLINE __m256i tepi_dot4(__m256i acc, __m256i u8, __m256i s8)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(acc) : "x"(u8), "xm"(s8));
    return acc;
}

/* Lanes 0..count-1, for the masked 32-bit loads that must not read past a constant. */
TEPI_INLINE __m256i tepi_mask8(size_t count)
{
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count < 8 ? (int32_t)count : 8), lanes);
}

/* The first `count` bytes, zeros behind them; reads 32. */
TEPI_INLINE __m256i tepi_first32(const uint8_t *bytes, size_t count)
{
    const __m256i places =
        _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
                         21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    const __m256i last = _mm256_set1_epi8(count < 32 ? (char)count : 32);
    return _mm256_and_si256(tepi_load32(bytes), _mm256_cmpgt_epi8(last, places));
}

/* The first `count` bytes; 16 and more: all. */
TEPI_INLINE void tepi_store16(uint8_t *out, __m128i bytes, size_t count)
{
    if (count >= 16) {
        _mm_storeu_si128((__m128i *)out, bytes);
        return;
    }
    if (count & 8) {
        _mm_storel_epi64((__m128i *)out, bytes);
        bytes = _mm_unpackhi_epi64(bytes, bytes);
        out += 8;
    }
    uint64_t rest = (uint64_t)_mm_cvtsi128_si64(bytes);
    for (size_t part = 4; part; part >>= 1) {
        if (count & part) {
            memcpy(out, &rest, part);
            rest >>= part * 8;
            out += part;
        }
    }
}

/* The first `count` bytes; 32 and more: all. */
TEPI_INLINE void tepi_store32(uint8_t *out, __m256i bytes, size_t count)
{
    if (count >= 32) {
        _mm256_storeu_si256((__m256i *)out, bytes);
        return;
    }
    tepi_store16(out, _mm256_castsi256_si128(bytes), count);
    if (count > 16)
        tepi_store16(out + 16, _mm256_extracti128_si256(bytes, 1), count - 16);
}

/* Constants of a store, made once per run. Zero points are 0..255. */
struct tepi_store_vectors {
    __m256i zero_point; /* int16 */
    __m256i lo, hi;     /* uint8 */
    __m256 highest;     /* above any result, below the range of int32 */
};

TEPI_INLINE struct tepi_store_vectors tepi_store_range(int32_t zero_point, uint8_t lo, uint8_t hi)
{
    return (struct tepi_store_vectors){
        .zero_point = _mm256_set1_epi16((int16_t)zero_point),
        .lo = _mm256_set1_epi8((char)lo),
        .hi = _mm256_set1_epi8((char)hi),
        .highest = _mm256_set1_ps(65536.0f),
    };
}

/* round_half_even(value), right below 65536 and anything out of uint8's reach above it. Rounding
 * keeps integers apart, so saturating afterwards equals clamping first. NaN and values under
 * int32's range become the lowest int32. */
TEPI_INLINE __m256i tepi_round8(__m256 value, __m256 highest)
{
    return _mm256_cvtps_epi32(_mm256_min_ps(highest, value));
}

TEPI_INLINE __m256i tepi_scale(__m256i acc, __m256 multiplier, __m256 highest)
{
    return tepi_round8(_mm256_mul_ps(_mm256_cvtepi32_ps(acc), multiplier), highest);
}

/* Four vectors of rounded results to 32 bytes: each 128-bit lane of the result holds that lane of
 * the four, one after another. */
TEPI_INLINE __m256i tepi_saturate_lanes(__m256i a, __m256i b, __m256i c, __m256i d,
                                        const struct tepi_store_vectors *s)
{
    const __m256i low = _mm256_adds_epi16(_mm256_packs_epi32(a, b), s->zero_point);
    const __m256i high = _mm256_adds_epi16(_mm256_packs_epi32(c, d), s->zero_point);
    const __m256i bytes = _mm256_packus_epi16(low, high);
    return _mm256_min_epu8(_mm256_max_epu8(bytes, s->lo), s->hi);
}

/* Four vectors of rounded results to 32 bytes, in their order. */
TEPI_INLINE __m256i tepi_saturate4(__m256i a, __m256i b, __m256i c, __m256i d,
                                   const struct tepi_store_vectors *s)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm256_permutevar8x32_epi32(tepi_saturate_lanes(a, b, c, d, s), order);
}

/* Two vectors of rounded results to 16 bytes, in their order. */
TEPI_INLINE __m128i tepi_saturate2(__m256i a, __m256i b, const struct tepi_store_vectors *s)
{
    const __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(a, b), s->zero_point);
    const __m128i mixed =
        _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    const __m128i bytes = _mm_shuffle_epi32(mixed, _MM_SHUFFLE(3, 1, 2, 0));
    return _mm_min_epu8(_mm_max_epu8(bytes, _mm256_castsi256_si128(s->lo)),
                        _mm256_castsi256_si128(s->hi));
}

/* tepi_saturate4 of four vectors of unrounded results. */
TEPI_INLINE __m256i tepi_round32(const __m256 v[4], const struct tepi_store_vectors *s)
{
    return tepi_saturate4(tepi_round8(v[0], s->highest), tepi_round8(v[1], s->highest),
                          tepi_round8(v[2], s->highest), tepi_round8(v[3], s->highest), s);
}

/* (float)(byte - offset) of 32 bytes, exactly. Each 128-bit lane of the four holds that lane's
 * bytes, four of them in each: the order that tepi_round_lanes takes back. A byte below 0x4b00 in
 * its 32 bits is the float 2^23 + byte. */
TEPI_INLINE void tepi_widen_lanes(__m256i bytes, int32_t offset, __m256 out[4])
{
    const __m256i zero = _mm256_setzero_si256(), exponent = _mm256_set1_epi16(0x4b00);
    const __m256 offsets = _mm256_set1_ps((float)(8388608 + offset));
    const __m256i low = _mm256_unpacklo_epi8(bytes, zero), high = _mm256_unpackhi_epi8(bytes, zero);
    const __m256i parts[4] = {
        _mm256_unpacklo_epi16(low, exponent), _mm256_unpackhi_epi16(low, exponent),
        _mm256_unpacklo_epi16(high, exponent), _mm256_unpackhi_epi16(high, exponent)};
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = _mm256_sub_ps(_mm256_castsi256_ps(parts[v]), offsets);
}

/* tepi_saturate_lanes of four vectors of unrounded results. */
TEPI_INLINE __m256i tepi_round_lanes(const __m256 v[4], const struct tepi_store_vectors *s)
{
    return tepi_saturate_lanes(tepi_round8(v[0], s->highest), tepi_round8(v[1], s->highest),
                               tepi_round8(v[2], s->highest), tepi_round8(v[3], s->highest), s);
}

/* (float)(byte - offset) of 32 bytes, exactly, in their order. */
TEPI_INLINE void tepi_widen32(__m256i bytes, int32_t offset, __m256 out[4])
{
    const __m256i offsets = _mm256_set1_epi32(offset);
    const __m128i low = _mm256_castsi256_si128(bytes), high = _mm256_extracti128_si256(bytes, 1);
    const __m128i parts[4] = {low, _mm_srli_si128(low, 8), high, _mm_srli_si128(high, 8)};
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(parts[v]), offsets));
}

#endif
