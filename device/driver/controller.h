/* SPDX-License-Identifier: Apache-2.0 */
/* One card as the host holds it: probing, queue pairs, commands, loss and reset.
 *
 * Every successful bring-up starts a new *epoch*: what was loaded in an earlier one is no longer on
 * the card. A card that hangs, reports a fatal fault or writes nonsense is reset here at once and
 * commands in flight end with that fault; a card that has gone stays gone until
 * tepi_controller_reset takes it back. */
#ifndef TEPI_DRIVER_CONTROLLER_H
#define TEPI_DRIVER_CONTROLLER_H

#include "abi/faults.h"
#include "abi/queue.h"
#include "driver/bus.h"
#include "driver/failure.h"
#include "driver/pool.h"
#include "driver/queue.h"
#include <stdbool.h>
#include <stdint.h>

struct tepi_controller;

/* Zero in a field means the default. */
struct tepi_controller_config {
    uint32_t entries;          /* of each ring; 256 */
    uint64_t pool_bytes;       /* most DMA memory; 1 GiB */
    uint64_t timeout_ns;       /* of a command without a deadline; 120 s */
    uint64_t grace_ns;         /* what the card has to obey an abort; 1 s */
    uint64_t reset_timeout_ns; /* 5 s */
};

struct tepi_controller_info {
    uint32_t abi_min, abi_max, isa, workers, queues, generation;
    uint64_t opcodes, memory, memory_free, heartbeat, clock_ns;
    uint32_t status, fault_count;
    uint32_t temperature_mc, power_mw, ecc_corrected;
    uint64_t executed;
};

/* Takes over `bus` and enables the card behind it. 0, or negative errno: NOT_A_CARD, GONE,
 * QUEUE_SETUP or TIMEOUT in `failure`. On failure the bus is closed. */
int tepi_controller_open(struct tepi_bus *bus, const struct tepi_controller_config *config,
                         struct tepi_controller **controller, struct tepi_failure *failure);
/* For good: ends what is in flight with GONE, resets the card, and refuses everything after. */
void tepi_controller_shut(struct tepi_controller *controller);
/* Shuts, closes the bus and frees. No thread may be inside another call. */
void tepi_controller_close(struct tepi_controller *controller);

/* Resets the card, or takes back one that left and returned. Commands in flight end with
 * STALE_GENERATION. 0, or negative errno with GONE, TIMEOUT, NOT_A_CARD or QUEUE_SETUP. */
int tepi_controller_reset(struct tepi_controller *controller, struct tepi_failure *failure);
/* True while the card answers and takes commands. Reads the card. */
bool tepi_controller_alive(struct tepi_controller *controller);
/* Why the card takes no commands, an enum tepi_fault; 0 as far as the host knows. */
uint32_t tepi_controller_fault(const struct tepi_controller *controller);
/* Counts bring-ups, from 1. */
uint32_t tepi_controller_epoch(const struct tepi_controller *controller);
/* The card's registers now; 0 or -ENODEV. */
int tepi_controller_info(struct tepi_controller *controller, struct tepi_controller_info *info);
/* Busy nanoseconds of the first `most` workers, since the card has power; returns how many. */
uint32_t tepi_controller_busy(struct tepi_controller *controller, uint64_t *busy_ns, uint32_t most);
/* The newest entries of the card's fault log, oldest first; returns how many, at most `most`. */
uint32_t tepi_controller_faults(struct tepi_controller *controller, struct tepi_fault_entry *log,
                                uint32_t most);

/* Runs one command and waits for it, until its deadline and the grace, or the default timeout, have
 * passed; then it is aborted, and where the card does not obey it is reset. 0, or the errno of the
 * fault. Either way the card no longer touches the command's memory. */
int tepi_controller_command(struct tepi_controller *controller, const struct tepi_submission *entry,
                            struct tepi_completion *completion, struct tepi_failure *failure);

/* The same for an EXECUTE that is to be profiled: room for `count` records, filled on success. */
int tepi_controller_profile(struct tepi_controller *controller, struct tepi_submission *entry,
                            struct tepi_profile_record *records, uint32_t count,
                            struct tepi_completion *completion, struct tepi_failure *failure);

/* The same without waiting, for event loops: the owner comes back from collect. *command_id is
 * written before that can happen. 0, -EAGAIN when the queue is full, or the errno of why the card
 * takes no command. */
int tepi_controller_submit(struct tepi_controller *controller, const struct tepi_submission *entry,
                           void *owner, uint16_t *command_id, struct tepi_failure *failure);
/* Asks the card to stop a submitted command; it still comes back from collect. */
void tepi_controller_abort(struct tepi_controller *controller, uint16_t command_id);
uint32_t tepi_controller_collect(struct tepi_controller *controller, struct tepi_done *done,
                                 uint32_t most);
/* Readable when collect has something to give. Stays the same for the controller's life. */
int tepi_controller_eventfd(const struct tepi_controller *controller);
/* Declares that the card has failed to complete a submitted command of `epoch` in time. */
void tepi_controller_expire(struct tepi_controller *controller, uint32_t epoch);

struct tepi_pool *tepi_controller_pool(struct tepi_controller *controller);

#endif
