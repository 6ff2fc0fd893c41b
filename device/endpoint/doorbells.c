/* SPDX-License-Identifier: Apache-2.0 */
/* Watching doorbells in shared memory. */
#include "endpoint/doorbells.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { LOOKS_PER_CLOCK = 32 };

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A word of the page by its offset in BAR0. */
static _Atomic uint32_t *word(struct tepi_doorbells *doorbells, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)(doorbells->page + (offset - TEPI_REG_DOORBELL));
}

static _Atomic uint32_t *doorbell(const struct tepi_pair *pair, uint32_t which)
{
    return word(pair->doorbells, TEPI_REG_DOORBELL + pair->id * TEPI_REG_DOORBELL_STRIDE + which);
}

_Atomic uint32_t *tepi_doorbells_interrupt(struct tepi_doorbells *doorbells, uint32_t vector)
{
    return word(doorbells, TEPI_REG_INTERRUPT + 4 * vector);
}

static void pass_on(struct tepi_pair *pair, uint32_t which, uint32_t value)
{
    const struct tepi_device_port *port = &pair->doorbells->port;
    port->write(port->device, TEPI_REG_DOORBELL + pair->id * TEPI_REG_DOORBELL_STRIDE + which, 4,
                value);
}

/* True where a doorbell had been rung. */
static bool look(struct tepi_pair *pair)
{
    /* Acquire: the ring's entries, and a head that was given back before, are seen with the tail.
     */
    if (atomic_load_explicit(doorbell(pair, TEPI_DOORBELL_SQ_TAIL), memory_order_acquire) ==
            pair->tail &&
        atomic_load_explicit(doorbell(pair, TEPI_DOORBELL_CQ_HEAD), memory_order_acquire) ==
            pair->head) {
        return false;
    }
    pthread_mutex_lock(&pair->ringing);
    const uint32_t tail =
        atomic_load_explicit(doorbell(pair, TEPI_DOORBELL_SQ_TAIL), memory_order_acquire);
    const uint32_t head =
        atomic_load_explicit(doorbell(pair, TEPI_DOORBELL_CQ_HEAD), memory_order_acquire);
    /* Places are given back before entries that need them are fetched. */
    if (head != pair->head) {
        pair->head = head;
        pass_on(pair, TEPI_DOORBELL_CQ_HEAD, head);
    }
    if (tail != pair->tail) {
        pair->tail = tail;
        pass_on(pair, TEPI_DOORBELL_SQ_TAIL, tail);
    }
    pthread_mutex_unlock(&pair->ringing);
    return true;
}

static void spin(struct tepi_pair *pair)
{
    struct tepi_doorbells *doorbells = pair->doorbells;
    uint64_t until = now_ns() + doorbells->spin_ns;
    while (!atomic_load_explicit(&doorbells->stop, memory_order_relaxed)) {
        bool rung = false;
        for (int i = 0; i < LOOKS_PER_CLOCK && !rung; i++) {
            rung = look(pair);
            relax();
        }
        const uint64_t now = now_ns();
        if (rung) {
            until = now + doorbells->spin_ns;
        } else if (now >= until) {
            return;
        } else {
            sched_yield(); /* the client may be waiting for this very processor */
        }
    }
}

static void sleep_until_rung(struct tepi_pair *pair)
{
    struct epoll_event event;
    _Atomic uint32_t *wake = word(pair->doorbells, TEPI_REG_WAKE + 4 * pair->id);
    /* Sequentially consistent: the word is set before the last look. The client stores the
     * doorbell before it looks at the word, so one of the two sees the other. */
    atomic_store(wake, 1);
    atomic_thread_fence(memory_order_seq_cst);
    if (!look(pair) && !atomic_load(&pair->doorbells->stop)) {
        uint64_t count;
        (void)epoll_wait(pair->epoll, &event, 1, -1);
        ssize_t drained = read(pair->kick, &count, sizeof count);
        (void)drained;
    }
    atomic_store(wake, 0);
}

static void *watch(void *argument)
{
    struct tepi_pair *pair = argument;
    while (!atomic_load_explicit(&pair->doorbells->stop, memory_order_relaxed)) {
        spin(pair);
        sleep_until_rung(pair);
    }
    return NULL;
}

static void kick(const struct tepi_pair *pair)
{
    const uint64_t one = 1;
    ssize_t written = write(pair->kick, &one, sizeof one);
    (void)written;
}

static int pair_open(struct tepi_pair *pair)
{
    /* Edges: the client's writes alone wake the thread, and it need not read a counter that the
     * client may change under it. */
    struct epoll_event rung = {.events = EPOLLIN | EPOLLET};
    struct epoll_event kicked = {.events = EPOLLIN};
    pair->ioeventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pair->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pair->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (pair->ioeventfd < 0 || pair->kick < 0 || pair->epoll < 0 ||
        epoll_ctl(pair->epoll, EPOLL_CTL_ADD, pair->ioeventfd, &rung) ||
        epoll_ctl(pair->epoll, EPOLL_CTL_ADD, pair->kick, &kicked)) {
        return -errno;
    }
    return 0;
}

int tepi_doorbells_open(struct tepi_doorbells *doorbells, const struct tepi_device_port *port,
                        uint32_t count, uint64_t spin_ns)
{
    doorbells->port = *port;
    doorbells->count = count;
    doorbells->spin_ns = spin_ns;
    doorbells->page = MAP_FAILED;
    for (uint32_t id = 0; id < count; id++) {
        struct tepi_pair *pair = &doorbells->pairs[id];
        pair->doorbells = doorbells;
        pair->id = id;
        pair->ioeventfd = pair->kick = pair->epoll = -1;
        pthread_mutex_init(&pair->ringing, NULL);
    }
    int result = 0;
    doorbells->file = memfd_create("tepi-doorbells", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    /* Sealed: a client that cut it short would take the page from under the threads. */
    if (doorbells->file < 0 || ftruncate(doorbells->file, TEPI_BAR0_BYTES) ||
        fcntl(doorbells->file, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        result = -errno;
        goto fail;
    }
    doorbells->page = mmap(NULL, TEPI_DOORBELL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                           doorbells->file, TEPI_REG_DOORBELL);
    if (doorbells->page == MAP_FAILED) {
        result = -errno;
        goto fail;
    }
    for (uint32_t id = 0; id < count && result == 0; id++) {
        result = pair_open(&doorbells->pairs[id]);
    }
    if (result == 0) {
        return 0;
    }
fail:
    tepi_doorbells_close(doorbells);
    return result;
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void tepi_doorbells_close(struct tepi_doorbells *doorbells)
{
    atomic_store(&doorbells->stop, true);
    for (uint32_t id = 0; id < doorbells->count; id++) {
        struct tepi_pair *pair = &doorbells->pairs[id];
        if (pair->running) {
            kick(pair);
            pthread_join(pair->thread, NULL);
        }
        close_if_open(pair->epoll);
        close_if_open(pair->kick);
        close_if_open(pair->ioeventfd);
        pthread_mutex_destroy(&pair->ringing);
    }
    if (doorbells->page != MAP_FAILED) {
        munmap(doorbells->page, TEPI_DOORBELL_PAGE);
    }
    close_if_open(doorbells->file);
}

int tepi_doorbells_enable(struct tepi_doorbells *doorbells, uint32_t id, uint32_t value)
{
    struct tepi_pair *pair = &doorbells->pairs[id];
    const struct tepi_device_port *port = &doorbells->port;
    const uint32_t enable = TEPI_REG_QUEUE + id * TEPI_REG_QUEUE_STRIDE + TEPI_QUEUE_ENABLE;
    /* Detached first, which stops what the pair's thread may be computing: it holds `ringing`. */
    port->write(port->device, enable, 4, 0);
    if (!(value & 1u)) {
        return 0;
    }
    pthread_mutex_lock(&pair->ringing);
    atomic_store(doorbell(pair, TEPI_DOORBELL_SQ_TAIL), 0);
    atomic_store(doorbell(pair, TEPI_DOORBELL_CQ_HEAD), 0);
    pair->tail = pair->head = 0;
    port->write(port->device, enable, 4, value);
    pthread_mutex_unlock(&pair->ringing);
    if (!pair->running) {
        const int error = pthread_create(&pair->thread, NULL, watch, pair);
        if (error) {
            port->write(port->device, enable, 4, 0);
            return -error;
        }
        pthread_setname_np(pair->thread, "tepi-doorbell");
        pair->running = true;
    }
    return 0;
}

void tepi_doorbells_read(struct tepi_doorbells *doorbells, uint32_t offset, uint8_t *data,
                         uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        /* Byte by byte through its word, which the client may be storing. */
        const uint32_t value = atomic_load(word(doorbells, (offset + i) & ~3u));
        data[i] = (uint8_t)(value >> 8 * ((offset + i) & 3u));
    }
}

void tepi_doorbells_write(struct tepi_doorbells *doorbells, uint32_t offset, uint32_t value)
{
    const uint32_t id = (offset - TEPI_REG_DOORBELL) / TEPI_REG_DOORBELL_STRIDE;
    atomic_store(word(doorbells, offset), value);
    if (id < doorbells->count && doorbells->pairs[id].running) {
        kick(&doorbells->pairs[id]);
    }
}
