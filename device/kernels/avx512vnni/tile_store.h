/* SPDX-License-Identifier: Apache-2.0 */
/* From a tile of accumulators, pixels x blocks of 16 channels, to bytes in memory. */
#ifndef TEPI_KERNELS_AVX512VNNI_TILE_STORE_H
#define TEPI_KERNELS_AVX512VNNI_TILE_STORE_H

#include "kernels/avx512vnni/vector.h"

enum { TEPI_BLOCK = 16, TEPI_TILE_BLOCKS = 4 };

/* Constants of up to 64 channels; zeros past the last. */
struct tepi_channels {
    __m512i bias[TEPI_TILE_BLOCKS];
    __m512 multiplier[TEPI_TILE_BLOCKS];
    __mmask64 mask; /* of the output's bytes */
};

static inline struct tepi_channels tepi_channels_at(const struct tepi_conv *conv, size_t first,
                                                    size_t count)
{
    struct tepi_channels c = {.mask = tepi_mask64(count)};
    for (size_t v = 0; v < TEPI_TILE_BLOCKS; v++) {
        const __mmask16 mask = (__mmask16)(c.mask >> v * TEPI_BLOCK);
        const size_t at = first + v * TEPI_BLOCK;
        c.bias[v] = _mm512_maskz_loadu_epi32(mask, conv->bias + at);
        c.multiplier[v] = _mm512_maskz_loadu_ps(mask, conv->multiplier + at);
    }
    return c;
}

/* Channels of the k-th pixel among those that lie in one vector. */
TEPI_INLINE __m512i tepi_part(__m512i bytes, const int k, const int width)
{
    if (width == 2)
        return _mm512_castsi256_si512(_mm512_extracti64x4_epi64(bytes, 1));
    return _mm512_castsi128_si512(k == 1   ? _mm512_extracti32x4_epi32(bytes, 1)
                                  : k == 2 ? _mm512_extracti32x4_epi32(bytes, 2)
                                           : _mm512_extracti32x4_epi32(bytes, 3));
}

/* A masked store costs several times a plain one, so full panels do without. */
TEPI_INLINE void tepi_store_pixel(uint8_t *out, __m512i bytes, const int width, __mmask64 channels)
{
    if (channels != tepi_mask64((size_t)width * TEPI_BLOCK))
        _mm512_mask_storeu_epi8(out, channels, bytes);
    else if (width == 4)
        _mm512_storeu_si512(out, bytes);
    else if (width == 1)
        _mm_storeu_si128((__m128i *)out, _mm512_castsi512_si128(bytes));
    else
        _mm256_storeu_si256((__m256i *)out, _mm512_castsi512_si256(bytes));
    if (width == 3 && channels == tepi_mask64((size_t)width * TEPI_BLOCK))
        _mm_storeu_si128((__m128i *)(out + 2 * TEPI_BLOCK), _mm512_extracti32x4_epi32(bytes, 2));
}

/* Requantizes and stores `rows` pixels of `width` blocks. Four vectors leave together: of one pixel
 * where it has more than two, else of two or four pixels. */
TEPI_INLINE void tepi_store_tile(const struct tepi_channels *channels,
                                 const struct tepi_store_vectors *store, uint8_t *const *out,
                                 size_t out_offset, const __m512i *acc, const int rows,
                                 const int width)
{
    const int together = width > 2 ? 1 : 4 / width;
    const __mmask64 all = channels->mask;
    TEPI_UNROLL
    for (int i = 0; i < rows; i += together) {
        __m512i four[4];
        TEPI_UNROLL
        for (int k = 0; k < 4; k++) {
            const int row = i + k / width, v = k % width;
            four[k] =
                k < width * together && row < rows
                    ? tepi_scale(acc[row * width + v], channels->multiplier[v], store->highest)
                    : _mm512_setzero_si512();
        }
        const __m512i bytes =
            tepi_in_order(tepi_saturate4(four[0], four[1], four[2], four[3], store));
        tepi_store_pixel(out[i] + out_offset, bytes, width, all);
        if (together > 1 && i + 1 < rows)
            tepi_store_pixel(out[i + 1] + out_offset, tepi_part(bytes, 1, width), width, all);
        if (together > 2 && i + 2 < rows)
            tepi_store_pixel(out[i + 2] + out_offset, tepi_part(bytes, 2, width), width, all);
        if (together > 2 && i + 3 < rows)
            tepi_store_pixel(out[i + 3] + out_offset, tepi_part(bytes, 3, width), width, all);
    }
}

#endif
