/* SPDX-License-Identifier: Apache-2.0 */
/* Products of 16-bit pairs with VPMADDWD, 6 rows x 16 columns at most: what the convolutions of
 * AVX2 without VNNI spend their time in. Both factors are 16 bits wide, so that no product and no
 * pair of them saturates (VPMADDUBSW's do: 2 * 255 * 127 is over int16). */
#ifndef TEPI_KERNELS_AVX2_MADD_H
#define TEPI_KERNELS_AVX2_MADD_H

#include "kernels/avx2/vector.h"

enum { TEPI_MADD_ROWS = 6 };

/* acc[i][v] += pair of row i * pair of each column of block v, step by step. `in`: the rows' pairs;
 * `weights`: [step][width blocks][8 columns][2], int16, or int8 where they are `narrow`. */
TEPI_INLINE void tepi_madd(__m256i *acc, const uint8_t *const *in, const uint8_t *weights,
                           size_t steps, const int rows, const int width, const bool narrow)
{
    const int vector = narrow ? 16 : 32;
    const uint8_t *at[TEPI_MADD_ROWS];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++)
        at[i] = in[i];
    for (size_t byte = 0; byte < steps * 4; byte += 4, weights += width * vector) {
        __m256i w[2];
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            w[v] = narrow ? _mm256_cvtepi8_epi16(tepi_load16(weights + v * vector))
                          : tepi_load32(weights + v * vector);
        TEPI_UNROLL
        for (int i = 0; i < rows; i++) {
            const __m256i pair = tepi_broadcast4(at[i] + byte);
            TEPI_UNROLL
            for (int v = 0; v < width; v++)
                acc[i * width + v] =
                    _mm256_add_epi32(acc[i * width + v], _mm256_madd_epi16(pair, w[v]));
        }
    }
}

/* int8 to int16, 16 at a time: where weights meet more than one tile of rows, once for all. */
TEPI_INLINE void tepi_widen_weights(uint8_t *out, const uint8_t *weights, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += 16)
        _mm256_store_si256((__m256i *)(out + i * 2),
                           _mm256_cvtepi8_epi16(tepi_load16(weights + i)));
}

/* The weights that come next, asked for while there is something else to multiply. */
TEPI_INLINE const uint8_t *tepi_prefetch(const uint8_t *at, size_t lines)
{
    for (size_t i = 0; i < lines; i++, at += 64)
        _mm_prefetch((const char *)at, _MM_HINT_T1);
    return at;
}

#endif
