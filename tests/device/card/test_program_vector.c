/* SPDX-License-Identifier: Apache-2.0 */
/* VECTOR: random programs on rows, single values, uint8 and float32, in place or not, cut into
 * blocks or not, against their definition. */
#include "card/vector_program.h"
#include "check.h"
#include <stdlib.h>

enum { PROGRAMS = 400, LARGE = 60 };

static int run_and_compare(struct vector_program *p, const struct tepi_kernel_set *kernels)
{
    static uint8_t found[VECTOR_OPERANDS][4 * VECTOR_ELEMENTS];
    void *outputs[VECTOR_OPERANDS];
    for (uint32_t i = 0; i < p->targets; i++)
        outputs[i] = found[i];
    if (builder_run_on(&p->builder, kernels, p->input_bytes, outputs).fault)
        return -1;
    for (uint32_t i = 0; i < p->targets; i++) {
        const struct vector_operand *o = &p->operands[p->sources + i];
        const size_t bytes = (size_t)o->nhwc[0] * o->nhwc[1] * o->nhwc[2] * o->nhwc[3] *
                             (o->type == TEPI_TYPE_F32 ? 4 : 1);
        if (memcmp(found[i], o->bytes, bytes) != 0)
            return 1 + (int)i;
    }
    return 0;
}

static void check_programs(int *check_failures, uint64_t seed, int count, bool large)
{
    struct vector_program *p = malloc(sizeof(*p)), *expected = malloc(sizeof(*p));
    struct chance chance = {.state = seed};
    int twins = 0;
    for (int i = 0; i < count && !*check_failures; i++) {
        vector_program_make(p, &chance, large);
        twins += p->twin < p->sources;
        memcpy(expected, p, sizeof(*p));
        vector_program_expect(expected);
        memcpy(&p->operands[p->sources], &expected->operands[p->sources],
               p->targets * sizeof(p->operands[0]));
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)) && !*check_failures; k++) {
            const int verdict = run_and_compare(p, kernels);
            if (verdict) {
                fprintf(stderr, "program %d on set %u: %d\n", i, k, verdict);
                ++*check_failures;
            }
        }
        builder_free(&p->builder);
    }
    if (twins == 0)
        ++*check_failures;
    free(p);
    free(expected);
}

CHECK_CASE(random_programs_equal_their_definition)
{
    check_programs(check_failures, 17, PROGRAMS, false);
}

CHECK_CASE(rows_longer_than_a_block)
{
    check_programs(check_failures, 18, LARGE, true);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(random_programs_equal_their_definition),
    CHECK_ENTRY(rows_longer_than_a_block),
};
CHECK_MAIN(cases)
