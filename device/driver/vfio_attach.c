/* SPDX-License-Identifier: Apache-2.0 */
/* Taking a card from vfio-pci: container, group, device, BAR0, interrupts; and letting it go. */
#include "driver/vfio_state.h"

#include "driver/vfio_chain.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SYSFS     "/sys"
#define CONTAINER "/dev/vfio/vfio"

enum { INFO_BYTES = 4096, AREAS_MAX = 16 };

/* What an INFO ioctl returned, with its chain of capabilities. */
union info {
    uint32_t argsz;
    struct vfio_region_info region;
    struct vfio_iommu_type1_info iommu;
    unsigned char bytes[INFO_BYTES];
};

static int get_info(int fd, unsigned long request, union info *info)
{
    info->argsz = sizeof *info;
    if (ioctl(fd, request, info)) {
        return -errno;
    }
    return info->argsz > sizeof *info ? -EMSGSIZE : 0;
}

static int open_container(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason)
{
    self->container = open(CONTAINER, O_RDWR | O_CLOEXEC);
    if (self->container < 0) {
        const int error = -errno;
        return tepi_bus_refuse(reason, error,
                               error == -EACCES ? "make it readable and writable for this user"
                                                : "load the module: modprobe vfio-pci",
                               "opening " CONTAINER ": %s", strerror(-error));
    }
    if (ioctl(self->container, VFIO_GET_API_VERSION) != VFIO_API_VERSION ||
        ioctl(self->container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1) {
        return tepi_bus_refuse(reason, -EOPNOTSUPP, "load the module: modprobe vfio_iommu_type1",
                               "VFIO has no driver for this machine's IOMMU");
    }
    return 0;
}

static int open_group(struct tepi_vfio_bus *self, int number, struct tepi_bus_reason *reason)
{
    char path[32];
    snprintf(path, sizeof path, "/dev/vfio/%d", number);
    self->group = open(path, O_RDWR | O_CLOEXEC);
    if (self->group < 0) {
        const int error = -errno;
        return tepi_bus_refuse(reason, error,
                               error == -EBUSY ? "end that process (fuser -v on the file names it)"
                               : error == -EACCES
                                   ? "give this user the file by a udev rule (docs/vfio.md)"
                                   : "a group without an IOMMU (noiommu) is not supported",
                               "opening %s of %s: %s", path, self->address,
                               error == -EBUSY ? "another process has the card" : strerror(-error));
    }
    struct vfio_group_status status = {.argsz = sizeof status};
    if (ioctl(self->group, VFIO_GROUP_GET_STATUS, &status)) {
        return -errno;
    }
    if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE)) {
        return tepi_vfio_not_viable(SYSFS, self->address, reason);
    }
    if (ioctl(self->group, VFIO_GROUP_SET_CONTAINER, &self->container)) {
        /* Since Linux 5.19 it is here that the group turns out to be in use. */
        return errno == EPERM || errno == EBUSY ? tepi_vfio_not_viable(SYSFS, self->address, reason)
                                                : -errno;
    }
    if (ioctl(self->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)) {
        const int error = -errno;
        return tepi_bus_refuse(reason, error,
                               error == -EPERM ? "the platform remaps no interrupts: switch it on "
                                                 "in the firmware's set-up"
                                               : "see the kernel's log (dmesg)",
                               "the IOMMU refuses the group of %s: %s", self->address,
                               strerror(-error));
    }
    return 0;
}

static int init_space(struct tepi_vfio_bus *self)
{
    if (self->space.page) {
        return 0; /* taken back: what is mapped stays at its addresses */
    }
    union info info = {0};
    int result = get_info(self->container, VFIO_IOMMU_GET_INFO, &info);
    if (result) {
        return result;
    }
    uint64_t page = 1ull << self->page_shift;
    if (info.iommu.flags & VFIO_IOMMU_INFO_PGSIZES) {
        const uint64_t least = info.iommu.iova_pgsizes & -info.iommu.iova_pgsizes;
        page = least > page ? least : page;
    }
    struct tepi_iova_range ranges[TEPI_IOVA_RANGES_MAX];
    int count = -ENOENT;
    if (info.iommu.flags & VFIO_IOMMU_INFO_CAPS) {
        count = tepi_vfio_iova_ranges(&info, info.argsz, info.iommu.cap_offset, ranges,
                                      TEPI_IOVA_RANGES_MAX);
    }
    if (count < 0 && count != -ENOENT) {
        return count;
    }
    count = count < TEPI_IOVA_RANGES_MAX ? count : TEPI_IOVA_RANGES_MAX;
    return tepi_iova_init(&self->space, ranges, count < 0 ? 0 : (uint32_t)count, page);
}

static int open_device(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason)
{
    self->device = ioctl(self->group, VFIO_GROUP_GET_DEVICE_FD, self->address);
    if (self->device < 0) {
        const int error = -errno;
        return tepi_bus_refuse(reason, error, "see the kernel's log (dmesg)",
                               "vfio-pci does not hand out %s: %s", self->address,
                               strerror(-error));
    }
    struct vfio_device_info device = {.argsz = sizeof device};
    if (ioctl(self->device, VFIO_DEVICE_GET_INFO, &device)) {
        return -errno;
    }
    if (!(device.flags & VFIO_DEVICE_FLAGS_PCI)) {
        return tepi_bus_refuse(reason, -ENXIO, "give the address of a card", "%s is no PCI device",
                               self->address);
    }
    self->resets = (device.flags & VFIO_DEVICE_FLAGS_RESET) != 0;
    return 0;
}

/* Puts the part of BAR0 that an area and the window share in place. */
static int map_area(struct tepi_vfio_bus *self, const struct vfio_region_info *region,
                    const struct tepi_vfio_area *area)
{
    const uint64_t page = 1ull << self->page_shift;
    if ((area->offset | area->bytes | region->offset) & (page - 1) || area->offset > region->size ||
        area->bytes > region->size - area->offset) {
        return -EBADMSG;
    }
    if (area->offset >= self->window_bytes) {
        return 0;
    }
    const uint64_t rest = self->window_bytes - area->offset;
    const uint64_t bytes = area->bytes < rest ? area->bytes : rest;
    if (bytes == 0) {
        return 0;
    }
    const int read = region->flags & VFIO_REGION_INFO_FLAG_READ ? PROT_READ : 0;
    const int write = region->flags & VFIO_REGION_INFO_FLAG_WRITE ? PROT_WRITE : 0;
    if (mmap(self->window + area->offset, bytes, read | write, MAP_SHARED | MAP_FIXED, self->device,
             (off_t)(region->offset + area->offset)) == MAP_FAILED) {
        return -errno;
    }
    const uint32_t first = (uint32_t)(area->offset >> self->page_shift);
    const uint32_t count = (uint32_t)(bytes >> self->page_shift);
    atomic_fetch_or_explicit(&self->mapped, ((1u << count) - 1) << first, memory_order_release);
    return 0;
}

/* BAR0: mapped where the kernel allows it. It keeps the pages of the MSI-X table back. */
static int map_bar(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason)
{
    union info info = {.region = {.index = VFIO_PCI_BAR0_REGION_INDEX}};
    int result = get_info(self->device, VFIO_DEVICE_GET_REGION_INFO, &info);
    if (result) {
        return result;
    }
    const struct vfio_region_info *region = &info.region;
    if (region->size < TEPI_BAR0_BYTES) {
        return tepi_bus_refuse(reason, -ENXIO, "give the address of a card",
                               "BAR0 of %s has %llu bytes, a card's has %u at least", self->address,
                               (unsigned long long)region->size, TEPI_BAR0_BYTES);
    }
    self->bar_offset = region->offset;
    self->bar_bytes = region->size;
    self->ones =
        mmap(NULL, self->window_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (self->ones == MAP_FAILED) {
        self->ones = NULL;
        return -ENOMEM;
    }
    memset(self->ones, 0xff, self->window_bytes);
    if (!(region->flags & VFIO_REGION_INFO_FLAG_MMAP)) {
        return 0;
    }
    struct tepi_vfio_area areas[AREAS_MAX] = {{0, region->size}};
    int count = -ENOENT;
    if (region->flags & VFIO_REGION_INFO_FLAG_CAPS) {
        count = tepi_vfio_sparse_areas(&info, info.argsz, region->cap_offset, areas, AREAS_MAX);
    }
    count = count == -ENOENT ? 1 : count < AREAS_MAX ? count : AREAS_MAX;
    for (int i = 0; i < count && result == 0; i++) {
        result = map_area(self, region, &areas[i]);
    }
    return count < 0 ? count : result;
}

/* Memory space on, so that BAR0 answers; bus mastering on: DMA, and the writes that are MSIs. */
static int enable(struct tepi_vfio_bus *self)
{
    struct vfio_region_info config = {.argsz = sizeof config,
                                      .index = VFIO_PCI_CONFIG_REGION_INDEX};
    if (ioctl(self->device, VFIO_DEVICE_GET_REGION_INFO, &config)) {
        return -errno;
    }
    self->config_offset = config.offset;
    const off_t place = (off_t)(config.offset + PCI_COMMAND);
    uint16_t command = 0;
    if (pread(self->device, &command, sizeof command, place) != sizeof command) {
        return -EIO;
    }
    command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    return pwrite(self->device, &command, sizeof command, place) == sizeof command ? 0 : -EIO;
}

static int set_irqs(struct tepi_vfio_bus *self, uint32_t index, uint32_t start, const int *eventfds,
                    uint32_t count)
{
    struct {
        struct vfio_irq_set set;
        int32_t fds[TEPI_QUEUES_MAX];
    } irqs = {.set = {.argsz = (uint32_t)(sizeof irqs.set + count * sizeof(int32_t)),
                      .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                      .index = index,
                      .start = start,
                      .count = count}};
    memcpy(irqs.fds, eventfds, count * sizeof *eventfds);
    const int result = ioctl(self->device, VFIO_DEVICE_SET_IRQS, &irqs);
    return result < 0 ? -errno : result;
}

static uint32_t irq_count(struct tepi_vfio_bus *self, uint32_t index)
{
    struct vfio_irq_info info = {.argsz = sizeof info, .index = index};
    const bool known = ioctl(self->device, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0;
    return known && info.flags & VFIO_IRQ_INFO_EVENTFD ? info.count : 0;
}

/* All vectors at once, with those connected that were: a vector cannot be added later on, since
 * kernels before 6.5 count MSI-X vectors when the first is enabled, and for MSI all still do. */
static int enable_vectors(struct tepi_vfio_bus *self)
{
    self->irq_index = VFIO_PCI_MSIX_IRQ_INDEX;
    uint32_t count = irq_count(self, self->irq_index);
    if (count == 0) {
        self->irq_index = VFIO_PCI_MSI_IRQ_INDEX;
        count = irq_count(self, self->irq_index);
    }
    count = count < TEPI_QUEUES_MAX ? count : TEPI_QUEUES_MAX;
    while (count > 0) {
        const int result = set_irqs(self, self->irq_index, 0, self->eventfds, count);
        if (result <= 0) {
            self->vectors = result ? 0 : count;
            return result;
        }
        /* So many are to be had, and the next try asks for no more. */
        count = (uint32_t)result < count ? (uint32_t)result : count - 1;
    }
    self->vectors = 0;
    return 0;
}

/* A kernel or a device without these two has no such news to tell. */
static void watch_events(struct tepi_vfio_bus *self)
{
    if (irq_count(self, VFIO_PCI_REQ_IRQ_INDEX)) {
        (void)set_irqs(self, VFIO_PCI_REQ_IRQ_INDEX, 0, &self->events, 1);
    }
    if (irq_count(self, VFIO_PCI_ERR_IRQ_INDEX)) {
        (void)set_irqs(self, VFIO_PCI_ERR_IRQ_INDEX, 0, &self->events, 1);
    }
}

int tepi_vfio_connect(struct tepi_vfio_bus *self, uint32_t vector)
{
    if (vector >= self->vectors) {
        return -EINVAL;
    }
    return set_irqs(self, self->irq_index, vector, &self->eventfds[vector], 1);
}

int tepi_vfio_map(struct tepi_vfio_bus *self, const struct tepi_iova_extent *extent)
{
    struct vfio_iommu_type1_dma_map map = {
        .argsz = sizeof map,
        .flags = VFIO_DMA_MAP_FLAG_READ | (extent->read_only ? 0 : VFIO_DMA_MAP_FLAG_WRITE),
        .vaddr = (uintptr_t)extent->address,
        .iova = extent->iova,
        .size = extent->bytes,
    };
    return ioctl(self->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int map_again(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason)
{
    for (uint32_t i = 0; i < self->space.count; i++) {
        const int result = tepi_vfio_map(self, &self->space.taken[i]);
        if (result) {
            return tepi_bus_refuse(reason, result, "close the card and open it again",
                                   "mapping memory for %s as it was: %s", self->address,
                                   strerror(-result));
        }
    }
    return 0;
}

int tepi_vfio_attach(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason)
{
    /* First: a card that is missing or not bound is told of before modules that are. */
    const int group = tepi_vfio_group(SYSFS, self->address, reason);
    int result = group < 0 ? group : open_container(self, reason);
    result = result ? result : open_group(self, group, reason);
    result = result ? result : init_space(self);
    result = result ? result : map_again(self, reason);
    result = result ? result : open_device(self, reason);
    result = result ? result : enable(self);
    result = result ? result : enable_vectors(self);
    /* Last: from here on other threads reach the card. */
    result = result ? result : map_bar(self, reason);
    if (result) {
        tepi_vfio_release(self);
        return result;
    }
    watch_events(self);
    return 0;
}

static void close_file(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

void tepi_vfio_release(struct tepi_vfio_bus *self)
{
    atomic_store(&self->mapped, 0);
    if (self->ones) {
        /* One step: a thread in the window reads the card before and ones after it. */
        (void)mremap(self->ones, self->window_bytes, self->window_bytes,
                     MREMAP_MAYMOVE | MREMAP_FIXED, self->window);
        self->ones = NULL;
    }
    /* In this order: the kernel stops the card's DMA and interrupts, then takes its mappings. */
    close_file(&self->device);
    close_file(&self->group);
    close_file(&self->container);
    self->vectors = 0;
}
