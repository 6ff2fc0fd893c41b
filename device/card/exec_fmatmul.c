/* SPDX-License-Identifier: Apache-2.0 */
/* FMATMUL: float32 products, one for each n and h, each cut into stripes of columns whose packed b
 * stays in a cache. */
#include "card/exec_heads.h"
#include <math.h>

/* Multiply-accumulates between two looks at abort and deadline: some 0.1 s on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 24)

enum { STRIPE_FLOATS = 1 << 15, STRIPE_GRAIN = 16 };

static struct tepi_products products_of(const struct tepi_fmatmul_params *p)
{
    return (struct tepi_products){p->heads, p->a_split, p->b_split, p->out_split, p->b_transposed};
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_fmatmul_params *p = &in->fmatmul;
    const struct tepi_tensor *a = tepi_image_float_source(image, in->a);
    const struct tepi_tensor *b = tepi_image_float_source(image, in->b);
    const struct tepi_tensor *out = tepi_image_float_target(image, in->out);
    const struct tepi_products products = products_of(p);
    struct tepi_products_heads heads;
    if (!a || !b || !out || !isfinite(p->scale) ||
        !tepi_products_valid(&products, a, b, out, &heads))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* Below 2^54, as MATMUL's. */
    *work = tepi_elements(out) * heads.a.c;
    return TEPI_FAULT_OK;
}

/* All rows of one stripe whose b is packed. */
static uint16_t run_rows(const struct tepi_fmatmul_step *s, const struct tepi_fmatmul *fmatmul,
                         const struct tepi_run *run)
{
    uint32_t row = 0;
    while (fmatmul->rows - row > s->rows_at_once) {
        run->kernels->fmatmul->run(fmatmul, row, row + s->rows_at_once);
        row += s->rows_at_once;
        const uint16_t fault = tepi_run_interrupted(run->control);
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    run->kernels->fmatmul->run(fmatmul, row, fmatmul->rows);
    return TEPI_FAULT_OK;
}

/* The product that unit `unit` computes: stripe unit % stripes of product unit / stripes. */
static struct tepi_fmatmul stripe_of(const struct tepi_fmatmul_step *s, const struct tepi_run *run,
                                     uint32_t unit)
{
    struct tepi_fmatmul fmatmul = s->fmatmul;
    const uint32_t product = unit / s->stripes, first = unit % s->stripes * s->stripe;
    const uint32_t n = product / s->out_heads.h, h = product % s->out_heads.h;
    uint8_t *out = tepi_at(run, &s->out) + (uint64_t)n * s->out_heads.stride_n +
                   (uint64_t)h * s->out_heads.stride_h;
    fmatmul.a = (const float *)(const void *)tepi_head_at(tepi_at(run, &s->a), &s->a_heads, n, h);
    fmatmul.b = (const float *)(const void *)tepi_head_at(tepi_at(run, &s->b), &s->b_heads, n, h);
    fmatmul.b += first * (fmatmul.b_transposed ? fmatmul.b_stride : 1);
    fmatmul.output = (float *)(void *)out + first;
    fmatmul.columns -= first;
    fmatmul.columns = fmatmul.columns < s->stripe ? fmatmul.columns : s->stripe;
    return fmatmul;
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    const struct tepi_fmatmul_step *s = &step->fmatmul;
    const float *packed = NULL;
    for (uint32_t unit = units.begin; unit < units.end; unit++) {
        struct tepi_fmatmul fmatmul = stripe_of(s, run, unit);
        fmatmul.scratch = scratch;
        if (fmatmul.b != packed)
            run->kernels->fmatmul->pack(&fmatmul);
        packed = fmatmul.b;
        uint16_t fault = run_rows(s, &fmatmul, run);
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
    const struct tepi_fmatmul_params *p = &in->fmatmul;
    const struct tepi_tensor *tensors = prepare->image->tensors;
    const struct tepi_tensor *a = &tensors[in->a], *b = &tensors[in->b], *out = &tensors[in->out];
    const struct tepi_products products = products_of(p);
    struct tepi_products_heads heads;
    (void)tepi_products_valid(&products, a, b, out, &heads); /* as the check has found */
    struct tepi_fmatmul_step s = {
        .a = tepi_prepare_site(prepare, in->a),
        .b = tepi_prepare_site(prepare, in->b),
        .out = tepi_prepare_site(prepare, in->out),
        .a_heads = heads.a,
        .b_heads = heads.b,
        .out_heads = heads.out,
        .fmatmul =
            {
                .a_stride = a->stride_w / sizeof(float),
                .b_stride = b->stride_w / sizeof(float),
                .out_stride = out->stride_w / sizeof(float),
                .rows = heads.out.w,
                .depth = heads.a.c,
                .columns = heads.out.c,
                .b_transposed = p->b_transposed,
                .scale = p->scale,
            },
    };
    s.stripe = STRIPE_FLOATS / s.fmatmul.depth / STRIPE_GRAIN * STRIPE_GRAIN;
    s.stripe = s.stripe < STRIPE_GRAIN ? STRIPE_GRAIN : s.stripe;
    s.stripes = (s.fmatmul.columns + s.stripe - 1) / s.stripe;
    struct tepi_fmatmul largest = s.fmatmul;
    largest.columns = s.stripe < largest.columns ? s.stripe : largest.columns;
    const uint64_t row_work = (uint64_t)largest.depth * largest.columns;
    const uint64_t rows = row_work < WORK_AT_ONCE ? WORK_AT_ONCE / row_work : 1;
    s.rows_at_once = (uint32_t)(rows < UINT32_MAX ? rows : UINT32_MAX);
    s.work = tepi_elements(out) * s.fmatmul.depth;
    tepi_prepare_scratch(prepare, prepare->kernels->fmatmul->scratch_bytes(&largest));
    step->fmatmul = s;
    const uint64_t units = (uint64_t)s.out_heads.n * s.out_heads.h * s.stripes;
    tepi_cut_step(prepare, step, run, units, s.work, TEPI_PACE_PRODUCT);
}

const struct tepi_operation tepi_operation_fmatmul = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_fmatmul_params),
    .has_a = true,
    .has_b = true,
};
