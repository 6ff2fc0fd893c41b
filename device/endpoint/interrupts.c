/* SPDX-License-Identifier: Apache-2.0 */
/* Interrupts as completions of asynchronous writes. */
#include "endpoint/interrupts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { EVENTS = 64 };

/* Takes what has completed out of the context's ring, which holds at least EVENTS. */
static void reap(struct tepi_interrupts *interrupts)
{
    struct io_event events[EVENTS];
    struct timespec none = {0};
    (void)syscall(SYS_io_getevents, interrupts->aio, 0, EVENTS, events, &none);
    interrupts->outstanding = 0;
}

/* With the lock held. 0 or the errno of io_submit: EINVAL where `fd` is no eventfd. */
static int signal_fd(struct tepi_interrupts *interrupts, int fd, unsigned bytes)
{
    static const char nothing;
    struct iocb block = {
        .aio_lio_opcode = IOCB_CMD_PWRITE,
        .aio_fildes = (uint32_t)interrupts->nowhere,
        .aio_buf = (uint64_t)(uintptr_t)&nothing,
        .aio_nbytes = bytes,
        .aio_flags = IOCB_FLAG_RESFD,
        .aio_resfd = (uint32_t)fd,
    };
    struct iocb *blocks[] = {&block};
    if (interrupts->outstanding == EVENTS) {
        reap(interrupts);
    }
    if (syscall(SYS_io_submit, interrupts->aio, 1, blocks) != 1) {
        return errno;
    }
    interrupts->outstanding++;
    return 0;
}

int tepi_interrupts_open(struct tepi_interrupts *interrupts, struct tepi_doorbells *doorbells)
{
    memset(interrupts, 0, sizeof *interrupts);
    interrupts->doorbells = doorbells;
    for (uint32_t vector = 0; vector < TEPI_QUEUES_MAX; vector++) {
        interrupts->eventfds[vector] = -1;
    }
    if (syscall(SYS_io_setup, 2 * EVENTS, &interrupts->aio)) {
        return -errno;
    }
    interrupts->nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (interrupts->nowhere < 0) {
        const int result = -errno;
        syscall(SYS_io_destroy, interrupts->aio);
        return result;
    }
    pthread_mutex_init(&interrupts->lock, NULL);
    return 0;
}

void tepi_interrupts_close(struct tepi_interrupts *interrupts)
{
    for (uint32_t vector = 0; vector < TEPI_QUEUES_MAX; vector++) {
        if (interrupts->eventfds[vector] >= 0) {
            close(interrupts->eventfds[vector]);
        }
    }
    syscall(SYS_io_destroy, interrupts->aio);
    close(interrupts->nowhere);
    pthread_mutex_destroy(&interrupts->lock);
}

int tepi_interrupts_connect(struct tepi_interrupts *interrupts, uint32_t vector, int fd)
{
    int error = 0;
    pthread_mutex_lock(&interrupts->lock);
    /* One interrupt too many at the start: the host looks, finds nothing and sleeps again. */
    error = fd >= 0 ? signal_fd(interrupts, fd, 0) : 0;
    const int old = error ? fd : interrupts->eventfds[vector];
    if (error == 0) {
        interrupts->eventfds[vector] = fd;
        atomic_store(tepi_doorbells_interrupt(interrupts->doorbells, vector), TEPI_INTERRUPT_ARMED);
    }
    pthread_mutex_unlock(&interrupts->lock);
    if (old >= 0) {
        close(old);
    }
    return error;
}

void tepi_interrupts_raise(struct tepi_interrupts *interrupts, uint32_t vector)
{
    if (vector >= TEPI_QUEUES_MAX) {
        return;
    }
    /* One atomic word orders this against the client's arming: either ARMED is seen here, or it
     * sees PENDING and, by acquire, the completion that was written before. */
    const uint32_t before =
        atomic_fetch_or_explicit(tepi_doorbells_interrupt(interrupts->doorbells, vector),
                                 TEPI_INTERRUPT_PENDING, memory_order_acq_rel);
    if (!(before & TEPI_INTERRUPT_ARMED)) {
        return;
    }
    pthread_mutex_lock(&interrupts->lock);
    if (interrupts->eventfds[vector] >= 0) {
        (void)signal_fd(interrupts, interrupts->eventfds[vector], 1);
    }
    pthread_mutex_unlock(&interrupts->lock);
}
