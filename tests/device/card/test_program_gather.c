/* SPDX-License-Identifier: Apache-2.0 */
/* GATHER of uint8 and float32 rows, from the arena and from constants, by both kinds of indices;
 * and indices outside the table. */
#include "card/builder.h"
#include "check.h"
#include <math.h>

enum { ROWS = 7, CHANNELS = 20, PIXELS = 9 };

static const uint32_t table_nhwc[4] = {1, 1, ROWS, CHANNELS};
static const uint32_t out_nhwc[4] = {1, 1, PIXELS, CHANNELS};

struct lookup {
    uint8_t a_type, out_type, index_type;
    bool constant;
};

struct table {
    float floats[ROWS * CHANNELS];
    uint8_t bytes[ROWS * CHANNELS];
};

static void build(struct builder *b, const struct lookup *l, const struct table *table)
{
    builder_init(b);
    const uint16_t indices = builder_input(b, l->index_type, PIXELS);
    const uint16_t to = builder_output(b, l->out_type, PIXELS * CHANNELS);
    uint16_t a;
    if (l->constant && l->a_type == TEPI_TYPE_F32) {
        a = builder_constant_floats(b, table_nhwc, table->floats);
    } else if (l->constant) {
        a = builder_constant_image(b, table_nhwc, table->bytes);
    } else {
        const uint16_t from = builder_input(b, l->a_type, ROWS * CHANNELS);
        a = l->a_type == TEPI_TYPE_F32 ? builder_floats(b, table_nhwc, CHANNELS + 1)
                                       : builder_arena(b, table_nhwc, CHANNELS + 5, 1, 0);
        builder_load(b, from, a);
    }
    b->tensors[a].scale = 0.25f;
    b->tensors[a].zero_point = 100;
    const uint16_t out = l->out_type == TEPI_TYPE_F32
                             ? builder_floats(b, out_nhwc, CHANNELS + 2)
                             : builder_arena(b, out_nhwc, CHANNELS + 2, 0, 0);
    builder_add(b, TEPI_OP_GATHER, a, out)->b = indices;
    builder_store(b, out, to);
}

static const void *put_indices(const struct lookup *l, const int64_t *wide, int32_t *narrow)
{
    for (int i = 0; i < PIXELS; i++)
        narrow[i] = (int32_t)wide[i];
    return l->index_type == TEPI_TYPE_I64 ? (const void *)wide : narrow;
}

static void expect(const struct lookup *l, const struct table *table, const int64_t *indices,
                   uint8_t *out)
{
    for (int i = 0; i < PIXELS; i++) {
        for (int c = 0; c < CHANNELS; c++) {
            const int64_t row = indices[i] < 0 ? indices[i] + ROWS : indices[i];
            const size_t at = (size_t)row * CHANNELS + (size_t)c;
            const float value = l->a_type == TEPI_TYPE_F32
                                    ? table->floats[at]
                                    : (float)(table->bytes[at] - 100) * 0.25f;
            if (l->out_type == TEPI_TYPE_U8)
                out[i * CHANNELS + c] = table->bytes[at];
            else
                memcpy(out + 4 * (i * CHANNELS + c), &value, sizeof(value));
        }
    }
}

static void fill(struct table *table)
{
    struct chance chance = {.state = 8};
    chance_fill(&chance, table->bytes, sizeof(table->bytes));
    for (int i = 0; i < ROWS * CHANNELS; i++)
        table->floats[i] = (float)chance_below(&chance, 1000) / 7.0f;
}

static struct tepi_verdict run(const struct lookup *l, const struct builder *b,
                               const struct table *table, const int64_t *indices, unsigned set,
                               uint8_t *found)
{
    int32_t narrow[PIXELS];
    const void *rows = l->a_type == TEPI_TYPE_F32 ? (const void *)table->floats : table->bytes;
    const void *inputs[] = {put_indices(l, indices, narrow), rows};
    return builder_run_on(b, builder_kernels(set), inputs, (void *[]){found});
}

CHECK_CASE(rows_are_chosen_by_index)
{
    static const int64_t indices[PIXELS] = {0, 6, -1, -7, 3, 3, 2, -2, 1};
    static const uint8_t types[][2] = {{TEPI_TYPE_U8, TEPI_TYPE_U8},
                                       {TEPI_TYPE_F32, TEPI_TYPE_F32},
                                       {TEPI_TYPE_U8, TEPI_TYPE_F32}};
    struct table table;
    fill(&table);
    for (int kind = 0; kind < 12; kind++) {
        const struct lookup l = {.a_type = types[kind % 3][0],
                                 .out_type = types[kind % 3][1],
                                 .index_type = kind & 4 ? TEPI_TYPE_I64 : TEPI_TYPE_I32,
                                 .constant = kind < 6};
        uint8_t expected[4 * PIXELS * CHANNELS], found[4 * PIXELS * CHANNELS];
        struct builder b;
        build(&b, &l, &table);
        expect(&l, &table, indices, expected);
        for (unsigned k = 0; builder_kernels(k); k++) {
            CHECK_INT(run(&l, &b, &table, indices, k, found).fault, TEPI_FAULT_OK);
            CHECK_BYTES(found, expected, PIXELS * CHANNELS * (l.out_type == TEPI_TYPE_F32 ? 4 : 1));
        }
        builder_free(&b);
    }
}

/* The low words of the wide ones would be valid indices. */
CHECK_CASE(an_index_outside_the_table_is_a_fault)
{
    static const int64_t hostile[] = {ROWS,      -ROWS - 1, INT32_MAX,        INT32_MIN,
                                      INT64_MAX, INT64_MIN, INT64_C(1) << 32, -(INT64_C(1) << 32),
                                      1 << 24};
    struct table table;
    fill(&table);
    for (int kind = 0; kind < 2; kind++) {
        const struct lookup l = {TEPI_TYPE_U8, TEPI_TYPE_F32, kind ? TEPI_TYPE_I64 : TEPI_TYPE_I32,
                                 kind};
        for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++) {
            int64_t indices[PIXELS] = {0};
            uint8_t found[4 * PIXELS * CHANNELS];
            struct builder b;
            if (kind == 0 && (int32_t)hostile[i] != hostile[i])
                continue;
            indices[PIXELS - 1] = hostile[i];
            build(&b, &l, &table);
            const struct tepi_verdict verdict = run(&l, &b, &table, indices, 0, found);
            CHECK_INT(verdict.fault, TEPI_FAULT_INDEX);
            CHECK_INT(verdict.info, kind ? 0 : 1);
            builder_free(&b);
        }
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(rows_are_chosen_by_index),
    CHECK_ENTRY(an_index_outside_the_table_is_a_fault),
};
CHECK_MAIN(cases)
