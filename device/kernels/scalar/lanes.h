/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes of one float, for functions.h: each operation is that of SSE, MINPS and MAXPS with it. */
#ifndef TEPI_KERNELS_SCALAR_LANES_H
#define TEPI_KERNELS_SCALAR_LANES_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANE_INLINE static inline __attribute__((always_inline))

typedef float lane;
typedef uint32_t lane_bits;
typedef bool lane_mask;

LANE_INLINE lane lane_set(float value)
{
    return value;
}

LANE_INLINE lane_bits lane_set_bits(uint32_t value)
{
    return value;
}

LANE_INLINE lane lane_fma(lane a, lane b, lane c)
{
    return fmaf(a, b, c);
}

LANE_INLINE lane lane_abs(lane x)
{
    return fabsf(x);
}

LANE_INLINE lane lane_with_sign(lane x, lane sign)
{
    return copysignf(x, sign);
}

/* The second where one is NaN. */
LANE_INLINE lane lane_min(lane a, lane b)
{
    return a < b ? a : b;
}

LANE_INLINE lane lane_max(lane a, lane b)
{
    return a > b ? a : b;
}

LANE_INLINE lane_mask lane_less(lane a, lane b)
{
    return a < b;
}

LANE_INLINE lane_mask lane_equal(lane a, lane b)
{
    return a == b;
}

LANE_INLINE lane lane_select(lane_mask mask, lane yes, lane no)
{
    return mask ? yes : no;
}

LANE_INLINE lane_bits lane_to_bits(lane x)
{
    lane_bits bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

LANE_INLINE lane lane_from_bits(lane_bits bits)
{
    lane x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Of two's complement numbers. */
LANE_INLINE lane_bits lane_shift_right(lane_bits bits, int by)
{
    return (uint32_t)((int32_t)bits >> by);
}

LANE_INLINE lane lane_from_int(lane_bits bits)
{
    return (float)(int32_t)bits;
}

#endif
