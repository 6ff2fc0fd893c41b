/* SPDX-License-Identifier: Apache-2.0 */
/* What instructions on runs of consecutive bytes share: see exec_rows.h. */
#include "card/exec_rows.h"

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

static void walk(const struct tepi_elementwise_step *step, const struct tepi_kernel_set *kernels,
                 uint32_t depth, const uint8_t *a, const uint8_t *b, uint8_t *out,
                 tepi_rows_call *kernel)
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
uint16_t tepi_rows_run(const struct tepi_step *step, const struct tepi_run *run,
                       struct tepi_range units, tepi_rows_call *kernel)
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

void tepi_rows_cut(struct tepi_prepare *prepare, struct tepi_step *step, tepi_run_range *run,
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

uint16_t tepi_rows_check(const struct tepi_image *image, const struct tepi_instruction *in,
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

void tepi_rows_prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                       struct tepi_elementwise_step *step, bool has_b, bool joined)
{
    const struct tepi_tensor *tensors = prepare->image->tensors;
    const struct tepi_tensor *a = &tensors[in->a];
    step->rows = lay_rows(&tensors[in->out], a, has_b ? &tensors[in->b] : a, joined);
    step->a = tepi_prepare_site(prepare, in->a);
    step->b = has_b ? tepi_prepare_site(prepare, in->b) : step->a;
    step->out = tepi_prepare_site(prepare, in->out);
}
