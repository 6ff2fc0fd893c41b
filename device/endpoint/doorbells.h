/* SPDX-License-Identifier: Apache-2.0 */
/* The doorbell page that a client maps, and a thread per queue pair that watches it.
 *
 * The thread polls while there is work, and for a while after; then it sleeps until the pair's
 * ioeventfd is written (see abi/vfio_user.h for the order). It rings the card's own doorbell, and
 * so computes where the pair lends its thread: each pair has its own, and none waits for another.
 */
#ifndef TEPI_ENDPOINT_DOORBELLS_H
#define TEPI_ENDPOINT_DOORBELLS_H

#include "abi/link.h"
#include "abi/vfio_user.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct tepi_doorbells;

struct tepi_pair {
    struct tepi_doorbells *doorbells;
    uint32_t id;
    int ioeventfd; /* the client has it too: written, watched for edges, never read */
    int kick;      /* ours alone */
    int epoll;
    bool running;
    pthread_t thread;
    pthread_mutex_t ringing;     /* from a look at the page to the end of the doorbell it led to */
    _Atomic uint32_t tail, head; /* last seen */
};

struct tepi_doorbells {
    struct tepi_device_port port;
    uint64_t spin_ns;
    int file; /* sealed, TEPI_BAR0_BYTES, of which the client maps the page of doorbells */
    unsigned char *page;
    _Atomic bool stop;
    uint32_t count; /* pairs */
    struct tepi_pair pairs[TEPI_QUEUES_MAX];
};

/* `spin_ns`: how long a thread polls after the last doorbell. 0 or negative errno. */
int tepi_doorbells_open(struct tepi_doorbells *doorbells, const struct tepi_device_port *port,
                        uint32_t count, uint64_t spin_ns);
/* Stops the threads; the device must be unplugged, so that none computes for long. */
void tepi_doorbells_close(struct tepi_doorbells *doorbells);

/* ENABLE of a pair: passes it on with the pair's doorbells at 0, and starts its thread the first
 * time. 0, or negative errno where there is no thread to be had. */
int tepi_doorbells_enable(struct tepi_doorbells *doorbells, uint32_t pair, uint32_t value);
/* The page by messages. A doorbell that is written takes effect like one that is stored. */
void tepi_doorbells_read(struct tepi_doorbells *doorbells, uint32_t offset, uint8_t *data,
                         uint32_t count);
void tepi_doorbells_write(struct tepi_doorbells *doorbells, uint32_t offset, uint32_t value);

/* The word of an interrupt vector. */
_Atomic uint32_t *tepi_doorbells_interrupt(struct tepi_doorbells *doorbells, uint32_t vector);

#endif
