/* SPDX-License-Identifier: Apache-2.0 */
/* Random VECTOR programs, and what they compute, element by element. */
#ifndef TEPI_TESTS_CARD_VECTOR_PROGRAM_H
#define TEPI_TESTS_CARD_VECTOR_PROGRAM_H

#include "card/builder.h"

enum { VECTOR_ELEMENTS = 1 << 14, VECTOR_OPERANDS = 8, VECTOR_STEPS = 24 };

/* A source or target: a port and an image that MAP moves it to or from. */
struct vector_operand {
    uint32_t nhwc[4];
    uint16_t port, image;
    uint8_t type;
    float scale;
    int32_t zero_point;
    bool constant;
    union {
        float floats[VECTOR_ELEMENTS];
        uint8_t bytes[VECTOR_ELEMENTS];
    };
};

struct vector_program {
    struct builder builder;
    uint32_t nhw[3], row;
    uint32_t sources, targets, inputs, count;
    uint32_t twin;                                   /* source that target 0 is; `sources`: none */
    struct vector_operand operands[VECTOR_OPERANDS]; /* the targets behind the sources */
    struct tepi_vector_step steps[VECTOR_STEPS];
    const void *input_bytes[VECTOR_OPERANDS];
};

/* Large rows are longer than a block of the executor. */
void vector_program_make(struct vector_program *program, struct chance *chance, bool large);
/* Fills the targets' elements with what the program makes of its sources. */
void vector_program_expect(struct vector_program *program);

#endif
