/* SPDX-License-Identifier: Apache-2.0 */
/* The in-process bus: an IOVA table (a small IOMMU) and an interrupt table between two ports. */
#include "driver/bus_inproc.h"

#include "abi/registers.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* An IOVA is turn | slot | offset: the slot finds the mapping without a search, and the turn makes
 * the addresses of a slot's next mapping differ, so that use after unmap faults. 48 bits in all. */
enum { MAPPINGS = 256, OFFSET_BITS = 33, SLOT_BITS = 8, TURNS = 127 };

/* `use`: LIVE, plus one per access in progress. The other fields are constant while it is not 0. */
#define LIVE 0x80000000u

#define PAGE_BYTES 4096ull

struct mapping {
    _Atomic uint32_t use;
    uint32_t turn;
    uint64_t iova;
    uint64_t bytes;
    unsigned char *address;
    bool file;
};

#define ARMED   1u
#define PENDING 2u

struct vector {
    _Atomic uint32_t state; /* ARMED, PENDING */
    _Atomic int eventfd;
};

struct inproc {
    struct tepi_bus bus;
    struct tepi_device_port device;
    struct tepi_host_port host;
    pthread_mutex_t lock; /* of mapping and unmapping; accesses take none */
    pthread_cond_t dropped;
    struct mapping mappings[MAPPINGS];
    struct vector vectors[TEPI_QUEUES_MAX];
};

static struct inproc *inproc_of(struct tepi_bus *bus)
{
    return (struct inproc *)(void *)bus;
}

static struct mapping *mapping_at(struct inproc *self, uint64_t iova)
{
    return &self->mappings[(iova >> OFFSET_BITS) & (MAPPINGS - 1)];
}

static void mapping_drop(struct inproc *self, struct mapping *mapping)
{
    /* Release: this access is over before an unmap that sees the count at 0 goes on. */
    if (atomic_fetch_sub_explicit(&mapping->use, 1, memory_order_acq_rel) == 1) {
        pthread_mutex_lock(&self->lock);
        pthread_cond_broadcast(&self->dropped);
        pthread_mutex_unlock(&self->lock);
    }
}

static void *host_dma_acquire(void *host, uint64_t iova, uint64_t bytes)
{
    struct inproc *self = host;
    struct mapping *mapping = mapping_at(self, iova);
    uint32_t use = atomic_load_explicit(&mapping->use, memory_order_relaxed);
    do {
        if (!(use & LIVE)) {
            return NULL;
        }
        /* Acquire: the fields below are read after the use count has pinned them. */
    } while (!atomic_compare_exchange_weak_explicit(&mapping->use, &use, use + 1,
                                                    memory_order_acquire, memory_order_relaxed));
    uint64_t offset = iova - mapping->iova;
    if (iova < mapping->iova || offset > mapping->bytes || bytes > mapping->bytes - offset) {
        mapping_drop(self, mapping);
        return NULL;
    }
    return mapping->address + offset;
}

static void host_dma_release(void *host, uint64_t iova, uint64_t bytes)
{
    struct inproc *self = host;
    (void)bytes;
    mapping_drop(self, mapping_at(self, iova));
}

/* The file keeps what the pages held: they are read from it again where the card asks once more. */
static void host_dma_consumed(void *host, uint64_t iova, uint64_t bytes)
{
    struct inproc *self = host;
    const struct mapping *mapping = mapping_at(self, iova);
    const uint64_t begin = (iova - mapping->iova) & ~(PAGE_BYTES - 1);
    if (mapping->file) {
        (void)madvise(mapping->address + begin, iova - mapping->iova + bytes - begin,
                      MADV_DONTNEED);
    }
}

static void host_interrupt(void *host, uint32_t number)
{
    struct inproc *self = host;
    if (number >= TEPI_QUEUES_MAX) {
        return;
    }
    struct vector *vector = &self->vectors[number];
    /* One atomic word orders this against interrupt_arm: either we see ARMED, or the arming host
     * sees PENDING and, by acquire, the completion that was written before. */
    uint32_t before = atomic_fetch_or_explicit(&vector->state, PENDING, memory_order_acq_rel);
    int fd = atomic_load_explicit(&vector->eventfd, memory_order_relaxed);
    if ((before & ARMED) && fd >= 0) {
        const uint64_t one = 1;
        /* EAGAIN means the counter is full: the event is readable, which is all we want. */
        ssize_t written = write(fd, &one, sizeof one);
        (void)written;
    }
}

static uint32_t inproc_read32(struct tepi_bus *bus, uint32_t offset)
{
    struct inproc *self = inproc_of(bus);
    return (uint32_t)self->device.read(self->device.device, offset, 4);
}

static uint64_t inproc_read64(struct tepi_bus *bus, uint32_t offset)
{
    struct inproc *self = inproc_of(bus);
    return self->device.read(self->device.device, offset, 8);
}

static void inproc_write32(struct tepi_bus *bus, uint32_t offset, uint32_t value)
{
    struct inproc *self = inproc_of(bus);
    self->device.write(self->device.device, offset, 4, value);
}

static void inproc_write64(struct tepi_bus *bus, uint32_t offset, uint64_t value)
{
    struct inproc *self = inproc_of(bus);
    self->device.write(self->device.device, offset, 8, value);
}

static int inproc_dma_map(struct tepi_bus *bus, const struct tepi_dma_memory *memory,
                          uint64_t *iova)
{
    struct inproc *self = inproc_of(bus);
    if (!memory->address || memory->bytes == 0) {
        return -EINVAL;
    }
    if (memory->bytes > 1ull << OFFSET_BITS) {
        return -E2BIG;
    }
    int result = -ENOSPC;
    pthread_mutex_lock(&self->lock);
    for (uint32_t slot = 0; slot < MAPPINGS; slot++) {
        struct mapping *mapping = &self->mappings[slot];
        if (atomic_load_explicit(&mapping->use, memory_order_acquire) != 0) {
            continue;
        }
        mapping->turn = mapping->turn % TURNS + 1;
        mapping->iova = ((uint64_t)mapping->turn << SLOT_BITS | slot) << OFFSET_BITS;
        mapping->bytes = memory->bytes;
        mapping->address = memory->address;
        mapping->file = memory->file;
        *iova = mapping->iova;
        /* Release: the fields are whole before an access can pin the mapping. */
        atomic_store_explicit(&mapping->use, LIVE, memory_order_release);
        result = 0;
        break;
    }
    pthread_mutex_unlock(&self->lock);
    return result;
}

static void inproc_dma_unmap(struct tepi_bus *bus, uint64_t iova, uint64_t bytes)
{
    struct inproc *self = inproc_of(bus);
    struct mapping *mapping = mapping_at(self, iova);
    (void)bytes;
    pthread_mutex_lock(&self->lock);
    atomic_fetch_and_explicit(&mapping->use, ~LIVE, memory_order_acq_rel);
    while (atomic_load_explicit(&mapping->use, memory_order_acquire) != 0) {
        pthread_cond_wait(&self->dropped, &self->lock);
    }
    pthread_mutex_unlock(&self->lock);
}

static int inproc_interrupt_connect(struct tepi_bus *bus, uint32_t vector, int eventfd)
{
    struct inproc *self = inproc_of(bus);
    if (vector >= TEPI_QUEUES_MAX) {
        return -EINVAL;
    }
    atomic_store(&self->vectors[vector].eventfd, eventfd);
    return 0;
}

static bool inproc_interrupt_arm(struct tepi_bus *bus, uint32_t number, bool armed)
{
    struct inproc *self = inproc_of(bus);
    struct vector *vector = &self->vectors[number];
    /* Acquire: pairs with host_interrupt; the ring is read after PENDING was seen. */
    uint32_t before =
        atomic_exchange_explicit(&vector->state, armed ? ARMED : 0, memory_order_acq_rel);
    return (before & PENDING) != 0;
}

static int inproc_reset(struct tepi_bus *bus)
{
    struct inproc *self = inproc_of(bus);
    int result = self->device.plug(self->device.device, NULL);
    return result ? result : self->device.plug(self->device.device, &self->host);
}

static void inproc_close(struct tepi_bus *bus)
{
    struct inproc *self = inproc_of(bus);
    self->device.plug(self->device.device, NULL);
    pthread_cond_destroy(&self->dropped);
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static const struct tepi_bus_ops inproc_ops = {
    .read32 = inproc_read32,
    .read64 = inproc_read64,
    .write32 = inproc_write32,
    .write64 = inproc_write64,
    .dma_map = inproc_dma_map,
    .dma_unmap = inproc_dma_unmap,
    .interrupt_connect = inproc_interrupt_connect,
    .interrupt_arm = inproc_interrupt_arm,
    .reset = inproc_reset,
    .close = inproc_close,
};

int tepi_bus_inproc_open(const struct tepi_device_port *device, struct tepi_bus **bus)
{
    struct inproc *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    self->bus.ops = &inproc_ops;
    self->device = *device;
    self->host = (struct tepi_host_port){
        .host = self,
        .dma_acquire = host_dma_acquire,
        .dma_release = host_dma_release,
        .interrupt = host_interrupt,
        .dma_consumed = host_dma_consumed,
    };
    pthread_mutex_init(&self->lock, NULL);
    pthread_cond_init(&self->dropped, NULL);
    for (uint32_t vector = 0; vector < TEPI_QUEUES_MAX; vector++) {
        atomic_store(&self->vectors[vector].eventfd, -1);
    }
    int result = device->plug(device->device, &self->host);
    if (result) {
        pthread_cond_destroy(&self->dropped);
        pthread_mutex_destroy(&self->lock);
        free(self);
        return result;
    }
    *bus = &self->bus;
    return 0;
}
