/* SPDX-License-Identifier: Apache-2.0 */
/* Strided byte copy, 64 bytes at a time where both sides are consecutive; transpositions go in
 * square blocks so that the lines of both sides stay in the cache. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

enum { BLOCK = 64 };

static void copy_rows(const struct tepi_plane *plane, uint8_t flip)
{
    const __m512i flips = _mm512_set1_epi8((char)flip);
    for (size_t i = 0; i < plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + (ptrdiff_t)i * plane->in_row;
        uint8_t *out = (uint8_t *)plane->output + (ptrdiff_t)i * plane->out_row;
        for (size_t j = 0; j < plane->columns; j += BLOCK) {
            const __mmask64 mask = tepi_mask64(plane->columns - j);
            const __m512i bytes = _mm512_maskz_loadu_epi8(mask, in + j);
            _mm512_mask_storeu_epi8(out + j, mask, _mm512_xor_si512(bytes, flips));
        }
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

void tepi_u8_copy_64_avx512vnni(const struct tepi_plane *plane, uint8_t flip)
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
