/* SPDX-License-Identifier: Apache-2.0 */
/* A second specimen: a small valid program that uses every instruction on float32. */
#ifndef TEPI_TESTS_CARD_FLOAT_SPECIMEN_H
#define TEPI_TESTS_CARD_FLOAT_SPECIMEN_H

#include "card/specimen.h"

/* Its tensors and instructions, by index. */
enum {
    FLOATS_INPUT,   /* 128 of float32 */
    FLOATS_INDICES, /* 4 of int64 */
    FLOATS_TRUTHS,  /* 4 of bool */
    FLOATS_OUTPUT,
    FLOATS_IMAGE, /* uint8, 4 x 4 x 8 with a halo */
    FLOATS_ROWS,  /* 4 x 4 x 8, gaps between the pixels */
    FLOATS_SUMS,  /* 4 x 4 x 1 */
    FLOATS_GAMMA, /* constant, 8 */
    FLOATS_QUANTIZATION,
    FLOATS_TABLE, /* uint8, 4 rows of 8 */
    FLOATS_FOUND, /* 4 rows of 8 */
    FLOATS_PRODUCT,
    FLOATS_SCORES, /* 2 products of 4 x 4 */
    FLOATS_TENSORS
};
enum {
    FLOATS_LOAD,
    FLOATS_NUMBERS,
    FLOATS_LOAD_TRUTHS,
    FLOATS_RANGE,
    FLOATS_FILL,
    FLOATS_QUANTIZE,
    FLOATS_CONV,
    FLOATS_VECTOR,
    FLOATS_FILL_TABLE,
    FLOATS_GATHER,
    FLOATS_FMATMUL,
    FLOATS_FMATMUL_SPLIT,
    FLOATS_STORE,
    FLOATS_INSTRUCTIONS
};
/* The steps of VECTOR, by index. */
enum {
    FLOATS_STEP_ROWS,
    FLOATS_STEP_GAMMA,
    FLOATS_STEP_MUL,
    FLOATS_STEP_SUM,
    FLOATS_STEP_STORE_SUM,
    FLOATS_STEP_VALUE,
    FLOATS_STEP_SELECT,
    FLOATS_STEP_EXP,
    FLOATS_STEP_IMAGE,
    FLOATS_STEP_ADD,
    FLOATS_STEP_STORE_IMAGE,
    FLOATS_STEP_STORE_ROWS,
    FLOATS_STEPS
};

void float_specimen_make(struct specimen *specimen);

#endif
