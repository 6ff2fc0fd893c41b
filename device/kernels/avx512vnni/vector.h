/* SPDX-License-Identifier: Apache-2.0 */
/* The two steps that every AVX512-VNNI int8 loop is made of: multiply-accumulate of 4 bytes per
 * lane, and the requantized store of four accumulators. */
#ifndef TEPI_KERNELS_AVX512VNNI_VECTOR_H
#define TEPI_KERNELS_AVX512VNNI_VECTOR_H

#include "kernels/kernels.h"
#include <immintrin.h>
#include <string.h>

#define TEPI_INLINE static inline __attribute__((always_inline))
#define TEPI_UNROLL _Pragma("GCC unroll 32")

/* acc += u8 * s8 over the 4 bytes of each lane, modulo 2^32. As an instruction that works in place:
 * from the intrinsic GCC 12 copies accumulators around. */
TEPI_INLINE __m512i tepi_dot4(__m512i acc, __m512i u8, __m512i s8)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(u8), "vm"(s8));
    return acc;
}

TEPI_INLINE __m512i tepi_broadcast4(const uint8_t *bytes)
{
    int32_t four;
    memcpy(&four, bytes, sizeof(four));
    return _mm512_set1_epi32(four);
}

/* Masks of 16-lane vectors v = 0..3 of a run of `count` channels (0..64). */
TEPI_INLINE __mmask64 tepi_mask64(size_t count)
{
    return count >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << count) - 1;
}

TEPI_INLINE __mmask16 tepi_mask16(size_t count)
{
    return count >= 16 ? (__mmask16)0xffff : (__mmask16)((1u << count) - 1);
}

/* A masked store costs several times a plain one, so whole vectors do without. */
TEPI_INLINE void tepi_store64(uint8_t *out, __mmask64 mask, __m512i bytes)
{
    if (mask == ~(__mmask64)0)
        _mm512_storeu_si512(out, bytes);
    else
        _mm512_mask_storeu_epi8(out, mask, bytes);
}

/* Constants of a store, made once per run. Zero points are 0..255. */
struct tepi_store_vectors {
    __m512i zero_point; /* int16 */
    __m512i lo, hi;     /* uint8 */
    __m512 highest;     /* above any result, below the range of int32 */
};

TEPI_INLINE struct tepi_store_vectors tepi_store_range(int32_t zero_point, uint8_t lo, uint8_t hi)
{
    return (struct tepi_store_vectors){
        .zero_point = _mm512_set1_epi16((int16_t)zero_point),
        .lo = _mm512_set1_epi8((char)lo),
        .hi = _mm512_set1_epi8((char)hi),
        .highest = _mm512_set1_ps(65536.0f),
    };
}

TEPI_INLINE struct tepi_store_vectors tepi_store_vectors(const struct tepi_store *store)
{
    return tepi_store_range(store->zero_point, store->lo, store->hi);
}

/* round_half_even(acc * m) as int32, right below 65536 and anything out of uint8's reach above it.
 * Rounding keeps integers apart, so saturating afterwards equals clamping first. NaN and results
 * under int32's range become the lowest int32. */
TEPI_INLINE __m512i tepi_scale(__m512i acc, __m512 multiplier, __m512 highest)
{
    const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(acc), multiplier);
    return _mm512_cvtps_epi32(_mm512_min_ps(highest, scaled));
}

/* Four vectors of scaled results to 64 bytes: each 128-bit lane of the result holds that lane of
 * the four inputs, one after another. */
TEPI_INLINE __m512i tepi_saturate4(__m512i a, __m512i b, __m512i c, __m512i d,
                                   const struct tepi_store_vectors *s)
{
    const __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(a, b), s->zero_point);
    const __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(c, d), s->zero_point);
    const __m512i bytes = _mm512_packus_epi16(low, high);
    return _mm512_min_epu8(_mm512_max_epu8(bytes, s->lo), s->hi);
}

/* The bytes of tepi_saturate4 in order of the inputs: 16 of a, 16 of b, of c, of d. */
TEPI_INLINE __m512i tepi_in_order(__m512i bytes)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, bytes);
}

/* (float)(byte - offset) of 64 bytes, exactly, in the order that tepi_saturate4 undoes: a byte in
 * the low bits of 2^23 is that much more than 2^23. */
TEPI_INLINE void tepi_widen64(__m512i bytes, float offset, __m512 out[4])
{
    const __m512i magic = _mm512_set1_epi16(0x4b00);
    const __m512 base = _mm512_set1_ps(8388608.0f + offset);
    const __m512i zero = _mm512_setzero_si512();
    const __m512i low = _mm512_unpacklo_epi8(bytes, zero);
    const __m512i high = _mm512_unpackhi_epi8(bytes, zero);
    out[0] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(low, magic));
    out[1] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(low, magic));
    out[2] = _mm512_castsi512_ps(_mm512_unpacklo_epi16(high, magic));
    out[3] = _mm512_castsi512_ps(_mm512_unpackhi_epi16(high, magic));
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        out[v] = _mm512_sub_ps(out[v], base);
}

/* tepi_saturate4 of four vectors of unrounded results. */
TEPI_INLINE __m512i tepi_round64(const __m512 v[4], const struct tepi_store_vectors *s)
{
    return tepi_saturate4(_mm512_cvtps_epi32(_mm512_min_ps(s->highest, v[0])),
                          _mm512_cvtps_epi32(_mm512_min_ps(s->highest, v[1])),
                          _mm512_cvtps_epi32(_mm512_min_ps(s->highest, v[2])),
                          _mm512_cvtps_epi32(_mm512_min_ps(s->highest, v[3])), s);
}

#endif
