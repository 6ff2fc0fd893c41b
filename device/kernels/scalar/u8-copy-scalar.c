/* SPDX-License-Identifier: Apache-2.0 */
/* Strided byte copy; `flip` 0x80 turns int8 into the card's uint8 and back. */
#include "kernels/scalar/scalar.h"
#include <string.h>

void tepi_u8_copy_scalar(const struct tepi_plane *plane, uint8_t flip)
{
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + i * plane->in_row;
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row;
        if (plane->in_column == 1 && plane->out_column == 1 && flip == 0) {
            memmove(out, in, plane->columns);
            continue;
        }
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++)
            out[j * plane->out_column] = in[j * plane->in_column] ^ flip;
    }
}
