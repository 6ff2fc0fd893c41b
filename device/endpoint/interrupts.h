/* SPDX-License-Identifier: Apache-2.0 */
/* A client's interrupt vectors: eventfds that it handed over, signalled without ever waiting.
 *
 * The client can make a write to its eventfd block, whatever flags the card sets: the counter and
 * the flags are shared. So the kernel signals it, at the end of an asynchronous write of nothing
 * (IOCB_FLAG_RESFD), and a thread of the card never waits for a client. */
#ifndef TEPI_ENDPOINT_INTERRUPTS_H
#define TEPI_ENDPOINT_INTERRUPTS_H

#include "endpoint/doorbells.h"
#include <linux/aio_abi.h>

struct tepi_interrupts {
    struct tepi_doorbells *doorbells; /* where the vectors' words are */
    aio_context_t aio;
    int nowhere;          /* /dev/null */
    uint32_t outstanding; /* completions to take from the context */
    pthread_mutex_t lock; /* of the below and of signalling: no fd is closed while in use */
    int eventfds[TEPI_QUEUES_MAX];
};

/* 0 or negative errno. */
int tepi_interrupts_open(struct tepi_interrupts *interrupts, struct tepi_doorbells *doorbells);
void tepi_interrupts_close(struct tepi_interrupts *interrupts);

/* Takes over `fd`, -1 to disconnect, and arms the vector. 0, or the errno to answer: EINVAL where
 * it is no eventfd, which is then closed. */
int tepi_interrupts_connect(struct tepi_interrupts *interrupts, uint32_t vector, int fd);
/* Signals the vector where the client has armed it, as abi/vfio_user.h says. */
void tepi_interrupts_raise(struct tepi_interrupts *interrupts, uint32_t vector);

#endif
