/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution over 64 channels at a time. Four taps of the same 64 channels are
 * interleaved so that one lane holds 4 taps of one channel; the vector v of the four that result
 * holds channels 16 * lane128 + 4 * v + 0..3, and tepi_saturate4 puts them back in order. */
#ifndef TEPI_KERNELS_AVX512VNNI_DEPTHWISE_H
#define TEPI_KERNELS_AVX512VNNI_DEPTHWISE_H

#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

enum { TEPI_CHUNK = 64 };

/* Bias and multiplier of 64 channels in the order of the four vectors. */
struct tepi_dw_constants {
    __m512i bias[4];
    __m512 multiplier[4];
};

static inline size_t tepi_dw_chunks(const struct tepi_conv *conv)
{
    return ((size_t)conv->groups + TEPI_CHUNK - 1) / TEPI_CHUNK;
}

/* Where channel c (0..63) and tap t (0..3) lie in 4 vectors of packed weights. */
static inline size_t tepi_dw_place(size_t c, size_t t)
{
    return c % 16 / 4 * 64 + c / 16 * 16 + c % 4 * 4 + t;
}

/* Transposes a 4 x 4 matrix of 128-bit lanes. */
TEPI_INLINE void tepi_transpose_lanes(__m512i v[4])
{
    const __m512i a = _mm512_shuffle_i32x4(v[0], v[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(v[0], v[1], 0xee);
    const __m512i c = _mm512_shuffle_i32x4(v[2], v[3], 0x44);
    const __m512i d = _mm512_shuffle_i32x4(v[2], v[3], 0xee);
    v[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    v[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

/* Fills one entry per chunk; runs once per call since bias and multiplier are not packed. */
static inline void tepi_dw_prepare(const struct tepi_conv *conv, struct tepi_dw_constants *out)
{
    for (size_t c = 0; c < conv->groups; c += TEPI_CHUNK, out++) {
        const __mmask64 mask = tepi_mask64(conv->groups - c);
        __m512i bias[4], multiplier[4];
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const __mmask16 part = (__mmask16)(mask >> v * 16);
            bias[v] = _mm512_maskz_loadu_epi32(part, conv->bias + c + v * 16);
            multiplier[v] = _mm512_maskz_loadu_epi32(part, conv->multiplier + c + v * 16);
        }
        tepi_transpose_lanes(bias);
        tepi_transpose_lanes(multiplier);
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            out->bias[v] = bias[v];
            out->multiplier[v] = _mm512_castsi512_ps(multiplier[v]);
        }
    }
}

TEPI_INLINE void tepi_interleave4(__m512i a, __m512i b, __m512i c, __m512i d, __m512i out[4])
{
    const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
    out[0] = _mm512_unpacklo_epi16(ab_low, cd_low);
    out[1] = _mm512_unpackhi_epi16(ab_low, cd_low);
    out[2] = _mm512_unpacklo_epi16(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi16(ab_high, cd_high);
}

TEPI_INLINE __m512i tepi_dw_finish(const __m512i acc[4], const struct tepi_dw_constants *k,
                                   const struct tepi_store_vectors *store)
{
    return tepi_saturate4(tepi_scale(acc[0], k->multiplier[0], store->highest),
                          tepi_scale(acc[1], k->multiplier[1], store->highest),
                          tepi_scale(acc[2], k->multiplier[2], store->highest),
                          tepi_scale(acc[3], k->multiplier[3], store->highest), store);
}

#endif
