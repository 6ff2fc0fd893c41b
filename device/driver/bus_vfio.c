/* SPDX-License-Identifier: Apache-2.0 */
/* The vfio bus: registers, mappings and interrupts of a card that vfio-pci hands out. */
#include "driver/bus_vfio.h"

#include "driver/mmio.h"
#include "driver/vfio_state.h"
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(sizeof(void *) == 8, "a 64-bit register takes one access");

static struct tepi_vfio_bus *vfio_of(struct tepi_bus *bus)
{
    return (struct tepi_vfio_bus *)(void *)bus;
}

/* The register's place in the window; NULL where its page is not mapped. */
static void *mapped_register(struct tepi_vfio_bus *self, uint32_t offset, uint32_t bytes)
{
    const uint32_t mapped = atomic_load_explicit(&self->mapped, memory_order_acquire);
    if (offset > self->window_bytes - bytes || !(mapped >> (offset >> self->page_shift) & 1)) {
        return NULL;
    }
    return self->window + offset;
}

/* Registers that cannot be mapped, as beside an MSI-X table. Kernels before 6.10 make two accesses
 * of one of 8 bytes. */
static uint64_t file_read(struct tepi_vfio_bus *self, uint32_t offset, uint32_t bytes)
{
    uint64_t value = ~0ull;
    pthread_mutex_lock(&self->lock);
    if (self->device >= 0 && offset <= self->bar_bytes - bytes &&
        pread(self->device, &value, bytes, (off_t)(self->bar_offset + offset)) != (ssize_t)bytes) {
        value = ~0ull;
    }
    pthread_mutex_unlock(&self->lock);
    return value;
}

static void file_write(struct tepi_vfio_bus *self, uint32_t offset, uint64_t value, uint32_t bytes)
{
    pthread_mutex_lock(&self->lock);
    if (self->device >= 0 && offset <= self->bar_bytes - bytes) {
        /* A write that fails is one to a card that is gone: it vanishes. */
        const ssize_t written =
            pwrite(self->device, &value, bytes, (off_t)(self->bar_offset + offset));
        (void)written;
    }
    pthread_mutex_unlock(&self->lock);
}

static uint32_t vfio_read32(struct tepi_bus *bus, uint32_t offset)
{
    const void *place = mapped_register(vfio_of(bus), offset, 4);
    return place ? tepi_mmio_read32(place) : (uint32_t)file_read(vfio_of(bus), offset, 4);
}

static uint64_t vfio_read64(struct tepi_bus *bus, uint32_t offset)
{
    const void *place = mapped_register(vfio_of(bus), offset, 8);
    return place ? tepi_mmio_read64(place) : file_read(vfio_of(bus), offset, 8);
}

static void vfio_write32(struct tepi_bus *bus, uint32_t offset, uint32_t value)
{
    void *place = mapped_register(vfio_of(bus), offset, 4);
    if (place) {
        tepi_mmio_write32(place, value);
    } else {
        file_write(vfio_of(bus), offset, value, 4);
    }
}

static void vfio_write64(struct tepi_bus *bus, uint32_t offset, uint64_t value)
{
    void *place = mapped_register(vfio_of(bus), offset, 8);
    if (place) {
        tepi_mmio_write64(place, value);
    } else {
        file_write(vfio_of(bus), offset, value, 8);
    }
}

static int vfio_dma_map(struct tepi_bus *bus, const struct tepi_dma_memory *memory, uint64_t *iova)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    const uint64_t page = self->space.page;
    if (!memory->address || memory->bytes == 0 || (uintptr_t)memory->address & (page - 1)) {
        return -EINVAL;
    }
    if (memory->bytes > UINT64_MAX - page) {
        return -E2BIG;
    }
    /* A file's last page is whole in memory. Files are mapped for reading alone. */
    struct tepi_iova_extent extent = {
        .bytes = (memory->bytes + page - 1) & ~(page - 1),
        .address = memory->address,
        .read_only = memory->file,
    };
    pthread_mutex_lock(&self->lock);
    int result = self->device < 0 ? -ENODEV : tepi_iova_take(&self->space, &extent);
    if (result == 0) {
        result = tepi_vfio_map(self, &extent);
        if (result) {
            tepi_iova_give(&self->space, extent.iova);
        }
    }
    pthread_mutex_unlock(&self->lock);
    *iova = extent.iova;
    return result;
}

static void vfio_dma_unmap(struct tepi_bus *bus, uint64_t iova, uint64_t bytes)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    (void)bytes;
    pthread_mutex_lock(&self->lock);
    const struct tepi_iova_extent extent = tepi_iova_give(&self->space, iova);
    if (self->container >= 0 && extent.bytes) {
        struct vfio_iommu_type1_dma_unmap unmap = {
            .argsz = sizeof unmap, .iova = iova, .size = extent.bytes};
        /* Returns when the IOMMU has forgotten it. Fails only for what was never mapped. */
        (void)ioctl(self->container, VFIO_IOMMU_UNMAP_DMA, &unmap);
    }
    pthread_mutex_unlock(&self->lock);
}

static int vfio_interrupt_connect(struct tepi_bus *bus, uint32_t vector, int eventfd)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    if (vector >= TEPI_QUEUES_MAX) {
        return -EINVAL;
    }
    pthread_mutex_lock(&self->lock);
    self->eventfds[vector] = eventfd;
    const int result = self->device < 0 ? -ENODEV : tepi_vfio_connect(self, vector);
    if (result) {
        self->eventfds[vector] = -1;
    }
    pthread_mutex_unlock(&self->lock);
    return result;
}

/* Masking a vector takes a system call, more than the interrupt costs. */
static bool vfio_interrupt_arm(struct tepi_bus *bus, uint32_t vector, bool armed)
{
    (void)bus;
    (void)vector;
    (void)armed;
    return true;
}

static int vfio_reset(struct tepi_bus *bus)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    int result = -ENODEV;
    pthread_mutex_lock(&self->lock);
    if (self->device >= 0) {
        result = !self->resets ? -EOPNOTSUPP : ioctl(self->device, VFIO_DEVICE_RESET) ? -errno : 0;
    }
    pthread_mutex_unlock(&self->lock);
    return result;
}

static int vfio_rescan(struct tepi_bus *bus)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    pthread_mutex_lock(&self->lock);
    const int result = self->device >= 0 ? 0 : tepi_vfio_attach(self, NULL);
    pthread_mutex_unlock(&self->lock);
    return result;
}

void tepi_bus_vfio_leave(struct tepi_bus *bus)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    pthread_mutex_lock(&self->lock);
    tepi_vfio_release(self);
    pthread_mutex_unlock(&self->lock);
}

/* An unbind waits until the card is let go, so this does not wait for a caller. */
static void *watch(void *argument)
{
    struct tepi_vfio_bus *self = argument;
    struct pollfd files[] = {{.fd = self->events, .events = POLLIN},
                             {.fd = self->stop, .events = POLLIN}};
    for (;;) {
        if (poll(files, 2, -1) < 0) {
            continue; /* EINTR */
        }
        if (files[1].revents) {
            return NULL;
        }
        uint64_t count = 0;
        if (read(self->events, &count, sizeof count) == sizeof count) {
            tepi_bus_vfio_leave(&self->bus);
        }
    }
}

static void destroy(struct tepi_vfio_bus *self)
{
    tepi_vfio_release(self);
    tepi_iova_free(&self->space);
    if (self->window != MAP_FAILED) {
        munmap(self->window, self->window_bytes);
    }
    if (self->events >= 0) {
        close(self->events);
    }
    if (self->stop >= 0) {
        close(self->stop);
    }
    pthread_mutex_destroy(&self->lock);
    free(self);
}

static void vfio_close(struct tepi_bus *bus)
{
    struct tepi_vfio_bus *self = vfio_of(bus);
    const uint64_t one = 1;
    const ssize_t written = write(self->stop, &one, sizeof one);
    (void)written;
    pthread_join(self->watcher, NULL);
    destroy(self);
}

static const struct tepi_bus_ops vfio_ops = {
    .read32 = vfio_read32,
    .read64 = vfio_read64,
    .write32 = vfio_write32,
    .write64 = vfio_write64,
    .dma_map = vfio_dma_map,
    .dma_unmap = vfio_dma_unmap,
    .interrupt_connect = vfio_interrupt_connect,
    .interrupt_arm = vfio_interrupt_arm,
    .reset = vfio_reset,
    .rescan = vfio_rescan,
    .close = vfio_close,
};

static int prepare(struct tepi_vfio_bus *self)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    self->bus.ops = &vfio_ops;
    self->page_shift = (unsigned)__builtin_ctzll(page);
    self->window_bytes = (TEPI_BAR0_BYTES + page - 1) & ~(page - 1);
    self->container = self->group = self->device = -1;
    for (uint32_t vector = 0; vector < TEPI_QUEUES_MAX; vector++) {
        self->eventfds[vector] = -1;
    }
    pthread_mutex_init(&self->lock, NULL);
    self->events = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    self->window = mmap(NULL, self->window_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return self->events < 0 || self->stop < 0 || self->window == MAP_FAILED ? -errno : 0;
}

int tepi_bus_vfio_open(const char *address, struct tepi_bus **bus, struct tepi_bus_reason *reason)
{
    if (reason) {
        *reason = (struct tepi_bus_reason){0};
    }
    struct tepi_vfio_bus *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    int result = prepare(self);
    if (result == 0 && tepi_pci_address(address, self->address)) {
        result =
            tepi_bus_refuse(reason, -EINVAL, "write it as lspci -D does, for example 0000:01:00.0",
                            "%.64s is no PCI address", address);
    }
    result = result ? result : tepi_vfio_attach(self, reason);
    result = result ? result : -pthread_create(&self->watcher, NULL, watch, self);
    if (result) {
        destroy(self);
        return result;
    }
    *bus = &self->bus;
    return 0;
}
