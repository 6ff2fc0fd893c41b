/* SPDX-License-Identifier: Apache-2.0 */
/* The vfio-user bus: registers by message, doorbells in the shared page, mappings by descriptor. */
#include "driver/bus_vfio_user.h"

#include "driver/vfio_user_state.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SPIN_NS         300000u
#define SPIN_CROWDED_NS 1000u

/* An IOVA is turn | slot | offset, as on the in-process bus: the turn makes the addresses of a
 * slot's next mapping differ, so that use after unmap faults. 48 bits in all. */
enum { OFFSET_BITS = 33, SLOT_BITS = 8, TURNS = 127 };

static struct tepi_vfio_user_bus *self_of(struct tepi_bus *bus)
{
    return (struct tepi_vfio_user_bus *)(void *)bus;
}

static _Atomic uint32_t *word(const struct tepi_vfio_user_bus *self, uint32_t offset)
{
    return (_Atomic uint32_t *)(void *)(self->page + (offset - TEPI_REG_DOORBELL));
}

void tepi_vfio_user_lose(struct tepi_vfio_user_bus *self)
{
    if (self->socket >= 0) {
        close(self->socket);
        self->socket = -1;
    }
}

int tepi_vfio_user_ask(struct tepi_vfio_user_bus *self, struct tepi_vfio_user_call *call)
{
    if (self->socket < 0) {
        return -ENODEV;
    }
    const int result = tepi_vfio_user_do(self->socket, self->id++, call);
    if (result < 0) {
        /* A reply that comes late would be taken for the next one's. */
        tepi_vfio_user_lose(self);
    }
    return result;
}

static int access_bar0(struct tepi_bus *bus, uint16_t command, uint32_t offset, void *data,
                       uint32_t bytes)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    const bool write = command == TEPI_VFIO_USER_REGION_WRITE;
    const struct tepi_vfio_user_access access = {
        .offset = offset, .region = VFIO_PCI_BAR0_REGION_INDEX, .count = bytes};
    uint8_t reply[sizeof access + sizeof(uint64_t)];
    struct tepi_vfio_user_call call = {
        .command = command,
        .request = &access,
        .request_bytes = sizeof access,
        .data = data,
        .data_bytes = write ? bytes : 0,
        .timeout_ns = write ? TEPI_VFIO_USER_WRITE_NS : TEPI_VFIO_USER_READ_NS,
        .reply = reply,
        .reply_most = sizeof reply,
    };
    pthread_mutex_lock(&self->lock);
    int result = tepi_vfio_user_ask(self, &call);
    pthread_mutex_unlock(&self->lock);
    if (result == 0 && !write) {
        if (call.reply_bytes != sizeof access + bytes) {
            return -EPROTO;
        }
        memcpy(data, reply + sizeof access, bytes);
    }
    return result;
}

static uint32_t vfio_user_read32(struct tepi_bus *bus, uint32_t offset)
{
    uint32_t value = 0;
    return access_bar0(bus, TEPI_VFIO_USER_REGION_READ, offset, &value, sizeof value)
               ? TEPI_ALL_ONES
               : value;
}

static uint64_t vfio_user_read64(struct tepi_bus *bus, uint32_t offset)
{
    uint64_t value = 0;
    return access_bar0(bus, TEPI_VFIO_USER_REGION_READ, offset, &value, sizeof value) ? UINT64_MAX
                                                                                      : value;
}

/* Never moves a doorbell back, and wakes the card where it sleeps; see abi/vfio_user.h. */
static void ring(struct tepi_bus *bus, uint32_t offset, uint32_t value)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    const uint32_t pair = (offset - TEPI_REG_DOORBELL) / TEPI_REG_DOORBELL_STRIDE;
    _Atomic uint32_t *doorbell = word(self, offset);
    uint32_t before = atomic_load_explicit(doorbell, memory_order_relaxed);
    do {
        if ((int32_t)(value - before) <= 0) {
            return; /* the newer one has been, or is being, told to the card */
        }
        /* Sequentially consistent: stored before the look at the word below. The ring's entries
         * are before it by the fence in mmio.h. */
    } while (!atomic_compare_exchange_weak(doorbell, &before, value));
    if (pair >= atomic_load_explicit(&self->bell_count, memory_order_relaxed)) {
        (void)access_bar0(bus, TEPI_VFIO_USER_REGION_WRITE, offset, &value, sizeof value);
    } else if (atomic_load(word(self, TEPI_REG_WAKE + 4 * pair))) {
        const uint64_t one = 1;
        ssize_t written = write(self->bells[pair], &one, sizeof one);
        (void)written;
    }
}

static void vfio_user_write32(struct tepi_bus *bus, uint32_t offset, uint32_t value)
{
    if (offset >= TEPI_REG_DOORBELL && offset < TEPI_REG_DOORBELL + TEPI_DOORBELL_PAGE) {
        ring(bus, offset, value);
    } else {
        (void)access_bar0(bus, TEPI_VFIO_USER_REGION_WRITE, offset, &value, sizeof value);
    }
}

/* Waking a thread takes longer than a small model: where the machine has a processor more than the
 * card has workers, the waiter polls on it; where it has not, polling would slow the card down. */
static void choose_spin(struct tepi_vfio_user_bus *self)
{
    cpu_set_t cpus;
    const uint32_t workers = vfio_user_read32(&self->bus, TEPI_REG_CAP_WORKERS);
    const bool spare =
        sched_getaffinity(0, sizeof cpus, &cpus) == 0 && (uint32_t)CPU_COUNT(&cpus) > workers;
    self->bus.spin_ns = spare ? SPIN_NS : SPIN_CROWDED_NS;
}

static void vfio_user_write64(struct tepi_bus *bus, uint32_t offset, uint64_t value)
{
    (void)access_bar0(bus, TEPI_VFIO_USER_REGION_WRITE, offset, &value, sizeof value);
}

int tepi_vfio_user_map(struct tepi_vfio_user_bus *self,
                       const struct tepi_vfio_user_mapping *mapping)
{
    const struct tepi_vfio_user_dma_map map = {
        .argsz = sizeof map,
        .flags = TEPI_VFIO_USER_DMA_READABLE | TEPI_VFIO_USER_DMA_WRITEABLE,
        .address = mapping->iova,
        .size = mapping->bytes,
    };
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DMA_MAP,
        .request = &map,
        .request_bytes = sizeof map,
        .fds = &mapping->fd,
        .fd_count = 1,
        .timeout_ns = TEPI_VFIO_USER_WRITE_NS,
    };
    const int result = tepi_vfio_user_ask(self, &call);
    return result > 0 ? -result : result;
}

/* The card need not be there: it is shown the memory when it comes back. */
static int vfio_user_dma_map(struct tepi_bus *bus, const struct tepi_dma_memory *memory,
                             uint64_t *iova)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    if (memory->fd < 0 || memory->bytes == 0 || memory->bytes % TEPI_VFIO_USER_PAGE) {
        return -EINVAL;
    }
    if (memory->bytes > 1ull << OFFSET_BITS) {
        return -E2BIG;
    }
    int result = -ENOSPC;
    pthread_mutex_lock(&self->lock);
    for (uint32_t slot = 0; slot < TEPI_VFIO_USER_MAPS_MAX; slot++) {
        struct tepi_vfio_user_mapping *mapping = &self->mappings[slot];
        if (mapping->bytes) {
            continue;
        }
        mapping->turn = mapping->turn % TURNS + 1;
        mapping->iova = ((uint64_t)mapping->turn << SLOT_BITS | slot) << OFFSET_BITS;
        mapping->bytes = memory->bytes;
        mapping->fd = memory->fd;
        result = tepi_vfio_user_map(self, mapping);
        if (result && self->socket >= 0) {
            mapping->bytes = 0; /* refused */
        } else {
            *iova = mapping->iova;
            result = 0;
        }
        break;
    }
    pthread_mutex_unlock(&self->lock);
    return result;
}

static void vfio_user_dma_unmap(struct tepi_bus *bus, uint64_t iova, uint64_t bytes)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    struct tepi_vfio_user_dma_unmap unmap = {.argsz = sizeof unmap, .address = iova, .size = bytes};
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DMA_UNMAP,
        .request = &unmap,
        .request_bytes = sizeof unmap,
        .timeout_ns = TEPI_VFIO_USER_WRITE_NS,
        .reply = &unmap,
        .reply_most = sizeof unmap,
    };
    pthread_mutex_lock(&self->lock);
    if (tepi_vfio_user_ask(self, &call) > 0) {
        /* A card that will not let go of memory is left, which ends its hold on it. */
        tepi_vfio_user_lose(self);
    }
    self->mappings[(iova >> OFFSET_BITS) & (TEPI_VFIO_USER_MAPS_MAX - 1)].bytes = 0;
    pthread_mutex_unlock(&self->lock);
}

int tepi_vfio_user_vector(struct tepi_vfio_user_bus *self, uint32_t vector)
{
    const struct tepi_vfio_user_irq_set set = {
        .argsz = sizeof set,
        .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
        .index = VFIO_PCI_MSIX_IRQ_INDEX,
        .start = vector,
        .count = 1,
    };
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DEVICE_SET_IRQS,
        .request = &set,
        .request_bytes = sizeof set,
        .fds = &self->vectors[vector],
        .fd_count = self->vectors[vector] >= 0,
        .timeout_ns = TEPI_VFIO_USER_WRITE_NS,
    };
    return tepi_vfio_user_ask(self, &call);
}

static int vfio_user_interrupt_connect(struct tepi_bus *bus, uint32_t vector, int eventfd)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    if (vector >= TEPI_QUEUES_MAX) {
        return -EINVAL;
    }
    pthread_mutex_lock(&self->lock);
    self->vectors[vector] = eventfd;
    const int result = tepi_vfio_user_vector(self, vector);
    pthread_mutex_unlock(&self->lock);
    return result > 0 ? -EINVAL : 0;
}

static bool vfio_user_interrupt_arm(struct tepi_bus *bus, uint32_t vector, bool armed)
{
    /* Acquire: pairs with the card's; the ring is read after PENDING was seen. */
    const uint32_t before =
        atomic_exchange_explicit(word(self_of(bus), TEPI_REG_INTERRUPT + 4 * vector),
                                 armed ? TEPI_INTERRUPT_ARMED : 0, memory_order_acq_rel);
    return (before & TEPI_INTERRUPT_PENDING) != 0;
}

static int vfio_user_reset(struct tepi_bus *bus)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    struct tepi_vfio_user_call call = {.command = TEPI_VFIO_USER_DEVICE_RESET,
                                       .timeout_ns = TEPI_VFIO_USER_WRITE_NS};
    pthread_mutex_lock(&self->lock);
    const int result = tepi_vfio_user_ask(self, &call);
    pthread_mutex_unlock(&self->lock);
    return result > 0 ? -result : result;
}

static int vfio_user_rescan(struct tepi_bus *bus)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    pthread_mutex_lock(&self->lock);
    const int result = self->socket >= 0 ? 0 : tepi_vfio_user_attach(self);
    pthread_mutex_unlock(&self->lock);
    return result;
}

void tepi_bus_vfio_user_leave(struct tepi_bus *bus)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    pthread_mutex_lock(&self->lock);
    tepi_vfio_user_lose(self);
    pthread_mutex_unlock(&self->lock);
}

static void vfio_user_close(struct tepi_bus *bus)
{
    struct tepi_vfio_user_bus *self = self_of(bus);
    tepi_vfio_user_lose(self);
    for (uint32_t pair = 0; pair < TEPI_QUEUES_MAX; pair++) {
        if (self->bells[pair] >= 0) {
            close(self->bells[pair]);
        }
    }
    if (self->page != MAP_FAILED) {
        munmap(self->page, TEPI_DOORBELL_PAGE);
    }
    pthread_mutex_destroy(&self->lock);
    free(self->path);
    free(self);
}

static const struct tepi_bus_ops vfio_user_ops = {
    .read32 = vfio_user_read32,
    .read64 = vfio_user_read64,
    .write32 = vfio_user_write32,
    .write64 = vfio_user_write64,
    .dma_map = vfio_user_dma_map,
    .dma_unmap = vfio_user_dma_unmap,
    .interrupt_connect = vfio_user_interrupt_connect,
    .interrupt_arm = vfio_user_interrupt_arm,
    .reset = vfio_user_reset,
    .rescan = vfio_user_rescan,
    .close = vfio_user_close,
};

int tepi_bus_vfio_user_open(const char *path, struct tepi_bus **bus)
{
    struct tepi_vfio_user_bus *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    self->bus.ops = &vfio_user_ops;
    self->bus.relayed = true;
    self->socket = -1;
    for (uint32_t i = 0; i < TEPI_QUEUES_MAX; i++) {
        self->bells[i] = self->vectors[i] = -1;
    }
    pthread_mutex_init(&self->lock, NULL);
    self->path = strdup(path);
    self->page =
        mmap(NULL, TEPI_DOORBELL_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int result = -ENOMEM;
    if (self->path && self->page != MAP_FAILED) {
        result = tepi_vfio_user_attach(self);
    }
    if (result) {
        vfio_user_close(&self->bus);
        return result;
    }
    choose_spin(self);
    *bus = &self->bus;
    return 0;
}
