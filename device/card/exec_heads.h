/* SPDX-License-Identifier: Apache-2.0 */
/* Tensors as so many matrices: what MATMUL and FMATMUL share. */
#ifndef TEPI_CARD_EXEC_HEADS_H
#define TEPI_CARD_EXEC_HEADS_H

#include "card/exec.h"

/* How the tensors of a product lie, from its parameters. */
struct tepi_products {
    uint32_t heads;
    uint8_t a_split, b_split, out_split, b_transposed;
};
struct tepi_products_heads {
    struct tepi_heads a, b, out;
};

/* Whether the fields and the extents of the three tensors agree; if so *heads is set. */
bool tepi_products_valid(const struct tepi_products *products, const struct tepi_tensor *a,
                         const struct tepi_tensor *b, const struct tepi_tensor *out,
                         struct tepi_products_heads *heads);

/* Element (0,0) of the matrix for n and h of out. */
const uint8_t *tepi_head_at(const uint8_t *base, const struct tepi_heads *t, uint32_t n,
                            uint32_t h);

#endif
