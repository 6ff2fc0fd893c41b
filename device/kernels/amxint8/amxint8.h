/* SPDX-License-Identifier: Apache-2.0 */
/* What the AMX int8 set adds to AVX512-VNNI. */
#ifndef TEPI_KERNELS_AMXINT8_AMXINT8_H
#define TEPI_KERNELS_AMXINT8_AMXINT8_H

#include "kernels/amxint8/tile.h"
#include "kernels/kernels.h"

extern const struct tepi_conv_kernel TEPI_AMX(tepi_u8s8_conv_32x32_amxint8);

#endif
