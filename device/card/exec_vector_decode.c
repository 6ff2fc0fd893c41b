/* SPDX-License-Identifier: Apache-2.0 */
/* VECTOR's steps checked and made into acts: which registers hold rows and which one value, where
 * in scratch each lies while it is needed, which sources are read where they lie. */
#include "card/exec_vector.h"
#include <math.h>
#include <string.h>

enum { NOWHERE = 0xff, OPERANDS = 3, FUNCTION_WORK = 8, DIVISION_WORK = 3 };

_Static_assert(TEPI_VECTOR_ADD + TEPI_F32_SELECT == TEPI_VECTOR_SELECT &&
                   TEPI_VECTOR_ADD + TEPI_F32_SIGMOID == TEPI_VECTOR_SIGMOID &&
                   TEPI_VECTOR_ADD + TEPI_F32_MINOF == TEPI_VECTOR_MINOF,
               "the kernels' operations have the order of the codes");

/* How many registers a code reads: a, b, c. */
static uint32_t reads(uint8_t code)
{
    if (code == TEPI_VECTOR_LOAD || code == TEPI_VECTOR_VALUE)
        return 0;
    if (code >= TEPI_VECTOR_ADD && code <= TEPI_VECTOR_LE)
        return 2;
    return code == TEPI_VECTOR_SELECT ? 3 : 1;
}

static bool reduces(uint8_t code)
{
    return code >= TEPI_VECTOR_SUM && code <= TEPI_VECTOR_MINOF;
}

static bool fields_valid(const struct tepi_vector_program *p, const struct tepi_vector_step *s)
{
    static const uint8_t zeros[sizeof(s->reserved)];
    const uint8_t operands[OPERANDS] = {s->a, s->b, s->c};
    if (s->code < TEPI_VECTOR_LOAD || s->code > TEPI_VECTOR_MINOF ||
        memcmp(s->reserved, zeros, sizeof(zeros)) != 0 ||
        s->out >= (s->code == TEPI_VECTOR_STORE ? p->targets : TEPI_VECTOR_REGISTERS) ||
        (s->code == TEPI_VECTOR_VALUE ? isnan(s->value) : s->value != 0))
        return false;
    const uint32_t used = s->code == TEPI_VECTOR_LOAD ? 1 : reads(s->code);
    for (uint32_t i = 0; i < OPERANDS; i++) {
        const uint32_t limit = s->code == TEPI_VECTOR_LOAD ? p->sources : TEPI_VECTOR_REGISTERS;
        if (operands[i] >= (i < used ? limit : 1))
            return false;
    }
    return true;
}

bool tepi_vector_valid(const struct tepi_vector_program *p, const bool *single)
{
    bool written[TEPI_VECTOR_REGISTERS] = {false}, row[TEPI_VECTOR_REGISTERS];
    bool stored[TEPI_VECTOR_TARGETS] = {false};
    for (uint32_t i = 0; i < p->count; i++) {
        const struct tepi_vector_step *s = &p->steps[i];
        if (!fields_valid(p, s))
            return false;
        const uint8_t operands[OPERANDS] = {s->a, s->b, s->c};
        bool any_row = s->code == TEPI_VECTOR_LOAD && !single[s->a];
        for (uint32_t k = 0; k < reads(s->code); k++) {
            if (!written[operands[k]])
                return false;
            any_row = any_row || row[operands[k]];
        }
        if (s->code == TEPI_VECTOR_STORE) {
            if (stored[s->out] || (any_row && single[p->sources + s->out]))
                return false;
            stored[s->out] = true;
            continue;
        }
        written[s->out] = true;
        row[s->out] = any_row && !reduces(s->code);
    }
    for (uint32_t i = 0; i < p->targets; i++)
        if (!stored[i])
            return false;
    return true;
}

bool tepi_vector_reduces(const struct tepi_vector_program *p)
{
    bool any = false;
    for (uint32_t i = 0; i < p->count; i++)
        any = any || reduces(p->steps[i].code);
    return any;
}

/* What each step needs to know of the others. */
struct decoder {
    const struct tepi_vector_program *program;
    const struct tepi_vector_operand *operands;
    const uint8_t *twin;
    struct tepi_vector_acts *acts;
    uint8_t made[TEPI_VECTOR_STEPS_MAX][OPERANDS]; /* the steps that made the operands */
    uint8_t last[TEPI_VECTOR_STEPS_MAX];           /* step that reads the result; NOWHERE: none */
    uint8_t stored_at[TEPI_VECTOR_TARGETS];
    uint8_t place[TEPI_VECTOR_STEPS_MAX];
    bool row[TEPI_VECTOR_STEPS_MAX];
    bool taken[2 * TEPI_VECTOR_CELLS];
};

static void link_operands(struct decoder *d)
{
    const struct tepi_vector_program *p = d->program;
    uint8_t maker[TEPI_VECTOR_REGISTERS] = {0};
    for (uint32_t i = 0; i < p->count; i++) {
        const struct tepi_vector_step *s = &p->steps[i];
        const uint8_t operands[OPERANDS] = {s->a, s->b, s->c};
        for (uint32_t k = 0; k < reads(s->code); k++)
            d->made[i][k] = maker[operands[k]];
        if (s->code == TEPI_VECTOR_STORE)
            d->stored_at[s->out] = (uint8_t)i;
        else
            maker[s->out] = (uint8_t)i;
    }
}

/* From the last step on: what no store depends on is not needed. */
static void find_last_uses(struct decoder *d)
{
    const struct tepi_vector_program *p = d->program;
    memset(d->last, NOWHERE, sizeof(d->last));
    for (uint32_t i = p->count; i-- > 0;) {
        if (p->steps[i].code != TEPI_VECTOR_STORE && d->last[i] == NOWHERE)
            continue;
        for (uint32_t k = 0; k < reads(p->steps[i].code); k++) {
            uint8_t *last = &d->last[d->made[i][k]];
            *last = *last == NOWHERE ? (uint8_t)i : *last;
        }
    }
}

static uint8_t take_cell(struct decoder *d, bool row)
{
    const uint32_t first = row ? TEPI_PLACE_ROW : TEPI_PLACE_SINGLE;
    uint32_t cell = 0;
    while (d->taken[first + cell])
        cell++;
    d->taken[first + cell] = true;
    uint32_t *used = row ? &d->acts->rows : &d->acts->singles;
    *used = *used > cell ? *used : cell + 1;
    return (uint8_t)(first + cell);
}

/* Gives back the cells of operands that step i is the last to read. */
static void free_operands(struct decoder *d, uint32_t i)
{
    for (uint32_t k = 0; k < reads(d->program->steps[i].code); k++) {
        const uint8_t maker = d->made[i][k];
        if (d->last[maker] == i && d->place[maker] < TEPI_PLACE_SOURCE)
            d->taken[d->place[maker]] = false;
    }
}

/* Whether the bytes of a source are overwritten between step i, its LOAD, and their last use. */
static bool overwritten(const struct decoder *d, uint32_t i)
{
    const uint8_t target = d->twin[d->program->steps[i].a];
    return target < TEPI_VECTOR_TARGETS && d->stored_at[target] > i &&
           d->stored_at[target] < d->last[i];
}

static void load(struct decoder *d, uint32_t i, struct tepi_vector_act *act)
{
    const uint8_t source = d->program->steps[i].a;
    const struct tepi_vector_operand *operand = &d->operands[source];
    d->row[i] = !operand->single;
    d->place[i] = (uint8_t)(TEPI_PLACE_SOURCE + source);
    if (operand->bytes == sizeof(float) && !overwritten(d, i))
        return;
    d->place[i] = take_cell(d, d->row[i]);
    *act = (struct tepi_vector_act){
        .kind = operand->bytes == 1 ? TEPI_VECTOR_DEQUANTIZE : TEPI_VECTOR_COPY,
        .operand = source,
        .out = d->place[i],
        .row = d->row[i],
    };
    d->acts->count++;
}

static uint64_t work_of(uint8_t code)
{
    if (code >= TEPI_VECTOR_EXP && code <= TEPI_VECTOR_SIGMOID)
        return FUNCTION_WORK;
    return code == TEPI_VECTOR_DIV || code == TEPI_VECTOR_SQRT ? DIVISION_WORK : 1;
}

static void call(struct decoder *d, uint32_t i, struct tepi_vector_act *act)
{
    const struct tepi_vector_step *s = &d->program->steps[i];
    const uint32_t count = reads(s->code);
    uint8_t places[OPERANDS] = {0}, steps[OPERANDS] = {0};
    bool row = false;
    for (uint32_t k = 0; k < count; k++) {
        const uint8_t maker = d->made[i][k];
        places[k] = d->place[maker];
        steps[k] = d->row[maker];
        row = row || d->row[maker];
    }
    free_operands(d, i);
    const bool store = s->code == TEPI_VECTOR_STORE;
    const bool target_row = store && !d->operands[d->program->sources + s->out].single;
    d->row[i] = row && !reduces(s->code);
    /* A reduction of one value counts it for each element of the row. */
    act->row = row || target_row || reduces(s->code);
    for (uint32_t k = 0; k < count && !act->row; k++)
        steps[k] = 1;
    act->kind = store ? TEPI_VECTOR_PUT : TEPI_VECTOR_CALL;
    act->operation = store ? 0 : (uint8_t)(s->code - TEPI_VECTOR_ADD);
    act->operand = store ? (uint8_t)(d->program->sources + s->out) : 0;
    act->a = places[0], act->b = places[1], act->c = places[2];
    act->a_step = steps[0], act->b_step = steps[1], act->c_step = steps[2];
    act->out = store ? 0 : take_cell(d, d->row[i]);
    d->place[i] = act->out;
    d->acts->count++;
}

void tepi_vector_decode(const struct tepi_vector_program *program,
                        const struct tepi_vector_operand *operands, const uint8_t *twin,
                        struct tepi_vector_acts *acts)
{
    struct decoder d = {.program = program, .operands = operands, .twin = twin, .acts = acts};
    *acts = (struct tepi_vector_acts){.work = 1};
    link_operands(&d);
    find_last_uses(&d);
    for (uint32_t i = 0; i < program->count; i++) {
        const struct tepi_vector_step *s = &program->steps[i];
        struct tepi_vector_act *act = &acts->acts[acts->count];
        if (s->code != TEPI_VECTOR_STORE && d.last[i] == NOWHERE)
            continue;
        if (s->code == TEPI_VECTOR_LOAD) {
            load(&d, i, act);
        } else if (s->code == TEPI_VECTOR_VALUE) {
            acts->values[i] = s->value;
            d.place[i] = (uint8_t)(TEPI_PLACE_VALUE + i);
        } else {
            call(&d, i, act);
            acts->work += work_of(s->code);
        }
    }
}
