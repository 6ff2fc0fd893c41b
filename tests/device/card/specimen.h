/* SPDX-License-Identifier: Apache-2.0 */
/* A small valid program that uses every instruction, opened for tampering. */
#ifndef TEPI_TESTS_CARD_SPECIMEN_H
#define TEPI_TESTS_CARD_SPECIMEN_H

#include "card/builder.h"

/* Tensors and instructions of the specimen, by index. */
enum {
    SPECIMEN_INPUT,
    SPECIMEN_OUTPUT,
    SPECIMEN_A,
    SPECIMEN_B,
    SPECIMEN_CONSTANT,
    SPECIMEN_FLOATS,
    SPECIMEN_BYTES,  /* int8 output */
    SPECIMEN_SCORES, /* 4 products of 4 x 4 */
    SPECIMEN_HEADS,  /* 4 x 8 of each side by side */
    SPECIMEN_TENSORS
};
enum {
    SPECIMEN_FILL,
    SPECIMEN_LOAD,
    SPECIMEN_CONV,
    SPECIMEN_ADD,
    SPECIMEN_MUL,
    SPECIMEN_TABLE,
    SPECIMEN_MAXPOOL,
    SPECIMEN_AVGPOOL,
    SPECIMEN_RESIZE,
    SPECIMEN_SOFTMAX,
    SPECIMEN_MATMUL,
    SPECIMEN_MATMUL_SPLIT,
    SPECIMEN_LAYERNORM,
    SPECIMEN_STORE,
    SPECIMEN_STORE_FLOATS,
    SPECIMEN_STORE_BYTES,
    SPECIMEN_INSTRUCTIONS
};

/* Whether an instruction has a second operand. */
static inline bool specimen_takes_b(int at)
{
    return at == SPECIMEN_ADD || at == SPECIMEN_MUL || at == SPECIMEN_MATMUL ||
           at == SPECIMEN_MATMUL_SPLIT;
}

struct specimen {
    uint8_t *image;
    size_t bytes;
    struct tepi_program_header *header; /* these point into the image */
    struct tepi_tensor *tensors;
    struct tepi_instruction *instructions;
    uint8_t *constants;
};

void specimen_make(struct specimen *specimen);
/* The specimen of any program. */
void specimen_open(struct specimen *specimen, const struct builder *builder);
void specimen_free(struct specimen *specimen);

/* Seals the bytes, loads them from an exact allocation and, if that goes well, runs them once in
 * exact allocations. */
struct tepi_verdict specimen_try(const uint8_t *image, size_t bytes,
                                 const struct tepi_kernel_set *kernels);
/* The same without sealing. */
struct tepi_verdict specimen_try_unsealed(const uint8_t *image, size_t bytes,
                                          const struct tepi_kernel_set *kernels);

#endif
