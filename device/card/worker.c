/* SPDX-License-Identifier: Apache-2.0 */
/* Compute units and the worker threads that use them.
 *
 * There are as many units as workers, and a program runs only with one: so a thread that rings a
 * doorbell and computes itself takes the place of a worker, never adds to them. Work in the list
 * comes first; nobody borrows a unit past it. */
#include "card/state.h"

#include <errno.h>

#define SPIN_NS 20000u

enum { SPINS_PER_CLOCK = 64 };

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Looks for work without sleeping, for as long as a wake-up would about cost. */
static void spin(struct tepi_card *card)
{
    const uint64_t until = tepi_card_clock_ns() + SPIN_NS;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&card->work_count, memory_order_relaxed)) {
                return;
            }
            relax();
        }
    } while (tepi_card_clock_ns() < until);
}

static void *work(void *argument)
{
    struct tepi_card *card = argument;
    pthread_mutex_lock(&card->work_lock);
    while (!atomic_load(&card->stop)) {
        struct tepi_card_command *command = card->work_first;
        struct tepi_card_unit *unit = card->idle_units;
        if (!command || !unit) {
            pthread_cond_wait(&card->work_wanted, &card->work_lock);
            continue;
        }
        card->work_first = command->next;
        command->next = NULL;
        atomic_fetch_sub(&card->work_count, 1);
        card->idle_units = unit->next;
        unit->busy = true;
        pthread_mutex_unlock(&card->work_lock);

        tepi_card_perform(command, unit);
        spin(card);
        pthread_mutex_lock(&card->work_lock);
    }
    pthread_mutex_unlock(&card->work_lock);
    return NULL;
}

int tepi_card_workers_start(struct tepi_card *card)
{
    for (uint32_t i = 0; i < card->config.workers; i++) {
        card->units[i].next = card->idle_units;
        card->idle_units = &card->units[i];
    }
    for (uint32_t i = 0; i < card->config.workers; i++) {
        int error = pthread_create(&card->threads[i], NULL, work, card);
        if (error) {
            return -error;
        }
        pthread_setname_np(card->threads[i], "tepi-card");
        card->thread_count++;
    }
    return 0;
}

void tepi_card_workers_stop(struct tepi_card *card)
{
    pthread_mutex_lock(&card->work_lock);
    atomic_store(&card->stop, true);
    pthread_cond_broadcast(&card->work_wanted);
    pthread_mutex_unlock(&card->work_lock);
    for (uint32_t i = 0; i < card->thread_count; i++) {
        pthread_join(card->threads[i], NULL);
    }
    card->thread_count = 0;
}

void tepi_card_work_queue(struct tepi_card_command *command)
{
    struct tepi_card *card = command->queue->card;
    command->next = NULL;
    pthread_mutex_lock(&card->work_lock);
    if (card->work_first) {
        card->work_last->next = command;
    } else {
        card->work_first = command;
    }
    card->work_last = command;
    atomic_fetch_add(&card->work_count, 1);
    pthread_cond_signal(&card->work_wanted);
    pthread_mutex_unlock(&card->work_lock);
}

bool tepi_card_work_withdraw(struct tepi_card_command *command)
{
    struct tepi_card *card = command->queue->card;
    bool found = false;
    pthread_mutex_lock(&card->work_lock);
    struct tepi_card_command *before = NULL;
    for (struct tepi_card_command *at = card->work_first; at; before = at, at = at->next) {
        if (at != command) {
            continue;
        }
        if (before) {
            before->next = at->next;
        } else {
            card->work_first = at->next;
        }
        if (card->work_last == at) {
            card->work_last = before;
        }
        atomic_fetch_sub(&card->work_count, 1);
        found = true;
        break;
    }
    pthread_mutex_unlock(&card->work_lock);
    return found;
}

struct tepi_card_unit *tepi_card_unit_borrow(struct tepi_card *card)
{
    struct tepi_card_unit *unit = NULL;
    pthread_mutex_lock(&card->work_lock);
    if (!card->work_first && card->idle_units) {
        unit = card->idle_units;
        card->idle_units = unit->next;
        unit->busy = true;
    }
    pthread_mutex_unlock(&card->work_lock);
    return unit;
}

void tepi_card_unit_return(struct tepi_card *card, struct tepi_card_unit *unit)
{
    void *old = NULL;
    uint64_t old_bytes = 0;
    pthread_mutex_lock(&card->work_lock);
    if (unit->resized) {
        old = unit->scratch;
        old_bytes = unit->scratch_bytes;
        unit->scratch = unit->next_scratch;
        unit->scratch_bytes = unit->next_bytes;
        unit->resized = false;
    }
    unit->busy = false;
    unit->next = card->idle_units;
    card->idle_units = unit;
    if (card->work_first) {
        pthread_cond_signal(&card->work_wanted);
    }
    pthread_mutex_unlock(&card->work_lock);
    if (old) {
        tepi_memory_give(&card->memory, old, old_bytes);
    }
}

/* Swaps `*block` in; *block and *bytes become what is to be given back. */
static void swap_scratch(struct tepi_card_unit *unit, void **block, uint64_t *bytes)
{
    void **place = unit->busy ? &unit->next_scratch : &unit->scratch;
    uint64_t *place_bytes = unit->busy ? &unit->next_bytes : &unit->scratch_bytes;
    const bool holds = !unit->busy || unit->resized;
    void *old = holds ? *place : NULL;
    const uint64_t old_bytes = holds ? *place_bytes : 0;
    *place = *block;
    *place_bytes = *bytes;
    unit->resized = unit->busy;
    *block = old;
    *bytes = old_bytes;
}

bool tepi_card_units_resize(struct tepi_card *card, uint64_t bytes)
{
    void *blocks[TEPI_CARD_WORKERS_MAX] = {0};
    uint64_t sizes[TEPI_CARD_WORKERS_MAX];
    const uint32_t count = card->config.workers;
    bool whole = true;
    for (uint32_t i = 0; i < count; i++) {
        sizes[i] = bytes;
        if (bytes && whole) {
            blocks[i] = tepi_memory_take(&card->memory, bytes);
            whole = blocks[i] != NULL;
        }
    }
    pthread_mutex_lock(&card->work_lock);
    for (uint32_t i = 0; i < count && whole; i++) {
        swap_scratch(&card->units[i], &blocks[i], &sizes[i]);
    }
    pthread_mutex_unlock(&card->work_lock);
    for (uint32_t i = 0; i < count; i++) {
        if (blocks[i]) {
            tepi_memory_give(&card->memory, blocks[i], sizes[i]);
        }
    }
    return whole;
}
