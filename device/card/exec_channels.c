/* SPDX-License-Identifier: Apache-2.0 */
/* SOFTMAX and LAYERNORM: along the channels of each pixel. */
#include "card/exec_rows.h"
#include <math.h>

static uint16_t check_softmax(const struct tepi_image *image, const struct tepi_instruction *in,
                              uint64_t *work)
{
    const uint16_t fault = tepi_rows_check(image, in, false, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    if (!isfinite(in->softmax.ratio))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_image_holds(image, in->softmax.table, 1024, 4) ? TEPI_FAULT_OK
                                                               : TEPI_FAULT_PROGRAM_CONSTANT;
}

static uint16_t check_layernorm(const struct tepi_image *image, const struct tepi_instruction *in,
                                uint64_t *work)
{
    const struct tepi_layernorm_params *p = &in->layernorm;
    const uint16_t fault = tepi_rows_check(image, in, false, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    if (!isfinite(p->epsilon) || !(p->epsilon > 0))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const uint64_t bytes = 4 * (uint64_t)image->tensors[in->out].c;
    return tepi_image_holds(image, p->gamma, bytes, 4) && tepi_image_holds(image, p->beta, bytes, 4)
               ? TEPI_FAULT_OK
               : TEPI_FAULT_PROGRAM_CONSTANT;
}

/* A unit is some of the pixels where they all lie at one step from each other, else a round of the
 * outermost loop. */
static void call_softmax(const struct tepi_elementwise_step *step,
                         const struct tepi_kernel_set *kernels, const uint8_t *a, const uint8_t *b,
                         uint8_t *out, size_t count)
{
    (void)b;
    (void)count;
    kernels->softmax(&step->softmax, a, out);
}

static uint16_t run_softmax(const struct tepi_step *step, const struct tepi_run *run,
                            struct tepi_range units, void *scratch)
{
    (void)scratch;
    const struct tepi_elementwise_step *s = &step->elementwise;
    if (s->rows.depth)
        return tepi_rows_run(step, run, units, call_softmax);
    struct tepi_softmax softmax = s->softmax;
    const uint64_t begin = (uint64_t)softmax.rows * units.begin / step->cut.units;
    softmax.rows = (size_t)((uint64_t)softmax.rows * units.end / step->cut.units - begin);
    run->kernels->softmax(&softmax, tepi_at(run, &s->a) + begin * softmax.a_step,
                          tepi_at(run, &s->out) + begin * softmax.out_step);
    return TEPI_FAULT_OK;
}

/* The innermost loop over pixels is the kernel's. */
static void hand_over_loop(struct tepi_rows *rows, struct tepi_softmax *softmax)
{
    softmax->rows = 1;
    if (rows->depth == 0)
        return;
    softmax->rows = (size_t)rows->extent[0];
    softmax->a_step = (size_t)rows->a_step[0];
    softmax->out_step = (size_t)rows->out_step[0];
    rows->depth--;
    for (uint32_t d = 0; d < rows->depth; d++) {
        rows->extent[d] = rows->extent[d + 1];
        rows->a_step[d] = rows->a_step[d + 1];
        rows->out_step[d] = rows->out_step[d + 1];
        rows->b_step_outer[d] = rows->b_step_outer[d + 1];
    }
}

static void prepare_softmax(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                            struct tepi_step *step)
{
    struct tepi_elementwise_step *s = &step->elementwise;
    tepi_rows_prepare(prepare, in, s, false, false);
    s->softmax = (struct tepi_softmax){
        .table = tepi_prepare_floats(prepare, in->softmax.table, 256),
        .ratio = in->softmax.ratio,
        .zero_point = prepare->image->tensors[in->out].zero_point,
        .count = (size_t)s->rows.count,
    };
    tepi_rows_cut(prepare, step, run_softmax, false);
    hand_over_loop(&s->rows, &s->softmax);
}

static void call_layernorm(const struct tepi_elementwise_step *step,
                           const struct tepi_kernel_set *kernels, const uint8_t *a,
                           const uint8_t *b, uint8_t *out, size_t count)
{
    (void)b;
    kernels->layernorm(&step->layernorm, a, out, count);
}

static uint16_t run_layernorm(const struct tepi_step *step, const struct tepi_run *run,
                              struct tepi_range units, void *scratch)
{
    (void)scratch;
    return tepi_rows_run(step, run, units, call_layernorm);
}

static void prepare_layernorm(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                              struct tepi_step *step)
{
    const struct tepi_layernorm_params *p = &in->layernorm;
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    tepi_rows_prepare(prepare, in, &step->elementwise, false, false);
    step->elementwise.layernorm = (struct tepi_layernorm){
        .gamma = tepi_prepare_floats(prepare, p->gamma, out->c),
        .beta = tepi_prepare_floats(prepare, p->beta, out->c),
        .epsilon = p->epsilon,
        .zero_point = out->zero_point,
    };
    tepi_rows_cut(prepare, step, run_layernorm, false);
}

const struct tepi_operation tepi_operation_softmax = {
    .check = check_softmax,
    .prepare = prepare_softmax,
    .params_bytes = sizeof(struct tepi_softmax_params),
    .has_a = true,
};
const struct tepi_operation tepi_operation_layernorm = {
    .check = check_layernorm,
    .prepare = prepare_layernorm,
    .params_bytes = sizeof(struct tepi_layernorm_params),
    .has_a = true,
};
