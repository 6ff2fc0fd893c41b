/* SPDX-License-Identifier: Apache-2.0 */
/* Commands on a card: with a thread that waits, or for an event loop. */
#include "driver/controller_state.h"

#include "driver/clock.h"
#include "driver/mmio.h"
#include <errno.h>

static bool is_fatal(uint32_t fault)
{
    return fault == TEPI_FAULT_HANG || fault == TEPI_FAULT_MEMORY_ECC ||
           fault == TEPI_FAULT_FIRMWARE_ASSERT;
}

/* The fault that a card with STATUS.FAULT names; HANG where it names none. */
static uint32_t standing_fault(struct tepi_controller *controller)
{
    const uint32_t code = tepi_read32(controller->bus, TEPI_REG_FAULT_CODE);
    return is_fatal(code) ? code : TEPI_FAULT_HANG;
}

/* The fault behind what tepi_queue_look or tepi_queue_wait found. */
static uint32_t found_fault(struct tepi_controller *controller, int found)
{
    switch (found) {
    case -ENODEV:
        return TEPI_FAULT_GONE;
    case -EBADMSG:
        return TEPI_FAULT_CORRUPT_COMPLETION;
    case -EPIPE:
        return TEPI_FAULT_QUEUE_OVERRUN;
    case -EIO:
        return standing_fault(controller);
    default:
        return TEPI_FAULT_TIMEOUT;
    }
}

static struct tepi_submission abort_entry(uint16_t command_id)
{
    return (struct tepi_submission){.opcode = TEPI_CMD_ABORT, .program = command_id, .batch = 1};
}

/* Aborts a command whose time is up and waits for it to end; as tepi_queue_wait. */
static int cut_short(struct tepi_controller *controller, uint16_t id,
                     struct tepi_completion *completion)
{
    struct tepi_queue *queue = controller->pairs[TEPI_PAIR_WAITED];
    const uint64_t grace = controller->config.grace_ns;
    const struct tepi_submission entry = abort_entry(id);
    const int abort_id = tepi_queue_submit(queue, &entry, NULL, NULL);
    int result = tepi_queue_wait(queue, id, abort_id >= 0 ? grace : 0, completion);
    struct tepi_completion ignored;
    if (abort_id >= 0 && tepi_queue_wait(queue, (uint16_t)abort_id, 0, &ignored)) {
        tepi_queue_abandon(queue, (uint16_t)abort_id);
    }
    return result;
}

/* Posts, waiting for a slot where all are taken. */
static int submit_patiently(struct tepi_controller *controller, const struct tepi_submission *entry,
                            uint64_t timeout_ns, struct tepi_failure *failure)
{
    struct tepi_queue *queue = controller->pairs[TEPI_PAIR_WAITED];
    uint64_t deadline = 0;
    for (;;) {
        const int id = tepi_queue_submit(queue, entry, NULL, NULL);
        if (id >= 0) {
            return id;
        }
        if (id == -ESHUTDOWN) {
            const uint32_t fault = tepi_queue_fault(queue);
            if (fault == TEPI_FAULT_OK) {
                continue; /* a reset has opened the pair again since */
            }
            return tepi_fail(failure, fault, 0);
        }
        const uint64_t now = tepi_now_ns();
        deadline = deadline ? deadline : tepi_later(now, timeout_ns);
        if (now >= deadline || tepi_queue_wait_slot(queue, deadline - now)) {
            return tepi_fail(failure, TEPI_FAULT_DEADLINE, 0);
        }
    }
}

int tepi_controller_command(struct tepi_controller *controller, const struct tepi_submission *entry,
                            struct tepi_completion *completion, struct tepi_failure *failure)
{
    struct tepi_queue *queue = controller->pairs[TEPI_PAIR_WAITED];
    const uint32_t epoch = tepi_controller_epoch(controller);
    /* The card keeps the deadline itself; the host steps in where it does not. */
    uint64_t timeout_ns = controller->config.timeout_ns;
    if (entry->deadline_ns &&
        __builtin_add_overflow(entry->deadline_ns, controller->config.grace_ns, &timeout_ns)) {
        timeout_ns = UINT64_MAX;
    }
    const int posted = submit_patiently(controller, entry, timeout_ns, failure);
    if (posted < 0) {
        return posted;
    }
    const uint16_t id = (uint16_t)posted;
    bool late = false;
    int result = tepi_queue_wait(queue, id, timeout_ns, completion);
    if (result == -ETIMEDOUT) {
        late = true;
        result = cut_short(controller, id, completion);
    }
    if (result) {
        tepi_controller_lose(controller, epoch, found_fault(controller, result));
        result = tepi_queue_wait(queue, id, 0, completion);
        if (result) {
            return result; /* cannot be: a loss ends every command */
        }
    }
    const uint32_t status = TEPI_TAG_STATUS(completion->tag);
    if (is_fatal(status)) {
        tepi_controller_lose(controller, epoch, status);
    }
    if (late && status == TEPI_FAULT_ABORTED) {
        return tepi_fail(failure, TEPI_FAULT_DEADLINE, 0);
    }
    return tepi_fail(failure, status, completion->info);
}

int tepi_controller_submit(struct tepi_controller *controller, const struct tepi_submission *entry,
                           void *owner, uint16_t *command_id, struct tepi_failure *failure)
{
    struct tepi_queue *queue = controller->pairs[TEPI_PAIR_SIGNALED];
    for (;;) {
        const int id = tepi_queue_submit(queue, entry, owner, command_id);
        if (id != -ESHUTDOWN) {
            return id < 0 ? id : 0;
        }
        const uint32_t fault = tepi_queue_fault(queue);
        if (fault != TEPI_FAULT_OK) {
            return tepi_fail(failure, fault, 0);
        }
        /* A reset has opened the pair again since. */
    }
}

void tepi_controller_abort(struct tepi_controller *controller, uint16_t command_id)
{
    const struct tepi_submission entry = abort_entry(command_id);
    /* Where the ring is full the command runs on to its deadline. */
    (void)tepi_queue_submit(controller->pairs[TEPI_PAIR_SIGNALED], &entry, NULL, NULL);
}

uint32_t tepi_controller_collect(struct tepi_controller *controller, struct tepi_done *done,
                                 uint32_t most)
{
    struct tepi_queue *queue = controller->pairs[TEPI_PAIR_SIGNALED];
    const uint32_t epoch = tepi_controller_epoch(controller);
    uint32_t taken = tepi_queue_collect(queue, done, most);
    if (taken == 0 && tepi_queue_in_flight(queue) > 0) {
        const int found = tepi_queue_look(queue);
        if (found) {
            tepi_controller_lose(controller, epoch, found_fault(controller, found));
            taken = tepi_queue_collect(queue, done, most);
        }
    }
    for (uint32_t i = 0; i < taken; i++) {
        const uint32_t fault = TEPI_TAG_STATUS(done[i].completion.tag);
        if (is_fatal(fault)) {
            tepi_controller_lose(controller, epoch, fault);
        }
    }
    return taken;
}

int tepi_controller_eventfd(const struct tepi_controller *controller)
{
    return tepi_queue_eventfd(controller->pairs[TEPI_PAIR_SIGNALED]);
}

void tepi_controller_expire(struct tepi_controller *controller, uint32_t epoch)
{
    const int status = tepi_controller_status(controller);
    tepi_controller_lose(controller, epoch,
                         status == -ENODEV ? TEPI_FAULT_GONE : TEPI_FAULT_TIMEOUT);
}
