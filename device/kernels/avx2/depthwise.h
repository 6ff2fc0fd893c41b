/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution over 16 channels at a time: two taps of 8 channels lie in one vector as
 * pairs of 16 bits, so that VPMADDWD gives the sum of both products of a channel in its lane. */
#ifndef TEPI_KERNELS_AVX2_DEPTHWISE_H
#define TEPI_KERNELS_AVX2_DEPTHWISE_H

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { TEPI_CHUNK = 16, TEPI_PAIR_BYTES = 64 };

/* Bias and multiplier of 16 channels; zeros past the last. */
struct tepi_dw_constants {
    __m256i bias[2];
    __m256 multiplier[2];
};

static inline size_t tepi_dw_chunks(const struct tepi_conv *conv)
{
    return ((size_t)conv->groups + TEPI_CHUNK - 1) / TEPI_CHUNK;
}

TEPI_INLINE struct tepi_dw_constants tepi_dw_constants_at(const struct tepi_conv *conv, size_t c)
{
    struct tepi_dw_constants k;
    TEPI_UNROLL
    for (size_t v = 0; v < 2; v++) {
        const size_t first = c + v * 8;
        const __m256i mask = tepi_mask8(first < conv->groups ? conv->groups - first : 0);
        k.bias[v] = _mm256_maskload_epi32(conv->bias + first, mask);
        k.multiplier[v] = _mm256_maskload_ps(conv->multiplier + first, mask);
    }
    return k;
}

/* Weight of channel c (0..15), tap t (0, 1) of a pair of taps. */
static inline void tepi_dw_put(int16_t *pair, size_t c, size_t t, int8_t weight)
{
    pair[c * 2 + t] = weight;
}

TEPI_INLINE void tepi_dw_pair(const uint8_t *a, const uint8_t *b, __m256i out[2])
{
    const __m128i first = tepi_load16(a), second = tepi_load16(b);
    out[0] = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second));
    out[1] = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(first, second));
}

/* out = acc + pair * weights */
TEPI_INLINE void tepi_dw_add(__m256i out[2], const __m256i acc[2], const __m256i pair[2],
                             const int16_t *weights)
{
    TEPI_UNROLL
    for (int v = 0; v < 2; v++)
        out[v] =
            _mm256_add_epi32(acc[v], _mm256_madd_epi16(pair[v], tepi_load32(weights + v * 16)));
}

TEPI_INLINE void tepi_dw_store(uint8_t *out, const __m256i acc[2],
                               const struct tepi_dw_constants *k,
                               const struct tepi_store_vectors *s, size_t channels)
{
    tepi_store16(out,
                 tepi_saturate2(tepi_scale(acc[0], k->multiplier[0], s->highest),
                                tepi_scale(acc[1], k->multiplier[1], s->highest), s),
                 channels);
}

/* Runs the output row through the store's table, if it has one. */
static inline void tepi_dw_table(const struct tepi_conv *conv, uint8_t *row)
{
    for (size_t x = 0; conv->store.table && x < conv->out_w; x++, row += conv->out_stride_w)
        tepi_u8_table_32_avx2(conv->store.table, row, row, conv->groups);
}

#endif
