/* SPDX-License-Identifier: Apache-2.0 */
/* What a fetched entry asks for: checks, and where it is done.
 *
 * Small commands are done inside the doorbell write. A program goes to a worker unless it is so
 * short that waking one would cost more than running it here, or the host lends this thread. */
#include "card/state.h"

#include <stddef.h>

#define INLINE_NS    50000u
/* Before a program has run: a guess at its speed, for choosing where to run it the first time. */
#define MACS_PER_NS  16u
#define BYTES_PER_NS 1u
#define ITEM_NS      300u

static struct tepi_verdict bad_field(size_t offset)
{
    return (struct tepi_verdict){TEPI_FAULT_BAD_FIELD, (uint32_t)offset};
}

#define BAD_FIELD(field) bad_field(offsetof(struct tepi_submission, field))

static struct tepi_verdict check(const struct tepi_function *function,
                                 const struct tepi_submission *entry)
{
    if (entry->generation != atomic_load(&function->generation)) {
        return (struct tepi_verdict){TEPI_FAULT_STALE_GENERATION, entry->generation};
    }
    if (entry->opcode > TEPI_CMD_ABORT) {
        return (struct tepi_verdict){TEPI_FAULT_BAD_OPCODE, entry->opcode};
    }
    if (entry->flags & ~(entry->opcode == TEPI_CMD_EXECUTE ? TEPI_EXECUTE_PROFILE : 0u)) {
        return BAD_FIELD(flags);
    }
    if (entry->reserved0) {
        return BAD_FIELD(reserved0);
    }
    if (entry->reserved1) {
        return BAD_FIELD(reserved1);
    }
    if (entry->batch == 0) {
        return BAD_FIELD(batch);
    }
    if (entry->opcode == TEPI_CMD_EXECUTE &&
        (entry->segments == 0 || entry->segments > TEPI_SEGMENTS_MAX)) {
        return BAD_FIELD(segments);
    }
    if (entry->opcode == TEPI_CMD_LOAD_PROGRAM &&
        (entry->data_bytes == 0 || entry->data_bytes > TEPI_PROGRAM_BYTES_MAX)) {
        return BAD_FIELD(data_bytes);
    }
    return (struct tepi_verdict){TEPI_FAULT_OK, 0};
}

static uint64_t guess_item_ns(const struct tepi_program *program)
{
    const uint32_t ports = tepi_program_inputs(program) + tepi_program_outputs(program);
    uint64_t bytes = 0;
    for (uint32_t port = 0; port < ports; port++) {
        bytes += tepi_program_port_bytes(program, port);
    }
    return ITEM_NS + bytes / BYTES_PER_NS + tepi_program_macs(program) / MACS_PER_NS;
}

static uint64_t estimate_ns(const struct tepi_card_command *command)
{
    struct tepi_card_program *program = command->program;
    uint64_t item = atomic_load_explicit(&program->item_ns, memory_order_relaxed);
    if (item == 0) {
        item = guess_item_ns(program->program);
    }
    uint64_t all;
    return __builtin_mul_overflow(item, (uint64_t)command->entry.batch, &all) ? UINT64_MAX : all;
}

static void dispatch_load(struct tepi_card_command *command)
{
    if (command->queue->lend) {
        tepi_card_perform(command, NULL);
    } else {
        tepi_card_work_queue(command);
    }
}

static void dispatch_execute(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    command->program = tepi_card_program_get(function, command->entry.program);
    if (!command->program) {
        tepi_card_queue_complete(
            command, (struct tepi_verdict){TEPI_FAULT_NO_PROGRAM, command->entry.program});
        return;
    }
    const bool here = command->queue->lend || estimate_ns(command) < INLINE_NS;
    struct tepi_card_unit *unit = here ? tepi_card_unit_borrow(function) : NULL;
    if (unit) {
        tepi_card_perform(command, unit);
    } else {
        tepi_card_work_queue(command);
    }
}

void tepi_card_dispatch(struct tepi_card_command *command)
{
    struct tepi_card_queue *queue = command->queue;
    struct tepi_card_faults *faults = &queue->function->card->faults;
    if (atomic_load_explicit(&faults->active, memory_order_relaxed)) {
        tepi_card_faults_arrive(command);
        if (tepi_card_faults_park(command)) {
            return;
        }
    }
    struct tepi_verdict verdict = check(queue->function, &command->entry);
    if (verdict.fault == TEPI_FAULT_OK) {
        switch (command->entry.opcode) {
        case TEPI_CMD_LOAD_PROGRAM:
            dispatch_load(command);
            return;
        case TEPI_CMD_EXECUTE:
            dispatch_execute(command);
            return;
        case TEPI_CMD_UNLOAD:
            verdict = tepi_card_unload(queue->function, command->entry.program);
            break;
        case TEPI_CMD_ABORT:
            command->completion.result = tepi_card_queue_abort(queue, command->entry.program);
            break;
        default: /* NOP */
            break;
        }
    }
    tepi_card_queue_complete(command, verdict);
}

static uint32_t saturate32(uint64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

void tepi_card_perform(struct tepi_card_command *command, struct tepi_card_unit *unit)
{
    struct tepi_function *function = command->queue->function;
    const bool planned = atomic_load_explicit(&function->card->faults.active, memory_order_relaxed);
    if (planned && tepi_card_faults_park(command)) {
        if (unit) {
            tepi_card_unit_return(function->card, unit);
        }
        return;
    }
    const uint64_t now = tepi_card_clock_ns();
    struct tepi_verdict verdict = {TEPI_FAULT_OK, 0};
    command->completion.queue_ns = saturate32(now - command->arrived_ns);
    if (atomic_load_explicit(&command->abort, memory_order_acquire)) {
        verdict.fault = TEPI_FAULT_ABORTED;
    } else if (command->deadline_ns && now >= command->deadline_ns) {
        verdict.fault = TEPI_FAULT_DEADLINE;
    } else if (command->entry.opcode == TEPI_CMD_LOAD_PROGRAM) {
        verdict = tepi_card_load(function, &command->entry, &command->completion.result);
    } else {
        if (planned) {
            verdict = tepi_card_ecc_check(command);
        }
        if (verdict.fault == TEPI_FAULT_OK) {
            verdict = tepi_card_execute(command, unit);
        }
        if (planned && verdict.fault == TEPI_FAULT_OK) {
            verdict = tepi_card_faults_stall(command, tepi_card_clock_ns() - now);
        }
    }
    if (command->program) {
        tepi_card_program_put(function, command->program);
        command->program = NULL;
    }
    /* Before the completion: the host's next command then finds the unit idle, and a reset that
     * has seen the last command end finds the scratch given back. */
    if (unit) {
        tepi_card_unit_return(function->card, unit);
    }
    tepi_card_queue_complete(command, verdict);
}

void tepi_card_perform_aborted(struct tepi_card_command *command)
{
    if (command->program) {
        tepi_card_program_put(command->queue->function, command->program);
        command->program = NULL;
    }
    tepi_card_queue_complete(command, (struct tepi_verdict){TEPI_FAULT_ABORTED, 0});
}
