/* SPDX-License-Identifier: Apache-2.0 */
/* VECTOR that must be refused: each field of the instruction, its operands and its steps tampered
 * with in turn, and the limits themselves accepted. */
#include "card/float_specimen.h"
#include "card/tamper.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

/* `p` and `step` are the instruction's parameters and its steps. */
#define VECTOR(tampering, ...)                                                                     \
    TAMPERED(float_specimen_make,                                                                  \
             (p = &i[FLOATS_VECTOR].vector,                                                        \
              step = (struct tepi_vector_step *)(void *)(constants + p->code), tampering),         \
             __VA_ARGS__)
#define VECTOR_REFUSED(tampering)  VECTOR(tampering, TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_VECTOR)
#define VECTOR_ACCEPTED(tampering) VECTOR(tampering, TEPI_FAULT_OK, 0)

static struct tepi_vector_params *p;
static struct tepi_vector_step *step;

CHECK_CASE(parameters_out_of_range)
{
    VECTOR_REFUSED(p->row = 0);
    VECTOR_REFUSED(p->row = 7);
    VECTOR_REFUSED(p->row = 16);
    VECTOR_REFUSED(p->row = (1u << 24) + 1);
    VECTOR_REFUSED(p->row = UINT32_MAX);
    VECTOR_REFUSED(p->steps = 0);
    VECTOR_REFUSED(p->steps = 65);
    VECTOR_REFUSED(p->steps = UINT32_MAX);
    VECTOR_REFUSED(p->steps = FLOATS_STEPS - 1); /* a target is not stored */
    VECTOR_REFUSED(p->reserved = 1);
    VECTOR_REFUSED(p->reserved2 = 1);
    VECTOR_REFUSED(i[FLOATS_VECTOR].flags = 1);
    VECTOR_REFUSED(i[FLOATS_VECTOR].bytes[60] = 1);
    VECTOR(p->code++, TEPI_FAULT_PROGRAM_CONSTANT, FLOATS_VECTOR);
    VECTOR(p->code += 2, TEPI_FAULT_PROGRAM_CONSTANT, FLOATS_VECTOR);
    VECTOR(p->code = TEPI_NONE, TEPI_FAULT_PROGRAM_CONSTANT, FLOATS_VECTOR);
    VECTOR(p->code = ((uint32_t)h->constants_bytes - FLOATS_STEPS * 12 + 4) / 4 * 4,
           TEPI_FAULT_PROGRAM_CONSTANT, FLOATS_VECTOR);
    VECTOR_REFUSED(p->code += 4); /* other bytes than steps */
    VECTOR_ACCEPTED(i[FLOATS_VECTOR].node = 3);
}

CHECK_CASE(operands_of_the_wrong_place_type_or_extent)
{
    VECTOR_REFUSED(i[FLOATS_VECTOR].a = FLOATS_ROWS);
    VECTOR_REFUSED(i[FLOATS_VECTOR].b = FLOATS_ROWS);
    VECTOR_REFUSED(i[FLOATS_VECTOR].out = FLOATS_OUTPUT);
    VECTOR_REFUSED(i[FLOATS_VECTOR].out = FLOATS_GAMMA);
    VECTOR_REFUSED(i[FLOATS_VECTOR].out = FLOATS_TENSORS);
    VECTOR_REFUSED(i[FLOATS_VECTOR].out = TEPI_NO_TENSOR);
    VECTOR_REFUSED(i[FLOATS_VECTOR].out = FLOATS_FOUND); /* one row of pixels, not four */
    VECTOR_REFUSED(p->sources[0] = FLOATS_INPUT);
    VECTOR_REFUSED(p->sources[0] = FLOATS_INDICES);
    VECTOR_REFUSED(p->sources[0] = FLOATS_OUTPUT);
    VECTOR_REFUSED(p->sources[0] = FLOATS_TENSORS);
    VECTOR_REFUSED(p->sources[0] = FLOATS_PRODUCT);
    VECTOR_REFUSED(p->sources[0] = FLOATS_QUANTIZATION);
    VECTOR_REFUSED(p->sources[0] = FLOATS_SCORES);
    VECTOR_REFUSED(p->sources[0] = TEPI_NO_TENSOR); /* one follows it */
    VECTOR_REFUSED(p->sources[2] = TEPI_NO_TENSOR); /* and is loaded */
    VECTOR_REFUSED(p->sources[11] = FLOATS_ROWS);
    VECTOR_REFUSED(p->more[0] = FLOATS_GAMMA);
    VECTOR_REFUSED(p->more[0] = FLOATS_INPUT);
    VECTOR_REFUSED(p->more[0] = FLOATS_FOUND);
    VECTOR_REFUSED(p->more[0] = TEPI_NO_TENSOR);
    VECTOR_REFUSED(p->more[1] = TEPI_NO_TENSOR);
    VECTOR_REFUSED(p->more[1] = FLOATS_SUMS);  /* a row into one value */
    VECTOR_REFUSED(p->more[2] = FLOATS_IMAGE); /* never stored */
    VECTOR_REFUSED(p->more[2] = FLOATS_TENSORS);
    VECTOR_REFUSED(t[FLOATS_IMAGE].scale = 0);
    VECTOR_ACCEPTED(p->sources[1] = FLOATS_SUMS);
    VECTOR_ACCEPTED(p->sources[1] = FLOATS_ROWS);
    VECTOR_ACCEPTED(p->sources[3] = FLOATS_GAMMA);
    VECTOR_ACCEPTED(p->more[0] = FLOATS_ROWS); /* undefined, but harmless */
}

CHECK_CASE(steps_out_of_range)
{
    for (uint32_t k = 0; k < FLOATS_STEPS; k++) {
        VECTOR_REFUSED(step[k].code = 0);
        VECTOR_REFUSED(step[k].code = 29);
        VECTOR_REFUSED(step[k].code = 255);
        VECTOR_REFUSED(step[k].out = 16);
        VECTOR_REFUSED(step[k].out = 255);
        VECTOR_REFUSED(step[k].a = 16);
        VECTOR_REFUSED(step[k].b = 16);
        VECTOR_REFUSED(step[k].c = 255);
        VECTOR_REFUSED(step[k].reserved[0] = 1);
        VECTOR_REFUSED(step[k].reserved[2] = 1);
        VECTOR_REFUSED(step[k].value = NAN);
        if (k != FLOATS_STEP_VALUE)
            VECTOR_REFUSED(step[k].value = 1);
        if (k != FLOATS_STEP_SELECT)
            VECTOR_REFUSED(step[k].c = 1);
    }
    VECTOR_REFUSED(step[FLOATS_STEP_ROWS].a = 3); /* sources are 0..2 */
    VECTOR_REFUSED(step[FLOATS_STEP_ROWS].b = 1);
    VECTOR_REFUSED(step[FLOATS_STEP_VALUE].a = 1);
    VECTOR_REFUSED(step[FLOATS_STEP_EXP].b = 1);
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_SUM].b = 1);
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_SUM].out = 3); /* targets are 0..2 */
    VECTOR_ACCEPTED(step[FLOATS_STEP_VALUE].value = INFINITY);
    VECTOR_ACCEPTED(step[FLOATS_STEP_VALUE].value = -INFINITY);
}

CHECK_CASE(registers_read_before_they_are_written)
{
    VECTOR_REFUSED(step[FLOATS_STEP_MUL].a = 9);
    VECTOR_REFUSED(step[FLOATS_STEP_MUL].b = 2);
    VECTOR_REFUSED(step[FLOATS_STEP_SELECT].c = 14);
    VECTOR_REFUSED(step[FLOATS_STEP_SUM].a = 3);
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_ROWS].a = 13);
    VECTOR_REFUSED(step[FLOATS_STEP_GAMMA].out = 8);
}

CHECK_CASE(targets_stored_twice_never_or_from_a_row)
{
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_ROWS].out = 2);
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_SUM].a = 2); /* a row */
    VECTOR_REFUSED(step[FLOATS_STEP_SUM].code = TEPI_VECTOR_NEG);
    VECTOR_REFUSED(step[FLOATS_STEP_STORE_SUM] = step[FLOATS_STEP_SUM]);
    VECTOR_ACCEPTED(step[FLOATS_STEP_STORE_ROWS].a = 3); /* the value becomes the row */
    VECTOR_ACCEPTED(step[FLOATS_STEP_SUM].code = TEPI_VECTOR_MAXOF);
    VECTOR_ACCEPTED((step[FLOATS_STEP_SUM] = step[FLOATS_STEP_VALUE], step[3].out = 3));
}

/* 64 steps on 2^32 elements. */
CHECK_CASE(work_without_end)
{
    static const struct tepi_vector_step copy[] = {
        {.code = TEPI_VECTOR_VALUE, .out = 1, .value = 1},
        {.code = TEPI_VECTOR_STORE, .a = 1},
    };
    for (uint32_t more = 0; more < 2; more++) {
        struct builder b;
        size_t bytes;
        const uint32_t nhwc[4] = {1, 1u << 15, 1u << 12, 16 + more};
        builder_init(&b);
        builder_output(&b, TEPI_TYPE_U8, 1);
        const uint16_t out = builder_arena(&b, nhwc, 17, 0, 0);
        builder_vector(&b, out, nhwc[3], builder_constant(&b, copy, sizeof(copy)), 2, NULL, NULL);
        uint8_t *image = builder_image(&b, &bytes);
        CHECK_INT(specimen_try(image, bytes, builder_kernels(0)).fault,
                  more ? TEPI_FAULT_PROGRAM_INSTRUCTION : TEPI_FAULT_OK);
        free(image);
        builder_free(&b);
    }
}

/* A row that is reduced stays whole, in scratch; one that is not, may be of any length. */
CHECK_CASE(rows_too_long_to_reduce)
{
    static const struct tepi_vector_step reduce[] = {
        {.code = TEPI_VECTOR_LOAD, .out = 1},
        {.code = TEPI_VECTOR_SUM, .out = 2, .a = 1},
        {.code = TEPI_VECTOR_STORE, .a = 2},
    };
    static const struct tepi_vector_step copy[] = {
        {.code = TEPI_VECTOR_LOAD, .out = 1},
        {.code = TEPI_VECTOR_STORE, .a = 1},
    };
    for (uint32_t kind = 0; kind < 3; kind++) {
        struct builder b;
        size_t bytes;
        const uint32_t row = TEPI_VECTOR_ROW_MAX + (kind > 0);
        const uint32_t nhwc[4] = {1, 1, 1, row}, one[4] = {1, 1, 1, 1};
        builder_init(&b);
        builder_output(&b, TEPI_TYPE_U8, 1);
        const uint16_t a = builder_arena(&b, nhwc, row, 0, 0);
        const uint16_t out = builder_floats(&b, kind == 2 ? nhwc : one, kind == 2 ? row : 1);
        const uint32_t code = builder_constant(&b, kind == 2 ? copy : reduce,
                                               kind == 2 ? sizeof(copy) : sizeof(reduce));
        builder_vector(&b, out, row, code, kind == 2 ? 2 : 3, (const uint16_t[]){a, TEPI_NO_TENSOR},
                       NULL);
        uint8_t *image = builder_image(&b, &bytes);
        CHECK_INT(specimen_try(image, bytes, builder_kernels(0)).fault,
                  kind == 1 ? TEPI_FAULT_PROGRAM_INSTRUCTION : TEPI_FAULT_OK);
        free(image);
        builder_free(&b);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(parameters_out_of_range),
    CHECK_ENTRY(operands_of_the_wrong_place_type_or_extent),
    CHECK_ENTRY(steps_out_of_range),
    CHECK_ENTRY(registers_read_before_they_are_written),
    CHECK_ENTRY(targets_stored_twice_never_or_from_a_row),
    CHECK_ENTRY(work_without_end),
    CHECK_ENTRY(rows_too_long_to_reduce),
};
CHECK_MAIN(cases)
