/* SPDX-License-Identifier: Apache-2.0 */
/* MATMUL: products of two activations, one for each n and h, heads read and written in place. */
#include "card/exec.h"
#include <math.h>

/* Multiply-accumulates between two looks at abort and deadline: some 0.1 s on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 26)

static struct tepi_heads heads_of(const struct tepi_tensor *t, uint32_t heads, bool split)
{
    if (!split)
        return (struct tepi_heads){t->n, t->h, t->w, t->c, t->stride_n, t->stride_h, t->stride_w};
    const uint32_t c = t->c / heads;
    return (struct tepi_heads){t->n, heads, t->w, c, t->stride_n, c, t->stride_w};
}

static bool split_valid(const struct tepi_tensor *t, uint32_t heads, uint8_t split)
{
    return split == 0 || (split == 1 && t->h == 1 && t->c % heads == 0);
}

static bool fields_valid(const struct tepi_matmul_params *p)
{
    const bool any = p->a_split || p->b_split || p->out_split;
    return isfinite(p->multiplier) && (any ? p->heads != 0 : p->heads == 0) &&
           p->b_transposed <= 1 && !p->reserved[0] && !p->reserved[1];
}

/* One product for each n and h of out. */
static bool repeats(const struct tepi_heads *t, const struct tepi_heads *out)
{
    return (t->n == 1 || t->n == out->n) && (t->h == 1 || t->h == out->h);
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_matmul_params *p = &in->matmul;
    const struct tepi_tensor *ta = tepi_image_source(image, in->a);
    const struct tepi_tensor *tb = tepi_image_source(image, in->b);
    const struct tepi_tensor *to = tepi_image_target(image, in->out);
    if (!ta || !tb || !to || !fields_valid(p) || !split_valid(ta, p->heads, p->a_split) ||
        !split_valid(tb, p->heads, p->b_split) || !split_valid(to, p->heads, p->out_split))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const struct tepi_heads a = heads_of(ta, p->heads, p->a_split);
    const struct tepi_heads b = heads_of(tb, p->heads, p->b_split);
    const struct tepi_heads out = heads_of(to, p->heads, p->out_split);
    const uint32_t depth = p->b_transposed ? b.c : b.w, columns = p->b_transposed ? b.w : b.c;
    if (!repeats(&a, &out) || !repeats(&b, &out) || a.w != out.w || a.c != depth ||
        out.c != columns || (uint64_t)out.n * out.h > UINT32_MAX)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* Below 2^56: elements of out times at most TEPI_DIM_MAX. */
    *work = tepi_elements(to) * depth;
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

/* All rows of one product whose b is packed. */
static uint16_t run_rows(const struct tepi_matmul_step *s, const struct tepi_matmul *matmul,
                         const struct tepi_run *run)
{
    uint32_t row = 0;
    while (matmul->rows - row > s->rows_at_once) {
        run->kernels->matmul->run(matmul, row, row + s->rows_at_once);
        row += s->rows_at_once;
        const uint16_t fault = tepi_run_interrupted(run->control);
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    run->kernels->matmul->run(matmul, row, matmul->rows);
    return TEPI_FAULT_OK;
}

static const uint8_t *product_at(const uint8_t *base, const struct tepi_heads *t, uint32_t n,
                                 uint32_t h)
{
    return base + (t->n == 1 ? 0 : (uint64_t)n * t->stride_n) +
           (t->h == 1 ? 0 : (uint64_t)h * t->stride_h);
}

/* A unit is one product. */
static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    const struct tepi_matmul_step *s = &step->matmul;
    struct tepi_matmul matmul = s->matmul;
    matmul.scratch = scratch;
    for (uint32_t unit = units.begin; unit < units.end; unit++) {
        const uint32_t n = unit / s->out_heads.h, h = unit % s->out_heads.h;
        const uint8_t *b = product_at(tepi_at(run, &s->b), &s->b_heads, n, h);
        matmul.a = product_at(tepi_at(run, &s->a), &s->a_heads, n, h);
        matmul.output = tepi_at(run, &s->out) + (uint64_t)n * s->out_heads.stride_n +
                        (uint64_t)h * s->out_heads.stride_h;
        const bool packed = b == matmul.b;
        matmul.b = b;
        if (!packed)
            run->kernels->matmul->pack(&matmul);
        uint16_t fault = run_rows(s, &matmul, run);
        if (fault == TEPI_FAULT_OK && s->work >= WORK_AT_ONCE)
            fault = tepi_run_interrupted(run->control);
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    return TEPI_FAULT_OK;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_matmul_params *p = &in->matmul;
    const struct tepi_tensor *tensors = prepare->image->tensors;
    const struct tepi_tensor *a = &tensors[in->a], *b = &tensors[in->b], *out = &tensors[in->out];
    struct tepi_matmul_step s = {
        .a = tepi_prepare_site(prepare, in->a),
        .b = tepi_prepare_site(prepare, in->b),
        .out = tepi_prepare_site(prepare, in->out),
        .a_heads = heads_of(a, p->heads, p->a_split),
        .b_heads = heads_of(b, p->heads, p->b_split),
        .out_heads = heads_of(out, p->heads, p->out_split),
    };
    s.matmul = (struct tepi_matmul){
        .a_stride = a->stride_w,
        .b_stride = b->stride_w,
        .out_stride = out->stride_w,
        .rows = s.out_heads.w,
        .depth = s.a_heads.c,
        .columns = s.out_heads.c,
        .b_transposed = p->b_transposed,
        .a_zero_point = a->zero_point,
        .b_zero_point = b->zero_point,
        .multiplier = p->multiplier,
        .store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, out->zero_point),
    };
    const uint64_t row_work = (uint64_t)s.matmul.depth * s.matmul.columns;
    const uint64_t rows = row_work < WORK_AT_ONCE ? WORK_AT_ONCE / row_work : 1;
    s.rows_at_once = (uint32_t)(rows < UINT32_MAX ? rows : UINT32_MAX);
    s.work = row_work * s.matmul.rows * s.out_heads.h * s.out_heads.n;
    const uint64_t scratch = prepare->kernels->matmul->scratch_bytes(&s.matmul);
    if (scratch > prepare->kernel_scratch)
        prepare->kernel_scratch = scratch;
    step->matmul = s;
    const uint64_t units = (uint64_t)s.out_heads.n * s.out_heads.h;
    tepi_cut_step(prepare, step, run, units, s.work, TEPI_PACE_DENSE);
}

const struct tepi_operation tepi_operation_matmul = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_matmul_params),
    .has_a = true,
    .has_b = true,
};
