/* SPDX-License-Identifier: Apache-2.0 */
/* The bus to a card in the same process, over the slot of abi/link.h. */
#ifndef TEPI_DRIVER_BUS_INPROC_H
#define TEPI_DRIVER_BUS_INPROC_H

#include "abi/link.h"
#include "driver/bus.h"

/* Plugs `device` into a new bus. 0, -ENOMEM, or the device's refusal (-EBUSY: plugged already).
 * The device must outlive the bus. */
int tepi_bus_inproc_open(const struct tepi_device_port *device, struct tepi_bus **bus);

#endif
