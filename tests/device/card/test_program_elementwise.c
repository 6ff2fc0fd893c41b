/* SPDX-License-Identifier: Apache-2.0 */
/* ADD, MUL, TABLE and SOFTMAX against their formulas, with every broadcast and padded channels. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { BYTES_MAX = 4096, BROADCASTS = 16, SEEDS = 24 };

struct outcome {
    uint8_t bytes[BYTES_MAX];
};

/* Runs the program on every set; *same: all gave the bytes expected. */
static struct tepi_verdict run_all(const struct builder *b, const void *const *inputs,
                                   const uint8_t *expected, size_t bytes, bool *same)
{
    const struct tepi_kernel_set *kernels;
    struct tepi_verdict found = {0};
    *same = true;
    for (unsigned k = 0; !found.fault && (kernels = builder_kernels(k)); k++) {
        struct outcome outcome;
        void *outputs[] = {outcome.bytes};
        found = builder_run_on(b, kernels, inputs, outputs);
        *same = *same && memcmp(outcome.bytes, expected, bytes) == 0;
    }
    return found;
}

static uint8_t saturate(double value, int32_t offset)
{
    value = nearbyint(value);
    value = value < -offset ? -offset : value > 255 - offset ? 255 - offset : value;
    return (uint8_t)((int32_t)value + offset);
}

static uint32_t round_up(uint32_t bytes, bool padded)
{
    return padded ? (bytes + 15) / 16 * 16 + 16 : bytes;
}

struct pair {
    struct builder b;
    uint32_t out[4], second[4];
    uint8_t a_bytes[BYTES_MAX], b_bytes[BYTES_MAX];
    uint16_t a, bb, o;
    size_t volume;
};

/* Bit i of `broadcast`: dimension i of b is 1. */
static void build_pair(struct pair *p, uint32_t broadcast, struct chance *chance)
{
    size_t second = 1;
    p->volume = 1;
    for (uint32_t i = 0; i < 4; i++) {
        p->out[i] = 1 + chance_below(chance, i == 3 ? 40 : 4);
        p->second[i] = broadcast >> i & 1 ? 1 : p->out[i];
        p->volume *= p->out[i];
        second *= p->second[i];
    }
    chance_fill(chance, p->a_bytes, p->volume);
    chance_fill(chance, p->b_bytes, second);
    builder_init(&p->b);
    const uint16_t in = builder_input(&p->b, TEPI_TYPE_U8, (uint32_t)p->volume);
    builder_output(&p->b, TEPI_TYPE_U8, (uint32_t)p->volume);
    p->a = builder_arena(&p->b, p->out, round_up(p->out[3], chance_below(chance, 2)),
                         (uint16_t)(chance_below(chance, 3) / 2), 0);
    p->o = builder_arena(&p->b, p->out, round_up(p->out[3], chance_below(chance, 2)),
                         (uint16_t)(chance_below(chance, 3) / 2), 0);
    builder_load(&p->b, in, p->a);
    if (chance_below(chance, 2)) {
        p->bb = builder_constant_image(&p->b, p->second, p->b_bytes);
        return;
    }
    const uint16_t in_b = builder_input(&p->b, TEPI_TYPE_U8, (uint32_t)second);
    p->bb = builder_arena(&p->b, p->second, round_up(p->second[3], chance_below(chance, 2)),
                          (uint16_t)chance_below(chance, 2), 0);
    builder_load(&p->b, in_b, p->bb);
}

static uint8_t second_at(const struct pair *p, size_t i)
{
    size_t at = 0, rest = i, place[4];
    for (int d = 3; d >= 0; d--) {
        place[d] = rest % p->out[d];
        rest /= p->out[d];
    }
    for (int d = 0; d < 4; d++)
        at = at * p->second[d] + (p->second[d] == 1 ? 0 : place[d]);
    return p->b_bytes[at];
}

/* Ratios are small dyadic fractions: every sum is exact, and halves, hence ties, are frequent. */
CHECK_CASE(add_equals_its_formula_for_every_broadcast)
{
    struct chance chance = {.state = 77};
    for (uint32_t i = 0; i < BROADCASTS * SEEDS; i++) {
        struct pair p;
        uint8_t expected[BYTES_MAX];
        build_pair(&p, i % BROADCASTS, &chance);
        struct tepi_instruction *in = builder_add(&p.b, TEPI_OP_ADD, p.a, p.o);
        in->b = p.bb;
        in->add = (struct tepi_add_params){.ratio_a = (float)chance_below(&chance, 64) / 32,
                                           .ratio_b = (float)chance_below(&chance, 64) / 32,
                                           .fixed = (float)chance_below(&chance, 64) / 4 - 8,
                                           .a_offset = 128,
                                           .b_offset = (int32_t)chance_below(&chance, 256),
                                           .out_offset = 128,
                                           .table = TEPI_NONE,
                                           .lo = (uint8_t)chance_below(&chance, 128),
                                           .hi = 255};
        builder_store(&p.b, p.o, 1);
        const struct tepi_add_params *q = &in->add;
        for (size_t k = 0; k < p.volume; k++) {
            const double a = (double)(p.a_bytes[k] - q->a_offset) * (double)q->ratio_a;
            const double b = (double)(second_at(&p, k) - q->b_offset) * (double)q->ratio_b;
            expected[k] = saturate(a + b + (double)q->fixed, 128);
            expected[k] = expected[k] < q->lo ? q->lo : expected[k];
        }
        const void *inputs[] = {p.a_bytes, p.b_bytes};
        bool same;
        CHECK_INT(run_all(&p.b, inputs, expected, p.volume, &same).fault, TEPI_FAULT_OK);
        CHECK(same);
        builder_free(&p.b);
    }
}

CHECK_CASE(mul_equals_its_formula_for_every_broadcast)
{
    struct chance chance = {.state = 78};
    for (uint32_t i = 0; i < BROADCASTS * SEEDS; i++) {
        struct pair p;
        uint8_t expected[BYTES_MAX], table[256];
        build_pair(&p, i % BROADCASTS, &chance);
        chance_fill(&chance, table, sizeof(table));
        struct tepi_instruction *in = builder_add(&p.b, TEPI_OP_MUL, p.a, p.o);
        in->b = p.bb;
        in->mul = (struct tepi_mul_params){.ratio = (float)(1 + chance_below(&chance, 64)) / 1024,
                                           .zero = (float)chance_below(&chance, 200),
                                           .a_zero_point = (int32_t)chance_below(&chance, 256),
                                           .b_zero_point = (int32_t)chance_below(&chance, 256),
                                           .out_offset = 0,
                                           .table = builder_constant(&p.b, table, 256),
                                           .lo = 0,
                                           .hi = 200};
        builder_store(&p.b, p.o, 1);
        const struct tepi_mul_params *q = &in->mul;
        for (size_t k = 0; k < p.volume; k++) {
            const int32_t product =
                (p.a_bytes[k] - q->a_zero_point) * (second_at(&p, k) - q->b_zero_point);
            const uint8_t byte = saturate((double)product * (double)q->ratio + (double)q->zero, 0);
            expected[k] = table[byte > 200 ? 200 : byte];
        }
        const void *inputs[] = {p.a_bytes, p.b_bytes};
        bool same;
        CHECK_INT(run_all(&p.b, inputs, expected, p.volume, &same).fault, TEPI_FAULT_OK);
        CHECK(same);
        builder_free(&p.b);
    }
}

CHECK_CASE(table_substitutes_in_place_and_across)
{
    struct chance chance = {.state = 79};
    for (uint32_t i = 0; i < 200; i++) {
        struct pair p;
        uint8_t expected[BYTES_MAX], table[256];
        build_pair(&p, 0, &chance);
        chance_fill(&chance, table, sizeof(table));
        const uint16_t to = i % 2 ? p.a : p.o;
        builder_add(&p.b, TEPI_OP_TABLE, p.a, to)->table.table = builder_constant(&p.b, table, 256);
        builder_store(&p.b, to, 1);
        for (size_t k = 0; k < p.volume; k++)
            expected[k] = table[p.a_bytes[k]];
        const void *inputs[] = {p.a_bytes, p.b_bytes};
        bool same;
        CHECK_INT(run_all(&p.b, inputs, expected, p.volume, &same).fault, TEPI_FAULT_OK);
        CHECK(same);
        builder_free(&p.b);
    }
}

CHECK_CASE(softmax_runs_along_channels_of_each_pixel)
{
    struct chance chance = {.state = 80};
    float table[256];
    for (int i = 0; i < 256; i++)
        table[i] = expf((float)(i - 255) * 0.03f);
    for (uint32_t i = 0; i < 200; i++) {
        struct pair p;
        uint8_t expected[BYTES_MAX];
        build_pair(&p, 0, &chance);
        p.b.tensors[p.o].zero_point = i % 3 ? 0 : 128;
        builder_add(&p.b, TEPI_OP_SOFTMAX, p.a, p.o)->softmax = (struct tepi_softmax_params){
            .table = builder_constant(&p.b, table, sizeof(table)), .ratio = 256.0f};
        builder_store(&p.b, p.o, 1);
        for (size_t pixel = 0; pixel < p.volume; pixel += p.out[3]) {
            uint8_t largest = 0;
            float sum = 0;
            for (size_t c = pixel; c < pixel + p.out[3]; c++)
                largest = p.a_bytes[c] > largest ? p.a_bytes[c] : largest;
            for (size_t c = pixel; c < pixel + p.out[3]; c++)
                sum += table[255 - largest + p.a_bytes[c]];
            for (size_t c = pixel; c < pixel + p.out[3]; c++) {
                const float share = table[255 - largest + p.a_bytes[c]] * 256.0f / sum;
                const double value = nearbyint((double)share) + (i % 3 ? 0 : 128);
                expected[c] = (uint8_t)(value > 255 ? 255 : value);
            }
        }
        const void *inputs[] = {p.a_bytes, p.b_bytes};
        bool same;
        CHECK_INT(run_all(&p.b, inputs, expected, p.volume, &same).fault, TEPI_FAULT_OK);
        CHECK(same);
        builder_free(&p.b);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(add_equals_its_formula_for_every_broadcast),
    CHECK_ENTRY(mul_equals_its_formula_for_every_broadcast),
    CHECK_ENTRY(table_substitutes_in_place_and_across),
    CHECK_ENTRY(softmax_runs_along_channels_of_each_pixel),
};
CHECK_MAIN(cases)
