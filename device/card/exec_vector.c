/* SPDX-License-Identifier: Apache-2.0 */
/* VECTOR: a short program on the rows of its operands, block by block, so that what is between its
 * loads and stores stays in a cache. */
#include "card/exec_vector.h"
#include <string.h>

enum {
    DIMENSIONS = 4,
    BLOCK_MOST = 1024,
    BLOCK_LEAST = 256,
    BLOCK_FLOATS = 6144, /* of all cells together: three quarters of a first-level cache */
};

/* Work between two looks at abort and deadline: some 10 ms on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 22)

/* Operand `index` of all: sources, out, more targets. */
static const struct tepi_tensor *operand(const struct tepi_image *image,
                                         const struct tepi_instruction *in, uint32_t sources,
                                         uint32_t index)
{
    const struct tepi_vector_params *p = &in->vector;
    if (index < sources)
        return &image->tensors[p->sources[index]];
    return &image->tensors[index == sources ? in->out : p->more[index - sources - 1]];
}

/* How many there are; `most` + 1 where one follows TEPI_NO_TENSOR. */
static uint32_t count_tensors(const uint16_t *list, uint32_t most)
{
    uint32_t count = 0;
    while (count < most && list[count] != TEPI_NO_TENSOR)
        count++;
    for (uint32_t i = count; i < most; i++)
        if (list[i] != TEPI_NO_TENSOR)
            return most + 1;
    return count;
}

static bool quantized_well(const struct tepi_tensor *t)
{
    return t->type == TEPI_TYPE_F32 || t->scale > 0;
}

static bool source_valid(const struct tepi_image *image, uint16_t index,
                         const struct tepi_tensor *out, uint32_t row)
{
    const struct tepi_tensor *t = tepi_image_any_source(image, index);
    return t && quantized_well(t) && (t->n == 1 || t->n == out->n) &&
           (t->h == 1 || t->h == out->h) && (t->w == 1 || t->w == out->w) &&
           (t->c == 1 || t->c == row);
}

static bool target_valid(const struct tepi_image *image, uint16_t index,
                         const struct tepi_tensor *out, uint32_t row)
{
    const struct tepi_tensor *t = tepi_image_any_target(image, index);
    return t && quantized_well(t) && t->n == out->n && t->h == out->h && t->w == out->w &&
           (t->c == 1 || t->c == row);
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_vector_params *p = &in->vector;
    const struct tepi_tensor *out = tepi_image_any_target(image, in->out);
    const uint32_t sources = count_tensors(p->sources, TEPI_VECTOR_SOURCES);
    const uint32_t more = count_tensors(p->more, TEPI_VECTOR_TARGETS - 1);
    if (!out || p->row == 0 || p->row > TEPI_DIM_MAX || p->steps == 0 ||
        p->steps > TEPI_VECTOR_STEPS_MAX || p->reserved || p->reserved2 ||
        sources > TEPI_VECTOR_SOURCES || more > TEPI_VECTOR_TARGETS - 1 ||
        !target_valid(image, in->out, out, p->row))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    for (uint32_t i = 0; i < sources; i++)
        if (!source_valid(image, p->sources[i], out, p->row))
            return TEPI_FAULT_PROGRAM_INSTRUCTION;
    for (uint32_t i = 0; i < more; i++)
        if (!target_valid(image, p->more[i], out, p->row))
            return TEPI_FAULT_PROGRAM_INSTRUCTION;
    if (!tepi_image_holds(image, p->code, p->steps * sizeof(struct tepi_vector_step), 4))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    /* Below 2^62: at most 2^32 rows of 2^24, 64 steps. */
    *work = (uint64_t)out->n * out->h * out->w * p->row * p->steps;
    return TEPI_FAULT_OK;
}

/* Bytes from one to the next along dimension d of c, w, h, n; 0 where there is but one. */
static uint64_t stride(const struct tepi_tensor *t, uint32_t d)
{
    const uint32_t extents[DIMENSIONS] = {t->c, t->w, t->h, t->n};
    const uint64_t strides[DIMENSIONS] = {tepi_type_bytes(t->type), t->stride_w, t->stride_h,
                                          t->stride_n};
    return extents[d] == 1 ? 0 : strides[d];
}

/* The loops being laid around the row, and each operand's steps along them. */
struct layout {
    const struct tepi_tensor *tensors[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    uint64_t row_step[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    uint32_t operands;
    bool row_begun;
};

/* Whether dimension d goes on, in all operands, where `extent` steps of `step` end. */
static bool continues(const struct layout *l, uint32_t d, const struct tepi_vector_unit *v)
{
    for (uint32_t i = 0; i < l->operands; i++) {
        const uint64_t before = v->loops ? v->operands[i].steps[v->loops - 1] : l->row_step[i];
        const uint64_t extent = v->loops ? v->extent[v->loops - 1] : v->count;
        if (stride(l->tensors[i], d) != before * extent)
            return false;
    }
    return true;
}

/* Whether the elements along dimension d follow each other, or are one, in all operands. */
static bool is_row(const struct layout *l, uint32_t d)
{
    for (uint32_t i = 0; i < l->operands; i++) {
        const uint64_t step = stride(l->tensors[i], d);
        if (step != 0 && step != tepi_type_bytes(l->tensors[i]->type))
            return false;
    }
    return true;
}

static void begin_row(struct layout *l, uint32_t d, uint32_t extent, struct tepi_vector_unit *v)
{
    l->row_begun = true;
    v->count = extent;
    for (uint32_t i = 0; i < l->operands; i++) {
        l->row_step[i] = stride(l->tensors[i], d);
        v->operands[i].single = l->row_step[i] == 0;
    }
}

/* Dimensions that go on where the one inside them ends are one with it; the row, unless it is to
 * stay whole, takes in what it can. */
static void lay_loops(struct layout *l, const uint32_t extents[DIMENSIONS], bool whole,
                      struct tepi_vector_unit *v)
{
    v->count = 1;
    for (uint32_t d = 0; d < DIMENSIONS; d++) {
        if (extents[d] == 1)
            continue;
        const bool to_row = v->loops == 0 && (d == 0 || !whole);
        if (to_row && !l->row_begun && is_row(l, d)) {
            begin_row(l, d, extents[d], v);
        } else if (to_row && l->row_begun && continues(l, d, v)) {
            v->count *= extents[d];
        } else if (v->loops && continues(l, d, v) &&
                   (uint64_t)v->extent[v->loops - 1] * extents[d] <= UINT32_MAX) {
            v->extent[v->loops - 1] *= extents[d];
        } else {
            for (uint32_t i = 0; i < l->operands; i++)
                v->operands[i].steps[v->loops] = stride(l->tensors[i], d);
            v->extent[v->loops++] = extents[d];
        }
    }
}

/* One run's view of the scratch, and of the block being worked on. */
struct block {
    const struct tepi_vector_unit *unit;
    const struct tepi_kernel_set *kernels;
    uint8_t *operands[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    const float *places[TEPI_PLACES];
    float *cells;
    uint64_t begin;
    size_t count;
};

static float *cell(const struct block *b, uint8_t place)
{
    const struct tepi_vector_unit *v = b->unit;
    if (place < TEPI_PLACE_SINGLE)
        return b->cells + place * v->block;
    return b->cells + v->list.rows * v->block +
           (size_t)(place - TEPI_PLACE_SINGLE) * TEPI_VECTOR_LANES;
}

/* A block of a row between uint8 and float32. */
static struct tepi_plane plane_of(const void *in, size_t in_step, void *out, size_t count)
{
    return (struct tepi_plane){
        .input = in,
        .output = out,
        .rows = 1,
        .columns = (uint32_t)count,
        .in_column = (ptrdiff_t)in_step,
        .out_column = 1,
    };
}

static void put(const struct block *b, const struct tepi_vector_act *act, size_t count)
{
    const struct tepi_vector_operand *target = &b->unit->operands[act->operand];
    if (target->single && b->begin)
        return; /* the first block of the row has stored it */
    uint8_t *out = b->operands[act->operand];
    if (target->bytes == sizeof(float)) {
        b->kernels->vector->store(b->places[act->a], act->a_step, (float *)(void *)out, count);
        return;
    }
    const struct tepi_plane plane = plane_of(b->places[act->a], act->a_step, out, count);
    b->kernels->quantize(&plane, &target->quantization);
}

static void run_act(const struct block *b, const struct tepi_vector_act *act)
{
    const size_t count = act->row ? b->count : 1;
    const uint8_t *source = b->operands[act->operand];
    float *out = (float *)b->places[act->out];
    switch (act->kind) {
    case TEPI_VECTOR_CALL: {
        const struct tepi_vector vector = {
            .a = b->places[act->a],
            .b = b->places[act->b],
            .c = b->places[act->c],
            .a_step = act->a_step,
            .b_step = act->b_step,
            .c_step = act->c_step,
            .count = count,
            .out = out,
        };
        b->kernels->vector->operations[act->operation](&vector);
        break;
    }
    case TEPI_VECTOR_DEQUANTIZE: {
        const struct tepi_plane plane = plane_of(source, 1, out, count);
        b->kernels->dequantize(&plane, &b->unit->operands[act->operand].quantization);
        break;
    }
    case TEPI_VECTOR_COPY:
        memcpy(out, source, count * sizeof(float));
        break;
    default:
        put(b, act, count);
    }
}

/* Unit `unit` is block unit % blocks of row unit / blocks. */
static void enter_block(struct block *b, uint8_t *const *bases, uint32_t unit)
{
    const struct tepi_vector_unit *v = b->unit;
    const uint64_t left = v->count - unit % v->blocks * v->block;
    uint64_t row = unit / v->blocks, index[3] = {0};
    for (uint32_t d = 0; d < v->loops; d++, row /= v->extent[d - 1])
        index[d] = row % v->extent[d];
    b->begin = unit % v->blocks * v->block;
    b->count = (size_t)(left < v->block ? left : v->block);
    for (uint32_t i = 0; i < v->sources + v->targets; i++) {
        const struct tepi_vector_operand *o = &v->operands[i];
        b->operands[i] = bases[i] + index[0] * o->steps[0] + index[1] * o->steps[1] +
                         index[2] * o->steps[2] + (o->single ? 0 : b->begin * o->bytes);
        if (i < v->sources)
            b->places[TEPI_PLACE_SOURCE + i] = (const float *)(const void *)b->operands[i];
    }
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    const struct tepi_vector_unit *v = &step->vector;
    struct block b = {.unit = v, .kernels = run->kernels, .cells = scratch};
    uint8_t *bases[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    for (uint32_t i = 0; i < v->sources + v->targets; i++)
        bases[i] = tepi_at(run, &v->operands[i].site);
    for (uint8_t i = 0; i < TEPI_PLACE_SOURCE; i++)
        b.places[i] = cell(&b, i);
    for (uint32_t i = 0; i < TEPI_VECTOR_STEPS_MAX; i++)
        b.places[TEPI_PLACE_VALUE + i] = v->list.values + i;
    uint64_t work = 0;
    for (uint32_t unit = units.begin; unit < units.end; unit++) {
        enter_block(&b, bases, unit);
        for (uint32_t i = 0; i < v->list.count; i++)
            run_act(&b, &v->list.acts[i]);
        work += v->block_work;
        if (work < WORK_AT_ONCE || unit + 1 == units.end)
            continue;
        work = 0;
        const uint16_t fault = tepi_run_interrupted(run->control);
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    return TEPI_FAULT_OK;
}

/* Whether a target of one value per row is a source too: another block must not read it. */
static bool feeds_back(const struct tepi_vector_program *program, const bool *single,
                       const uint8_t *twin)
{
    bool any = false;
    for (uint32_t i = 0; i < program->sources; i++)
        any = any || (single[i] && twin[i] < TEPI_VECTOR_TARGETS);
    return any;
}

static void find_twins(const struct layout *l, const struct tepi_vector_program *program,
                       uint8_t *twin)
{
    for (uint32_t i = 0; i < program->sources; i++) {
        twin[i] = TEPI_VECTOR_TARGETS;
        for (uint32_t k = 0; k < program->targets; k++)
            if (l->tensors[i] == l->tensors[program->sources + k])
                twin[i] = (uint8_t)k;
    }
}

static void add_operands(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                         struct layout *l, struct tepi_vector_unit *v)
{
    l->operands = v->sources + v->targets;
    for (uint32_t i = 0; i < l->operands; i++) {
        const struct tepi_tensor *t = operand(prepare->image, in, v->sources, i);
        l->tensors[i] = t;
        v->operands[i] = (struct tepi_vector_operand){
            .site = tepi_prepare_site(prepare, (uint16_t)(t - prepare->image->tensors)),
            .quantization = {.scale = t->scale, .zero_point = t->zero_point, .hi = 255},
            .bytes = (uint8_t)tepi_type_bytes(t->type),
        };
    }
}

/* Blocks as long as all cells of scratch together stay in a cache, and that scratch. */
static void cut_blocks(struct tepi_prepare *prepare, struct tepi_vector_unit *v, bool whole)
{
    const uint64_t lanes = TEPI_VECTOR_LANES, rows = v->list.rows ? v->list.rows : 1;
    uint64_t block = BLOCK_FLOATS / rows / lanes * lanes;
    block = block < BLOCK_LEAST ? BLOCK_LEAST : block > BLOCK_MOST ? BLOCK_MOST : block;
    if (whole || v->count < block)
        block = (v->count + lanes - 1) / lanes * lanes;
    v->block = block;
    v->blocks = (v->count + block - 1) / block;
    const uint64_t floats = v->list.rows * block + v->list.singles * lanes;
    tepi_prepare_scratch(prepare, floats * sizeof(float) + TEPI_KERNEL_SLACK);
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_vector_params *p = &in->vector;
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    struct tepi_vector_unit *v = &step->vector;
    *v = (struct tepi_vector_unit){
        .sources = count_tensors(p->sources, TEPI_VECTOR_SOURCES),
        .targets = 1 + count_tensors(p->more, TEPI_VECTOR_TARGETS - 1),
    };
    struct layout layout = {.row_begun = false};
    add_operands(prepare, in, &layout, v);
    /* As much as any steps ask for: the host may change them until they are kept. */
    struct tepi_shelf *shelf = &prepare->shelf;
    struct tepi_vector_acts *acts = tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, sizeof(*acts)));
    if (!acts)
        return;
    struct tepi_vector_program program = {
        .count = p->steps, .sources = v->sources, .targets = v->targets};
    memcpy(program.steps, prepare->image->constants + p->code,
           p->steps * sizeof(struct tepi_vector_step));
    bool single[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    uint8_t twin[TEPI_VECTOR_SOURCES];
    for (uint32_t i = 0; i < layout.operands; i++)
        single[i] = p->row > 1 && layout.tensors[i]->c == 1;
    find_twins(&layout, &program, twin);
    const bool whole = tepi_vector_reduces(&program) || feeds_back(&program, single, twin);
    if (!tepi_vector_valid(&program, single) || (whole && p->row > TEPI_VECTOR_ROW_MAX)) {
        prepare->fault = TEPI_FAULT_PROGRAM_INSTRUCTION;
        return;
    }
    lay_loops(&layout, (const uint32_t[]){p->row, out->w, out->h, out->n}, whole, v);
    tepi_vector_decode(&program, v->operands, twin, acts);
    v->list = (struct tepi_vector_step_list){acts->acts, acts->values, acts->count, acts->rows,
                                             acts->singles};
    cut_blocks(prepare, v, whole);
    v->block_work = v->block * acts->work;
    const uint64_t rows = (uint64_t)out->n * out->h * out->w * p->row / v->count;
    tepi_cut_step(prepare, step, run, rows * v->blocks, rows * v->count * acts->work,
                  TEPI_PACE_FLOAT);
}

const struct tepi_operation tepi_operation_vector = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_vector_params),
};
