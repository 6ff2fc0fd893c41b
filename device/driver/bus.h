/* SPDX-License-Identifier: Apache-2.0 */
/* What the driver needs of a bus: registers, DMA mappings, interrupts, reset.
 *
 * One file per bus implements it (bus_inproc.c: a card in the same process). Nothing above this
 * header knows which bus it is on; addresses given to the card are IOVAs, never pointers. */
#ifndef TEPI_DRIVER_BUS_H
#define TEPI_DRIVER_BUS_H

#include <stdbool.h>
#include <stdint.h>

/* Host memory to show the card: page-aligned, from a memfd so that another process can map it; fd
 * -1: of this process alone, and a bus to another refuses it with -EINVAL. `file`: a shared mapping
 * of a file that holds all of it, whose pages may be dropped once the card has consumed them. */
struct tepi_dma_memory {
    void *address;
    uint64_t bytes;
    int fd;
    bool file;
};

struct tepi_bus;

struct tepi_bus_ops {
    /* Registers of BAR0. A card that is gone reads as all ones; writes to it vanish. */
    uint32_t (*read32)(struct tepi_bus *bus, uint32_t offset);
    uint64_t (*read64)(struct tepi_bus *bus, uint32_t offset);
    void (*write32)(struct tepi_bus *bus, uint32_t offset, uint32_t value);
    void (*write64)(struct tepi_bus *bus, uint32_t offset, uint64_t value);

    /* Maps all of `memory` for the card; 0 or -ENOSPC (no mapping left), -EINVAL, -E2BIG. */
    int (*dma_map)(struct tepi_bus *bus, const struct tepi_dma_memory *memory, uint64_t *iova);
    /* Returns when the card no longer uses the mapping. */
    void (*dma_unmap)(struct tepi_bus *bus, uint64_t iova, uint64_t bytes);

    /* The vector's interrupts add to `eventfd`; -1 disconnects. 0 or -EINVAL (no such vector). */
    int (*interrupt_connect)(struct tepi_bus *bus, uint32_t vector, int eventfd);
    /* A host that polls disarms the vector and so spares the signal. Arming returns true where an
     * interrupt may have come since: the caller then looks at the ring before it sleeps. A bus
     * that cannot disarm ignores it and returns true. */
    bool (*interrupt_arm)(struct tepi_bus *bus, uint32_t vector, bool armed);

    /* Reset of the whole function from outside, for a card that ignores its reset register. */
    int (*reset)(struct tepi_bus *bus);
    /* Looks again for a card that was gone, and gives one that is back its mappings and interrupts.
     * 0, or negative errno where there is none. NULL: a card that is back answers by itself. */
    int (*rescan)(struct tepi_bus *bus);
    /* Leaves the card and frees the bus. After it no mapping or eventfd is touched. */
    void (*close)(struct tepi_bus *bus);
};

struct tepi_bus {
    const struct tepi_bus_ops *ops;
};

#endif
