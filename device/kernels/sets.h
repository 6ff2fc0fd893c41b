/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel sets that a build may hold. Each is a constant that names its own functions and, where
 * it has nothing better, those of a lower set (scalar/scalar.h). The build defines TEPI_HAVE_AVX2,
 * TEPI_HAVE_AVX512VNNI and TEPI_HAVE_AMXINT8 for the sets whose set-<isa>.c it compiles; whether
 * the machine can run one is select.c's question, not theirs. */
#ifndef TEPI_KERNELS_SETS_H
#define TEPI_KERNELS_SETS_H

#include "kernels/kernels.h"

const struct tepi_kernel_set *tepi_kernels_scalar(void);
const struct tepi_kernel_set *tepi_kernels_avx2(void);
const struct tepi_kernel_set *tepi_kernels_avx512vnni(void);
const struct tepi_kernel_set *tepi_kernels_amxint8(void);

#endif
