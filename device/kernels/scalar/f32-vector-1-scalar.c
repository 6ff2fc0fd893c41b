/* SPDX-License-Identifier: Apache-2.0 */
/* The vector unit's operations, one float at a time. */
#include "kernels/scalar/lanes.h"
/* The functions are sequences of operations on lanes. */
#include "kernels/functions.h"
#include "kernels/scalar/float_store.h"
#include "kernels/scalar/scalar.h"

#define UNARY(name, expression)                                                                    \
    static void name(const struct tepi_vector *v)                                                  \
    {                                                                                              \
        for (size_t i = 0; i < v->count; i++) {                                                    \
            const float a = v->a[i];                                                               \
            v->out[i] = (expression);                                                              \
        }                                                                                          \
    }

#define BINARY(name, expression)                                                                   \
    static void name(const struct tepi_vector *v)                                                  \
    {                                                                                              \
        for (size_t i = 0; i < v->count; i++) {                                                    \
            const float a = v->a[i * v->a_step], b = v->b[i * v->b_step];                          \
            v->out[i] = (expression);                                                              \
        }                                                                                          \
    }

BINARY(add, a + b)
BINARY(sub, a - b)
BINARY(mul, a *b)
BINARY(divide, a / b)
BINARY(larger, isnan(a) || a > b ? a : b)
BINARY(smaller, isnan(a) || a < b ? a : b)
BINARY(equal, a == b ? 1.0f : 0.0f)
BINARY(unequal, a != b ? 1.0f : 0.0f)
BINARY(less, a < b ? 1.0f : 0.0f)
BINARY(less_or_equal, a <= b ? 1.0f : 0.0f)
UNARY(negative, -a)
UNARY(magnitude, fabsf(a))
UNARY(root, sqrtf(a))
UNARY(below, floorf(a))
UNARY(above, ceilf(a))
UNARY(nearest, rintf(a))
UNARY(exponential, tepi_lane_exp(a))
UNARY(logarithm, tepi_lane_log(a))
UNARY(error, tepi_lane_erf(a))
UNARY(tangent, tepi_lane_tanh(a))
UNARY(sigmoid, tepi_lane_sigmoid(a))

static void pick(const struct tepi_vector *v)
{
    for (size_t i = 0; i < v->count; i++) {
        const float b = v->b[i * v->b_step], c = v->c[i * v->c_step];
        v->out[i] = v->a[i * v->a_step] != 0.0f ? b : c;
    }
}

static void sum(const struct tepi_vector *v)
{
    float sums[TEPI_VECTOR_LANES] = {0};
    for (size_t i = 0; i < v->count; i++)
        sums[i % TEPI_VECTOR_LANES] += v->a[i * v->a_step];
    for (size_t half = TEPI_VECTOR_LANES / 2; half; half /= 2)
        for (size_t i = 0; i < half; i++)
            sums[i] += sums[i + half];
    v->out[0] = sums[0];
}

/* 0 is added that a zero is +0, whichever was met first. */
static void largest(const struct tepi_vector *v)
{
    float found = v->a[0];
    for (size_t i = 1; i < v->count; i++) {
        const float a = v->a[i * v->a_step];
        found = isnan(a) || a > found ? a : found;
        if (isnan(a))
            break;
    }
    v->out[0] = found + 0.0f;
}

static void smallest(const struct tepi_vector *v)
{
    float found = v->a[0];
    for (size_t i = 1; i < v->count; i++) {
        const float a = v->a[i * v->a_step];
        found = isnan(a) || a < found ? a : found;
        if (isnan(a))
            break;
    }
    v->out[0] = found + 0.0f;
}

static void store(const float *a, size_t a_step, float *out, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = tepi_stored_f32(a[i * a_step]);
}

static void range(const float *a, size_t count, float *lowest, float *highest)
{
    for (size_t i = 0; i < count; i++) {
        *lowest = a[i] < *lowest ? a[i] : *lowest;
        *highest = a[i] > *highest ? a[i] : *highest;
    }
}

const struct tepi_vector_kernels tepi_f32_vector_1_scalar = {
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
