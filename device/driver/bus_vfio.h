/* SPDX-License-Identifier: Apache-2.0 */
/* The bus to a PCIe card that is bound to vfio-pci: IOMMU mappings, BAR0, MSI-X.
 *
 * A card that the kernel asks for (unbound, pulled out) or that reports a PCIe error is let go at
 * once and reads as all ones from then on; `rescan` takes it back, with every mapping and interrupt
 * it had. */
#ifndef TEPI_DRIVER_BUS_VFIO_H
#define TEPI_DRIVER_BUS_VFIO_H

#include "driver/bus.h"

/* Why a card could not be opened, for the operator. */
struct tepi_bus_reason {
    char what[256];   /* what stands in the way; "" where the errno says it all */
    char remedy[256]; /* what to do about it */
};

/* Opens the card at the PCI address `address`, "0000:01:00.0" or "01:00.0". 0; -EINVAL (no such
 * address can be), -ENODEV (no device there), -EOPNOTSUPP (no IOMMU), -EBUSY (another driver or
 * process has it), -ENXIO (no driver has it, or it is no card), -EPERM (devices of its group are in
 * use), -EACCES, -ENOMEM or another errno of the kernel. */
int tepi_bus_vfio_open(const char *address, struct tepi_bus **bus, struct tepi_bus_reason *reason);
/* Lets go of the card, as if it had been pulled out; `rescan` takes it back. */
void tepi_bus_vfio_leave(struct tepi_bus *bus);

#endif
