/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the vfio-user bus: bus_vfio_user.c (registers, mappings) and vfio_user_attach.c
 * (connecting). */
#ifndef TEPI_DRIVER_VFIO_USER_STATE_H
#define TEPI_DRIVER_VFIO_USER_STATE_H

#include "driver/bus_vfio_user.h"
#include "driver/vfio_user_call.h"
#include <pthread.h>
#include <stdatomic.h>

#define TEPI_VFIO_USER_READ_NS  1000000000ull
/* Of what may have to wait for the card's work in progress: writes, unmapping, reset. */
#define TEPI_VFIO_USER_WRITE_NS 10000000000ull

/* Memory that the card was shown; bytes 0: free. */
struct tepi_vfio_user_mapping {
    uint64_t iova, bytes;
    uint32_t turn;
    int fd;
};

struct tepi_vfio_user_bus {
    struct tepi_bus bus;
    char *path;
    pthread_mutex_t lock; /* of messages, mappings and vectors; doorbells take none */
    int socket;           /* -1: gone */
    uint16_t id;
    /* Both stay what they are for as long as the bus lives: a new connection puts its page and its
     * ioeventfds in their place, so that a thread that is just ringing need not be waited for. */
    unsigned char *page;
    int bells[TEPI_QUEUES_MAX]; /* -1: never had */
    _Atomic uint32_t bell_count;
    struct tepi_vfio_user_mapping mappings[TEPI_VFIO_USER_MAPS_MAX];
    int vectors[TEPI_QUEUES_MAX]; /* the host's eventfds; -1: none */
};

/* All with the lock held. */

/* tepi_vfio_user_do, after which a broken connection is closed. */
int tepi_vfio_user_ask(struct tepi_vfio_user_bus *self, struct tepi_vfio_user_call *call);
void tepi_vfio_user_lose(struct tepi_vfio_user_bus *self);
int tepi_vfio_user_map(struct tepi_vfio_user_bus *self,
                       const struct tepi_vfio_user_mapping *mapping);
int tepi_vfio_user_vector(struct tepi_vfio_user_bus *self, uint32_t vector);
/* Connects, and puts everything in place; errno as tepi_bus_vfio_user_open. */
int tepi_vfio_user_attach(struct tepi_vfio_user_bus *self);

#endif
