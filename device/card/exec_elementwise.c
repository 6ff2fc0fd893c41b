/* SPDX-License-Identifier: Apache-2.0 */
/* ADD, MUL and TABLE: calls of a kernel on runs of consecutive bytes. */
#include "card/exec_rows.h"
#include <math.h>

static bool is_byte(int32_t value)
{
    return value >= 0 && value <= 255;
}

uint16_t tepi_check_sum(const struct tepi_image *image, const struct tepi_add_params *p)
{
    if (!isfinite(p->ratio_a) || !isfinite(p->ratio_b) || !isfinite(p->fixed) ||
        !is_byte(p->a_offset) || !is_byte(p->b_offset) || !is_byte(p->out_offset) ||
        p->reserved[0] || p->reserved[1])
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

static uint16_t check_add(const struct tepi_image *image, const struct tepi_instruction *in,
                          uint64_t *work)
{
    const uint16_t fault = tepi_rows_check(image, in, true, work);
    return fault == TEPI_FAULT_OK ? tepi_check_sum(image, &in->add) : fault;
}

static uint16_t check_mul(const struct tepi_image *image, const struct tepi_instruction *in,
                          uint64_t *work)
{
    const struct tepi_mul_params *p = &in->mul;
    const uint16_t fault = tepi_rows_check(image, in, true, work);
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
    const uint16_t fault = tepi_rows_check(image, in, false, work);
    if (fault != TEPI_FAULT_OK)
        return fault;
    return tepi_image_holds(image, in->table.table, 256, 1) ? TEPI_FAULT_OK
                                                            : TEPI_FAULT_PROGRAM_CONSTANT;
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
    return tepi_rows_run(step, run, units, call_add);
}

struct tepi_add tepi_prepare_sum(struct tepi_prepare *prepare, const struct tepi_add_params *p)
{
    return (struct tepi_add){
        .ratio_a = p->ratio_a,
        .ratio_b = p->ratio_b,
        .fixed = p->fixed,
        .a_offset = p->a_offset,
        .b_offset = p->b_offset,
        .out_offset = p->out_offset,
        .store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, 0),
    };
}

static void prepare_add(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                        struct tepi_step *step)
{
    tepi_rows_prepare(prepare, in, &step->elementwise, true, true);
    step->elementwise.add = tepi_prepare_sum(prepare, &in->add);
    tepi_rows_cut(prepare, step, run_add, true);
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
    return tepi_rows_run(step, run, units, call_mul);
}

static void prepare_mul(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                        struct tepi_step *step)
{
    const struct tepi_mul_params *p = &in->mul;
    tepi_rows_prepare(prepare, in, &step->elementwise, true, true);
    step->elementwise.mul = (struct tepi_mul){
        .ratio = p->ratio,
        .zero = p->zero,
        .a_zero_point = p->a_zero_point,
        .b_zero_point = p->b_zero_point,
        .out_offset = p->out_offset,
        .store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, 0),
    };
    tepi_rows_cut(prepare, step, run_mul, true);
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
    return tepi_rows_run(step, run, units, call_table);
}

static void prepare_table(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                          struct tepi_step *step)
{
    tepi_rows_prepare(prepare, in, &step->elementwise, false, true);
    step->elementwise.table = tepi_prepare_constant(prepare, in->table.table, 256);
    tepi_rows_cut(prepare, step, run_table, true);
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
