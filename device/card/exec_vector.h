/* SPDX-License-Identifier: Apache-2.0 */
/* VECTOR's steps made into acts, see exec.h. */
#ifndef TEPI_CARD_EXEC_VECTOR_H
#define TEPI_CARD_EXEC_VECTOR_H

#include "card/exec.h"

/* Places by number: cells of scratch for rows, for single values, sources, values. */
enum {
    TEPI_PLACE_ROW = 0,
    TEPI_PLACE_SINGLE = TEPI_VECTOR_CELLS,
    TEPI_PLACE_SOURCE = 2 * TEPI_VECTOR_CELLS,
    TEPI_PLACE_VALUE = TEPI_PLACE_SOURCE + TEPI_VECTOR_SOURCES,
    TEPI_PLACES = TEPI_PLACE_VALUE + TEPI_VECTOR_STEPS_MAX,
};

/* The steps of one instruction, as the constants have them. */
struct tepi_vector_program {
    struct tepi_vector_step steps[TEPI_VECTOR_STEPS_MAX];
    uint32_t count, sources, targets;
};

/* Of the model's rows, before they are joined: whether each step and register is as abi/program.h
 * wants it. `single` tells of each source, then each target, whether it has one value per row. */
bool tepi_vector_valid(const struct tepi_vector_program *program, const bool *single);
/* Whether an operation reduces a row. */
bool tepi_vector_reduces(const struct tepi_vector_program *program);

/* What the acts do, in elements of simple operations. */
struct tepi_vector_acts {
    struct tepi_vector_act acts[TEPI_VECTOR_STEPS_MAX];
    float values[TEPI_VECTOR_STEPS_MAX];
    uint32_t count, rows, singles;
    uint64_t work; /* for each element */
};
/* `twin` gives for each source the target that is the same tensor, or TEPI_VECTOR_TARGETS. */
void tepi_vector_decode(const struct tepi_vector_program *program,
                        const struct tepi_vector_operand *operands, const uint8_t *twin,
                        struct tepi_vector_acts *acts);

#endif
