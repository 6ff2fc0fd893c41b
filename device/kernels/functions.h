/* SPDX-License-Identifier: Apache-2.0 */
/* EXP, LOG, ERF, TANH and SIGMOID of the vector unit as fixed sequences of float32 operations, so
 * that every instruction set gives the same bits (which NaN a NaN is excepted).
 *
 * Whoever includes this has included the lanes of an instruction set: `lane` is one or several
 * floats, `lane_bits` as many uint32, to which the operators of C apply, comparisons give a
 * `lane_mask`. All are rounded to nearest even; only lane_fma fuses. Polynomials are weighted
 * minimax fits with their coefficients rounded to float32.
 *
 * Largest errors against float64 over every 4093rd float32, in units of the last place (of 2^-149
 * where a result is not normal): EXP 0.95, LOG 0.74, ERF 1.04, TANH 1.34, SIGMOID 2.09. */
#ifndef TEPI_KERNELS_FUNCTIONS_H
#define TEPI_KERNELS_FUNCTIONS_H

/* x as n * ln 2 + r, |r| <= ln 2 / 2; e^r = 1 + r + r * r * q(r); then times 2^n in two steps, that
 * denormal results are rounded once. Outside [-104, 89] results are 0 and infinite. */
LANE_INLINE lane tepi_lane_exp(lane x)
{
    const lane shift = lane_set(0x1.8p23f); /* integers in the low bits */
    x = lane_max(lane_set(-104.0f), lane_min(lane_set(89.0f), x));
    const lane t = lane_fma(x, lane_set(0x1.715476p0f), shift);
    const lane n = t - shift;
    lane r = lane_fma(n, lane_set(-0x1.62e4p-1f), x); /* ln 2 in 15 bits: exact */
    r = lane_fma(n, lane_set(-0x1.7f7d1cp-20f), r);
    lane q = lane_set(0x1.6a2350p-10f);
    q = lane_fma(q, r, lane_set(0x1.123a6cp-7f));
    q = lane_fma(q, r, lane_set(0x1.5558f4p-5f));
    q = lane_fma(q, r, lane_set(0x1.555490p-3f));
    q = lane_fma(q, r, lane_set(0x1.fffffcp-2f));
    const lane y = lane_fma(q, r * r, r) + lane_set(1.0f);
    const lane_bits power = lane_to_bits(t) - lane_to_bits(shift);
    const lane_bits half = lane_shift_right(power, 1);
    const lane first = lane_from_bits((half + lane_set_bits(127)) << 23);
    const lane second = lane_from_bits((power - half + lane_set_bits(127)) << 23);
    return y * first * second;
}

/* x = 2^e * (1 + f), 1 + f in [sqrt(1/2), sqrt(2)); log(1 + f) = f - f * f / 2 + f^3 * q(f). */
LANE_INLINE lane tepi_lane_log(lane x)
{
    const lane_bits root = lane_set_bits(0x3f3504f3); /* sqrt(1/2) */
    const lane_mask denormal = lane_less(x, lane_set(0x1p-126f));
    const lane scaled = lane_select(denormal, x * lane_set(0x1p23f), x);
    const lane_bits offset = lane_to_bits(scaled) - root;
    const lane e = lane_from_int(lane_shift_right(offset, 23)) -
                   lane_select(denormal, lane_set(23.0f), lane_set(0.0f));
    const lane f = lane_from_bits((offset & lane_set_bits(0x7fffff)) + root) - lane_set(1.0f);
    lane q = lane_set(0x1.1457a8p-4f);
    q = lane_fma(q, f, lane_set(-0x1.de3c16p-4f));
    q = lane_fma(q, f, lane_set(0x1.e6f06ap-4f));
    q = lane_fma(q, f, lane_set(-0x1.fc2208p-4f));
    q = lane_fma(q, f, lane_set(0x1.233768p-3f));
    q = lane_fma(q, f, lane_set(-0x1.555c4ep-3f));
    q = lane_fma(q, f, lane_set(0x1.99a4b6p-3f));
    q = lane_fma(q, f, lane_set(-0x1.000006p-2f));
    q = lane_fma(q, f, lane_set(0x1.555548p-2f));
    const lane square = f * f;
    lane low = lane_fma(q, square * f, e * lane_set(0x1.7f7d1cp-20f));
    low = lane_fma(square, lane_set(-0.5f), low);
    const lane y = lane_fma(e, lane_set(0x1.62e4p-1f), f + low);
    const lane infinite = lane_set(INFINITY), zero = lane_set(0.0f);
    lane result = lane_select(lane_less(x, infinite), y, x); /* infinite and NaN stay */
    result = lane_select(lane_less(x, zero), lane_set(NAN), result);
    return lane_select(lane_equal(x, zero), lane_set(-INFINITY), result);
}

/* |x| < 1: x + x * q(x * x). Else 1 - e^p(|x|), p near log(erfc), with the sign of x. */
LANE_INLINE lane tepi_lane_erf(lane x)
{
    const lane t = lane_abs(x), s = x * x;
    lane q = lane_set(0x1.496a1ep-14f);
    q = lane_fma(q, s, lane_set(-0x1.a3f6f8p-11f));
    q = lane_fma(q, s, lane_set(0x1.5405b0p-8f));
    q = lane_fma(q, s, lane_set(-0x1.b7f90cp-6f));
    q = lane_fma(q, s, lane_set(0x1.ce2cf8p-4f));
    q = lane_fma(q, s, lane_set(-0x1.81273ep-2f));
    q = lane_fma(q, s, lane_set(0x1.06eba8p-3f));
    const lane near = lane_fma(q, x, x);
    const lane far = lane_min(lane_set(4.0f), t); /* 1 - erf(4) rounds to 0 beside 1 */
    lane p = lane_set(-0x1.6c0662p-16f);
    p = lane_fma(p, far, lane_set(0x1.ceeac8p-12f));
    p = lane_fma(p, far, lane_set(-0x1.1398eep-8f));
    p = lane_fma(p, far, lane_set(0x1.9d0bccp-6f));
    p = lane_fma(p, far, lane_set(-0x1.bc18ccp-4f));
    p = lane_fma(p, far, lane_set(-0x1.4434f0p-1f));
    p = lane_fma(p, far, lane_set(-0x1.212c2cp0f));
    p = lane_fma(p, far, lane_set(0x1.8b3e2ap-13f));
    const lane result = lane_set(1.0f) - tepi_lane_exp(p);
    return lane_select(lane_less(t, lane_set(1.0f)), near, lane_with_sign(result, x));
}

/* |x| < 0.55: x + x^3 * q(x * x). Else 1 - 2 / (e^(2|x|) + 1) with the sign of x. */
LANE_INLINE lane tepi_lane_tanh(lane x)
{
    const lane t = lane_abs(x), s = x * x, one = lane_set(1.0f);
    lane q = lane_set(-0x1.9b3024p-8f);
    q = lane_fma(q, s, lane_set(0x1.593d00p-6f));
    q = lane_fma(q, s, lane_set(-0x1.b9287ap-5f));
    q = lane_fma(q, s, lane_set(0x1.110d26p-3f));
    q = lane_fma(q, s, lane_set(-0x1.55554ap-2f));
    const lane near = lane_fma(q * s, x, x);
    const lane far = lane_min(lane_set(10.0f), t); /* 1 from there on */
    const lane result = one - lane_set(2.0f) / (tepi_lane_exp(far + far) + one);
    return lane_select(lane_less(t, lane_set(0.55f)), near, lane_with_sign(result, x));
}

/* e = e^-|x|, which never overflows: 1 / (1 + e), or e / (1 + e) for negative x. */
LANE_INLINE lane tepi_lane_sigmoid(lane x)
{
    const lane one = lane_set(1.0f), e = tepi_lane_exp(-lane_abs(x));
    return lane_select(lane_less(x, lane_set(0.0f)), e, one) / (one + e);
}

#endif
