/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of a controller, shared by controller.c (life) and command.c (work). */
#ifndef TEPI_DRIVER_CONTROLLER_STATE_H
#define TEPI_DRIVER_CONTROLLER_STATE_H

#include "driver/controller.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    TEPI_PAIR_WAITED = 0,   /* threads that wait: loads, unloads, synchronous runs */
    TEPI_PAIR_SIGNALED = 1, /* event loops */
    TEPI_PAIRS = 2,
};

struct tepi_controller {
    struct tepi_bus *bus;
    struct tepi_pool *pool;
    struct tepi_controller_config config;
    struct tepi_queue *pairs[TEPI_PAIRS];
    pthread_mutex_t life; /* of bring-up, reset and loss; commands take none of it */
    bool shut;
    _Atomic uint32_t epoch;
    _Atomic uint32_t generation;
    _Atomic uint32_t fault; /* why the card takes no commands; 0: it does */
};

/* What STATUS says: 0, -ENODEV (all ones), -EIO (a fatal fault stands). */
int tepi_controller_status(struct tepi_controller *controller);
/* Ends everything in flight with `fault` if that epoch is still the current one: GONE leaves the
 * card alone, every other fault resets it and brings it up again. */
void tepi_controller_lose(struct tepi_controller *controller, uint32_t epoch, uint32_t fault);

#endif
