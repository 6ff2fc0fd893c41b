/* SPDX-License-Identifier: Apache-2.0 */
/* The bus to a card in another process, over the UNIX socket of a vfio-user server.
 *
 * Registers travel as messages; doorbells, rings, data and interrupts do not. A connection that
 * breaks, or a server that does not answer in time, is a card that is gone; `rescan` connects again
 * where a server listens, and gives it every mapping and interrupt that the old one had. */
#ifndef TEPI_DRIVER_BUS_VFIO_USER_H
#define TEPI_DRIVER_BUS_VFIO_USER_H

#include "driver/bus.h"

/* Connects to the server at `path`. 0; -ENOENT, -ECONNREFUSED (nobody listens), -EACCES,
 * -ENAMETOOLONG; -EPROTO (no vfio-user server, or not one of a card), -EPROTONOSUPPORT (another
 * major version), -ETIMEDOUT, -ECONNRESET (it hung up: too many clients), -ENOSPC (no device left)
 * or another errno that it answered with; -ENOMEM. */
int tepi_bus_vfio_user_open(const char *path, struct tepi_bus **bus);
/* Leaves the card, as if the connection had broken; `rescan` takes it back. */
void tepi_bus_vfio_user_leave(struct tepi_bus *bus);

#endif
