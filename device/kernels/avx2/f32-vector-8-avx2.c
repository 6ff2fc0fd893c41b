/* SPDX-License-Identifier: Apache-2.0 */
/* The vector unit's operations, two vectors of eight floats at a time: rows have room for whole
 * pairs, whose last floats are computed too but for the reductions and the store. */
#include "kernels/avx2/lanes.h"
/* The functions are sequences of operations on lanes. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"
#include "kernels/functions.h"

enum { PAIR = 16, HALF = 8 };
_Static_assert(PAIR == TEPI_VECTOR_LANES, "rows have room for pairs");

#define UNARY(name, expression)                                                                    \
    static void name(const struct tepi_vector *v)                                                  \
    {                                                                                              \
        const float *in = v->a;                                                                    \
        float *out = v->out;                                                                       \
        const size_t count = v->count;                                                             \
        for (size_t i = 0; i < count; i += PAIR) {                                                 \
            lane pair[2];                                                                          \
            TEPI_UNROLL                                                                            \
            for (int k = 0; k < 2; k++) {                                                          \
                const lane a = _mm256_loadu_ps(in + i + k * HALF);                                 \
                pair[k] = (expression);                                                            \
            }                                                                                      \
            _mm256_storeu_ps(out + i, pair[0]);                                                    \
            _mm256_storeu_ps(out + i + HALF, pair[1]);                                             \
        }                                                                                          \
    }

/* The loop of BINARY with `a` and `b` made by `first` and `second`. */
#define PAIRS(first, second, expression)                                                           \
    for (size_t i = 0; i < count; i += PAIR) {                                                     \
        lane pair[2];                                                                              \
        TEPI_UNROLL                                                                                \
        for (int k = 0; k < 2; k++) {                                                              \
            const lane a = first, b = second;                                                      \
            pair[k] = (expression);                                                                \
        }                                                                                          \
        _mm256_storeu_ps(out + i, pair[0]);                                                        \
        _mm256_storeu_ps(out + i + HALF, pair[1]);                                                 \
    }

#define BINARY(name, expression)                                                                   \
    static void name(const struct tepi_vector *v)                                                  \
    {                                                                                              \
        const float *x = v->a, *y = v->b;                                                          \
        float *out = v->out;                                                                       \
        const size_t count = v->count;                                                             \
        const lane one_a = _mm256_broadcast_ss(x), one_b = _mm256_broadcast_ss(y);                 \
        if (v->a_step && v->b_step)                                                                \
            PAIRS(_mm256_loadu_ps(x + i + k * HALF), _mm256_loadu_ps(y + i + k * HALF),            \
                  expression)                                                                      \
        else if (v->a_step)                                                                        \
            PAIRS(_mm256_loadu_ps(x + i + k * HALF), one_b, expression)                            \
        else if (v->b_step)                                                                        \
            PAIRS(one_a, _mm256_loadu_ps(y + i + k * HALF), expression)                            \
        else                                                                                       \
            PAIRS(one_a, one_b, expression)                                                        \
    }

/* `value` where `predicate` holds between a and b, else +0. */
#define TRUTH(predicate) _mm256_and_ps(_mm256_cmp_ps(a, b, predicate), _mm256_set1_ps(1.0f))

/* b where a is NaN would be MAXPS's and MINPS's choice. */
static inline lane or_nan(lane chosen, lane a)
{
    return _mm256_blendv_ps(chosen, a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

static inline lane rounded(lane a)
{
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(divide, a / b)
BINARY(larger, or_nan(_mm256_max_ps(a, b), a))
BINARY(smaller, or_nan(_mm256_min_ps(a, b), a))
BINARY(equal, TRUTH(_CMP_EQ_OQ))
BINARY(unequal, TRUTH(_CMP_NEQ_UQ))
BINARY(less, TRUTH(_CMP_LT_OQ))
BINARY(less_or_equal, TRUTH(_CMP_LE_OQ))
UNARY(negative, _mm256_xor_ps(a, lane_set(-0.0f)))
UNARY(magnitude, lane_abs(a))
UNARY(root, _mm256_sqrt_ps(a))
UNARY(below, _mm256_floor_ps(a))
UNARY(above, _mm256_ceil_ps(a))
UNARY(nearest, rounded(a))
UNARY(exponential, tepi_lane_exp(a))
UNARY(logarithm, tepi_lane_log(a))
UNARY(error, tepi_lane_erf(a))
UNARY(tangent, tepi_lane_tanh(a))
UNARY(sigmoid, tepi_lane_sigmoid(a))

static inline lane load_or_repeat(const float *row, size_t step, size_t i)
{
    return step ? _mm256_loadu_ps(row + i) : _mm256_broadcast_ss(row);
}

static void pick(const struct tepi_vector *v)
{
    for (size_t i = 0; i < v->count; i += HALF) {
        const lane a = load_or_repeat(v->a, v->a_step, i);
        const lane b = load_or_repeat(v->b, v->b_step, i);
        const lane c = load_or_repeat(v->c, v->c_step, i);
        const lane chosen = _mm256_blendv_ps(c, b, _mm256_cmp_ps(a, lane_set(0.0f), _CMP_NEQ_UQ));
        _mm256_storeu_ps(v->out + i, chosen);
    }
}

/* The eight floats from i on of which `left` belong to the row, `other` in place of the rest. */
static inline lane load_within(const struct tepi_vector *v, size_t i, lane other)
{
    const lane a = load_or_repeat(v->a, v->a_step, i);
    const size_t left = i < v->count ? v->count - i : 0;
    return _mm256_blendv_ps(other, a, _mm256_castsi256_ps(tepi_mask8(left)));
}

/* Lanes 0..7 and 8..15 of the 16 sums. */
static void sum(const struct tepi_vector *v)
{
    lane low = lane_set(0.0f), high = low;
    size_t i = 0;
    for (; i + PAIR <= v->count; i += PAIR) {
        low += load_or_repeat(v->a, v->a_step, i);
        high += load_or_repeat(v->a, v->a_step, i + HALF);
    }
    if (i < v->count) {
        low += load_within(v, i, lane_set(0.0f));
        high += load_within(v, i + HALF, lane_set(0.0f));
    }
    low += high;
    __m128 four = _mm256_castps256_ps128(low) + _mm256_extractf128_ps(low, 1);
    four += _mm_movehl_ps(four, four);
    v->out[0] = _mm_cvtss_f32(four) + _mm_cvtss_f32(_mm_movehdup_ps(four));
}

/* Reductions by an operation that takes either of equal operands. */
#define REDUCE(name, operation)                                                                    \
    static void name(const struct tepi_vector *v)                                                  \
    {                                                                                              \
        const lane first = _mm256_broadcast_ss(v->a);                                              \
        lane found[2] = {first, first}, unordered = lane_set(0.0f);                                \
        for (size_t i = 0; i < v->count; i += PAIR) {                                              \
            for (int k = 0; k < 2; k++) {                                                          \
                const size_t at = i + (size_t)k * HALF;                                            \
                const lane a = at + HALF <= v->count ? load_or_repeat(v->a, v->a_step, at)         \
                                                     : load_within(v, at, first);                  \
                found[k] = operation(a, found[k]);                                                 \
                unordered = _mm256_or_ps(unordered, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));            \
            }                                                                                      \
        }                                                                                          \
        lane all = operation(found[0], found[1]);                                                  \
        all = operation(all, _mm256_permute2f128_ps(all, all, 1));                                 \
        all = operation(all, _mm256_permute_ps(all, _MM_SHUFFLE(1, 0, 3, 2)));                     \
        all = operation(all, _mm256_permute_ps(all, _MM_SHUFFLE(2, 3, 0, 1)));                     \
        const float value = _mm256_cvtss_f32(all) + 0.0f; /* a zero is +0 */                       \
        v->out[0] = _mm256_movemask_ps(unordered) ? NAN : value;                                   \
    }

REDUCE(largest, _mm256_max_ps)
REDUCE(smallest, _mm256_min_ps)

static inline lane stored(lane a)
{
    const lane nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_blendv_ps(a, nan, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}

static void store(const float *a, size_t a_step, float *out, size_t count)
{
    size_t i = 0;
    for (; i + HALF <= count; i += HALF)
        _mm256_storeu_ps(out + i, stored(load_or_repeat(a, a_step, i)));
    if (i < count)
        _mm256_maskstore_ps(out + i, tepi_mask8(count - i), stored(load_or_repeat(a, a_step, i)));
}

/* MINPS and MAXPS give the second operand where the first is NaN. */
static void range(const float *a, size_t count, float *lowest, float *highest)
{
    lane low[2], high[2];
    low[0] = low[1] = _mm256_broadcast_ss(lowest);
    high[0] = high[1] = _mm256_broadcast_ss(highest);
    for (size_t i = 0; i < count; i += PAIR) {
        for (size_t k = 0; k < 2; k++) {
            const size_t at = i + k * HALF, left = at < count ? count - at : 0;
            lane x = _mm256_loadu_ps(a + at);
            if (left < HALF)
                x = _mm256_blendv_ps(low[k], x, _mm256_castsi256_ps(tepi_mask8(left)));
            low[k] = _mm256_min_ps(x, low[k]);
            high[k] = _mm256_max_ps(x, high[k]);
        }
    }
    float lows[HALF], highs[HALF];
    _mm256_storeu_ps(lows, _mm256_min_ps(low[0], low[1]));
    _mm256_storeu_ps(highs, _mm256_max_ps(high[0], high[1]));
    for (int k = 0; k < HALF; k++) {
        *lowest = lows[k] < *lowest ? lows[k] : *lowest;
        *highest = highs[k] > *highest ? highs[k] : *highest;
    }
}

const struct tepi_vector_kernels tepi_f32_vector_8_avx2 = {
    .operations =
        {
            [TEPI_F32_ADD] = add,          [TEPI_F32_SUB] = sub,       [TEPI_F32_MUL] = mul,
            [TEPI_F32_DIV] = divide,       [TEPI_F32_MAX] = larger,    [TEPI_F32_MIN] = smaller,
            [TEPI_F32_EQ] = equal,         [TEPI_F32_NE] = unequal,    [TEPI_F32_LT] = less,
            [TEPI_F32_LE] = less_or_equal, [TEPI_F32_SELECT] = pick,   [TEPI_F32_NEG] = negative,
            [TEPI_F32_ABS] = magnitude,    [TEPI_F32_SQRT] = root,     [TEPI_F32_FLOOR] = below,
            [TEPI_F32_CEIL] = above,       [TEPI_F32_ROUND] = nearest, [TEPI_F32_EXP] = exponential,
            [TEPI_F32_LOG] = logarithm,    [TEPI_F32_ERF] = error,     [TEPI_F32_TANH] = tangent,
            [TEPI_F32_SIGMOID] = sigmoid,  [TEPI_F32_SUM] = sum,       [TEPI_F32_MAXOF] = largest,
            [TEPI_F32_MINOF] = smallest,
        },
    .store = store,
    .range = range,
};
