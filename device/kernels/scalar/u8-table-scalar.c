/* SPDX-License-Identifier: Apache-2.0 */
/* Byte substitution; `a` and `out` may be the same bytes. */
#include "kernels/scalar/scalar.h"

void tepi_u8_table_scalar(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = table[a[i]];
}
