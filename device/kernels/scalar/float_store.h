/* SPDX-License-Identifier: Apache-2.0 */
/* float32 results as they are stored: of all NaNs one, since which of them an operation gives
 * depends on the machine and on the order of its operands. */
#ifndef TEPI_KERNELS_SCALAR_FLOAT_STORE_H
#define TEPI_KERNELS_SCALAR_FLOAT_STORE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float tepi_stored_f32(float value)
{
    const uint32_t bits = 0x7fc00000;
    if (isnan(value))
        memcpy(&value, &bits, sizeof(value));
    return value;
}

#endif
