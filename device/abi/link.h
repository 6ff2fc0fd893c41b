/* SPDX-License-Identifier: Apache-2.0 */
/* The slot: what a device shows a bus in the same process, and what the bus gives the device.
 *
 * This is the in-process stand-in for the electrical contract of PCIe: MMIO to BAR0, DMA through an
 * IOMMU, message-signalled interrupts. Driver and card include it and never each other. */
#ifndef TEPI_ABI_LINK_H
#define TEPI_ABI_LINK_H

#include <stddef.h>
#include <stdint.h>

/* Host side, called by the device from any of its threads. */
struct tepi_host_port {
    void *host;
    /* The memory behind [iova, iova + bytes), or NULL where any byte is unmapped (an IOMMU fault).
     * Valid until the device drops it with dma_release; mappings are not torn down under it. */
    void *(*dma_acquire)(void *host, uint64_t iova, uint64_t bytes);
    void (*dma_release)(void *host, uint64_t iova, uint64_t bytes);
    void (*interrupt)(void *host, uint32_t vector);
    /* Of memory that is acquired: the command in progress has read it and will hardly do so again,
     * so that the host may let go of pages that it can bring back. NULL: it has no use for that. */
    void (*dma_consumed)(void *host, uint64_t iova, uint64_t bytes);
};

/* Device side, called by the host from any thread. `width` is 4 or 8 bytes. */
struct tepi_device_port {
    void *device;
    uint64_t (*read)(void *device, uint32_t offset, unsigned width);
    void (*write)(void *device, uint32_t offset, unsigned width, uint64_t value);
    /* Plugs the device into a host, NULL unplugs; returns 0 or negative errno (-EBUSY: plugged). */
    int (*plug)(void *device, const struct tepi_host_port *host);
};

#endif
