/* SPDX-License-Identifier: Apache-2.0 */
/* See specimen.h. */
#include "card/specimen.h"
#include <stdlib.h>
#include <string.h>

enum { MEMORY = 1 << 22, ITEM_MAX = 1 << 26 };

static const uint32_t extent[4] = {1, 4, 4, 8};

/* B x transposed B, the result x B with its heads side by side, and B normalized. */
static void add_products(struct builder *b, uint32_t table_at, uint32_t factors_at)
{
    struct tepi_instruction *in = builder_add(b, TEPI_OP_MATMUL, SPECIMEN_B, SPECIMEN_SCORES);
    in->b = SPECIMEN_B;
    in->matmul = (struct tepi_matmul_params){
        .multiplier = 0.01f, .b_transposed = 1, .table = table_at, .hi = 255};
    in = builder_add(b, TEPI_OP_MATMUL, SPECIMEN_SCORES, SPECIMEN_HEADS);
    in->b = SPECIMEN_B;
    in->matmul = (struct tepi_matmul_params){
        .multiplier = 0.01f, .heads = 4, .out_split = 1, .table = TEPI_NONE, .hi = 255};
    builder_add(b, TEPI_OP_LAYERNORM, SPECIMEN_B, SPECIMEN_B)->layernorm =
        (struct tepi_layernorm_params){.epsilon = 0.1f, .gamma = factors_at, .beta = factors_at};
}

static void add_compute(struct builder *b)
{
    int8_t weights[8 * 3 * 3 * 8];
    int32_t bias[8] = {0};
    float multiplier[8], exponentials[256];
    uint8_t table[256];
    const uint32_t indices[4] = {0, 1, 2, 3};
    struct chance chance = {.state = 5};
    chance_fill(&chance, weights, sizeof(weights));
    for (int i = 0; i < 256; i++) {
        table[i] = (uint8_t)(255 - i);
        exponentials[i] = (float)(i + 1);
        multiplier[i % 8] = 0.001f;
    }
    const uint32_t table_at = builder_constant(b, table, sizeof(table));
    const uint32_t factors_at = builder_constant(b, multiplier, sizeof(multiplier));
    builder_add(b, TEPI_OP_CONV, SPECIMEN_A, SPECIMEN_B)->conv = (struct tepi_conv_params){
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
        .bias = builder_constant(b, bias, sizeof(bias)),
        .multiplier = builder_constant(b, multiplier, sizeof(multiplier)),
        .table = table_at,
        .hi = 255,
    };
    struct tepi_instruction *in = builder_add(b, TEPI_OP_ADD, SPECIMEN_B, SPECIMEN_B);
    in->b = SPECIMEN_CONSTANT;
    in->add =
        (struct tepi_add_params){.ratio_a = 0.5f, .ratio_b = 0.5f, .table = table_at, .hi = 255};
    in = builder_add(b, TEPI_OP_MUL, SPECIMEN_B, SPECIMEN_B);
    in->b = SPECIMEN_CONSTANT;
    in->mul = (struct tepi_mul_params){.ratio = 0.01f, .table = table_at, .hi = 255};
    builder_add(b, TEPI_OP_TABLE, SPECIMEN_B, SPECIMEN_B)->table.table = table_at;
    struct tepi_pool_params pool = {.kernel_h = 3,
                                    .kernel_w = 3,
                                    .stride_h = 1,
                                    .stride_w = 1,
                                    .dilation_h = 1,
                                    .dilation_w = 1,
                                    .pad_top = 1,
                                    .pad_left = 1,
                                    .pad_bottom = 1,
                                    .pad_right = 1};
    builder_add(b, TEPI_OP_MAXPOOL, SPECIMEN_A, SPECIMEN_B)->pool = pool;
    pool.in_scale = pool.out_scale = 0.5f;
    pool.count_include_pad = 1;
    builder_add(b, TEPI_OP_AVGPOOL, SPECIMEN_A, SPECIMEN_B)->pool = pool;
    builder_add(b, TEPI_OP_RESIZE, SPECIMEN_A, SPECIMEN_B)->resize =
        (struct tepi_resize_params){.rows = builder_constant(b, indices, sizeof(indices)),
                                    .columns = builder_constant(b, indices, sizeof(indices))};
    builder_add(b, TEPI_OP_SOFTMAX, SPECIMEN_B, SPECIMEN_B)->softmax = (struct tepi_softmax_params){
        .table = builder_constant(b, exponentials, sizeof(exponentials)), .ratio = 255.0f};
    add_products(b, table_at, factors_at);
}

void specimen_make(struct specimen *s)
{
    struct builder b;
    const uint8_t pixel[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    builder_init(&b);
    builder_input(&b, TEPI_TYPE_F32, 128);
    builder_output(&b, TEPI_TYPE_U8, 128);
    builder_arena(&b, extent, 16, 1, 100);
    builder_arena(&b, extent, 8, 0, 3);
    builder_constant_image(&b, (const uint32_t[]){1, 1, 1, 8}, pixel);
    builder_output(&b, TEPI_TYPE_F32, 128);
    builder_output(&b, TEPI_TYPE_I8, 128);
    builder_arena(&b, (const uint32_t[]){1, 4, 4, 4}, 4, 0, 5);
    builder_arena(&b, (const uint32_t[]){1, 1, 4, 32}, 32, 0, 7);
    builder_fill(&b, SPECIMEN_A, 100);
    builder_load(&b, SPECIMEN_INPUT, SPECIMEN_A);
    add_compute(&b);
    builder_store(&b, SPECIMEN_B, SPECIMEN_OUTPUT);
    builder_store(&b, SPECIMEN_B, SPECIMEN_FLOATS);
    builder_store(&b, SPECIMEN_B, SPECIMEN_BYTES);
    specimen_open(s, &b);
    builder_free(&b);
}

void specimen_open(struct specimen *s, const struct builder *b)
{
    s->image = builder_image(b, &s->bytes);
    s->header = (struct tepi_program_header *)(void *)s->image;
    s->tensors = (struct tepi_tensor *)(void *)(s->image + s->header->tensors_offset);
    s->instructions =
        (struct tepi_instruction *)(void *)(s->image + s->header->instructions_offset);
    s->constants = s->image + s->header->constants_offset;
}

void specimen_free(struct specimen *s)
{
    free(s->image);
}

static void run(const struct tepi_program *program, struct tepi_verdict *found)
{
    void *ports[TEPI_PORTS_MAX] = {0};
    const uint32_t count = tepi_program_inputs(program) + tepi_program_outputs(program);
    const uint64_t scratch_bytes = tepi_program_scratch_bytes(program);
    void *scratch = NULL;
    uint64_t total = scratch_bytes;
    for (uint32_t i = 0; i < count; i++)
        total += tepi_program_port_bytes(program, i);
    if (total > ITEM_MAX)
        return; /* valid, but not worth a test's time */
    scratch = aligned_alloc(64, (size_t)((scratch_bytes + 63) / 64 * 64));
    memset(scratch, 0x77, (size_t)scratch_bytes);
    for (uint32_t i = 0; i < count; i++)
        ports[i] = calloc(1, (size_t)tepi_program_port_bytes(program, i));
    /* The deadline has passed unless the work is small. */
    const struct tepi_run_control control = {.deadline_ns = tepi_program_macs(program) > ITEM_MAX};
    *found = tepi_program_run(program, ports, scratch, &control);
    for (uint32_t i = 0; i < count; i++)
        free(ports[i]);
    free(scratch);
}

struct tepi_verdict specimen_try_unsealed(const uint8_t *image, size_t bytes,
                                          const struct tepi_kernel_set *kernels)
{
    struct tepi_memory memory = {.bytes = MEMORY};
    struct tepi_program *program = NULL;
    uint8_t *copy = malloc(bytes ? bytes : 1);
    memcpy(copy, image, bytes);
    struct tepi_verdict found = tepi_program_load(copy, bytes, kernels, &memory, &program);
    free(copy);
    if (found.fault == TEPI_FAULT_OK)
        run(program, &found);
    tepi_program_free(program);
    if (tepi_memory_free(&memory) != memory.bytes)
        abort();
    return found;
}

struct tepi_verdict specimen_try(const uint8_t *image, size_t bytes,
                                 const struct tepi_kernel_set *kernels)
{
    uint8_t *sealed = malloc(bytes ? bytes : 1);
    memcpy(sealed, image, bytes);
    if (bytes >= sizeof(struct tepi_program_header))
        builder_seal(sealed, bytes);
    const struct tepi_verdict found = specimen_try_unsealed(sealed, bytes, kernels);
    free(sealed);
    return found;
}
