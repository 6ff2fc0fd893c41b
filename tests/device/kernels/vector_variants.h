/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of the float32 kernels, as variants.h: 0 where a set agrees with the scalar one. */
#ifndef TEPI_TESTS_KERNELS_VECTOR_VARIANTS_H
#define TEPI_TESTS_KERNELS_VECTOR_VARIANTS_H

#include "kernels/variants.h"

/* `count` elements by an operation; steps: bit k set where operand k is a row. NaNs are alike. */
int tepi_check_vector(uint32_t set, uint32_t operation, uint32_t count, uint32_t steps,
                      uint64_t seed, char *why);
/* The store and the range of `count` elements. */
int tepi_check_stored(uint32_t set, uint32_t count, uint32_t step, uint64_t seed, char *why);

struct tepi_fmatmul_case {
    uint32_t rows, depth, columns, b_transposed;
    uint32_t a_padding, b_padding, out_padding, row_cut; /* paddings in floats */
};
int tepi_check_fmatmul(uint32_t set, const struct tepi_fmatmul_case *shape, uint64_t seed,
                       char *why);

#endif
