/* SPDX-License-Identifier: Apache-2.0 */
/* See float_specimen.h. */
#include "card/float_specimen.h"

static const struct tepi_vector_step steps[FLOATS_STEPS] = {
    [FLOATS_STEP_ROWS] = {.code = TEPI_VECTOR_LOAD, .out = 0, .a = 0},
    [FLOATS_STEP_GAMMA] = {.code = TEPI_VECTOR_LOAD, .out = 1, .a = 1},
    [FLOATS_STEP_MUL] = {.code = TEPI_VECTOR_MUL, .out = 2, .a = 0, .b = 1},
    [FLOATS_STEP_SUM] = {.code = TEPI_VECTOR_SUM, .out = 3, .a = 2},
    [FLOATS_STEP_STORE_SUM] = {.code = TEPI_VECTOR_STORE, .out = 1, .a = 3},
    [FLOATS_STEP_VALUE] = {.code = TEPI_VECTOR_VALUE, .out = 4, .value = 0.5f},
    [FLOATS_STEP_SELECT] = {.code = TEPI_VECTOR_SELECT, .out = 5, .a = 2, .b = 4, .c = 3},
    [FLOATS_STEP_EXP] = {.code = TEPI_VECTOR_EXP, .out = 2, .a = 5},
    [FLOATS_STEP_IMAGE] = {.code = TEPI_VECTOR_LOAD, .out = 15, .a = 2},
    [FLOATS_STEP_ADD] = {.code = TEPI_VECTOR_ADD, .out = 2, .a = 2, .b = 15},
    [FLOATS_STEP_STORE_IMAGE] = {.code = TEPI_VECTOR_STORE, .out = 2, .a = 2},
    [FLOATS_STEP_STORE_ROWS] = {.code = TEPI_VECTOR_STORE, .out = 0, .a = 2},
};

static void add_convolution(struct builder *b)
{
    int8_t weights[8 * 3 * 3 * 8];
    float multiplier[8];
    struct chance chance = {.state = 6};
    chance_fill(&chance, weights, sizeof(weights));
    for (int i = 0; i < 8; i++)
        multiplier[i] = 0.001f;
    struct tepi_instruction *in = builder_add(b, TEPI_OP_CONV, FLOATS_IMAGE, FLOATS_ROWS);
    in->b = FLOATS_QUANTIZATION;
    in->conv = (struct tepi_conv_params){
        .kernel_h = 3,
        .kernel_w = 3,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .pad_top = 1,
        .pad_left = 1,
        .groups = 1,
        .weights = builder_constant(b, weights, sizeof(weights)),
        .bias = TEPI_NONE,
        .multiplier = builder_constant(b, multiplier, sizeof(multiplier)),
        .table = TEPI_NONE,
        .hi = 255,
        .addend = builder_constant(b, multiplier, sizeof(multiplier)),
    };
}

static void add_products(struct builder *b)
{
    builder_fill(b, FLOATS_TABLE, 9);
    builder_add(b, TEPI_OP_GATHER, FLOATS_TABLE, FLOATS_FOUND)->b = FLOATS_INDICES;
    struct tepi_instruction *in = builder_add(b, TEPI_OP_FMATMUL, FLOATS_FOUND, FLOATS_PRODUCT);
    in->b = FLOATS_FOUND;
    in->fmatmul = (struct tepi_fmatmul_params){.scale = 0.5f, .b_transposed = 1};
    in = builder_add(b, TEPI_OP_FMATMUL, FLOATS_FOUND, FLOATS_SCORES);
    in->b = FLOATS_FOUND;
    in->fmatmul = (struct tepi_fmatmul_params){
        .scale = 0.5f, .heads = 2, .a_split = 1, .b_split = 1, .b_transposed = 1};
}

static void add_tensors(struct builder *b)
{
    static const uint32_t rows[4] = {1, 4, 4, 8}, sums[4] = {1, 4, 4, 1};
    static const float gamma[8] = {1, 2, 3, 4, 5, 6, 7, -8};
    builder_input(b, TEPI_TYPE_F32, 128);
    builder_input(b, TEPI_TYPE_I64, 4);
    builder_input(b, TEPI_TYPE_BOOL, 4);
    builder_output(b, TEPI_TYPE_F32, 128);
    builder_arena(b, rows, 8, 1, 100);
    builder_floats(b, rows, 10);
    builder_floats(b, sums, 1);
    builder_constant_floats(b, (const uint32_t[]){1, 1, 1, 8}, gamma);
    builder_floats(b, (const uint32_t[]){1, 1, 1, 2}, 2);
    builder_arena(b, (const uint32_t[]){1, 1, 4, 8}, 8, 0, 3);
    builder_floats(b, (const uint32_t[]){1, 1, 4, 8}, 8);
    builder_floats(b, (const uint32_t[]){1, 1, 4, 4}, 4);
    builder_floats(b, (const uint32_t[]){1, 2, 4, 4}, 4);
}

static void add_numbers(struct builder *b, uint16_t port)
{
    builder_add(b, TEPI_OP_MAP, port, FLOATS_PRODUCT)->map = (struct tepi_map_params){
        .rank = 1, .dims = {4}, .stride = {1}, .out_stride = {1}, .table = TEPI_NONE, .hi = 255};
}

void float_specimen_make(struct specimen *s)
{
    struct builder b;
    builder_init(&b);
    /* Ahead of the bulk, where a fuzzer looks for fields. */
    const uint32_t code = builder_constant(&b, steps, sizeof(steps));
    add_tensors(&b);
    builder_load(&b, FLOATS_INPUT, FLOATS_ROWS);
    add_numbers(&b, FLOATS_INDICES);
    add_numbers(&b, FLOATS_TRUTHS);
    builder_add(&b, TEPI_OP_RANGE, FLOATS_ROWS, FLOATS_QUANTIZATION);
    struct tepi_instruction *in = builder_add(&b, TEPI_OP_FILL, TEPI_NO_TENSOR, FLOATS_IMAGE);
    in->b = FLOATS_QUANTIZATION;
    in->fill.whole = 1;
    builder_load(&b, FLOATS_INPUT, FLOATS_IMAGE);
    b.instructions[FLOATS_QUANTIZE].b = FLOATS_QUANTIZATION;
    add_convolution(&b);
    builder_vector(&b, FLOATS_ROWS, 8, code, FLOATS_STEPS,
                   (const uint16_t[]){FLOATS_ROWS, FLOATS_GAMMA, FLOATS_IMAGE, TEPI_NO_TENSOR},
                   (const uint16_t[]){FLOATS_SUMS, FLOATS_IMAGE, TEPI_NO_TENSOR});
    add_products(&b);
    builder_store(&b, FLOATS_ROWS, FLOATS_OUTPUT);
    specimen_open(s, &b);
    builder_free(&b);
}
