/* SPDX-License-Identifier: Apache-2.0 */
/* ADD, MUL, TABLE and SOFTMAX: calls of a kernel on runs of consecutive bytes. */
#include "card/exec.h"
#include <math.h>

/* Smallest stretch that a row is cut into, and most pieces (an extent times it fits 64 bits). */
enum { CUT_BYTES = 4096, CUT_MAX = 1 << 16 };

/* The loops around the kernel, innermost dimension first, joined where bytes follow each other.
 * b broadcasts along the dimensions where it has 1. With `joined` false a call covers exactly the
 * channels of one pixel. */
static struct tepi_rows lay_rows(const struct tepi_tensor *out, const struct tepi_tensor *a,
                                 const struct tepi_tensor *b, bool joined)
{
    const struct {
        uint32_t extent, b_extent;
        uint64_t out, a, b;
    } dims[] = {
        {out->c, b->c, 1, 1, 1},
        {out->w, b->w, out->stride_w, a->stride_w, b->stride_w},
        {out->h, b->h, out->stride_h, a->stride_h, b->stride_h},
        {out->n, b->n, out->stride_n, a->stride_n, b->stride_n},
    };
    struct tepi_rows rows = {.count = 1};
    for (size_t i = 0; i < 4; i++) {
        const uint64_t extent = dims[i].extent, b_step = dims[i].b_extent == 1 ? 0 : dims[i].b;
        if (extent == 1)
            continue;
        const uint32_t d = rows.depth;
        const bool first = rows.count == 1 && b_step <= 1;
        if (d == 0 && (joined || i == 0) && dims[i].out == rows.count && dims[i].a == rows.count &&
            (first || b_step == rows.b_step * rows.count)) {
            rows.b_step = first ? (size_t)b_step : rows.b_step;
            rows.count *= extent;
        } else if (d > 0 && dims[i].out == rows.out_step[d - 1] * rows.extent[d - 1] &&
                   dims[i].a == rows.a_step[d - 1] * rows.extent[d - 1] &&
                   b_step == rows.b_step_outer[d - 1] * rows.extent[d - 1]) {
            rows.extent[d - 1] *= extent;
        } else {
            rows.extent[d] = extent;
            rows.out_step[d] = dims[i].out;
            rows.a_step[d] = dims[i].a;
            rows.b_step_outer[d] = b_step;
            rows.depth++;
        }
    }
    return rows;
}

typedef void call(const struct tepi_elementwise_step *step, const struct tepi_kernel_set *kernels,
                  const uint8_t *a, const uint8_t *b, uint8_t *out, size_t count);

static void walk(const struct tepi_elementwise_step *step, const struct tepi_kernel_set *kernels,
                 uint32_t depth, const uint8_t *a, const uint8_t *b, uint8_t *out, call *kernel)
{
    const struct tepi_rows *rows = &step->rows;
    if (depth == 0) {
        kernel(step, kernels, a, b, out, (size_t)rows->count);
        return;
    }
    const uint32_t d = depth - 1;
    for (uint64_t i = 0; i < rows->extent[d]; i++)
        walk(step, kernels, d, a + i * rows->a_step[d], b + i * rows->b_step_outer[d],
             out + i * rows->out_step[d], kernel);
}

/* A unit is a stretch of bytes where all are one row, else some rounds of the outermost loop. */
static uint16_t run_units(const struct tepi_step *step, const struct tepi_run *run,
                          struct tepi_range units, call *kernel)
{
    const struct tepi_elementwise_step *s = &step->elementwise;
    const struct tepi_rows *rows = &s->rows;
    const uint8_t *a = tepi_at(run, &s->a), *b = tepi_at(run, &s->b);
    uint8_t *out = tepi_at(run, &s->out);
    const uint64_t extent = rows->depth ? rows->extent[rows->depth - 1] : rows->count;
    const uint64_t begin = extent * units.begin / step->cut.units;
    const uint64_t end = extent * units.end / step->cut.units;
    if (rows->depth == 0) {
        kernel(s, run->kernels, a + begin, b + begin * rows->b_step, out + begin,
               (size_t)(end - begin));
        return TEPI_FAULT_OK;
    }
    const uint32_t d = rows->depth - 1;
    for (uint64_t i = begin; i < end; i++)
        walk(s, run->kernels, d, a + i * rows->a_step[d], b + i * rows->b_step_outer[d],
             out + i * rows->out_step[d], kernel);
    return TEPI_FAULT_OK;
}

/* A row of SOFTMAX is one whole. */
static void cut(struct tepi_prepare *prepare, struct tepi_step *step, tepi_run_range *run,
                bool rows_cut)
{
    const struct tepi_rows *rows = &step->elementwise.rows;
    uint64_t units = rows_cut ? rows->count / CUT_BYTES : 1, work = rows->count;
    for (uint32_t i = 0; i < rows->depth; i++)
        work *= rows->extent[i];
    if (rows->depth)
        units = rows->extent[rows->depth - 1];
    units = units < 1 ? 1 : units < CUT_MAX ? units : CUT_MAX;
    tepi_cut_step(prepare, step, run, units, work, TEPI_PACE_ELEMENT);
}

static bool same_extent(const struct tepi_tensor *a, const struct tepi_tensor *b)
{
    return a->n == b->n && a->h == b->h && a->w == b->w && a->c == b->c;
}

static bool broadcasts(const struct tepi_tensor *b, const struct tepi_tensor *out)
{
    return (b->n == 1 || b->n == out->n) && (b->h == 1 || b->h == out->h) &&
           (b->w == 1 || b->w == out->w) && (b->c == 1 || b->c == out->c);
}

static bool is_byte(int32_t value)
{
    return value >= 0 && value <= 255;
}

static uint16_t check_operands(const struct tepi_image *image, const struct tepi_instruction *in,
                               bool has_b, uint64_t *work)
{
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    if (!a || !out || !same_extent(a, out))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    if (has_b) {
        const struct tepi_tensor *b = tepi_image_source(image, in->b);
        if (!b || !broadcasts(b, out))
            return TEPI_FAULT_PROGRAM_INSTRUCTION;
    }
    *work = tepi_elements(out);
    return TEPI_FAULT_OK;
}

static uint16_t check_add(const struct tepi_image *image, const struct tepi_instruction *in,
                          uint64_t *work)
{
    const struct tepi_add_params *p = &in->add;
    const uint16_t fault = check_operands(image, in, true, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    if (!isfinite(p->ratio_a) || !isfinite(p->ratio_b) || !isfinite(p->fixed) ||
        !is_byte(p->a_offset) || !is_byte(p->b_offset) || !is_byte(p->out_offset) ||
        p->reserved[0] || p->reserved[1])
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

static uint16_t check_mul(const struct tepi_image *image, const struct tepi_instruction *in,
                          uint64_t *work)
{
    const struct tepi_mul_params *p = &in->mul;
    const uint16_t fault = check_operands(image, in, true, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    if (!isfinite(p->ratio) || !isfinite(p->zero) || !is_byte(p->a_zero_point) ||
        !is_byte(p->b_zero_point) || !is_byte(p->out_offset) || p->reserved[0] || p->reserved[1])
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

static uint16_t check_table(const struct tepi_image *image, const struct tepi_instruction *in,
                            uint64_t *work)
{
    const uint16_t fault = check_operands(image, in, false, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    return tepi_image_holds(image, in->table.table, 256, 1) ? TEPI_FAULT_OK
                                                            : TEPI_FAULT_PROGRAM_CONSTANT;
}

static uint16_t check_softmax(const struct tepi_image *image, const struct tepi_instruction *in,
                              uint64_t *work)
{
    const uint16_t fault = check_operands(image, in, false, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    if (!isfinite(in->softmax.ratio))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_image_holds(image, in->softmax.table, 1024, 4) ? TEPI_FAULT_OK
                                                               : TEPI_FAULT_PROGRAM_CONSTANT;
}

static void prepare_operands(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                             struct tepi_elementwise_step *step, bool has_b, bool joined)
{
    const struct tepi_tensor *tensors = prepare->image->tensors;
    const struct tepi_tensor *a = &tensors[in->a];
    step->rows = lay_rows(&tensors[in->out], a, has_b ? &tensors[in->b] : a, joined);
    step->a = tepi_prepare_site(prepare, in->a);
    step->b = has_b ? tepi_prepare_site(prepare, in->b) : step->a;
    step->out = tepi_prepare_site(prepare, in->out);
}

static void call_add(const struct tepi_elementwise_step *step,
                     const struct tepi_kernel_set *kernels, const uint8_t *a, const uint8_t *b,
                     uint8_t *out, size_t count)
{
    kernels->add(&step->add, a, b, step->rows.b_step, out, count);
}

static uint16_t run_add(const struct tepi_step *step, const struct tepi_run *run,
                        struct tepi_range units, void *scratch)
{
    (void)scratch;
    return run_units(step, run, units, call_add);
}

static void prepare_add(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                        struct tepi_step *step)
{
    const struct tepi_add_params *p = &in->add;
    prepare_operands(prepare, in, &step->elementwise, true, true);
    step->elementwise.add = (struct tepi_add){
        .ratio_a = p->ratio_a,
        .ratio_b = p->ratio_b,
        .fixed = p->fixed,
        .a_offset = p->a_offset,
        .b_offset = p->b_offset,
        .out_offset = p->out_offset,
        .store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, 0),
    };
    cut(prepare, step, run_add, true);
}

static void call_mul(const struct tepi_elementwise_step *step,
                     const struct tepi_kernel_set *kernels, const uint8_t *a, const uint8_t *b,
                     uint8_t *out, size_t count)
{
    kernels->mul(&step->mul, a, b, step->rows.b_step, out, count);
}

static uint16_t run_mul(const struct tepi_step *step, const struct tepi_run *run,
                        struct tepi_range units, void *scratch)
{
    (void)scratch;
    return run_units(step, run, units, call_mul);
}

static void prepare_mul(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                        struct tepi_step *step)
{
    const struct tepi_mul_params *p = &in->mul;
    prepare_operands(prepare, in, &step->elementwise, true, true);
    step->elementwise.mul = (struct tepi_mul){
        .ratio = p->ratio,
        .zero = p->zero,
        .a_zero_point = p->a_zero_point,
        .b_zero_point = p->b_zero_point,
        .out_offset = p->out_offset,
        .store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, 0),
    };
    cut(prepare, step, run_mul, true);
}

static void call_table(const struct tepi_elementwise_step *step,
                       const struct tepi_kernel_set *kernels, const uint8_t *a, const uint8_t *b,
                       uint8_t *out, size_t count)
{
    (void)b;
    kernels->table(step->table, a, out, count);
}

static uint16_t run_table(const struct tepi_step *step, const struct tepi_run *run,
                          struct tepi_range units, void *scratch)
{
    (void)scratch;
    return run_units(step, run, units, call_table);
}

static void prepare_table(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                          struct tepi_step *step)
{
    prepare_operands(prepare, in, &step->elementwise, false, true);
    step->elementwise.table = tepi_prepare_constant(prepare, in->table.table, 256);
    cut(prepare, step, run_table, true);
}

static void call_softmax(const struct tepi_elementwise_step *step,
                         const struct tepi_kernel_set *kernels, const uint8_t *a, const uint8_t *b,
                         uint8_t *out, size_t count)
{
    (void)b;
    kernels->softmax(step->softmax.table, step->softmax.ratio, step->softmax.zero_point, a, out,
                     count);
}

static uint16_t run_softmax(const struct tepi_step *step, const struct tepi_run *run,
                            struct tepi_range units, void *scratch)
{
    (void)scratch;
    return run_units(step, run, units, call_softmax);
}

static void prepare_softmax(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                            struct tepi_step *step)
{
    prepare_operands(prepare, in, &step->elementwise, false, false);
    step->elementwise.softmax.table = tepi_prepare_floats(prepare, in->softmax.table, 256);
    step->elementwise.softmax.ratio = in->softmax.ratio;
    step->elementwise.softmax.zero_point = prepare->image->tensors[in->out].zero_point;
    cut(prepare, step, run_softmax, false);
}

const struct tepi_operation tepi_operation_add = {
    .check = check_add,
    .prepare = prepare_add,
    .params_bytes = sizeof(struct tepi_add_params),
    .has_a = true,
    .has_b = true,
};
const struct tepi_operation tepi_operation_mul = {
    .check = check_mul,
    .prepare = prepare_mul,
    .params_bytes = sizeof(struct tepi_mul_params),
    .has_a = true,
    .has_b = true,
};
const struct tepi_operation tepi_operation_table = {
    .check = check_table,
    .prepare = prepare_table,
    .params_bytes = sizeof(struct tepi_table_params),
    .has_a = true,
};
const struct tepi_operation tepi_operation_softmax = {
    .check = check_softmax,
    .prepare = prepare_softmax,
    .params_bytes = sizeof(struct tepi_softmax_params),
    .has_a = true,
};
