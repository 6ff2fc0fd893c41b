/* SPDX-License-Identifier: Apache-2.0 */
/* The float32 kernels of every set against the scalar ones, over lengths, steps, special values and
 * the whole range of bits; and the functions against float64. */
#include "check.h"
#include "kernels/guarded.h"
#include "kernels/scalar/scalar.h"
#include "kernels/vector_variants.h"
#include <math.h>

enum { ROUNDS = 60, SWEEP_STEP = 4093, BATCH = 1024 };

CHECK_CASE(operations_agree_on_every_set)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 11;
        for (uint32_t operation = 0; operation < TEPI_F32_OPERATIONS; operation++) {
            /* Of one operand: reductions alone take a value for each element. */
            const bool unary = operation > TEPI_F32_SELECT && operation < TEPI_F32_SUM;
            for (int round = 0; round < ROUNDS; round++) {
                const uint32_t count = 1 + random_below(&random, round % 2 ? 70 : 1000);
                const uint32_t steps = unary ? 1 : random_below(&random, 8);
                tepi_check_vector(set, operation, count, steps, random_next(&random), why);
                if (why[0])
                    fprintf(stderr, "%s: %s\n", tepi_set_name(set), why);
                CHECK(why[0] == 0);
            }
        }
    }
}

CHECK_CASE(stores_and_ranges_agree_on_every_set)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 12;
        for (uint32_t count = 1; count < 200; count++) {
            tepi_check_stored(set, count, random_below(&random, 2), random_next(&random), why);
            if (why[0])
                fprintf(stderr, "%s: %s\n", tepi_set_name(set), why);
            CHECK(why[0] == 0);
        }
    }
}

CHECK_CASE(products_agree_on_every_set)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 13;
        for (int round = 0; round < 5 * ROUNDS; round++) {
            uint64_t *r = &random;
            const struct tepi_fmatmul_case shape = {
                .rows = 1 + random_below(r, 30),
                .depth = 1 + random_below(r, random_below(r, 2) ? 12 : 100),
                .columns = 1 + random_below(r, random_below(r, 2) ? 20 : 90),
                .b_transposed = random_below(r, 2),
                .a_padding = random_below(r, 2) ? 0 : random_below(r, 20),
                .b_padding = random_below(r, 2) ? 0 : random_below(r, 20),
                .out_padding = random_below(r, 2) ? 0 : random_below(r, 20),
                .row_cut = random_below(r, 30),
            };
            tepi_check_fmatmul(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

struct function {
    const char *name;
    enum tepi_vector_operation operation;
    double (*exact)(double x);
    double bound; /* units of the last place, or of 2^-149 where results are not normal */
};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static const struct function functions[] = {
    {"exp", TEPI_F32_EXP, exp, 1.5},
    {"log", TEPI_F32_LOG, log, 1.5},
    {"erf", TEPI_F32_ERF, erf, 2.0},
    {"tanh", TEPI_F32_TANH, tanh, 2.5},
    {"sigmoid", TEPI_F32_SIGMOID, sigmoid, 2.5},
};

/* In units of the last place of the float32 nearest to `exact`. */
static double error_of(float found, double exact)
{
    const float near = (float)exact;
    if (isnan(exact) || isinf(near) || isinf(found))
        return isnan(found) == isnan(near) && (isnan(near) || found == near) ? 0 : INFINITY;
    int exponent;
    frexp(exact, &exponent);
    return fabs((double)found - exact) / ldexp(1.0, exponent - 24 > -149 ? exponent - 24 : -149);
}

/* Every SWEEP_STEPth float32 of both signs, on every set, of which all give the same bits. */
CHECK_CASE(functions_are_near_to_float64)
{
    for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
        double worst = 0;
        for (uint64_t first = 0; first <= UINT32_MAX; first += (uint64_t)SWEEP_STEP * BATCH) {
            static float x[BATCH + 16], found[BATCH], other[BATCH];
            for (uint64_t i = 0; i < BATCH; i++) {
                const uint32_t bits = (uint32_t)(first + i * SWEEP_STEP);
                memcpy(&x[i], &bits, sizeof(bits));
            }
            struct tepi_vector v = {.a = x, .a_step = 1, .count = BATCH, .out = found};
            tepi_set(0)->vector->operations[functions[f].operation](&v);
            for (uint32_t set = 1; set < tepi_sets(); set++) {
                v.out = other;
                tepi_set(set)->vector->operations[functions[f].operation](&v);
                for (int i = 0; i < BATCH; i++)
                    CHECK(memcmp(&found[i], &other[i], sizeof(float)) == 0 ||
                          (isnan(found[i]) && isnan(other[i])));
            }
            for (int i = 0; i < BATCH; i++)
                worst = fmax(worst, error_of(found[i], functions[f].exact((double)x[i])));
        }
        printf("%s: at most %.3f units of the last place\n", functions[f].name, worst);
        CHECK(worst <= functions[f].bound);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(operations_agree_on_every_set),
    CHECK_ENTRY(stores_and_ranges_agree_on_every_set),
    CHECK_ENTRY(products_agree_on_every_set),
    CHECK_ENTRY(functions_are_near_to_float64),
};

CHECK_MAIN(cases)
