/* SPDX-License-Identifier: Apache-2.0 */
/* Loading a program: check the frame, check each instruction, count the memory, take it once, then
 * fill it with steps, packed weights and tables. */
#include "card/program_internal.h"
#include <string.h>

static struct tepi_verdict verdict(enum tepi_fault fault, uint64_t info)
{
    return (struct tepi_verdict){(uint16_t)fault, (uint32_t)info};
}

static bool operands_valid(const struct tepi_operation *operation,
                           const struct tepi_instruction *in)
{
    static const uint8_t zeros[sizeof(in->bytes)];
    return (operation->has_a || in->a == TEPI_NO_TENSOR) &&
           (operation->has_b || operation->may_have_b || in->b == TEPI_NO_TENSOR) &&
           in->flags == 0 && in->reserved == 0 &&
           memcmp(in->bytes + operation->params_bytes, zeros,
                  sizeof(in->bytes) - operation->params_bytes) == 0;
}

/* *macs: the multiply-accumulates of one item. */
static struct tepi_verdict check_instructions(const struct tepi_image *image, uint64_t *macs)
{
    uint64_t total = 0;
    *macs = 0;
    for (uint32_t i = 0; i < image->header.instructions; i++) {
        const struct tepi_instruction *in = &image->instructions[i];
        const struct tepi_operation *operation = tepi_operation_for(in->code);
        if (!operation || !operands_valid(operation, in))
            return verdict(TEPI_FAULT_PROGRAM_INSTRUCTION, i);
        uint64_t work = 0;
        const uint16_t fault = operation->check(image, in, &work);
        if (fault != TEPI_FAULT_OK)
            return verdict((enum tepi_fault)fault, i);
        const bool multiplies =
            in->code == TEPI_OP_CONV || in->code == TEPI_OP_MATMUL || in->code == TEPI_OP_FMATMUL;
        const uint64_t limit = multiplies ? TEPI_WORK_MAX : TEPI_STEPS_MAX;
        if (work > limit || work > TEPI_WORK_MAX - total)
            return verdict(TEPI_FAULT_PROGRAM_INSTRUCTION, i);
        total += work;
        *macs += multiplies ? work : 0;
    }
    return verdict(TEPI_FAULT_OK, 0);
}

static void lay_out_steps(struct tepi_prepare *prepare, struct tepi_step *steps)
{
    const struct tepi_image *image = prepare->image;
    for (uint32_t i = 0; i < image->header.instructions && !prepare->fault; i++) {
        const struct tepi_instruction *in = &image->instructions[i];
        struct tepi_step counted;
        struct tepi_step *step = steps ? &steps[i] : &counted;
        step->cut = (struct tepi_cut){0};
        step->node = in->node;
        step->code = in->code;
        if (steps)
            step->cost = tepi_program_cost(image, in);
        prepare->instruction = i;
        tepi_operation_for(in->code)->prepare(prepare, in, step);
    }
}

/* Lays the program out on prepare's shelf; while counting, nothing is written but `used`. */
static void lay_out(struct tepi_prepare *prepare, uint64_t macs)
{
    const struct tepi_image *image = prepare->image;
    const struct tepi_program_header *header = &image->header;
    struct tepi_shelf *shelf = &prepare->shelf;
    const uint64_t ports = (uint64_t)header->inputs + header->outputs;
    struct tepi_program *program =
        tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, sizeof(*program)));
    uint64_t *port_bytes = tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, ports * 8));
    struct tepi_step *steps =
        tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, header->instructions * sizeof(*steps)));
    lay_out_steps(prepare, steps);
    if (!program)
        return;
    for (uint32_t i = 0; i < header->tensors; i++) {
        const struct tepi_tensor *t = &image->tensors[i];
        if (t->place == TEPI_PLACE_INPUT || t->place == TEPI_PLACE_OUTPUT)
            port_bytes[t->port + (t->place == TEPI_PLACE_OUTPUT ? header->inputs : 0)] =
                (uint64_t)t->c * tepi_type_bytes(t->type);
    }
    program->kernels = prepare->kernels;
    program->block = shelf->block;
    program->arena_bytes = (header->arena_bytes + 63) / 64 * 64 + TEPI_KERNEL_SLACK;
    program->scratch_bytes = program->arena_bytes + prepare->kernel_scratch;
    program->macs = macs;
    program->shared_ns = prepare->shared_ns;
    program->inputs = header->inputs;
    program->outputs = header->outputs;
    program->port_bytes = port_bytes;
    program->steps = steps;
    program->step_count = header->instructions;
}

static struct tepi_verdict build(const struct tepi_image *image,
                                 const struct tepi_kernel_set *kernels, uint64_t macs,
                                 struct tepi_memory *memory, struct tepi_program **program)
{
    struct tepi_prepare counting = {.image = image, .kernels = kernels};
    lay_out(&counting, macs);
    const uint64_t bytes = counting.shelf.used;
    uint8_t *block = tepi_memory_take(memory, bytes);
    if (!block) {
        const uint64_t spare = tepi_memory_free(memory);
        const uint64_t missing = spare < bytes ? bytes - spare : bytes;
        return verdict(TEPI_FAULT_NO_MEMORY, (missing + 1023) / 1024);
    }
    struct tepi_prepare filling = {.image = image, .kernels = kernels, .shelf = {.block = block}};
    lay_out(&filling, macs);
    if (filling.fault) {
        tepi_memory_give(memory, block, bytes);
        return verdict((enum tepi_fault)filling.fault, filling.instruction);
    }
    *program = (struct tepi_program *)(void *)block;
    (*program)->memory = memory;
    (*program)->block_bytes = bytes;
    return verdict(TEPI_FAULT_OK, 0);
}

struct tepi_verdict tepi_program_load(const void *bytes, uint64_t size,
                                      const struct tepi_kernel_set *kernels,
                                      struct tepi_memory *memory, struct tepi_program **program)
{
    const struct tepi_program_source source = {.image = bytes, .bytes = size};
    return tepi_program_load_from(&source, kernels, memory, program);
}

struct tepi_verdict tepi_program_load_from(const struct tepi_program_source *source,
                                           const struct tepi_kernel_set *kernels,
                                           struct tepi_memory *memory,
                                           struct tepi_program **program)
{
    struct tepi_image image;
    uint64_t macs;
    *program = NULL;
    struct tepi_verdict found = tepi_image_open(&image, source);
    if (found.fault)
        return found;
    found = check_instructions(&image, &macs);
    if (!found.fault)
        found = build(&image, kernels, macs, memory, program);
    tepi_image_close(&image);
    return found;
}

void tepi_program_free(struct tepi_program *program)
{
    if (program)
        tepi_memory_give(program->memory, program->block, program->block_bytes);
}

uint32_t tepi_program_inputs(const struct tepi_program *program)
{
    return program->inputs;
}

uint32_t tepi_program_outputs(const struct tepi_program *program)
{
    return program->outputs;
}

uint64_t tepi_program_port_bytes(const struct tepi_program *program, uint32_t port)
{
    return program->port_bytes[port];
}

uint64_t tepi_program_macs(const struct tepi_program *program)
{
    return program->macs;
}

uint64_t tepi_program_scratch_bytes(const struct tepi_program *program)
{
    return program->scratch_bytes;
}

uint64_t tepi_program_shared_ns(const struct tepi_program *program)
{
    return program->shared_ns;
}
