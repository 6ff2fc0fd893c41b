/* SPDX-License-Identifier: Apache-2.0 */
/* The executor's loop, and what all operations share when they are checked and prepared. */
#include "card/exec.h"
#include "card/program_internal.h"
#include <math.h>
#include <string.h>
#include <time.h>

enum { SHELF_ALIGNMENT = 64 };

static const struct tepi_operation *const operations[] = {
    [TEPI_OP_FILL] = &tepi_operation_fill,       [TEPI_OP_MAP] = &tepi_operation_map,
    [TEPI_OP_CONV] = &tepi_operation_conv,       [TEPI_OP_ADD] = &tepi_operation_add,
    [TEPI_OP_MUL] = &tepi_operation_mul,         [TEPI_OP_TABLE] = &tepi_operation_table,
    [TEPI_OP_MAXPOOL] = &tepi_operation_maxpool, [TEPI_OP_AVGPOOL] = &tepi_operation_avgpool,
    [TEPI_OP_RESIZE] = &tepi_operation_resize,   [TEPI_OP_SOFTMAX] = &tepi_operation_softmax,
    [TEPI_OP_MATMUL] = &tepi_operation_matmul,   [TEPI_OP_LAYERNORM] = &tepi_operation_layernorm,
    [TEPI_OP_VECTOR] = &tepi_operation_vector,   [TEPI_OP_FMATMUL] = &tepi_operation_fmatmul,
    [TEPI_OP_GATHER] = &tepi_operation_gather,   [TEPI_OP_RANGE] = &tepi_operation_range,
};

const struct tepi_operation *tepi_operation_for(uint8_t code)
{
    return code < sizeof(operations) / sizeof(operations[0]) ? operations[code] : NULL;
}

uint64_t tepi_elements(const struct tepi_tensor *t)
{
    /* Without wrap: the tensor's bytes lie in a place of at most 2^32. */
    return (uint64_t)t->n * t->h * t->w * t->c;
}

uint16_t tepi_check_store(const struct tepi_image *image, uint32_t table, uint8_t lo, uint8_t hi)
{
    if (lo > hi)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    if (table != TEPI_NONE && !tepi_image_holds(image, table, 256, 1))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    return TEPI_FAULT_OK;
}

uint64_t tepi_shelf_reserve(struct tepi_shelf *shelf, uint64_t bytes)
{
    const uint64_t offset = shelf->used;
    const uint64_t rounded = (bytes + SHELF_ALIGNMENT - 1) / SHELF_ALIGNMENT * SHELF_ALIGNMENT;
    shelf->used += rounded + TEPI_KERNEL_SLACK;
    return offset;
}

void *tepi_shelf_at(const struct tepi_shelf *shelf, uint64_t offset)
{
    return shelf->block ? shelf->block + offset : NULL;
}

const void *tepi_prepare_constant(struct tepi_prepare *prepare, uint32_t offset, uint64_t bytes)
{
    if (offset == TEPI_NONE)
        return NULL;
    void *kept = tepi_shelf_at(&prepare->shelf, tepi_shelf_reserve(&prepare->shelf, bytes));
    if (!kept)
        return NULL;
    memcpy(kept, prepare->image->constants + offset, (size_t)bytes);
    tepi_image_consumed(prepare->image, offset, bytes);
    return kept;
}

const float *tepi_prepare_floats(struct tepi_prepare *prepare, uint32_t offset, uint64_t count)
{
    const float *kept = tepi_prepare_constant(prepare, offset, count * sizeof(float));
    for (uint64_t i = 0; kept && i < count; i++)
        if (!isfinite(kept[i]))
            prepare->fault = TEPI_FAULT_PROGRAM_CONSTANT;
    return kept;
}

void tepi_prepare_scratch(struct tepi_prepare *prepare, uint64_t bytes)
{
    if (bytes > prepare->kernel_scratch)
        prepare->kernel_scratch = bytes;
}

static bool all_finite(const struct tepi_tensor *t, const uint8_t *element)
{
    for (uint32_t n = 0; n < t->n; n++) {
        for (uint32_t y = 0; y < t->h; y++) {
            const uint8_t *pixel = element + (size_t)n * t->stride_n + (size_t)y * t->stride_h;
            for (uint32_t x = 0; x < t->w; x++, pixel += t->stride_w) {
                const float *floats = (const float *)(const void *)pixel;
                for (uint32_t c = 0; c < t->c; c++)
                    if (!isfinite(floats[c]))
                        return false;
            }
        }
    }
    return true;
}

struct tepi_site tepi_prepare_site(struct tepi_prepare *prepare, uint16_t index)
{
    const struct tepi_tensor *t = &prepare->image->tensors[index];
    switch (t->place) {
    case TEPI_PLACE_INPUT:
        return (struct tepi_site){TEPI_BASE_PORTS + t->port, t->offset};
    case TEPI_PLACE_OUTPUT:
        return (struct tepi_site){
            TEPI_BASE_PORTS + (uint32_t)prepare->image->header.inputs + t->port, t->offset};
    case TEPI_PLACE_CONSTANT:
        break;
    default:
        return (struct tepi_site){TEPI_BASE_ARENA, t->offset};
    }
    const struct tepi_reach reach = tepi_tensor_reach(t);
    const uint64_t bytes = reach.before + reach.after;
    const uint64_t at = tepi_shelf_reserve(&prepare->shelf, bytes);
    void *kept = tepi_shelf_at(&prepare->shelf, at);
    if (kept) {
        memcpy(kept, prepare->image->constants + t->offset - reach.before, (size_t)bytes);
        tepi_image_consumed(prepare->image, t->offset - reach.before, bytes);
    }
    if (kept && t->type == TEPI_TYPE_F32 && !all_finite(t, kept))
        prepare->fault = TEPI_FAULT_PROGRAM_CONSTANT;
    return (struct tepi_site){TEPI_BASE_BLOCK, at + reach.before};
}

struct tepi_store tepi_prepare_store(struct tepi_prepare *prepare, uint32_t table, uint8_t lo,
                                     uint8_t hi, int32_t zero_point)
{
    return (struct tepi_store){
        .zero_point = zero_point,
        .lo = lo,
        .hi = hi,
        .table = tepi_prepare_constant(prepare, table, 256),
    };
}

static uint64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint16_t tepi_run_interrupted(const struct tepi_run_control *control)
{
    if (!control)
        return TEPI_FAULT_OK;
    if (control->abort && atomic_load_explicit(control->abort, memory_order_relaxed))
        return TEPI_FAULT_ABORTED;
    if (control->deadline_ns && monotonic_ns() >= control->deadline_ns)
        return TEPI_FAULT_DEADLINE;
    return TEPI_FAULT_OK;
}

struct tepi_quantization tepi_run_quantization(const struct tepi_run *run,
                                               const struct tepi_site *site)
{
    const float *q = (const float *)(const void *)tepi_at(run, site);
    return (struct tepi_quantization){
        .scale = q[0] > 0 && isfinite(q[0]) ? q[0] : 1.0f,
        .zero_point = q[1] >= 0 && q[1] <= 255 ? (int32_t)q[1] : 0,
        .hi = 255,
    };
}

struct tepi_verdict tepi_program_run(const struct tepi_program *program, void *const *ports,
                                     void *scratch, const struct tepi_run_control *control)
{
    struct tepi_run run;
    uint64_t *const elapsed_ns = control ? control->elapsed_ns : NULL;
    run.kernels = program->kernels;
    run.control = control;
    run.scratch = (uint8_t *)scratch + program->arena_bytes;
    run.scratch_bytes = program->scratch_bytes - program->arena_bytes;
    run.bases[TEPI_BASE_ARENA] = scratch;
    run.bases[TEPI_BASE_BLOCK] = program->block;
    for (uint32_t i = 0; i < program->inputs + program->outputs; i++)
        run.bases[TEPI_BASE_PORTS + i] = ports[i];
    for (uint32_t i = 0; i < program->step_count; i++) {
        const struct tepi_step *step = &program->steps[i];
        uint16_t fault = tepi_run_interrupted(control);
        const uint64_t begun = elapsed_ns ? monotonic_ns() : 0;
        if (fault == TEPI_FAULT_OK)
            fault = tepi_run_step(step, &run);
        if (elapsed_ns)
            elapsed_ns[i] += monotonic_ns() - begun;
        if (fault != TEPI_FAULT_OK)
            return (struct tepi_verdict){fault, i};
    }
    return (struct tepi_verdict){TEPI_FAULT_OK, 0};
}
