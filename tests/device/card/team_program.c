/* SPDX-License-Identifier: Apache-2.0 */
#include "card/team_program.h"

#include <stdlib.h>
#include <string.h>

enum { OPERATIONS = 5, KINDS = 10 };

struct chain {
    struct builder builder;
    struct chance *chance;
    uint16_t image;
    uint32_t nhwc[4];
};

static uint32_t constant(struct chain *chain, size_t bytes)
{
    uint8_t *data = malloc(bytes);
    chance_fill(chain->chance, data, bytes);
    const uint32_t at = builder_constant(&chain->builder, data, bytes);
    free(data);
    return at;
}

static uint32_t multipliers(struct chain *chain, uint32_t count, uint32_t taps)
{
    float *data = malloc(count * sizeof(*data));
    for (uint32_t i = 0; i < count; i++)
        data[i] = (float)(1 + chance_below(chain->chance, 8)) / (float)(64 * taps);
    const uint32_t at = builder_constant(&chain->builder, data, count * sizeof(*data));
    free(data);
    return at;
}

static uint32_t biases(struct chain *chain, uint32_t count)
{
    int32_t *data = malloc(count * sizeof(*data));
    for (uint32_t i = 0; i < count; i++)
        data[i] = (int32_t)chance_below(chain->chance, 1 << 12) - (1 << 11);
    const uint32_t at = builder_constant(&chain->builder, data, count * sizeof(*data));
    free(data);
    return at;
}

/* The image that the next operation writes. Some bytes lie between it and the one before: a kernel
 * that reads past its input (TEPI_KERNEL_SLACK) would read what another thread is writing, which
 * reaches no result but is a race to ThreadSanitizer. */
static uint16_t next(struct chain *chain, const uint32_t nhwc[4])
{
    builder_arena(&chain->builder, (const uint32_t[]){1, 1, 1, TEPI_KERNEL_SLACK},
                  TEPI_KERNEL_SLACK, 0, 0);
    const uint16_t halo = (uint16_t)chance_below(chain->chance, 3) ? 1 : 0;
    const uint16_t image = builder_arena(&chain->builder, nhwc, nhwc[3], halo, 7);
    if (halo)
        builder_fill(&chain->builder, image, 7);
    return image;
}

static void convolve(struct chain *chain, uint32_t kind)
{
    struct chance *chance = chain->chance;
    const struct tepi_tensor *a = &chain->builder.tensors[chain->image];
    const uint32_t channels = chain->nhwc[3];
    const uint16_t kernel = a->halo_top && kind != 1 ? 3 : 1;
    const uint16_t stride = (uint16_t)(1 + (chance_below(chance, 3) == 0));
    const uint32_t groups = kind == 2 ? channels : kind == 3 && channels % 2 == 0 ? 2 : 1;
    const uint32_t few = chain->nhwc[1] * chain->nhwc[2] <= 256;
    const uint32_t wide = few ? 320 : 80;
    uint32_t to[4] = {chain->nhwc[0], 1 + (chain->nhwc[1] - 1) / stride,
                      1 + (chain->nhwc[2] - 1) / stride,
                      groups == channels ? channels : groups * (1 + chance_below(chance, wide))};
    const uint32_t taps = (uint32_t)kernel * kernel * (channels / groups);
    const struct tepi_conv_params conv = {
        .kernel_h = kernel,
        .kernel_w = kernel,
        .stride_h = stride,
        .stride_w = stride,
        .dilation_h = 1,
        .dilation_w = 1,
        .pad_top = kernel / 2,
        .pad_left = kernel / 2,
        .groups = groups,
        .weights = constant(chain, (size_t)taps * to[3]),
        .bias = biases(chain, to[3]),
        .multiplier = multipliers(chain, to[3], taps),
        .table = chance_below(chance, 4) ? TEPI_NONE : constant(chain, 256),
        .hi = 255,
    };
    const uint16_t out = next(chain, to);
    builder_add(&chain->builder, TEPI_OP_CONV, chain->image, out)->conv = conv;
    chain->image = out;
    memcpy(chain->nhwc, to, sizeof(to));
}

static void pool(struct chain *chain, uint8_t code)
{
    uint32_t to[4];
    memcpy(to, chain->nhwc, sizeof(to));
    struct tepi_pool_params params = {
        .kernel_h = 3,
        .kernel_w = 3,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .pad_top = 1,
        .pad_left = 1,
        .pad_bottom = 1,
        .pad_right = 1,
        .in_scale = code == TEPI_OP_AVGPOOL ? 0.5f : 0,
        .out_scale = code == TEPI_OP_AVGPOOL ? 0.25f : 0,
    };
    const uint16_t out = next(chain, to);
    builder_add(&chain->builder, code, chain->image, out)->pool = params;
    chain->image = out;
}

static void combine(struct chain *chain, uint32_t kind)
{
    struct builder *b = &chain->builder;
    const uint16_t from = chain->image, out = next(chain, chain->nhwc);
    const uint32_t table = kind < 8 ? 0 : constant(chain, 256);
    if (kind == 6) {
        struct tepi_instruction *in = builder_add(b, TEPI_OP_ADD, from, out);
        in->b = from;
        in->add = (struct tepi_add_params){
            .ratio_a = 0.75f, .ratio_b = 0.5f, .out_offset = 3, .table = TEPI_NONE, .hi = 255};
    } else if (kind == 7) {
        struct tepi_instruction *in = builder_add(b, TEPI_OP_MUL, from, out);
        in->b = from;
        in->mul = (struct tepi_mul_params){.ratio = 0.01f, .table = TEPI_NONE, .hi = 255};
    } else if (kind == 8) {
        builder_add(b, TEPI_OP_TABLE, from, out)->table.table = table;
    } else {
        float exponents[256];
        for (int i = 0; i < 256; i++)
            exponents[i] = 1.0f / (float)(1 + i);
        const uint32_t at = builder_constant(b, exponents, sizeof(exponents));
        builder_add(b, TEPI_OP_SOFTMAX, from, out)->softmax =
            (struct tepi_softmax_params){.table = at, .ratio = 255};
    }
    chain->image = out;
}

uint8_t *team_program(struct chance *chance, size_t *bytes, uint32_t items[2])
{
    struct chain chain = {.chance = chance};
    const uint32_t side =
        chance_below(chance, 2) ? 12 + chance_below(chance, 5) : 30 + chance_below(chance, 30);
    const uint32_t first[4] = {1, side, side, 2 * (1 + chance_below(chance, 32))};
    builder_init(&chain.builder);
    memcpy(chain.nhwc, first, sizeof(first));
    items[0] = side * side * first[3];
    const uint16_t input = builder_input(&chain.builder, TEPI_TYPE_U8, items[0]);
    chain.image = next(&chain, first);
    builder_load(&chain.builder, input, chain.image);
    for (int i = 0; i < OPERATIONS; i++) {
        const uint32_t kind = i == 0 ? chance_below(chance, 4) : chance_below(chance, KINDS);
        if (kind < 4)
            convolve(&chain, kind);
        else if (kind < 6)
            pool(&chain, kind == 4 ? TEPI_OP_MAXPOOL : TEPI_OP_AVGPOOL);
        else
            combine(&chain, kind);
    }
    items[1] = chain.nhwc[1] * chain.nhwc[2] * chain.nhwc[3];
    const uint16_t output = builder_output(&chain.builder, TEPI_TYPE_U8, items[1]);
    builder_store(&chain.builder, chain.image, output);
    uint8_t *image = builder_image(&chain.builder, bytes);
    builder_free(&chain.builder);
    return image;
}
