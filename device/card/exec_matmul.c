/* SPDX-License-Identifier: Apache-2.0 */
/* MATMUL: products of two activations, one for each n and h, heads read and written in place. */
#include "card/exec_heads.h"
#include <math.h>

/* Multiply-accumulates between two looks at abort and deadline: some 0.1 s on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 26)

static struct tepi_products products_of(const struct tepi_matmul_params *p)
{
    return (struct tepi_products){p->heads, p->a_split, p->b_split, p->out_split, p->b_transposed};
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_matmul_params *p = &in->matmul;
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *b = tepi_image_source(image, in->b);
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    const struct tepi_products products = products_of(p);
    struct tepi_products_heads heads;
    if (!a || !b || !out || !isfinite(p->multiplier) || p->reserved[0] || p->reserved[1] ||
        !tepi_products_valid(&products, a, b, out, &heads))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* Below 2^56: elements of out times at most TEPI_DIM_MAX. */
    *work = tepi_elements(out) * heads.a.c;
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

/* A unit is one product. */
static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    const struct tepi_matmul_step *s = &step->matmul;
    struct tepi_matmul matmul = s->matmul;
    matmul.scratch = scratch;
    for (uint32_t unit = units.begin; unit < units.end; unit++) {
        const uint32_t n = unit / s->out_heads.h, h = unit % s->out_heads.h;
        const uint8_t *b = tepi_head_at(tepi_at(run, &s->b), &s->b_heads, n, h);
        matmul.a = tepi_head_at(tepi_at(run, &s->a), &s->a_heads, n, h);
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
    const struct tepi_products products = products_of(p);
    struct tepi_products_heads heads;
    (void)tepi_products_valid(&products, a, b, out, &heads); /* as the check has found */
    struct tepi_matmul_step s = {
        .a = tepi_prepare_site(prepare, in->a),
        .b = tepi_prepare_site(prepare, in->b),
        .out = tepi_prepare_site(prepare, in->out),
        .a_heads = heads.a,
        .b_heads = heads.b,
        .out_heads = heads.out,
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
    tepi_prepare_scratch(prepare, prepare->kernels->matmul->scratch_bytes(&s.matmul));
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
