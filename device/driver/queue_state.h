/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a queue pair, shared by queue.c (rings) and queue_wait.c (sleeping). */
#ifndef TEPI_DRIVER_QUEUE_STATE_H
#define TEPI_DRIVER_QUEUE_STATE_H

#include "driver/queue.h"
#include <pthread.h>
#include <stdatomic.h>

enum tepi_slot_state {
    TEPI_SLOT_FREE,
    TEPI_SLOT_WAITED, /* in flight; its thread will wait */
    TEPI_SLOT_LISTED, /* in flight; goes to the done list */
    TEPI_SLOT_ORPHAN, /* in flight; nobody waits any more */
    TEPI_SLOT_DONE,
};

struct tepi_slot {
    _Atomic uint32_t state;
    _Atomic uint32_t wakes;   /* futex word: counts reasons to look again */
    _Atomic uint32_t sleeper; /* its thread sleeps, or is about to */
    void *owner;
    struct tepi_completion completion;
};

/* Lock order: reap, then submit. */
struct tepi_queue {
    struct tepi_bus *bus;
    struct tepi_pool *pool;
    struct tepi_queue_config config;
    struct tepi_block submissions, completions;
    int eventfd;

    pthread_mutex_t submit_lock;
    pthread_cond_t quiet; /* ringers reached 0, or a slot became free */
    _Atomic uint32_t tail;
    uint32_t acknowledged; /* completions given back to the card */
    _Atomic uint32_t generation;
    _Atomic uint32_t fault;   /* not 0: closed */
    _Atomic uint32_t ringers; /* threads between the end of a post and the end of its doorbell */
    _Atomic uint32_t hungry;  /* threads waiting for a slot */
    uint16_t *free_slots;
    uint32_t free_count;

    pthread_mutex_t reap_lock;
    _Atomic uint32_t head; /* completions taken up */
    _Atomic uint64_t stale;
    uint16_t *done_list; /* ring of LISTED slots that are done */
    uint32_t done_head, done_tail;

    _Atomic uint32_t pollers; /* threads that poll for a completion */
    pthread_mutex_t leader;   /* held by the one waiter that sleeps on the eventfd */
    struct tepi_slot *slots;
};

/* Reaps without blocking on another thread that is reaping already. */
int tepi_queue_try_reap(struct tepi_queue *queue);
void tepi_queue_wake(struct tepi_slot *slot);
/* Takes the completion of a DONE slot and frees the slot. */
void tepi_queue_finish(struct tepi_queue *queue, uint16_t command_id,
                       struct tepi_completion *completion);

#endif
