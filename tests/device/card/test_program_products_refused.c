/* SPDX-License-Identifier: Apache-2.0 */
/* MATMUL and LAYERNORM that must be refused: each field tampered with in turn. */
#include "card/specimen.h"
#include "card/tamper.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

#define INSTRUCTION(index) TEPI_FAULT_PROGRAM_INSTRUCTION, (index)
#define CONSTANT(index)    TEPI_FAULT_PROGRAM_CONSTANT, (index)

#define MATMUL_REFUSED(tampering)                                                                  \
    do {                                                                                           \
        REFUSED((p = &i[SPECIMEN_MATMUL].matmul, tampering), INSTRUCTION(SPECIMEN_MATMUL));        \
    } while (0)
#define SPLIT_REFUSED(tampering)                                                                   \
    do {                                                                                           \
        REFUSED((p = &i[SPECIMEN_MATMUL_SPLIT].matmul, tampering),                                 \
                INSTRUCTION(SPECIMEN_MATMUL_SPLIT));                                               \
    } while (0)

CHECK_CASE(matmul_fields_and_extents_that_disagree)
{
    struct tepi_matmul_params *p;
    MATMUL_REFUSED(p->multiplier = NAN);
    MATMUL_REFUSED(p->multiplier = INFINITY);
    MATMUL_REFUSED(p->b_transposed = 2);
    MATMUL_REFUSED(p->b_transposed = 0);
    MATMUL_REFUSED(p->heads = 1);
    MATMUL_REFUSED(p->reserved[0] = 1);
    MATMUL_REFUSED(p->reserved[1] = 1);
    MATMUL_REFUSED(p->hi = (p->lo = 1, 0));
    MATMUL_REFUSED((p->heads = 4, p->a_split = 1)); /* a has more than one row */
    MATMUL_REFUSED((p->heads = 4, p->b_split = 1));
    MATMUL_REFUSED((p->heads = 4, p->out_split = 1));
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].a = TEPI_NO_TENSOR);
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].b = TEPI_NO_TENSOR);
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].b = SPECIMEN_INPUT);
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].b = SPECIMEN_CONSTANT); /* one column, not four */
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].a = SPECIMEN_HEADS);
    MATMUL_REFUSED(i[SPECIMEN_MATMUL].out = SPECIMEN_CONSTANT);
    MATMUL_REFUSED(t[SPECIMEN_SCORES].h = 3);
    MATMUL_REFUSED(t[SPECIMEN_SCORES].w = 3);
    MATMUL_REFUSED(t[SPECIMEN_SCORES].c = 3);
    MATMUL_REFUSED((t[SPECIMEN_SCORES].n = 2, t[SPECIMEN_SCORES].h = 2));
    REFUSED(i[SPECIMEN_MATMUL].matmul.table = (uint32_t)h->constants_bytes,
            CONSTANT(SPECIMEN_MATMUL));
    ACCEPTED(i[SPECIMEN_MATMUL].matmul.table = TEPI_NONE);
}

CHECK_CASE(heads_that_do_not_divide_their_channels)
{
    struct tepi_matmul_params *p;
    SPLIT_REFUSED(p->heads = 0);
    SPLIT_REFUSED(p->heads = 3);
    SPLIT_REFUSED(p->heads = 8);
    SPLIT_REFUSED(p->heads = 64);
    SPLIT_REFUSED(p->heads = UINT32_MAX);
    SPLIT_REFUSED(p->out_split = 0);
    SPLIT_REFUSED(p->out_split = 2);
    SPLIT_REFUSED(p->a_split = 1);
    SPLIT_REFUSED(p->b_split = 255);
    SPLIT_REFUSED(p->b_transposed = 1);
    SPLIT_REFUSED(t[SPECIMEN_HEADS].c = 31);
    SPLIT_REFUSED(t[SPECIMEN_HEADS].c = 28);
    SPLIT_REFUSED(t[SPECIMEN_HEADS].w = 3);
    SPLIT_REFUSED(
        (t[SPECIMEN_HEADS].h = 2, t[SPECIMEN_HEADS].w = 2, t[SPECIMEN_HEADS].stride_h = 64));
}

CHECK_CASE(layernorm_fields)
{
    const float nan_value = NAN;
    struct tepi_layernorm_params *p;
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.epsilon = 0, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.epsilon = -1, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.epsilon = NAN, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.epsilon = INFINITY, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].a = SPECIMEN_A + 100, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].a = SPECIMEN_SCORES, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].b = SPECIMEN_B, INSTRUCTION(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.gamma++, CONSTANT(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.beta += 2, CONSTANT(SPECIMEN_LAYERNORM));
    REFUSED(i[SPECIMEN_LAYERNORM].layernorm.gamma = TEPI_NONE, CONSTANT(SPECIMEN_LAYERNORM));
    REFUSED((p = &i[SPECIMEN_LAYERNORM].layernorm, p->beta = (uint32_t)h->constants_bytes - 28),
            CONSTANT(SPECIMEN_LAYERNORM));
    REFUSED(memcpy(constants + i[SPECIMEN_LAYERNORM].layernorm.beta + 28, &nan_value, 4),
            CONSTANT(SPECIMEN_LAYERNORM));
    ACCEPTED(i[SPECIMEN_LAYERNORM].layernorm.epsilon = 1e-45f);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(matmul_fields_and_extents_that_disagree),
    CHECK_ENTRY(heads_that_do_not_divide_their_channels),
    CHECK_ENTRY(layernorm_fields),
};
CHECK_MAIN(cases)
