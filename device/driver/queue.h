/* SPDX-License-Identifier: Apache-2.0 */
/* A queue pair: a submission ring, a completion ring, and who waits for what.
 *
 * Any number of threads may post and wait on one pair. Completions arrive in any order. What a
 * completion says is believed only if its phase is due, its generation is the current one and its
 * command is in flight; see tepi_queue_reap. */
#ifndef TEPI_DRIVER_QUEUE_H
#define TEPI_DRIVER_QUEUE_H

#include "abi/queue.h"
#include "driver/bus.h"
#include "driver/pool.h"
#include <stdbool.h>
#include <stdint.h>

struct tepi_queue;

struct tepi_queue_config {
    uint32_t id;
    uint32_t entries; /* of both rings, a power of two, 2 to 32768 */
    bool lend;        /* whoever rings waits for the completion: TEPI_QUEUE_ENABLE_LEND */
    bool signals;     /* completions signal the eventfd at once: for an event loop */
};

/* A command that is done, as tepi_queue_collect returns it. */
struct tepi_done {
    void *owner;
    struct tepi_completion completion;
};

/* Memory, eventfd and slots of a pair; the card does not know of it until tepi_queue_start.
 * 0, -ENOMEM, -EINVAL, or the errno of eventfd. */
int tepi_queue_create(struct tepi_bus *bus, struct tepi_pool *pool,
                      const struct tepi_queue_config *config, struct tepi_queue **queue);
/* The pair must be stopped and the card reset or gone. */
void tepi_queue_destroy(struct tepi_queue *queue);

/* Empties both rings and attaches them to the card, whose generation is given. 0, or -EIO where
 * the card refuses the pair. */
int tepi_queue_start(struct tepi_queue *queue, uint32_t generation);
/* No command is taken from now on: post fails with `fault`. Those in flight stay in flight. */
void tepi_queue_close(struct tepi_queue *queue, uint32_t fault);
/* Ends every command in flight with `fault`, then waits until nobody is ringing. The pair must be
 * closed, and the card reset or gone: buffers are free for other use when this returns. */
void tepi_queue_fail(struct tepi_queue *queue, uint32_t fault);

/* Writes an entry; its command_id and generation are filled in here. `owner` comes back from
 * collect. Returns the command id, -EAGAIN (full), or -ESHUTDOWN (closed, see tepi_queue_fault).
 * Every post is followed by a ring from the same thread. */
int tepi_queue_post(struct tepi_queue *queue, const struct tepi_submission *entry, void *owner);
/* Shows the card all entries posted so far. */
void tepi_queue_ring(struct tepi_queue *queue);
/* Both. *command_id, where not NULL, is written before the card can see the entry. */
int tepi_queue_submit(struct tepi_queue *queue, const struct tepi_submission *entry, void *owner,
                      uint16_t *command_id);

/* Takes up what the card has completed. Returns the number of completions, or -EBADMSG after one
 * that names no command in flight: the pair is closed with CORRUPT_COMPLETION. */
int tepi_queue_reap(struct tepi_queue *queue);

/* Waits until a command is done and takes its completion: spins shortly, then sleeps. timeout_ns 0
 * only looks. Otherwise the command stays in flight: -ETIMEDOUT; -ENODEV when the card is gone and
 * -EIO when it reports a fatal fault, -EPIPE when it has stopped the pair, for which registers are
 * read while waiting; -EBADMSG after a corrupt completion. The thread that posted is the one that
 * waits. */
int tepi_queue_wait(struct tepi_queue *queue, uint16_t command_id, uint64_t timeout_ns,
                    struct tepi_completion *completion);
/* Gives up waiting; the completion, when it comes, only frees the slot. */
void tepi_queue_abandon(struct tepi_queue *queue, uint16_t command_id);
/* Waits until a slot may be free. 0 or -ETIMEDOUT. */
int tepi_queue_wait_slot(struct tepi_queue *queue, uint64_t timeout_ns);

/* For event loops: the eventfd to watch, and what is done since the last call, at most `most`.
 * Only commands posted with an owner, on a pair with `signals`, arrive here; without an owner
 * nobody hears of them. */
int tepi_queue_eventfd(const struct tepi_queue *queue);
uint32_t tepi_queue_collect(struct tepi_queue *queue, struct tepi_done *done, uint32_t most);

/* Why waiting is in vain: 0 where it is not, else as tepi_queue_wait. Reads the card. */
int tepi_queue_look(struct tepi_queue *queue);
/* Why the pair is closed, an enum tepi_fault; 0 while it is open. */
uint32_t tepi_queue_fault(const struct tepi_queue *queue);
uint32_t tepi_queue_in_flight(struct tepi_queue *queue);
/* Completions of another generation that were not believed. */
uint64_t tepi_queue_stale(const struct tepi_queue *queue);

#endif
