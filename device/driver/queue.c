/* SPDX-License-Identifier: Apache-2.0 */
/* The rings of a queue pair: posting, ringing, reaping, starting and stopping. */
#include "driver/queue_state.h"

#include "abi/faults.h"
#include "driver/mmio.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { PAGE = 4096, MOST_ENTRIES = 32768 };

static uint32_t queue_register(const struct tepi_queue *queue, uint32_t which)
{
    return TEPI_REG_QUEUE + queue->config.id * TEPI_REG_QUEUE_STRIDE + which;
}

static void queue_release(struct tepi_queue *queue)
{
    tepi_pool_give(queue->pool, &queue->submissions);
    tepi_pool_give(queue->pool, &queue->completions);
    if (queue->eventfd >= 0) {
        close(queue->eventfd);
    }
    free(queue->slots);
    free(queue->free_slots);
    free(queue->done_list);
    free(queue);
}

int tepi_queue_create(struct tepi_bus *bus, struct tepi_pool *pool,
                      const struct tepi_queue_config *config, struct tepi_queue **out)
{
    const uint32_t entries = config->entries;
    if (entries < 2 || entries > MOST_ENTRIES || (entries & (entries - 1)) ||
        config->id >= TEPI_QUEUES_MAX) {
        return -EINVAL;
    }
    struct tepi_queue *queue = calloc(1, sizeof *queue);
    if (!queue) {
        return -ENOMEM;
    }
    queue->bus = bus;
    queue->pool = pool;
    queue->config = *config;
    int result = -ENOMEM;
    queue->slots = calloc(entries, sizeof *queue->slots);
    queue->free_slots = calloc(entries, sizeof *queue->free_slots);
    queue->done_list = calloc(entries, sizeof *queue->done_list);
    queue->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!queue->slots || !queue->free_slots || !queue->done_list) {
        goto fail;
    }
    if (queue->eventfd < 0) {
        result = -errno;
        goto fail;
    }
    result = tepi_pool_take(pool, (uint64_t)entries * sizeof(struct tepi_submission), PAGE,
                            &queue->submissions);
    if (result) {
        goto fail;
    }
    result = tepi_pool_take(pool, (uint64_t)entries * sizeof(struct tepi_completion), PAGE,
                            &queue->completions);
    if (result) {
        goto fail;
    }
    pthread_mutex_init(&queue->submit_lock, NULL);
    pthread_mutex_init(&queue->reap_lock, NULL);
    pthread_mutex_init(&queue->leader, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&queue->quiet, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (uint32_t slot = entries; slot-- > 0;) {
        queue->free_slots[queue->free_count++] = (uint16_t)slot;
    }
    atomic_store(&queue->fault, TEPI_FAULT_STALE_GENERATION);
    *out = queue;
    return 0;
fail:
    queue_release(queue);
    return result;
}

void tepi_queue_destroy(struct tepi_queue *queue)
{
    queue->bus->ops->interrupt_connect(queue->bus, queue->config.id, -1);
    pthread_cond_destroy(&queue->quiet);
    pthread_mutex_destroy(&queue->leader);
    pthread_mutex_destroy(&queue->reap_lock);
    pthread_mutex_destroy(&queue->submit_lock);
    queue_release(queue);
}

int tepi_queue_start(struct tepi_queue *queue, uint32_t generation)
{
    struct tepi_bus *bus = queue->bus;
    const uint32_t vector = queue->config.id;
    pthread_mutex_lock(&queue->reap_lock);
    pthread_mutex_lock(&queue->submit_lock);
    memset(queue->submissions.address, 0, queue->submissions.bytes);
    memset(queue->completions.address, 0, queue->completions.bytes);
    atomic_store(&queue->tail, 0);
    atomic_store(&queue->head, 0);
    queue->acknowledged = 0;
    atomic_store(&queue->generation, generation);
    int result = bus->ops->interrupt_connect(bus, vector, queue->eventfd);
    if (result == 0) {
        bus->ops->interrupt_arm(bus, vector, queue->config.signals);
        tepi_write64(bus, queue_register(queue, TEPI_QUEUE_SQ_BASE), queue->submissions.iova);
        tepi_write64(bus, queue_register(queue, TEPI_QUEUE_CQ_BASE), queue->completions.iova);
        tepi_write32(bus, queue_register(queue, TEPI_QUEUE_ENTRIES), queue->config.entries);
        tepi_write32(bus, queue_register(queue, TEPI_QUEUE_VECTOR), vector);
        const uint32_t enable = queue->config.lend ? 1u | TEPI_QUEUE_ENABLE_LEND : 1u;
        tepi_write32(bus, queue_register(queue, TEPI_QUEUE_ENABLE), enable);
        if (tepi_read32(bus, queue_register(queue, TEPI_QUEUE_ENABLE)) != enable) {
            result = -EIO;
        } else {
            atomic_store(&queue->fault, TEPI_FAULT_OK);
        }
    }
    pthread_mutex_unlock(&queue->submit_lock);
    pthread_mutex_unlock(&queue->reap_lock);
    return result;
}

void tepi_queue_close(struct tepi_queue *queue, uint32_t fault)
{
    pthread_mutex_lock(&queue->submit_lock);
    atomic_store(&queue->fault, fault);
    pthread_cond_broadcast(&queue->quiet);
    pthread_mutex_unlock(&queue->submit_lock);
}

static int post_locked(struct tepi_queue *queue, const struct tepi_submission *entry, void *owner,
                       uint16_t *command_id)
{
    if (atomic_load_explicit(&queue->fault, memory_order_relaxed)) {
        return -ESHUTDOWN;
    }
    if (queue->free_count == 0) {
        return -EAGAIN;
    }
    const uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    /* The card takes an entry only while its completion has a place in the ring. */
    if (tail - queue->acknowledged >= queue->config.entries) {
        queue->acknowledged = atomic_load_explicit(&queue->head, memory_order_acquire);
        tepi_ring_completion(queue->bus, queue->config.id, queue->acknowledged);
    }
    const uint16_t id = queue->free_slots[--queue->free_count];
    struct tepi_slot *slot = &queue->slots[id];
    slot->owner = owner;
    atomic_store_explicit(&slot->state,
                          queue->config.signals && owner ? TEPI_SLOT_LISTED
                          : queue->config.signals        ? TEPI_SLOT_ORPHAN
                                                         : TEPI_SLOT_WAITED,
                          memory_order_relaxed);
    if (command_id) {
        *command_id = id;
    }
    struct tepi_submission *ring = queue->submissions.address;
    struct tepi_submission *place = &ring[tail & (queue->config.entries - 1)];
    *place = *entry;
    place->command_id = id;
    place->generation = atomic_load_explicit(&queue->generation, memory_order_relaxed);
    /* Release: whoever rings with this tail has the entry and the slot's state before it. */
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    return id;
}

static void ring_unlocked(struct tepi_queue *queue, uint32_t tail)
{
    tepi_ring_submission(queue->bus, queue->config.id, tail);
    /* Sequentially consistent with tepi_queue_fail: either it sees 0 or we see the pair closed. */
    if (atomic_fetch_sub(&queue->ringers, 1) == 1 && atomic_load(&queue->fault)) {
        pthread_mutex_lock(&queue->submit_lock);
        pthread_cond_broadcast(&queue->quiet);
        pthread_mutex_unlock(&queue->submit_lock);
    }
}

int tepi_queue_post(struct tepi_queue *queue, const struct tepi_submission *entry, void *owner)
{
    pthread_mutex_lock(&queue->submit_lock);
    int id = post_locked(queue, entry, owner, NULL);
    pthread_mutex_unlock(&queue->submit_lock);
    return id;
}

void tepi_queue_ring(struct tepi_queue *queue)
{
    pthread_mutex_lock(&queue->submit_lock);
    const bool open = atomic_load_explicit(&queue->fault, memory_order_relaxed) == 0;
    const uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (open) {
        atomic_fetch_add(&queue->ringers, 1);
    }
    pthread_mutex_unlock(&queue->submit_lock);
    /* Not under the lock: a software card may compute right here. Doorbells of two threads may
     * so arrive in the wrong order; the card ignores a tail behind the newest. */
    if (open) {
        ring_unlocked(queue, tail);
    }
}

int tepi_queue_submit(struct tepi_queue *queue, const struct tepi_submission *entry, void *owner,
                      uint16_t *command_id)
{
    pthread_mutex_lock(&queue->submit_lock);
    const int id = post_locked(queue, entry, owner, command_id);
    const uint32_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    if (id >= 0) {
        atomic_fetch_add(&queue->ringers, 1);
    }
    pthread_mutex_unlock(&queue->submit_lock);
    if (id >= 0) {
        ring_unlocked(queue, tail);
    }
    return id;
}

static void slot_free(struct tepi_queue *queue, uint16_t id)
{
    pthread_mutex_lock(&queue->submit_lock);
    atomic_store_explicit(&queue->slots[id].state, TEPI_SLOT_FREE, memory_order_relaxed);
    queue->free_slots[queue->free_count++] = id;
    const bool wanted = atomic_load_explicit(&queue->hungry, memory_order_relaxed) != 0;
    pthread_mutex_unlock(&queue->submit_lock);
    if (wanted) {
        pthread_cond_broadcast(&queue->quiet);
    }
}

void tepi_queue_finish(struct tepi_queue *queue, uint16_t command_id,
                       struct tepi_completion *completion)
{
    *completion = queue->slots[command_id].completion;
    slot_free(queue, command_id);
}

/* Hands a completion to whoever wants it; false where the command is not in flight. */
static bool deliver(struct tepi_queue *queue, uint16_t id, const struct tepi_completion *completion)
{
    struct tepi_slot *slot = &queue->slots[id];
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    do {
        if (state == TEPI_SLOT_FREE || state == TEPI_SLOT_DONE) {
            return false;
        }
        slot->completion = *completion;
        /* Release: the completion is whole before its waiter sees DONE. */
    } while (!atomic_compare_exchange_weak_explicit(&slot->state, &state, TEPI_SLOT_DONE,
                                                    memory_order_acq_rel, memory_order_acquire));
    if (state == TEPI_SLOT_ORPHAN) {
        slot_free(queue, id);
    } else if (state == TEPI_SLOT_LISTED) {
        queue->done_list[queue->done_tail++ & (queue->config.entries - 1)] = id;
    } else {
        tepi_queue_wake(slot);
    }
    return true;
}

static int reap_locked(struct tepi_queue *queue)
{
    const uint32_t entries = queue->config.entries;
    const struct tepi_completion *ring = queue->completions.address;
    uint32_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    int taken = 0;
    for (;; taken++) {
        const struct tepi_completion *entry = &ring[head & (entries - 1)];
        const uint32_t tag = tepi_completion_tag(entry);
        const uint32_t phase_due = (head & entries) ? 0 : 1;
        if (TEPI_TAG_PHASE(tag) != phase_due) {
            break;
        }
        struct tepi_completion completion = *entry;
        completion.tag = tag;
        if (completion.generation != atomic_load(&queue->generation)) {
            /* Written by the card as it was before its reset: the due entry comes over it. */
            atomic_fetch_add_explicit(&queue->stale, 1, memory_order_relaxed);
            break;
        }
        head++;
        /* Release: the entry has been copied before a poster gives it back to the card. */
        atomic_store_explicit(&queue->head, head, memory_order_release);
        const uint16_t id = TEPI_TAG_COMMAND_ID(tag);
        if (id >= entries || !deliver(queue, id, &completion)) {
            if (tepi_queue_fault(queue)) {
                /* tepi_queue_fail has ended the command already: late, but no lie. */
                atomic_fetch_add_explicit(&queue->stale, 1, memory_order_relaxed);
                continue;
            }
            tepi_queue_close(queue, TEPI_FAULT_CORRUPT_COMPLETION);
            return -EBADMSG;
        }
    }
    return taken;
}

int tepi_queue_reap(struct tepi_queue *queue)
{
    pthread_mutex_lock(&queue->reap_lock);
    int taken = reap_locked(queue);
    pthread_mutex_unlock(&queue->reap_lock);
    return taken;
}

int tepi_queue_try_reap(struct tepi_queue *queue)
{
    if (pthread_mutex_trylock(&queue->reap_lock)) {
        return 0;
    }
    int taken = reap_locked(queue);
    pthread_mutex_unlock(&queue->reap_lock);
    return taken;
}

void tepi_queue_fail(struct tepi_queue *queue, uint32_t fault)
{
    pthread_mutex_lock(&queue->reap_lock);
    for (uint32_t id = 0; id < queue->config.entries; id++) {
        const struct tepi_completion completion = {
            .generation = atomic_load(&queue->generation),
            .tag = TEPI_TAG(id, fault, 0),
        };
        deliver(queue, (uint16_t)id, &completion);
    }
    pthread_mutex_unlock(&queue->reap_lock);
    if (queue->config.signals) {
        const uint64_t one = 1;
        ssize_t written = write(queue->eventfd, &one, sizeof one);
        (void)written;
    }
    pthread_mutex_lock(&queue->submit_lock);
    while (atomic_load(&queue->ringers) != 0) {
        pthread_cond_wait(&queue->quiet, &queue->submit_lock);
    }
    pthread_mutex_unlock(&queue->submit_lock);
}
