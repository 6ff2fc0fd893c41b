/* SPDX-License-Identifier: Apache-2.0 */
/* What each instruction costs and which kernel computes it, as profiles tell it. */
#include "card/program_internal.h"

#include <stdio.h>
#include <string.h>

/* A kernel that a set offers, by its place in the set; 0: the card's own loop, in no set. */
struct offered {
    const char *name;
    size_t at;
};

#define OFFERED(name, member) {name, offsetof(struct tepi_kernel_set, member)}

static uint64_t tensor_bytes(const struct tepi_image *image, uint16_t index)
{
    const struct tepi_tensor *t = &image->tensors[index];
    return tepi_elements(t) * tepi_type_bytes(t->type);
}

static void add_operands(const struct tepi_image *image, const struct tepi_vector_params *p,
                         struct tepi_cost *cost)
{
    for (uint32_t i = 0; i < TEPI_VECTOR_SOURCES && p->sources[i] != TEPI_NO_TENSOR; i++)
        cost->bytes_read += tensor_bytes(image, p->sources[i]);
    for (uint32_t i = 0; i < TEPI_VECTOR_TARGETS - 1 && p->more[i] != TEPI_NO_TENSOR; i++)
        cost->bytes_written += tensor_bytes(image, p->more[i]);
}

struct tepi_cost tepi_program_cost(const struct tepi_image *image,
                                   const struct tepi_instruction *in)
{
    const struct tepi_operation *operation = tepi_operation_for(in->code);
    struct tepi_cost cost = {0};
    uint64_t work = 0;
    (void)operation->check(image, in, &work);
    cost.bytes_read += operation->has_a ? tensor_bytes(image, in->a) : 0;
    cost.bytes_read += in->b != TEPI_NO_TENSOR ? tensor_bytes(image, in->b) : 0;
    cost.bytes_written = tensor_bytes(image, in->out);
    if (in->code == TEPI_OP_CONV) {
        const struct tepi_conv_params *p = &in->conv;
        const uint64_t channels = image->tensors[in->out].c;
        const uint64_t filter =
            (uint64_t)p->kernel_h * p->kernel_w * (image->tensors[in->a].c / p->groups);
        cost.macs = work;
        cost.bytes_read += channels * (filter + sizeof(int32_t) + sizeof(float));
    } else if (in->code == TEPI_OP_MATMUL || in->code == TEPI_OP_FMATMUL) {
        cost.macs = work;
    } else if (in->code == TEPI_OP_VECTOR) {
        add_operands(image, &in->vector, &cost);
    } else if (in->code == TEPI_OP_GATHER) {
        cost.bytes_read =
            tensor_bytes(image, in->b) + work * tepi_type_bytes(image->tensors[in->a].type);
    } else if (in->code == TEPI_OP_FILL) {
        cost.bytes_written = work - (in->fill.whole ? 0 : cost.bytes_written);
    } else if (in->code == TEPI_OP_MAP) {
        cost.bytes_read = work * tepi_type_bytes(image->tensors[in->a].type);
        cost.bytes_written = work * tepi_type_bytes(image->tensors[in->out].type);
    }
    return cost;
}

static struct offered map_kernel(const struct tepi_map_step *step)
{
    static const char *const numbers[] = {
        [TEPI_TYPE_I64] = "i64f32-copy",
        [TEPI_TYPE_I32] = "i32f32-copy",
        [TEPI_TYPE_BOOL] = "boolf32-copy",
    };
    if (step->in_type >= TEPI_TYPE_I64)
        return (struct offered){numbers[step->in_type], 0};
    if (step->table)
        return (struct offered)OFFERED("u8-table", table);
    if (step->in_bytes > step->out_bytes)
        return (struct offered)OFFERED("f32u8-quantize", quantize);
    if (step->in_bytes < step->out_bytes)
        return (struct offered)OFFERED("u8f32-dequantize", dequantize);
    return step->in_bytes == 1 ? (struct offered)OFFERED("u8-copy", copy_u8)
                               : (struct offered){"f32-copy", 0};
}

static struct offered kernel_of(const struct tepi_step *step)
{
    static const struct offered fixed[] = {
        [TEPI_OP_FILL] = {"u8-fill", 0},
        [TEPI_OP_ADD] = OFFERED("u8-add", add),
        [TEPI_OP_MUL] = OFFERED("u8-mul", mul),
        [TEPI_OP_TABLE] = OFFERED("u8-table", table),
        [TEPI_OP_MAXPOOL] = OFFERED("u8-maxpool", maxpool),
        [TEPI_OP_AVGPOOL] = OFFERED("u8-avgpool", avgpool),
        [TEPI_OP_RESIZE] = {"u8-resize", 0},
        [TEPI_OP_SOFTMAX] = OFFERED("u8-softmax", softmax),
        [TEPI_OP_MATMUL] = OFFERED("u8-matmul", matmul),
        [TEPI_OP_LAYERNORM] = OFFERED("u8-layernorm", layernorm),
        [TEPI_OP_VECTOR] = OFFERED("f32-vector", vector),
        [TEPI_OP_FMATMUL] = OFFERED("f32-matmul", fmatmul),
        [TEPI_OP_RANGE] = OFFERED("f32-range", vector),
    };
    if (step->code == TEPI_OP_CONV)
        return (struct offered){step->conv.kernel->name, 0};
    if (step->code == TEPI_OP_MAP)
        return map_kernel(&step->map);
    if (step->code == TEPI_OP_GATHER)
        return step->gather.dequantizes ? (struct offered)OFFERED("u8f32-dequantize", dequantize)
                                        : (struct offered){"gather", 0};
    const bool known = step->code < sizeof(fixed) / sizeof(fixed[0]) && fixed[step->code].name;
    return known ? fixed[step->code] : (struct offered){"", 0};
}

/* The lowest instruction set that offers the same function: sets borrow from lower ones. */
static const char *isa_of(const struct tepi_kernel_set *set, size_t at)
{
    static const char *const names[] = {
        [TEPI_KERNEL_SCALAR] = "scalar",
        [TEPI_KERNEL_AVX2] = "avx2",
        [TEPI_KERNEL_AVX512VNNI] = "avx512vnni",
        [TEPI_KERNEL_AMXINT8] = "amxint8",
    };
    enum tepi_kernel_isa isa = TEPI_KERNEL_SCALAR;
    for (; isa < set->isa; isa++) {
        const struct tepi_kernel_set *lower = tepi_kernels_for(isa);
        if (lower && memcmp((const char *)lower + at, (const char *)set + at, sizeof(void *)) == 0)
            break;
    }
    return names[isa];
}

struct tepi_profile_record tepi_program_describe(const struct tepi_program *program,
                                                 uint32_t instruction)
{
    const struct tepi_step *step = &program->steps[instruction];
    const struct offered kernel = kernel_of(step);
    struct tepi_profile_record record = {
        .instruction = instruction,
        .node = step->node,
        .macs = step->cost.macs,
        .bytes_read = step->cost.bytes_read,
        .bytes_written = step->cost.bytes_written,
        .code = step->code,
    };
    if (kernel.at)
        snprintf(record.kernel, sizeof record.kernel, "%s-%s", kernel.name,
                 isa_of(program->kernels, kernel.at));
    else
        snprintf(record.kernel, sizeof record.kernel, "%s%s", kernel.name,
                 step->code == TEPI_OP_CONV && step->conv.residual.present ? "+u8-add" : "");
    return record;
}

uint32_t tepi_program_instructions(const struct tepi_program *program)
{
    return program->step_count;
}
