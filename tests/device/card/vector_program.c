/* SPDX-License-Identifier: Apache-2.0 */
/* See vector_program.h. */
#include "card/vector_program.h"

#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include <math.h>
#include <string.h>

enum { SOURCES = 4, TARGETS = 3, REGISTERS = 6, CANONICAL_NAN = 0x7fc00000 };

static size_t volume(const uint32_t nhwc[4])
{
    return (size_t)nhwc[0] * nhwc[1] * nhwc[2] * nhwc[3];
}

static void fill(struct chance *chance, struct vector_operand *o)
{
    static const float special[] = {INFINITY, -INFINITY, NAN, -0.0f, 1e-40f, -3e38f, 88.7f, 0.5f};
    chance_fill(chance, o->bytes, volume(o->nhwc));
    for (size_t i = 0; o->type == TEPI_TYPE_F32 && i < volume(o->nhwc); i++) {
        const uint32_t pick = chance_below(chance, 40);
        o->floats[i] = pick < 8 && !o->constant
                           ? special[pick]
                           : ((float)chance_below(chance, 1 << 16) - 32768.0f) / 2048.0f;
    }
}

static void add_image(struct vector_program *p, struct vector_operand *o, struct chance *chance)
{
    struct builder *b = &p->builder;
    const uint32_t pixel = o->nhwc[3] + (chance_below(chance, 2) ? chance_below(chance, 9) : 0);
    if (o->constant && o->type == TEPI_TYPE_F32)
        o->image = builder_constant_floats(b, o->nhwc, o->floats);
    else if (o->constant)
        o->image = builder_constant_image(b, o->nhwc, o->bytes);
    else if (o->type == TEPI_TYPE_F32)
        o->image = builder_floats(b, o->nhwc, pixel);
    else
        o->image = builder_arena(b, o->nhwc, pixel, (uint16_t)chance_below(chance, 2), 0);
    b->tensors[o->image].scale = o->scale;
    b->tensors[o->image].zero_point = o->zero_point;
}

static void make_operand(struct vector_program *p, struct vector_operand *o, bool source,
                         struct chance *chance)
{
    o->type = chance_below(chance, 3) ? TEPI_TYPE_F32 : TEPI_TYPE_U8;
    o->scale = ldexpf((float)(1 + chance_below(chance, 9)), -5);
    o->zero_point = (int32_t)chance_below(chance, 256);
    o->constant = source && chance_below(chance, 4) == 0;
    for (int d = 0; d < 3; d++)
        o->nhwc[d] = source && chance_below(chance, 4) == 0 ? 1 : p->nhw[d];
    o->nhwc[3] = chance_below(chance, 4) == 0 ? 1 : p->row;
    fill(chance, o);
}

/* A step that is valid after those before; the kinds of the registers are kept. */
static struct tepi_vector_step draw_step(struct vector_program *p, struct chance *chance,
                                         bool *written, bool *row)
{
    struct tepi_vector_step s = {.out = (uint8_t)chance_below(chance, REGISTERS)};
    uint8_t *const operands[] = {&s.a, &s.b, &s.c};
    bool any_row = false;
    s.code = (uint8_t)(TEPI_VECTOR_ADD + chance_below(chance, TEPI_F32_OPERATIONS));
    const uint32_t reads = s.code <= TEPI_VECTOR_LE ? 2 : s.code == TEPI_VECTOR_SELECT ? 3 : 1;
    for (uint32_t k = 0; k < reads; k++) {
        *operands[k] = (uint8_t)chance_below(chance, REGISTERS);
        any_row = any_row || row[*operands[k]];
        if (!written[*operands[k]])
            s.code = TEPI_VECTOR_LOAD;
    }
    if (s.code == TEPI_VECTOR_LOAD || chance_below(chance, 5) == 0) {
        const bool value = chance_below(chance, 6) == 0;
        s = (struct tepi_vector_step){.out = s.out};
        s.code = value ? TEPI_VECTOR_VALUE : TEPI_VECTOR_LOAD;
        s.a = value ? 0 : (uint8_t)chance_below(chance, p->sources);
        s.value = value ? (float)chance_below(chance, 16) - 8.0f : 0;
        any_row = !value && p->operands[s.a].nhwc[3] != 1;
    }
    written[s.out] = true;
    row[s.out] = any_row && s.code < TEPI_VECTOR_SUM;
    return s;
}

static void draw_steps(struct vector_program *p, struct chance *chance)
{
    bool written[REGISTERS] = {false}, row[REGISTERS] = {false};
    const uint32_t work = 3 + chance_below(chance, VECTOR_STEPS - TARGETS - 2);
    uint32_t stored = 0;
    p->count = 0;
    for (uint32_t i = 0; i < work; i++) {
        p->steps[p->count++] = draw_step(p, chance, written, row);
        const uint8_t made = p->steps[p->count - 1].out;
        struct vector_operand *target = &p->operands[p->sources + stored];
        const bool last = i + p->targets - stored >= work;
        if (stored == p->targets || (!last && chance_below(chance, 4)))
            continue;
        if (row[made] && target->nhwc[3] == 1)
            target->nhwc[3] = p->row;
        p->steps[p->count++] = (struct tepi_vector_step){
            .code = TEPI_VECTOR_STORE, .out = (uint8_t)stored++, .a = made};
    }
}

/* Target 0 and a source of its extents become one tensor, where there is such a source. */
static void join_twins(struct vector_program *p)
{
    const struct vector_operand *target = &p->operands[p->sources];
    for (p->twin = 0; p->twin < p->sources; p->twin++) {
        const struct vector_operand *o = &p->operands[p->twin];
        if (!o->constant && o->type == target->type &&
            memcmp(o->nhwc, target->nhwc, sizeof(o->nhwc)) == 0)
            return;
    }
}

static void build(struct vector_program *p, struct chance *chance)
{
    struct builder *b = &p->builder;
    uint16_t sources[SOURCES + 1], targets[TARGETS + 1];
    p->inputs = 0;
    for (uint32_t i = 0; i < p->sources; i++) {
        struct vector_operand *o = &p->operands[i];
        if (!o->constant) {
            o->port = builder_input(b, o->type, (uint32_t)volume(o->nhwc));
            p->input_bytes[p->inputs++] = o->bytes;
        }
        add_image(p, o, chance);
        sources[i] = o->image;
        if (!o->constant) {
            b->tensors[o->port].scale = o->scale;
            builder_load(b, o->port, o->image);
        }
    }
    for (uint32_t i = 0; i < p->targets; i++) {
        struct vector_operand *o = &p->operands[p->sources + i];
        o->port = builder_output(b, o->type, (uint32_t)volume(o->nhwc));
        if (i == 0 && p->twin < p->sources) {
            o->image = p->operands[p->twin].image;
            o->scale = p->operands[p->twin].scale;
            o->zero_point = p->operands[p->twin].zero_point;
        } else {
            add_image(p, o, chance);
        }
        targets[i] = o->image;
    }
    sources[p->sources] = targets[p->targets] = TEPI_NO_TENSOR;
    const uint32_t code = builder_constant(b, p->steps, p->count * sizeof(p->steps[0]));
    builder_vector(b, targets[0], p->row, code, p->count, sources, targets + 1);
    for (uint32_t i = 0; i < p->targets; i++)
        builder_store(b, targets[i], p->operands[p->sources + i].port);
}

void vector_program_make(struct vector_program *p, struct chance *chance, bool large)
{
    builder_init(&p->builder);
    for (int d = 0; d < 3; d++)
        p->nhw[d] = 1 + chance_below(chance, large ? 2 : 4);
    p->row = large ? 1000 + chance_below(chance, 1000) : 1 + chance_below(chance, 50);
    p->row = chance_below(chance, 8) ? p->row : 1;
    p->sources = 1 + chance_below(chance, SOURCES);
    p->targets = 1 + chance_below(chance, TARGETS);
    for (uint32_t i = 0; i < p->sources + p->targets; i++)
        make_operand(p, &p->operands[i], i < p->sources, chance);
    draw_steps(p, chance);
    p->twin = p->sources;
    if (chance_below(chance, 2))
        join_twins(p);
    build(p, chance);
}

/* One register: a row or one value. */
struct reg {
    float at[2048];
    bool row;
};

static float compute(uint8_t code, float a, float b, float c)
{
    float out[TEPI_VECTOR_LANES];
    switch (code) {
    case TEPI_VECTOR_ADD:
        return a + b;
    case TEPI_VECTOR_SUB:
        return a - b;
    case TEPI_VECTOR_MUL:
        return a * b;
    case TEPI_VECTOR_DIV:
        return a / b;
    case TEPI_VECTOR_MAX:
        return isnan(a) || isnan(b) ? NAN : a > b ? a : b;
    case TEPI_VECTOR_MIN:
        return isnan(a) || isnan(b) ? NAN : a < b ? a : b;
    case TEPI_VECTOR_EQ:
        return a == b;
    case TEPI_VECTOR_NE:
        return a != b;
    case TEPI_VECTOR_LT:
        return a < b;
    case TEPI_VECTOR_LE:
        return a <= b;
    case TEPI_VECTOR_SELECT:
        return a != 0 ? b : c;
    case TEPI_VECTOR_NEG:
        return -a;
    case TEPI_VECTOR_ABS:
        return fabsf(a);
    case TEPI_VECTOR_SQRT:
        return sqrtf(a);
    case TEPI_VECTOR_FLOOR:
        return floorf(a);
    case TEPI_VECTOR_CEIL:
        return ceilf(a);
    case TEPI_VECTOR_ROUND:
        return nearbyintf(a);
    default:
        /* The functions of kernels/functions.h are held against libm elsewhere. */
        tepi_f32_vector_1_scalar.operations[code - TEPI_VECTOR_ADD](
            &(struct tepi_vector){.a = &a, .a_step = 1, .count = 1, .out = out});
        return out[0];
    }
}

static float reduce(uint8_t code, const struct reg *a, uint32_t row)
{
    float sums[16] = {0}, best = a->at[0];
    bool nan = isnan(best);
    for (uint32_t i = 0; i < row; i++) {
        const float x = a->at[a->row ? i : 0];
        sums[i % 16] += x;
        nan = nan || isnan(x);
        if (code == TEPI_VECTOR_MAXOF ? x > best : x < best)
            best = x;
    }
    if (code != TEPI_VECTOR_SUM)
        return nan ? NAN : best + 0.0f;
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}

static size_t first_of(const struct vector_operand *o, const uint32_t at[3])
{
    size_t pixel = 0;
    for (int d = 0; d < 3; d++)
        pixel = pixel * o->nhwc[d] + (o->nhwc[d] == 1 ? 0 : at[d]);
    return pixel * o->nhwc[3];
}

static void load(const struct vector_operand *o, const uint32_t at[3], struct reg *out)
{
    const size_t first = first_of(o, at);
    out->row = o->nhwc[3] != 1;
    for (uint32_t i = 0; i < o->nhwc[3]; i++)
        out->at[i] = o->type == TEPI_TYPE_F32
                         ? o->floats[first + i]
                         : (float)(o->bytes[first + i] - o->zero_point) * o->scale;
}

static void store(struct vector_operand *o, const uint32_t at[3], const struct reg *a)
{
    const size_t first = first_of(o, at);
    for (uint32_t i = 0; i < o->nhwc[3]; i++) {
        const float value = a->at[a->row ? i : 0];
        const uint32_t nan = CANONICAL_NAN;
        if (o->type == TEPI_TYPE_U8)
            o->bytes[first + i] = tepi_round_u8(value / o->scale, o->zero_point);
        else if (isnan(value))
            memcpy(&o->floats[first + i], &nan, sizeof(nan));
        else
            o->floats[first + i] = value;
    }
}

static void expect_row(struct vector_program *p, const uint32_t at[3])
{
    static struct reg regs[REGISTERS];
    for (uint32_t i = 0; i < p->count; i++) {
        const struct tepi_vector_step *s = &p->steps[i];
        struct reg out = {.row = false};
        const struct reg *a = &regs[s->a], *b = &regs[s->b], *c = &regs[s->c];
        if (s->code == TEPI_VECTOR_STORE) {
            struct vector_operand *target = &p->operands[p->sources + s->out];
            store(target, at, a);
            if (s->out == 0 && p->twin < p->sources) {
                struct vector_operand *twin = &p->operands[p->twin];
                store(twin, at, a);
            }
            continue;
        }
        if (s->code == TEPI_VECTOR_LOAD) {
            load(&p->operands[s->a], at, &out);
        } else if (s->code == TEPI_VECTOR_VALUE) {
            out.at[0] = s->value;
        } else if (s->code >= TEPI_VECTOR_SUM) {
            out.at[0] = reduce(s->code, a, p->row);
        } else {
            out.row = a->row || (s->code <= TEPI_VECTOR_SELECT && b->row) ||
                      (s->code == TEPI_VECTOR_SELECT && c->row);
            for (uint32_t k = 0; k < (out.row ? p->row : 1); k++)
                out.at[k] = compute(s->code, a->at[a->row ? k : 0], b->at[b->row ? k : 0],
                                    c->at[c->row ? k : 0]);
        }
        regs[s->out] = out;
    }
}

void vector_program_expect(struct vector_program *p)
{
    uint32_t at[3];
    for (at[0] = 0; at[0] < p->nhw[0]; at[0]++)
        for (at[1] = 0; at[1] < p->nhw[1]; at[1]++)
            for (at[2] = 0; at[2] < p->nhw[2]; at[2]++)
                expect_row(p, at);
}
