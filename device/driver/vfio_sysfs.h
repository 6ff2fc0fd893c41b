/* SPDX-License-Identifier: Apache-2.0 */
/* What sysfs tells of a PCI device before VFIO is asked: its IOMMU group and who holds it. */
#ifndef TEPI_DRIVER_VFIO_SYSFS_H
#define TEPI_DRIVER_VFIO_SYSFS_H

#include "driver/bus_vfio.h"

enum { TEPI_PCI_ADDRESS_BYTES = 13 }; /* "0000:01:00.0" and its 0 */

/* The address in the kernel's own spelling. 0 or -EINVAL. */
int tepi_pci_address(const char *text, char address[TEPI_PCI_ADDRESS_BYTES]);

/* The IOMMU group of the device, which must be bound to vfio-pci. `sysfs` is where sysfs is
 * mounted. The group's number, or -ENODEV, -EOPNOTSUPP (no IOMMU), -EBUSY (another driver has it),
 * -ENXIO (no driver has it), with the reason. */
int tepi_vfio_group(const char *sysfs, const char *address, struct tepi_bus_reason *reason);

/* The reason why a group is not viable: names the devices of it that other drivers hold. -EPERM. */
int tepi_vfio_not_viable(const char *sysfs, const char *address, struct tepi_bus_reason *reason);

/* Fills in the reason (may be NULL) and returns `result`. */
__attribute__((format(printf, 4, 5))) int tepi_bus_refuse(struct tepi_bus_reason *reason,
                                                          int result, const char *remedy,
                                                          const char *what, ...);

#endif
