/* SPDX-License-Identifier: Apache-2.0 */
/* The card's side of a queue pair: set-up, fetching by copy, completions, abort. */
#include "card/state.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_MASK 4095u

static bool ready(const struct tepi_function *function)
{
    return (atomic_load(&function->status) & TEPI_STATUS_READY) &&
           atomic_load(&function->card->present) && !atomic_load(&function->card->faults.hung);
}

uint64_t tepi_card_queue_read(struct tepi_card_queue *queue, uint32_t which, unsigned width)
{
    uint64_t value = 0;
    pthread_mutex_lock(&queue->lock);
    if (width == 8) {
        value = which == TEPI_QUEUE_SQ_BASE   ? queue->sq_base
                : which == TEPI_QUEUE_CQ_BASE ? queue->cq_base
                                              : 0;
    } else if (which == TEPI_QUEUE_ENTRIES) {
        value = queue->entries_register;
    } else if (which == TEPI_QUEUE_VECTOR) {
        value = queue->vector_register;
    } else if (which == TEPI_QUEUE_ENABLE && queue->enabled) {
        value = queue->lend ? 1u | TEPI_QUEUE_ENABLE_LEND : 1u;
    }
    pthread_mutex_unlock(&queue->lock);
    return value;
}

/* Pins the rings in host memory and makes the commands' places; under the queue's lock. */
static bool attach(struct tepi_card_queue *queue)
{
    struct tepi_host_port *host = &queue->function->host;
    const uint32_t entries = queue->entries_register;
    if (entries < 2 || entries > TEPI_CARD_ENTRIES_MAX || (entries & (entries - 1)) ||
        (queue->sq_base & PAGE_MASK) || (queue->cq_base & PAGE_MASK) ||
        queue->vector_register >= TEPI_QUEUES_MAX || !queue->function->plugged) {
        return false;
    }
    const uint64_t sq_bytes = (uint64_t)entries * sizeof(struct tepi_submission);
    const uint64_t cq_bytes = (uint64_t)entries * sizeof(struct tepi_completion);
    queue->commands = calloc(entries, sizeof *queue->commands);
    if (!queue->commands) {
        return false;
    }
    queue->submissions = host->dma_acquire(host->host, queue->sq_base, sq_bytes);
    if (!queue->submissions) {
        goto free_commands;
    }
    queue->completions = host->dma_acquire(host->host, queue->cq_base, cq_bytes);
    if (!queue->completions) {
        goto release_submissions;
    }
    queue->sq_iova = queue->sq_base;
    queue->cq_iova = queue->cq_base;
    queue->entries = entries;
    queue->vector = queue->vector_register;
    queue->tail = queue->fetched = queue->posted = queue->cq_head = 0;
    queue->free_commands = NULL;
    for (uint32_t i = entries; i-- > 0;) {
        queue->commands[i].queue = queue;
        queue->commands[i].next = queue->free_commands;
        queue->free_commands = &queue->commands[i];
    }
    queue->enabled = true;
    return true;
release_submissions:
    host->dma_release(host->host, queue->sq_base, sq_bytes);
free_commands:
    free(queue->commands);
    queue->commands = NULL;
    return false;
}

void tepi_card_queue_disable(struct tepi_card_queue *queue)
{
    struct tepi_host_port *host = &queue->function->host;
    pthread_mutex_lock(&queue->lock);
    if (queue->commands) {
        queue->enabled = false;
        for (uint32_t i = 0; i < queue->entries; i++) {
            atomic_store(&queue->commands[i].abort, true);
        }
        while (queue->outstanding > 0) {
            pthread_cond_wait(&queue->idle, &queue->lock);
        }
        host->dma_release(host->host, queue->sq_iova,
                          (uint64_t)queue->entries * sizeof(struct tepi_submission));
        host->dma_release(host->host, queue->cq_iova,
                          (uint64_t)queue->entries * sizeof(struct tepi_completion));
        free(queue->commands);
        queue->commands = NULL;
    }
    pthread_mutex_unlock(&queue->lock);
}

static void enable(struct tepi_card_queue *queue, uint32_t value)
{
    tepi_card_queue_disable(queue);
    if (!(value & 1u)) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    queue->lend = (value & TEPI_QUEUE_ENABLE_LEND) != 0;
    const bool attached = attach(queue);
    pthread_mutex_unlock(&queue->lock);
    if (!attached) {
        tepi_function_log(queue->function, TEPI_FAULT_QUEUE_SETUP, queue->id, queue->id, 0);
    }
}

void tepi_card_queue_write(struct tepi_card_queue *queue, uint32_t which, unsigned width,
                           uint64_t value)
{
    if (width == 4 && which == TEPI_QUEUE_ENABLE) {
        enable(queue, (uint32_t)value);
        return;
    }
    pthread_mutex_lock(&queue->lock);
    if (width == 8 && which == TEPI_QUEUE_SQ_BASE) {
        queue->sq_base = value;
    } else if (width == 8 && which == TEPI_QUEUE_CQ_BASE) {
        queue->cq_base = value;
    } else if (width == 4 && which == TEPI_QUEUE_ENTRIES) {
        queue->entries_register = (uint32_t)value;
    } else if (width == 4 && which == TEPI_QUEUE_VECTOR) {
        queue->vector_register = (uint32_t)value;
    }
    pthread_mutex_unlock(&queue->lock);
}

/* Fetches one entry by a single copy: what the host changes afterwards is never seen. */
static struct tepi_card_command *fetch(struct tepi_card_queue *queue, uint64_t now)
{
    struct tepi_card_command *command = queue->free_commands;
    queue->free_commands = command->next;
    command->next = NULL;
    command->program = NULL;
    memcpy(&command->entry, &queue->submissions[queue->fetched & (queue->entries - 1)],
           sizeof command->entry);
    queue->fetched++;
    queue->outstanding++;
    command->arrived_ns = now;
    command->deadline_ns = 0;
    if (command->entry.deadline_ns) {
        const uint64_t deadline = now + command->entry.deadline_ns;
        command->deadline_ns = deadline < now ? UINT64_MAX : deadline;
    }
    atomic_store_explicit(&command->abort, false, memory_order_relaxed);
    command->in_flight = true;
    command->slow = false;
    command->completion = (struct tepi_completion){0};
    return command;
}

/* Fetches what the tail allows. Every fetched command has a place in the completion ring. */
static struct tepi_card_command *fetch_all(struct tepi_card_queue *queue)
{
    struct tepi_card_command *first = NULL;
    struct tepi_card_command **link = &first;
    uint64_t now = 0;
    while (queue->fetched != queue->tail && queue->fetched - queue->cq_head < queue->entries &&
           queue->free_commands) {
        now = now ? now : tepi_card_clock_ns();
        *link = fetch(queue, now);
        link = &(*link)->next;
    }
    return first;
}

/* Moves a free-running index; false where it jumps ahead by more than `room`. A value behind it is
 * an older doorbell that newer ones overtook, by any number: its thread may have slept. */
static bool move(uint32_t *index, uint32_t value, uint32_t room)
{
    const uint32_t ahead = value - *index;
    if (ahead > INT32_MAX) {
        return true;
    }
    if (ahead > room) {
        return false;
    }
    *index = value;
    return true;
}

void tepi_card_queue_doorbell(struct tepi_card_queue *queue, uint32_t which, uint32_t value)
{
    struct tepi_function *function = queue->function;
    struct tepi_card_command *first = NULL;
    bool overrun = false;
    pthread_mutex_lock(&queue->lock);
    if (queue->enabled && ready(function) &&
        (atomic_load(&function->control_register) & TEPI_CONTROL_ENABLE)) {
        const uint32_t waiting = queue->tail - queue->fetched;
        overrun = which == TEPI_DOORBELL_SQ_TAIL
                      ? !move(&queue->tail, value, queue->entries - waiting)
                      : !move(&queue->cq_head, value, queue->posted - queue->cq_head);
        /* A pair that overran is stopped: what its entries are is no longer known. */
        queue->enabled = !overrun;
        first = overrun ? NULL : fetch_all(queue);
    }
    pthread_mutex_unlock(&queue->lock);
    if (overrun) {
        tepi_function_log(function, TEPI_FAULT_QUEUE_OVERRUN, queue->id, queue->id, 0);
    }
    while (first) {
        struct tepi_card_command *command = first;
        first = command->next;
        command->next = NULL;
        tepi_card_dispatch(command);
    }
}

/* Under the queue's lock: the tag goes last, by release, so that a host that sees the phase sees
 * the rest of the entry and the outputs. */
static void post(struct tepi_card_queue *queue, const struct tepi_card_command *command,
                 struct tepi_verdict verdict)
{
    struct tepi_completion *place = &queue->completions[queue->posted & (queue->entries - 1)];
    const uint32_t phase = (queue->posted & queue->entries) ? 0 : 1;
    uint16_t command_id = command->entry.command_id;
    uint32_t generation = atomic_load(&queue->function->generation);
    if (atomic_load_explicit(&queue->function->card->faults.active, memory_order_relaxed)) {
        tepi_card_faults_corrupt(command, &command_id, &generation);
    }
    place->result = command->completion.result;
    place->info = verdict.info;
    place->generation = generation;
    place->queue_ns = command->completion.queue_ns;
    place->copy_in_ns = command->completion.copy_in_ns;
    place->compute_ns = command->completion.compute_ns;
    place->copy_out_ns = command->completion.copy_out_ns;
    _Atomic uint32_t *tag = (_Atomic uint32_t *)(void *)&place->tag;
    atomic_store_explicit(tag, TEPI_TAG(command_id, verdict.fault, phase), memory_order_release);
    queue->posted++;
}

void tepi_card_queue_complete(struct tepi_card_command *command, struct tepi_verdict verdict)
{
    struct tepi_card_queue *queue = command->queue;
    struct tepi_function *function = queue->function;
    if (verdict.fault != TEPI_FAULT_OK && verdict.fault != TEPI_FAULT_ABORTED) {
        tepi_function_log(function, verdict.fault, verdict.info, queue->id,
                          command->entry.command_id);
    }
    pthread_mutex_lock(&queue->lock);
    if (queue->enabled && ready(function)) {
        post(queue, command, verdict);
        function->host.interrupt(function->host.host, queue->vector);
    }
    command->in_flight = false;
    command->next = queue->free_commands;
    queue->free_commands = command;
    if (--queue->outstanding == 0) {
        pthread_cond_broadcast(&queue->idle);
    }
    pthread_mutex_unlock(&queue->lock);
}

bool tepi_card_queue_abort(struct tepi_card_queue *queue, uint32_t command_id)
{
    struct tepi_card_command *withdrawn = NULL;
    bool found = false;
    pthread_mutex_lock(&queue->lock);
    for (uint32_t i = 0; i < queue->entries && queue->commands && !found; i++) {
        struct tepi_card_command *command = &queue->commands[i];
        found = command->in_flight && command->entry.command_id == command_id &&
                command->entry.opcode != TEPI_CMD_ABORT;
        if (found) {
            atomic_store(&command->abort, true);
            /* Under the lock, or the place could be another command's by now. */
            withdrawn = tepi_card_work_withdraw(command) ? command : NULL;
        }
    }
    pthread_mutex_unlock(&queue->lock);
    if (withdrawn) {
        tepi_card_perform(withdrawn, NULL);
    }
    return found;
}
