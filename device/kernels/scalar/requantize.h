/* SPDX-License-Identifier: Apache-2.0 */
/* Rounding, saturation and the store step as abi/program.h defines them, one value at a time. */
#ifndef TEPI_KERNELS_SCALAR_REQUANTIZE_H
#define TEPI_KERNELS_SCALAR_REQUANTIZE_H

#include "kernels/kernels.h"
#include <math.h>

/* Clamps to [0 - zero_point, 255 - zero_point], rounds half to even in the default rounding mode,
 * adds the zero point. The comparisons are those of MAXPS and MINPS: NaN gives the lowest value. */
static inline uint8_t tepi_round_u8(float value, int32_t zero_point)
{
    const float lowest = (float)(0 - zero_point), highest = (float)(255 - zero_point);
    value = value > lowest ? value : lowest;
    value = value < highest ? value : highest;
    return (uint8_t)((int32_t)lrintf(value) + zero_point);
}

static inline uint8_t tepi_store_u8(uint8_t value, const struct tepi_store *store)
{
    value = value > store->lo ? value : store->lo;
    value = value < store->hi ? value : store->hi;
    return store->table ? store->table[value] : value;
}

/* `sum` is modulo 2^32; its bits are the two's complement accumulator. */
static inline uint8_t tepi_requantize_u8(uint32_t sum, float multiplier,
                                         const struct tepi_store *store)
{
    return tepi_store_u8(tepi_round_u8((float)(int32_t)sum * multiplier, store->zero_point), store);
}

#endif
