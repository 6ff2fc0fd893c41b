/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes of eight floats, for functions.h. */
#ifndef TEPI_KERNELS_AVX2_LANES_H
#define TEPI_KERNELS_AVX2_LANES_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>

#define LANE_INLINE static inline __attribute__((always_inline))

typedef __m256 lane;
typedef uint32_t lane_bits __attribute__((vector_size(32)));
typedef __m256 lane_mask; /* all ones or zeros */

LANE_INLINE lane lane_set(float value)
{
    return _mm256_set1_ps(value);
}

LANE_INLINE lane_bits lane_set_bits(uint32_t value)
{
    return (lane_bits)_mm256_set1_epi32((int32_t)value);
}

LANE_INLINE lane lane_fma(lane a, lane b, lane c)
{
    return _mm256_fmadd_ps(a, b, c);
}

LANE_INLINE lane lane_abs(lane x)
{
    return _mm256_andnot_ps(lane_set(-0.0f), x);
}

LANE_INLINE lane lane_with_sign(lane x, lane sign)
{
    return _mm256_or_ps(lane_abs(x), _mm256_and_ps(lane_set(-0.0f), sign));
}

/* The second where one is NaN. */
LANE_INLINE lane lane_min(lane a, lane b)
{
    return _mm256_min_ps(a, b);
}

LANE_INLINE lane lane_max(lane a, lane b)
{
    return _mm256_max_ps(a, b);
}

LANE_INLINE lane_mask lane_less(lane a, lane b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}

LANE_INLINE lane_mask lane_equal(lane a, lane b)
{
    return _mm256_cmp_ps(a, b, _CMP_EQ_OQ);
}

LANE_INLINE lane lane_select(lane_mask mask, lane yes, lane no)
{
    return _mm256_blendv_ps(no, yes, mask);
}

LANE_INLINE lane_bits lane_to_bits(lane x)
{
    return (lane_bits)_mm256_castps_si256(x);
}

LANE_INLINE lane lane_from_bits(lane_bits bits)
{
    return _mm256_castsi256_ps((__m256i)bits);
}

/* Of two's complement numbers. */
LANE_INLINE lane_bits lane_shift_right(lane_bits bits, int by)
{
    return (lane_bits)_mm256_srai_epi32((__m256i)bits, by);
}

LANE_INLINE lane lane_from_int(lane_bits bits)
{
    return _mm256_cvtepi32_ps((__m256i)bits);
}

#endif
