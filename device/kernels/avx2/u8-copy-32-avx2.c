/* SPDX-License-Identifier: Apache-2.0 */
/* Strided byte copy, 32 bytes at a time where both sides are consecutive; transpositions go in
 * square blocks so that the lines of both sides stay in the cache. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { BLOCK = 64 };

static void copy_rows(const struct tepi_plane *plane, uint8_t flip)
{
    const __m256i flips = _mm256_set1_epi8((char)flip);
    for (size_t i = 0; i < plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + (ptrdiff_t)i * plane->in_row;
        uint8_t *out = (uint8_t *)plane->output + (ptrdiff_t)i * plane->out_row;
        size_t j = 0;
        for (; j + 32 <= plane->columns; j += 32)
            _mm256_storeu_si256((__m256i *)(out + j), _mm256_xor_si256(tepi_load32(in + j), flips));
        for (; j < plane->columns; j++)
            out[j] = in[j] ^ flip;
    }
}

static void copy_block(const struct tepi_plane *plane, uint8_t flip, size_t i, size_t rows,
                       size_t j, size_t columns)
{
    for (size_t y = i; y < i + rows; y++) {
        const uint8_t *in = (const uint8_t *)plane->input + (ptrdiff_t)y * plane->in_row +
                            (ptrdiff_t)j * plane->in_column;
        uint8_t *out = (uint8_t *)plane->output + (ptrdiff_t)y * plane->out_row +
                       (ptrdiff_t)j * plane->out_column;
        for (size_t x = 0; x < columns; x++, in += plane->in_column, out += plane->out_column)
            *out = *in ^ flip;
    }
}

void tepi_u8_copy_32_avx2(const struct tepi_plane *plane, uint8_t flip)
{
    if (plane->in_column == 1 && plane->out_column == 1) {
        copy_rows(plane, flip);
        return;
    }
    for (size_t i = 0; i < plane->rows; i += BLOCK) {
        const size_t rows = plane->rows - i < BLOCK ? plane->rows - i : BLOCK;
        for (size_t j = 0; j < plane->columns; j += BLOCK) {
            const size_t columns = plane->columns - j < BLOCK ? plane->columns - j : BLOCK;
            copy_block(plane, flip, i, rows, j, columns);
        }
    }
}
