/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that must be refused: each field tampered with in turn, under a fresh checksum, and
 * the limits themselves accepted. */
#include "card/specimen.h"
#include "card/tamper.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

#define INSTRUCTION(index) TEPI_FAULT_PROGRAM_INSTRUCTION, (index)
#define CONSTANT(index)    TEPI_FAULT_PROGRAM_CONSTANT, (index)

CHECK_CASE(unknown_code_flags_or_reserved_bytes)
{
    for (int at = 0; at < SPECIMEN_INSTRUCTIONS; at++) {
        REFUSED(i[at].code = 0, INSTRUCTION(at));
        REFUSED(i[at].code = 17, INSTRUCTION(at));
        REFUSED(i[at].code = 255, INSTRUCTION(at));
        REFUSED(i[at].flags = 1, INSTRUCTION(at));
        REFUSED(i[at].reserved = 1, INSTRUCTION(at));
        REFUSED(i[at].bytes[111] = 1, INSTRUCTION(at));
        ACCEPTED(i[at].node = 12345);
    }
    REFUSED(i[SPECIMEN_FILL].bytes[8] = 1, INSTRUCTION(SPECIMEN_FILL));
    REFUSED(i[SPECIMEN_TABLE].bytes[4] = 1, INSTRUCTION(SPECIMEN_TABLE));
    REFUSED(i[SPECIMEN_CONV].conv.reserved = 1, INSTRUCTION(SPECIMEN_CONV));
    for (int k = 0; k < 2; k++) {
        REFUSED(i[SPECIMEN_ADD].add.reserved[k] = 1, INSTRUCTION(SPECIMEN_ADD));
        REFUSED(i[SPECIMEN_MUL].mul.reserved[k] = 1, INSTRUCTION(SPECIMEN_MUL));
        REFUSED(i[SPECIMEN_LOAD].map.reserved[k] = 1, INSTRUCTION(SPECIMEN_LOAD));
    }
}

CHECK_CASE(operands_absent_unwanted_or_of_the_wrong_place)
{
    for (int at = 0; at < SPECIMEN_INSTRUCTIONS; at++) {
        REFUSED(i[at].out = SPECIMEN_TENSORS, INSTRUCTION(at));
        REFUSED(i[at].out = TEPI_NO_TENSOR, INSTRUCTION(at));
        REFUSED(i[at].out = SPECIMEN_INPUT, INSTRUCTION(at));
        REFUSED(i[at].out = SPECIMEN_CONSTANT, INSTRUCTION(at));
        if (at != SPECIMEN_FILL)
            REFUSED(i[at].a = TEPI_NO_TENSOR, INSTRUCTION(at));
        REFUSED(i[at].a = SPECIMEN_OUTPUT, INSTRUCTION(at));
        if (specimen_takes_b(at)) {
            REFUSED(i[at].b = TEPI_NO_TENSOR, INSTRUCTION(at));
            REFUSED(i[at].b = SPECIMEN_INPUT, INSTRUCTION(at));
            REFUSED(i[at].b = SPECIMEN_TENSORS, INSTRUCTION(at));
        } else if (at != SPECIMEN_CONV) { /* which may have a residual */
            REFUSED(i[at].b = SPECIMEN_A, INSTRUCTION(at));
        }
        if (at < SPECIMEN_STORE && at != SPECIMEN_LOAD) {
            REFUSED(i[at].out = SPECIMEN_OUTPUT, INSTRUCTION(at));
            REFUSED(i[at].a = SPECIMEN_INPUT, INSTRUCTION(at));
        }
    }
    REFUSED(i[SPECIMEN_FILL].a = SPECIMEN_A, INSTRUCTION(SPECIMEN_FILL));
}

/* A tensor that no other instruction uses takes the place of one operand. */
CHECK_CASE(extents_that_disagree)
{
    static const int unary[] = {SPECIMEN_ADD,      SPECIMEN_MUL,     SPECIMEN_TABLE,
                                SPECIMEN_MAXPOOL,  SPECIMEN_AVGPOOL, SPECIMEN_SOFTMAX,
                                SPECIMEN_LAYERNORM};
    for (size_t k = 0; k < sizeof(unary) / sizeof(unary[0]); k++)
        REFUSED(i[unary[k]].a = SPECIMEN_CONSTANT, INSTRUCTION(unary[k]));
    REFUSED(i[SPECIMEN_CONV].a = SPECIMEN_CONSTANT, INSTRUCTION(SPECIMEN_CONV));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_RESIZE], t[SPECIMEN_B].c = 7), INSTRUCTION(2));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_MAXPOOL], t[SPECIMEN_B].c = 7), INSTRUCTION(2));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_TABLE], i[2].a = SPECIMEN_A, t[SPECIMEN_B].h = 3),
            INSTRUCTION(2));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_TABLE], i[2].a = SPECIMEN_A, t[SPECIMEN_B].w = 3),
            INSTRUCTION(2));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_TABLE], i[2].a = SPECIMEN_A, t[SPECIMEN_B].c = 7),
            INSTRUCTION(2));
    REFUSED((i[SPECIMEN_CONV] = i[SPECIMEN_TABLE], i[2].a = SPECIMEN_A, t[SPECIMEN_B].n = 2,
             h->arena_bytes = 4096),
            INSTRUCTION(2));
    static const int windowed[] = {SPECIMEN_CONV, SPECIMEN_MAXPOOL, SPECIMEN_AVGPOOL,
                                   SPECIMEN_RESIZE};
    for (size_t k = 0; k < sizeof(windowed) / sizeof(windowed[0]); k++)
        REFUSED((i[2] = i[windowed[k]], t[SPECIMEN_B].n = 2, h->arena_bytes = 4096),
                INSTRUCTION(2));
    REFUSED(t[SPECIMEN_CONSTANT].c = 4, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(t[SPECIMEN_CONSTANT].n = 2, INSTRUCTION(SPECIMEN_ADD));
    REFUSED((t[SPECIMEN_CONSTANT].h = 2, t[SPECIMEN_CONSTANT].stride_n = 16),
            INSTRUCTION(SPECIMEN_ADD));
    REFUSED((t[SPECIMEN_CONSTANT].w = 2, t[SPECIMEN_CONSTANT].stride_h = 16,
             t[SPECIMEN_CONSTANT].stride_n = 16),
            INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_MUL].b = (i[SPECIMEN_ADD].b = SPECIMEN_B, t[SPECIMEN_CONSTANT].c = 4, 4),
            INSTRUCTION(SPECIMEN_MUL));
    ACCEPTED(t[SPECIMEN_CONSTANT].c = 1);
}

CHECK_CASE(fill_fields)
{
    REFUSED(i[SPECIMEN_FILL].fill.whole = 2, INSTRUCTION(SPECIMEN_FILL));
    REFUSED(i[SPECIMEN_FILL].fill.value = 256, INSTRUCTION(SPECIMEN_FILL));
    ACCEPTED(i[SPECIMEN_FILL].fill.whole = 0);
}

#define CONV_REFUSED(tampering)                                                                    \
    do {                                                                                           \
        REFUSED((c = &i[SPECIMEN_CONV].conv, tampering), INSTRUCTION(SPECIMEN_CONV));              \
    } while (0)

CHECK_CASE(conv_geometry_that_reads_outside)
{
    struct tepi_conv_params *c;
    CONV_REFUSED(c->kernel_h = 0);
    CONV_REFUSED(c->kernel_w = 0);
    CONV_REFUSED(c->kernel_h = 4);
    CONV_REFUSED(c->kernel_w = 4);
    CONV_REFUSED(c->kernel_h = 65535);
    CONV_REFUSED((c->kernel_h = 1025, c->dilation_h = 1));
    CONV_REFUSED(c->stride_h = 0);
    CONV_REFUSED(c->stride_w = 0);
    CONV_REFUSED(c->stride_h = 2);
    CONV_REFUSED(c->stride_w = 65535);
    CONV_REFUSED(c->dilation_h = 0);
    CONV_REFUSED(c->dilation_w = 0);
    CONV_REFUSED(c->dilation_h = 2);
    CONV_REFUSED(c->dilation_w = 1025);
    CONV_REFUSED((c->kernel_h = 1, c->pad_top = 0, c->dilation_h = 1025));
    CONV_REFUSED(c->pad_top = 0);
    CONV_REFUSED(c->pad_left = 0);
    CONV_REFUSED(c->pad_top = 2);
    CONV_REFUSED(c->pad_left = 65535);
    CONV_REFUSED(c->groups = 0);
    CONV_REFUSED(c->groups = 3);
    CONV_REFUSED(c->groups = UINT32_MAX);
    CONV_REFUSED((c->groups = 2, t[SPECIMEN_A].c = 9));
    CONV_REFUSED((c->groups = 2, t[SPECIMEN_B].c = 7));
    CONV_REFUSED((c->lo = 10, c->hi = 9));
    CONV_REFUSED((t[SPECIMEN_A].n = 2, h->arena_bytes = 4096));
    ACCEPTED(i[SPECIMEN_CONV].conv.groups = 2);
    ACCEPTED(i[SPECIMEN_CONV].conv.groups = 8);
    ACCEPTED(i[SPECIMEN_CONV].conv.kernel_w = 2);
}

CHECK_CASE(conv_constants_outside_misaligned_or_not_finite)
{
    const float nan_value = NAN;
    struct tepi_conv_params *c;
    REFUSED((c = &i[SPECIMEN_CONV].conv, c->weights = h->constants_bytes - 575),
            CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.weights = TEPI_NONE, CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.bias++, CONSTANT(SPECIMEN_CONV));
    REFUSED((c = &i[SPECIMEN_CONV].conv, c->bias = (uint32_t)h->constants_bytes - 28),
            CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.bias = TEPI_NONE, CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.multiplier += 2, CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.multiplier = TEPI_NONE, CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.table = (uint32_t)h->constants_bytes - 255,
            CONSTANT(SPECIMEN_CONV));
    REFUSED(i[SPECIMEN_CONV].conv.table = TEPI_NONE - 1, CONSTANT(SPECIMEN_CONV));
    REFUSED(memcpy(constants + i[SPECIMEN_CONV].conv.multiplier + 28, &nan_value, 4),
            CONSTANT(SPECIMEN_CONV));
    ACCEPTED(i[SPECIMEN_CONV].conv.table = TEPI_NONE);
    ACCEPTED(i[SPECIMEN_CONV].conv.weights++);
}

CHECK_CASE(add_and_mul_fields)
{
    REFUSED(i[SPECIMEN_ADD].add.ratio_a = NAN, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.ratio_b = INFINITY, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.fixed = -INFINITY, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.a_offset = 256, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.b_offset = -1, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.out_offset = INT32_MIN, INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.hi = (i[SPECIMEN_ADD].add.lo = 1, 0), INSTRUCTION(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_ADD].add.table = (uint32_t)h->constants_bytes, CONSTANT(SPECIMEN_ADD));
    REFUSED(i[SPECIMEN_MUL].mul.ratio = NAN, INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.zero = INFINITY, INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.a_zero_point = INT32_MAX, INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.b_zero_point = -1, INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.out_offset = 256, INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.hi = (i[SPECIMEN_MUL].mul.lo = 1, 0), INSTRUCTION(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_MUL].mul.table = TEPI_NONE - 255, CONSTANT(SPECIMEN_MUL));
    REFUSED(i[SPECIMEN_TABLE].table.table = TEPI_NONE, CONSTANT(SPECIMEN_TABLE));
    REFUSED(i[SPECIMEN_TABLE].table.table = (uint32_t)h->constants_bytes - 255,
            CONSTANT(SPECIMEN_TABLE));
}

#define POOL_REFUSED(tampering)                                                                    \
    do {                                                                                           \
        REFUSED((p = &i[SPECIMEN_MAXPOOL].pool, tampering), INSTRUCTION(SPECIMEN_MAXPOOL));        \
        REFUSED((p = &i[SPECIMEN_AVGPOOL].pool, tampering), INSTRUCTION(SPECIMEN_AVGPOOL));        \
    } while (0)

CHECK_CASE(pool_windows_empty_or_out_of_range)
{
    struct tepi_pool_params *p;
    POOL_REFUSED(p->kernel_h = 0);
    POOL_REFUSED(p->kernel_w = 1025);
    POOL_REFUSED(p->stride_h = 0);
    POOL_REFUSED(p->stride_w = 0);
    POOL_REFUSED(p->stride_h = 2); /* the last window starts below the image */
    POOL_REFUSED(p->stride_w = 65535);
    POOL_REFUSED(p->dilation_h = 0);
    POOL_REFUSED(p->dilation_w = 0);
    POOL_REFUSED((p->kernel_h = 2, p->dilation_h = 6)); /* taps step over the image */
    POOL_REFUSED(p->pad_top = 3);                       /* the first window lies above the image */
    POOL_REFUSED(p->pad_left = 3);
    /* Each window would hold a pixel, but finding that out takes too long. */
    POOL_REFUSED((p->kernel_h = 1024, p->dilation_h = 2, p->pad_top = 1025));
    POOL_REFUSED((p->kernel_w = 1024, p->dilation_w = 2, p->pad_left = 1025));
    POOL_REFUSED(p->pad_bottom = 1025);
    POOL_REFUSED(p->pad_right = 65535);
    POOL_REFUSED(p->count_include_pad = 2);
    REFUSED(i[SPECIMEN_MAXPOOL].pool.count_include_pad = 1, INSTRUCTION(SPECIMEN_MAXPOOL));
    REFUSED(i[SPECIMEN_MAXPOOL].pool.in_scale = 1, INSTRUCTION(SPECIMEN_MAXPOOL));
    REFUSED(i[SPECIMEN_MAXPOOL].pool.out_scale = 1, INSTRUCTION(SPECIMEN_MAXPOOL));
    REFUSED(i[SPECIMEN_AVGPOOL].pool.in_scale = 0, INSTRUCTION(SPECIMEN_AVGPOOL));
    REFUSED(i[SPECIMEN_AVGPOOL].pool.in_scale = INFINITY, INSTRUCTION(SPECIMEN_AVGPOOL));
    REFUSED(i[SPECIMEN_AVGPOOL].pool.out_scale = -1, INSTRUCTION(SPECIMEN_AVGPOOL));
    REFUSED(i[SPECIMEN_AVGPOOL].pool.out_scale = INFINITY, INSTRUCTION(SPECIMEN_AVGPOOL));
}

CHECK_CASE(resize_indices_and_softmax_tables)
{
    const uint32_t four = 4;
    const float infinite = INFINITY;
    REFUSED(i[SPECIMEN_RESIZE].resize.rows++, CONSTANT(SPECIMEN_RESIZE));
    REFUSED(i[SPECIMEN_RESIZE].resize.columns = TEPI_NONE, CONSTANT(SPECIMEN_RESIZE));
    REFUSED(i[SPECIMEN_RESIZE].resize.rows = (uint32_t)h->constants_bytes - 12,
            CONSTANT(SPECIMEN_RESIZE));
    REFUSED(memcpy(constants + i[SPECIMEN_RESIZE].resize.rows + 12, &four, 4),
            CONSTANT(SPECIMEN_RESIZE));
    REFUSED(memset(constants + i[SPECIMEN_RESIZE].resize.columns, 0xff, 4),
            CONSTANT(SPECIMEN_RESIZE));
    REFUSED(i[SPECIMEN_SOFTMAX].softmax.table = TEPI_NONE, CONSTANT(SPECIMEN_SOFTMAX));
    REFUSED(i[SPECIMEN_SOFTMAX].softmax.table += 4, CONSTANT(SPECIMEN_SOFTMAX));
    REFUSED(memcpy(constants + i[SPECIMEN_SOFTMAX].softmax.table, &infinite, 4),
            CONSTANT(SPECIMEN_SOFTMAX));
    REFUSED(i[SPECIMEN_SOFTMAX].softmax.ratio = NAN, INSTRUCTION(SPECIMEN_SOFTMAX));
}

#define MAP_REFUSED(tampering)                                                                     \
    do {                                                                                           \
        REFUSED((m = &i[SPECIMEN_LOAD].map, tampering), INSTRUCTION(SPECIMEN_LOAD));               \
        REFUSED((m = &i[SPECIMEN_STORE].map, tampering), INSTRUCTION(SPECIMEN_STORE));             \
    } while (0)

CHECK_CASE(map_indices_outside_their_tensors)
{
    struct tepi_map_params *m;
    MAP_REFUSED(m->rank = 0);
    MAP_REFUSED((m->rank = 0, memset(m->dims, 0, 24), memset(m->stride, 0, 24),
                 memset(m->out_stride, 0, 24)));
    MAP_REFUSED((m->rank = 7, m->dims[4] = m->dims[5] = 1));
    MAP_REFUSED((m->rank = 1, memset(m->dims, 0, 24), memset(m->stride, 0, 24),
                 memset(m->out_stride, 0, 24), m->dims[0] = (1u << 24) + 1));
    MAP_REFUSED(m->rank = 3);
    MAP_REFUSED(m->dims[3] = 0);
    MAP_REFUSED(m->dims[1] = 5);
    MAP_REFUSED(m->dims[0] = UINT32_MAX);
    MAP_REFUSED((m->rank = 6, m->dims[4] = 1, m->dims[5] = 0));
    MAP_REFUSED(m->dims[5] = 1);
    MAP_REFUSED(m->stride[4] = 1);
    MAP_REFUSED(m->out_stride[5] = 1);
    MAP_REFUSED(m->stride[3] = 30);
    MAP_REFUSED(m->stride[3] = INT32_MIN);
    MAP_REFUSED(m->out_stride[3] = 30);
    MAP_REFUSED(m->out_stride[1] = -1000);
    MAP_REFUSED(m->out_stride[1] = INT32_MAX);
    MAP_REFUSED(m->start = 128);
    MAP_REFUSED(m->start = UINT32_MAX);
    MAP_REFUSED(m->out_start = 129);
    MAP_REFUSED(m->out_start = UINT32_MAX);
    MAP_REFUSED((m->lo = 2, m->hi = 1));
    REFUSED((m = &i[SPECIMEN_STORE].map, m->out_start = 1), INSTRUCTION(SPECIMEN_STORE));
    REFUSED((m = &i[SPECIMEN_LOAD].map, m->start = 1), INSTRUCTION(SPECIMEN_LOAD));
    ACCEPTED(i[SPECIMEN_LOAD].map.stride[3] = 0);
    ACCEPTED((m = &i[SPECIMEN_LOAD].map, m->stride[3] = -1, m->start = 7));
}

CHECK_CASE(map_between_types_that_do_not_convert)
{
    REFUSED(t[SPECIMEN_INPUT].type = 3, TEPI_FAULT_PROGRAM_TENSOR, SPECIMEN_INPUT);
    REFUSED((i[SPECIMEN_LOAD].out = SPECIMEN_BYTES), INSTRUCTION(SPECIMEN_LOAD));
    REFUSED(i[SPECIMEN_LOAD].map.table = 0, INSTRUCTION(SPECIMEN_LOAD));
    REFUSED((t[SPECIMEN_INPUT].type = TEPI_TYPE_I8, i[SPECIMEN_LOAD].map.table = 0),
            INSTRUCTION(SPECIMEN_LOAD));
    REFUSED(i[SPECIMEN_STORE_FLOATS].map.table = 0, INSTRUCTION(SPECIMEN_STORE_FLOATS));
    REFUSED(i[SPECIMEN_STORE_BYTES].map.table = 0, INSTRUCTION(SPECIMEN_STORE_BYTES));
    REFUSED((t[SPECIMEN_INPUT].type = TEPI_TYPE_I8, t[SPECIMEN_INPUT].scale = 1,
             i[SPECIMEN_STORE_FLOATS].a = SPECIMEN_INPUT),
            INSTRUCTION(SPECIMEN_STORE_FLOATS));
    REFUSED(t[SPECIMEN_A].scale = 0, INSTRUCTION(SPECIMEN_LOAD));
    REFUSED(t[SPECIMEN_B].scale = 0, INSTRUCTION(SPECIMEN_STORE_FLOATS));
    REFUSED(i[SPECIMEN_STORE].map.table = (uint32_t)h->constants_bytes - 255,
            CONSTANT(SPECIMEN_STORE));
    ACCEPTED(i[SPECIMEN_STORE].map.table = 0);
    ACCEPTED(t[SPECIMEN_INPUT].type = TEPI_TYPE_I8);
    ACCEPTED(t[SPECIMEN_INPUT].type = TEPI_TYPE_U8);
}

/* Both stay inside their tensors by striding nowhere, and would run for hours. */
CHECK_CASE(work_without_end)
{
    struct tepi_map_params *m;
    REFUSED((m = &i[SPECIMEN_STORE].map, m->rank = 3, m->dims[0] = m->dims[1] = 1u << 24,
             m->dims[2] = 1u << 24, memset(m->stride, 0, 24), memset(m->out_stride, 0, 24),
             m->dims[3] = 0),
            INSTRUCTION(SPECIMEN_STORE));
    REFUSED((m = &i[SPECIMEN_STORE].map, m->rank = 2, m->dims[0] = 1u << 17, m->dims[1] = 1u << 16,
             memset(m->stride, 0, 24), memset(m->out_stride, 0, 24), m->dims[2] = m->dims[3] = 0),
            INSTRUCTION(SPECIMEN_STORE));
    /* 2^13 results of 2^20 taps each. */
    REFUSED((t[SPECIMEN_A].h = t[SPECIMEN_A].w = 1100, t[SPECIMEN_A].stride_h = 1102 * 16,
             t[SPECIMEN_A].stride_n = 1102 * 1102 * 16, t[SPECIMEN_A].offset = 1103 * 16,
             t[SPECIMEN_B].h = t[SPECIMEN_B].w = 32, t[SPECIMEN_B].stride_h = 32 * 8,
             t[SPECIMEN_B].stride_n = 32 * 32 * 8, h->arena_bytes = 1u << 30,
             i[SPECIMEN_CONV] = i[SPECIMEN_MAXPOOL], i[2].pool.kernel_h = i[2].pool.kernel_w = 1024,
             i[SPECIMEN_LOAD] = i[SPECIMEN_FILL]),
            INSTRUCTION(2));
}

static void add_convolution(struct builder *b, uint16_t a, uint16_t out, uint16_t kernel)
{
    static const int8_t weights[32 * 128 * 128];
    static const float constants[32];
    const uint32_t outs = b->tensors[out].c;
    builder_add(b, TEPI_OP_CONV, a, out)->conv = (struct tepi_conv_params){
        .kernel_h = kernel,
        .kernel_w = kernel,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = 1,
        .weights = builder_constant(b, weights, (size_t)outs * kernel * kernel),
        .bias = builder_constant(b, constants, outs * sizeof(int32_t)),
        .multiplier = builder_constant(b, constants, outs * sizeof(float)),
        .table = TEPI_NONE,
        .hi = 255};
}

static uint16_t fault_of(struct builder *b)
{
    size_t bytes;
    uint8_t *image = builder_image(b, &bytes);
    const struct tepi_verdict found = specimen_try(image, bytes, builder_kernels(0));
    free(image);
    builder_free(b);
    return found.fault;
}

/* 2^21 output pixels of 32 channels and 2^14 taps are 2^40 multiply-accumulates, which is allowed;
 * a row more, or one more instruction, is not. */
CHECK_CASE(convolution_without_end)
{
    enum { OUT = 32, KERNEL = 128 };
    for (uint32_t more = 0; more < 3; more++) {
        struct builder b;
        const uint32_t rows = 1024 + (more == 1);
        const uint32_t read[4] = {1, rows + KERNEL - 1, 2048 + KERNEL - 1, 1};
        const uint32_t written[4] = {1, rows, 2048, OUT};
        builder_init(&b);
        builder_output(&b, TEPI_TYPE_U8, 1);
        const uint16_t a = builder_arena(&b, read, 1, 0, 0);
        const uint16_t out = builder_arena(&b, written, OUT, 0, 0);
        add_convolution(&b, a, out, KERNEL);
        if (more == 2)
            builder_fill(&b, out, 0);
        CHECK_INT(fault_of(&b), more ? TEPI_FAULT_PROGRAM_INSTRUCTION : TEPI_FAULT_OK);
    }
}

/* 2^32 pixels in one piece: they must not be counted modulo 2^32. */
CHECK_CASE(an_image_as_large_as_the_arena_loads)
{
    struct builder b;
    builder_init(&b);
    builder_output(&b, TEPI_TYPE_U8, 1);
    const uint16_t image = builder_arena(&b, (const uint32_t[]){2, 1u << 19, 1u << 12, 1}, 1, 0, 0);
    CHECK_INT(b.header.arena_bytes, TEPI_ARENA_MAX);
    add_convolution(&b, image, image, 1);
    CHECK_INT(fault_of(&b), TEPI_FAULT_OK);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(unknown_code_flags_or_reserved_bytes),
    CHECK_ENTRY(operands_absent_unwanted_or_of_the_wrong_place),
    CHECK_ENTRY(extents_that_disagree),
    CHECK_ENTRY(fill_fields),
    CHECK_ENTRY(conv_geometry_that_reads_outside),
    CHECK_ENTRY(conv_constants_outside_misaligned_or_not_finite),
    CHECK_ENTRY(add_and_mul_fields),
    CHECK_ENTRY(pool_windows_empty_or_out_of_range),
    CHECK_ENTRY(resize_indices_and_softmax_tables),
    CHECK_ENTRY(map_indices_outside_their_tensors),
    CHECK_ENTRY(map_between_types_that_do_not_convert),
    CHECK_ENTRY(work_without_end),
    CHECK_ENTRY(convolution_without_end),
    CHECK_ENTRY(an_image_as_large_as_the_arena_loads),
};
CHECK_MAIN(cases)
