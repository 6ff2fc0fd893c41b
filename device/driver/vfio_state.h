/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the vfio bus: bus_vfio.c (registers, mappings, interrupts) and vfio_attach.c
 * (taking the card and letting it go). */
#ifndef TEPI_DRIVER_VFIO_STATE_H
#define TEPI_DRIVER_VFIO_STATE_H

#include "abi/registers.h"
#include "driver/bus_vfio.h"
#include "driver/vfio_iova.h"
#include "driver/vfio_sysfs.h"
#include <pthread.h>
#include <stdatomic.h>

struct tepi_vfio_bus {
    struct tepi_bus bus;
    char address[TEPI_PCI_ADDRESS_BYTES];
    /* BAR0 as far as the card has registers. Stays where it is for as long as the bus lives: when
     * the card goes, `ones` takes its place under a thread that is just reading. Bit n of `mapped`:
     * page n is the card's; the others go through the device's file, with the lock held. */
    unsigned char *window;
    uint64_t window_bytes;
    unsigned page_shift;
    _Atomic uint32_t mapped;
    pthread_mutex_t lock;         /* of all below */
    int container, group, device; /* -1: the card is gone */
    unsigned char *ones;
    uint64_t bar_offset, config_offset; /* in the device's file */
    uint64_t bar_bytes;
    bool resets;
    uint32_t irq_index, vectors; /* what message-signalled interrupts there are; 0: none */
    int eventfds[TEPI_QUEUES_MAX];
    struct tepi_iova_space space; /* page 0: never attached */
    int events, stop;             /* the kernel's: give the card back, PCIe error; ours */
    pthread_t watcher;
};

/* Both with the lock held. */

/* Takes the card and gives it back what is mapped and connected; errno as tepi_bus_vfio_open. */
int tepi_vfio_attach(struct tepi_vfio_bus *self, struct tepi_bus_reason *reason);
/* Returns when the card can reach no memory, and nobody the card. */
void tepi_vfio_release(struct tepi_vfio_bus *self);

int tepi_vfio_map(struct tepi_vfio_bus *self, const struct tepi_iova_extent *extent);
int tepi_vfio_connect(struct tepi_vfio_bus *self, uint32_t vector);

#endif
