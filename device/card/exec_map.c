/* SPDX-License-Identifier: Apache-2.0 */
/* MAP: strided copies with conversion, cut at load into planes for the kernels. */
#include "card/exec.h"
#include <math.h>
#include <string.h>

/* A dimension of the copy: extent, and steps of both sides in elements. */
struct dimension {
    uint32_t extent;
    int64_t in, out;
};

/* Fewest columns of a plane that is cut. */
enum { CUT_COLUMNS = 1024 };

/* Extents joined from several dimensions stay below this. */
#define JOINED_MAX (UINT64_C(1) << 30)

/* Whether every start + i . stride lies among the `before` elements ahead of element (0,0,0,0) or
 * the `after` from it on. Sums stay below 6 * 2^24 * 2^31 + 2^32. */
static bool reaches_only(const struct tepi_map_params *p, uint32_t start, const int32_t *stride,
                         uint64_t before, uint64_t after)
{
    int64_t first = start, last = start;
    for (uint32_t i = 0; i < p->rank; i++) {
        const int64_t span = (int64_t)(p->dims[i] - 1) * stride[i];
        first += span < 0 ? span : 0;
        last += span > 0 ? span : 0;
    }
    return first >= -(int64_t)before && last < (int64_t)after;
}

static bool shape_valid(const struct tepi_map_params *p)
{
    if (p->rank == 0 || p->rank > TEPI_MAP_RANK)
        return false;
    for (uint32_t i = 0; i < p->rank; i++)
        if (p->dims[i] == 0 || p->dims[i] > TEPI_DIM_MAX)
            return false;
    for (uint32_t i = p->rank; i < TEPI_MAP_RANK; i++)
        if (p->dims[i] || p->stride[i] || p->out_stride[i])
            return false;
    return p->reserved[0] == 0 && p->reserved[1] == 0;
}

static bool is_byte(uint8_t type)
{
    return type == TEPI_TYPE_U8 || type == TEPI_TYPE_I8;
}

/* `dynamic`: b gives out's quantization. */
static bool types_valid(const struct tepi_tensor *a, const struct tepi_tensor *out, bool table,
                        bool dynamic)
{
    const bool quantizes = a->type == TEPI_TYPE_F32 && out->type == TEPI_TYPE_U8;
    if (dynamic || table)
        return dynamic ? quantizes && !table : a->type == TEPI_TYPE_U8 && out->type == TEPI_TYPE_U8;
    if (out->type == TEPI_TYPE_F32)
        return a->type != TEPI_TYPE_I8 && (a->type != TEPI_TYPE_U8 || a->scale > 0);
    return quantizes ? out->scale > 0 : is_byte(a->type) && is_byte(out->type);
}

static bool within(const struct tepi_map_params *p, const struct tepi_tensor *t, uint32_t start,
                   const int32_t *stride)
{
    const struct tepi_reach reach = tepi_tensor_reach(t); /* ports: c elements, no halo */
    const uint32_t bytes = tepi_type_bytes(t->type);
    return reaches_only(p, start, stride, reach.before / bytes, reach.after / bytes);
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_map_params *p = &in->map;
    if (in->a >= image->header.tensors || in->out >= image->header.tensors)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const struct tepi_tensor *a = &image->tensors[in->a], *out = &image->tensors[in->out];
    if (a->place == TEPI_PLACE_OUTPUT ||
        (out->place != TEPI_PLACE_ARENA && out->place != TEPI_PLACE_OUTPUT) || !shape_valid(p) ||
        (in->b != TEPI_NO_TENSOR && !tepi_image_quantizes(image, in->b)) ||
        !types_valid(a, out, p->table != TEPI_NONE, in->b != TEPI_NO_TENSOR) ||
        !within(p, a, p->start, p->stride) || !within(p, out, p->out_start, p->out_stride))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    uint64_t elements = 1;
    for (uint32_t i = 0; i < p->rank; i++) {
        elements *= p->dims[i];
        if (elements > TEPI_STEPS_MAX)
            return TEPI_FAULT_PROGRAM_INSTRUCTION;
    }
    *work = elements;
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

static int64_t magnitude(int64_t step)
{
    return step < 0 ? -step : step;
}

/* Sorts by the output's step, largest first, and joins neighbours that advance as one. */
static uint32_t order(struct dimension *dims, uint32_t rank)
{
    for (uint32_t i = 1; i < rank; i++)
        for (uint32_t j = i; j > 0 && magnitude(dims[j].out) > magnitude(dims[j - 1].out); j--) {
            const struct dimension swapped = dims[j];
            dims[j] = dims[j - 1];
            dims[j - 1] = swapped;
        }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < rank; i++) {
        struct dimension *outer = kept ? &dims[kept - 1] : NULL;
        if (outer && outer->in == dims[i].extent * dims[i].in &&
            outer->out == dims[i].extent * dims[i].out &&
            (uint64_t)outer->extent * dims[i].extent <= JOINED_MAX) {
            outer->extent *= dims[i].extent;
            outer->in = dims[i].in;
            outer->out = dims[i].out;
        } else {
            dims[kept++] = dims[i];
        }
    }
    return kept;
}

/* How good a dimension is as the inner one: consecutive on both sides, on one, on none; then by
 * extent. */
static uint64_t worth(const struct dimension *d)
{
    return ((uint64_t)(d->in == 1) + (d->out == 1)) << 32 | d->extent;
}

/* Takes the best dimension out of the list; one of extent 1 if the list is empty. */
static struct dimension take_best(struct dimension *dims, uint32_t *count)
{
    if (*count == 0)
        return (struct dimension){1, 0, 0};
    uint32_t best = 0;
    for (uint32_t i = 1; i < *count; i++)
        if (worth(&dims[i]) >= worth(&dims[best]))
            best = i;
    const struct dimension taken = dims[best];
    memmove(&dims[best], &dims[best + 1], (--*count - best) * sizeof(*dims));
    return taken;
}

static void cut(struct tepi_map_step *step, const struct tepi_map_params *p)
{
    struct dimension dims[TEPI_MAP_RANK];
    uint32_t count = 0;
    for (uint32_t i = 0; i < p->rank; i++)
        if (p->dims[i] != 1)
            dims[count++] = (struct dimension){p->dims[i], p->stride[i], p->out_stride[i]};
    count = order(dims, count);
    const struct dimension columns = take_best(dims, &count);
    const struct dimension rows = take_best(dims, &count);
    step->plane = (struct tepi_plane){
        .rows = rows.extent,
        .columns = columns.extent,
        .in_row = (ptrdiff_t)rows.in,
        .in_column = (ptrdiff_t)columns.in,
        .out_row = (ptrdiff_t)rows.out,
        .out_column = (ptrdiff_t)columns.out,
    };
    step->depth = count;
    for (uint32_t i = 0; i < count; i++) {
        step->extent[i] = dims[i].extent;
        step->in_step[i] = dims[i].in;
        step->out_step[i] = dims[i].out;
    }
}

static void copy_bytes(const struct tepi_map_step *step, const struct tepi_run *run,
                       const struct tepi_plane *plane)
{
    run->kernels->copy_u8(plane, step->flip);
}

static void copy_quantized(const struct tepi_map_step *step, const struct tepi_run *run,
                           const struct tepi_plane *plane)
{
    struct tepi_quantization quantization = step->quantization;
    if (step->is_dynamic) {
        const struct tepi_quantization now = tepi_run_quantization(run, &step->dynamic);
        quantization.scale = now.scale;
        quantization.zero_point = now.zero_point;
    }
    run->kernels->quantize(plane, &quantization);
}

static void copy_dequantized(const struct tepi_map_step *step, const struct tepi_run *run,
                             const struct tepi_plane *plane)
{
    run->kernels->dequantize(plane, &step->quantization);
}

static void copy_through_table(const struct tepi_map_step *step, const struct tepi_run *run,
                               const struct tepi_plane *plane)
{
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + i * plane->in_row;
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row;
        if (plane->in_column == 1 && plane->out_column == 1) {
            run->kernels->table(step->table, in, out, plane->columns);
            continue;
        }
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++)
            out[j * plane->out_column] = step->table[in[j * plane->in_column]];
    }
}

static void copy_floats(const struct tepi_map_step *step, const struct tepi_run *run,
                        const struct tepi_plane *plane)
{
    (void)step, (void)run;
    const ptrdiff_t size = sizeof(float);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + i * plane->in_row * size;
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row * size;
        if (plane->in_column == 1 && plane->out_column == 1) {
            memmove(out, in, plane->columns * sizeof(float));
            continue;
        }
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++)
            memmove(out + j * plane->out_column * size, in + j * plane->in_column * size,
                    sizeof(float));
    }
}

static float number_at(const uint8_t *in, uint8_t type)
{
    int64_t wide;
    int32_t narrow;
    switch (type) {
    case TEPI_TYPE_I64:
        memcpy(&wide, in, sizeof(wide));
        return (float)wide;
    case TEPI_TYPE_I32:
        memcpy(&narrow, in, sizeof(narrow));
        return (float)narrow;
    default:
        return *in ? 1.0f : 0.0f;
    }
}

/* Integers and truth values to float32. */
static void copy_numbers(const struct tepi_map_step *step, const struct tepi_run *run,
                         const struct tepi_plane *plane)
{
    (void)run;
    const ptrdiff_t in_size = step->in_bytes, out_size = sizeof(float);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + i * plane->in_row * in_size;
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row * out_size;
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++) {
            const float value = number_at(in + j * plane->in_column * in_size, step->in_type);
            memcpy(out + j * plane->out_column * out_size, &value, sizeof(value));
        }
    }
}

static void loop(const struct tepi_map_step *step, const struct tepi_run *run, uint32_t level,
                 const uint8_t *in, uint8_t *out)
{
    if (level == step->depth) {
        struct tepi_plane plane = step->plane;
        plane.input = in;
        plane.output = out;
        step->copy(step, run, &plane);
        return;
    }
    for (uint32_t i = 0; i < step->extent[level]; i++) {
        loop(step, run, level + 1, in, out);
        in += step->in_step[level] * step->in_bytes;
        out += step->out_step[level] * step->out_bytes;
    }
}

/* Along the outermost loop or, where there is none, along the plane's columns. */
static uint16_t run_map(const struct tepi_step *step, const struct tepi_run *run,
                        struct tepi_range units, void *scratch)
{
    (void)scratch;
    const struct tepi_map_step *map = &step->map;
    const uint8_t *in = tepi_at(run, &map->in);
    uint8_t *out = tepi_at(run, &map->out);
    if (map->depth) {
        for (int64_t i = units.begin; i < (int64_t)units.end; i++)
            loop(map, run, 1, in + i * map->in_step[0] * map->in_bytes,
                 out + i * map->out_step[0] * map->out_bytes);
        return TEPI_FAULT_OK;
    }
    struct tepi_plane plane = map->plane;
    const uint64_t begin = (uint64_t)plane.columns * units.begin / step->cut.units;
    const uint64_t end = (uint64_t)plane.columns * units.end / step->cut.units;
    plane.columns = (uint32_t)(end - begin);
    plane.input = in + (ptrdiff_t)begin * plane.in_column * map->in_bytes;
    plane.output = out + (ptrdiff_t)begin * plane.out_column * map->out_bytes;
    map->copy(map, run, &plane);
    return TEPI_FAULT_OK;
}

static struct tepi_quantization quantization_of(const struct tepi_tensor *t,
                                                const struct tepi_map_params *p)
{
    return (struct tepi_quantization){
        .scale = t->scale, .zero_point = t->zero_point, .lo = p->lo, .hi = p->hi};
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_map_params *p = &in->map;
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    struct tepi_map_step *map = &step->map;
    *map = (struct tepi_map_step){
        .in = tepi_prepare_site(prepare, in->a),
        .out = tepi_prepare_site(prepare, in->out),
        .in_bytes = tepi_type_bytes(a->type),
        .out_bytes = tepi_type_bytes(out->type),
        .in_type = a->type,
        .is_dynamic = in->b != TEPI_NO_TENSOR,
        .flip = a->type != out->type ? 0x80 : 0,
        .table = tepi_prepare_constant(prepare, p->table, 256),
        .copy = copy_bytes,
    };
    map->in.offset += (uint64_t)p->start * map->in_bytes;
    map->out.offset += (uint64_t)p->out_start * map->out_bytes;
    cut(map, p);
    if (map->is_dynamic)
        map->dynamic = tepi_prepare_site(prepare, in->b);
    if (a->type == TEPI_TYPE_F32 && out->type == TEPI_TYPE_F32) {
        map->copy = copy_floats;
    } else if (a->type == TEPI_TYPE_F32) {
        map->copy = copy_quantized;
        map->quantization = quantization_of(out, p);
    } else if (out->type == TEPI_TYPE_F32 && a->type == TEPI_TYPE_U8) {
        map->copy = copy_dequantized;
        map->quantization = quantization_of(a, p);
    } else if (out->type == TEPI_TYPE_F32) {
        map->copy = copy_numbers;
    } else if (p->table != TEPI_NONE) {
        map->copy = copy_through_table;
    }
    uint64_t elements = 1;
    for (uint32_t i = 0; i < p->rank; i++)
        elements *= p->dims[i];
    const uint64_t columns = map->plane.columns / CUT_COLUMNS;
    tepi_cut_step(prepare, step, run_map,
                  map->depth ? map->extent[0]
                  : columns  ? columns
                             : 1,
                  elements, TEPI_PACE_ELEMENT);
}

const struct tepi_operation tepi_operation_map = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_map_params),
    .has_a = true,
    .may_have_b = true,
};
