/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting on a queue pair: spin, then one leader sleeps on the eventfd and the others on futexes.
 *
 * The leader takes up completions for all and wakes their owners. When its own command is done it
 * leaves, and wakes one more waiter to lead. So a completion costs one wake-up, not two. */
#include "driver/queue_state.h"

#include "abi/faults.h"
#include "driver/clock.h"
#include "driver/mmio.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_NS     10000u
/* How often a sleeper makes sure that the card is still there. */
#define PRESENCE_NS 20000000ull

enum { SPINS_PER_CLOCK = 32 };

static bool is_done(struct tepi_slot *slot)
{
    /* Acquire: pairs with deliver; the completion is read after DONE. */
    return atomic_load_explicit(&slot->state, memory_order_acquire) == TEPI_SLOT_DONE;
}

int tepi_queue_look(struct tepi_queue *queue)
{
    if (tepi_queue_fault(queue) == TEPI_FAULT_CORRUPT_COMPLETION) {
        return -EBADMSG;
    }
    const uint32_t status = tepi_read32(queue->bus, TEPI_REG_STATUS);
    if (status == TEPI_ALL_ONES) {
        return -ENODEV;
    }
    if (status & TEPI_STATUS_FAULT) {
        return -EIO;
    }
    const uint32_t enable =
        TEPI_REG_QUEUE + queue->config.id * TEPI_REG_QUEUE_STRIDE + TEPI_QUEUE_ENABLE;
    return tepi_read32(queue->bus, enable) ? 0 : -EPIPE;
}

void tepi_queue_wake(struct tepi_slot *slot)
{
    /* Sequentially consistent with follow(): either the sleeper is seen, or it sees the count. */
    atomic_fetch_add(&slot->wakes, 1);
    if (atomic_load(&slot->sleeper)) {
        syscall(SYS_futex, &slot->wakes, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}

static void promote(struct tepi_queue *queue)
{
    for (uint32_t id = 0; id < queue->config.entries; id++) {
        struct tepi_slot *slot = &queue->slots[id];
        if (atomic_load(&slot->sleeper) && !is_done(slot)) {
            tepi_queue_wake(slot);
            return;
        }
    }
}

static uint64_t nap(uint64_t now, uint64_t deadline)
{
    uint64_t left = deadline - now;
    return left < PRESENCE_NS ? left : PRESENCE_NS;
}

/* Sleeps on the eventfd and reaps, until the slot is done or the deadline has passed. */
static int lead(struct tepi_queue *queue, struct tepi_slot *slot, uint64_t deadline)
{
    struct tepi_bus *bus = queue->bus;
    const uint32_t vector = queue->config.id;
    int result = 0;
    for (;;) {
        bus->ops->interrupt_arm(bus, vector, true);
        tepi_queue_reap(queue);
        if (is_done(slot)) {
            break;
        }
        uint64_t now = tepi_now_ns();
        if (now >= deadline) {
            result = -ETIMEDOUT;
            break;
        }
        struct pollfd event = {.fd = queue->eventfd, .events = POLLIN};
        const struct timespec rest = tepi_timespec(nap(now, deadline));
        ppoll(&event, 1, &rest, NULL);
        uint64_t count;
        ssize_t drained = read(queue->eventfd, &count, sizeof count);
        (void)drained;
        tepi_queue_reap(queue);
        if (is_done(slot)) {
            break;
        }
        result = tepi_queue_look(queue);
        if (result) {
            break;
        }
    }
    bus->ops->interrupt_arm(bus, vector, false);
    return result;
}

/* Sleeps until the leader wakes the slot; then, or at once, the caller looks again. */
static void follow(struct tepi_queue *queue, struct tepi_slot *slot, uint64_t deadline)
{
    atomic_store(&slot->sleeper, 1);
    const uint32_t wakes = atomic_load(&slot->wakes);
    /* A leader that left before it could see this sleeper has promoted nobody. */
    bool vacant = pthread_mutex_trylock(&queue->leader) == 0;
    if (vacant) {
        pthread_mutex_unlock(&queue->leader);
    }
    uint64_t now = tepi_now_ns();
    if (!vacant && !is_done(slot) && now < deadline) {
        const struct timespec rest = tepi_timespec(nap(now, deadline));
        syscall(SYS_futex, &slot->wakes, FUTEX_WAIT_PRIVATE, wakes, &rest, NULL, 0);
    }
    atomic_store(&slot->sleeper, 0);
}

static int sleep_until(struct tepi_queue *queue, struct tepi_slot *slot, uint64_t deadline)
{
    while (!is_done(slot)) {
        if (pthread_mutex_trylock(&queue->leader) == 0) {
            int result = lead(queue, slot, deadline);
            pthread_mutex_unlock(&queue->leader);
            promote(queue);
            if (result) {
                return result;
            }
            continue;
        }
        follow(queue, slot, deadline);
        if (is_done(slot)) {
            break;
        }
        if (tepi_now_ns() >= deadline) {
            return -ETIMEDOUT;
        }
        int result = tepi_queue_look(queue);
        if (result) {
            return result;
        }
    }
    return 0;
}

static bool spin(struct tepi_queue *queue, struct tepi_slot *slot, uint64_t until)
{
    const uint64_t start = tepi_now_ns();
    for (;;) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (is_done(slot)) {
                return true;
            }
            tepi_queue_try_reap(queue);
            tepi_cpu_relax();
        }
        const uint64_t now = tepi_now_ns();
        if (now >= until) {
            return is_done(slot);
        }
        if (now >= start + SPIN_NS) {
            sched_yield(); /* the card may be waiting for this very processor */
        }
    }
}

int tepi_queue_wait(struct tepi_queue *queue, uint16_t command_id, uint64_t timeout_ns,
                    struct tepi_completion *completion)
{
    struct tepi_slot *slot = &queue->slots[command_id];
    if (!is_done(slot)) {
        tepi_queue_reap(queue);
    }
    if (!is_done(slot)) {
        if (timeout_ns == 0) {
            return -ETIMEDOUT;
        }
        const uint64_t now = tepi_now_ns();
        const uint64_t deadline = tepi_later(now, timeout_ns);
        /* One thread at a time polls for long: it takes up completions for all. */
        const bool alone = atomic_fetch_add(&queue->pollers, 1) == 0;
        const uint64_t spin_ns = alone && queue->bus->spin_ns ? queue->bus->spin_ns : SPIN_NS;
        const bool done = spin(queue, slot, timeout_ns < spin_ns ? deadline : now + spin_ns);
        atomic_fetch_sub(&queue->pollers, 1);
        if (!done) {
            int result = sleep_until(queue, slot, deadline);
            if (result) {
                return result;
            }
        }
    }
    tepi_queue_finish(queue, command_id, completion);
    return 0;
}

void tepi_queue_abandon(struct tepi_queue *queue, uint16_t command_id)
{
    struct tepi_slot *slot = &queue->slots[command_id];
    uint32_t waited = TEPI_SLOT_WAITED;
    if (atomic_compare_exchange_strong(&slot->state, &waited, TEPI_SLOT_ORPHAN)) {
        return;
    }
    struct tepi_completion ignored;
    tepi_queue_finish(queue, command_id, &ignored);
}

int tepi_queue_wait_slot(struct tepi_queue *queue, uint64_t timeout_ns)
{
    const struct timespec until = tepi_timespec(tepi_later(tepi_now_ns(), timeout_ns));
    int result = 0;
    tepi_queue_reap(queue);
    pthread_mutex_lock(&queue->submit_lock);
    atomic_fetch_add(&queue->hungry, 1);
    while (queue->free_count == 0 && !atomic_load(&queue->fault) && result == 0) {
        result = pthread_cond_timedwait(&queue->quiet, &queue->submit_lock, &until);
    }
    atomic_fetch_sub(&queue->hungry, 1);
    pthread_mutex_unlock(&queue->submit_lock);
    return -result;
}

int tepi_queue_eventfd(const struct tepi_queue *queue)
{
    return queue->eventfd;
}

uint32_t tepi_queue_collect(struct tepi_queue *queue, struct tepi_done *done, uint32_t most)
{
    uint64_t count;
    ssize_t drained = read(queue->eventfd, &count, sizeof count);
    (void)drained;
    uint32_t taken = 0;
    tepi_queue_reap(queue);
    pthread_mutex_lock(&queue->reap_lock);
    while (taken < most && queue->done_head != queue->done_tail) {
        const uint16_t id = queue->done_list[queue->done_head++ & (queue->config.entries - 1)];
        done[taken].owner = queue->slots[id].owner;
        tepi_queue_finish(queue, id, &done[taken].completion);
        taken++;
    }
    const bool more = queue->done_head != queue->done_tail;
    pthread_mutex_unlock(&queue->reap_lock);
    if (more) {
        const uint64_t one = 1;
        ssize_t written = write(queue->eventfd, &one, sizeof one);
        (void)written;
    }
    return taken;
}

uint32_t tepi_queue_fault(const struct tepi_queue *queue)
{
    return atomic_load_explicit(&queue->fault, memory_order_acquire);
}

uint32_t tepi_queue_in_flight(struct tepi_queue *queue)
{
    pthread_mutex_lock(&queue->submit_lock);
    uint32_t in_flight = queue->config.entries - queue->free_count;
    pthread_mutex_unlock(&queue->submit_lock);
    return in_flight;
}

uint64_t tepi_queue_stale(const struct tepi_queue *queue)
{
    return atomic_load_explicit(&queue->stale, memory_order_relaxed);
}
