/* SPDX-License-Identifier: Apache-2.0 */
/* The card's end of vfio-user: a UNIX socket, and a device for every client that connects.
 *
 * A client is served by threads of its own, so that none waits for another. What it leaves behind
 * when it goes, whichever way, is given back before its device is closed. */
#ifndef TEPI_ENDPOINT_ENDPOINT_H
#define TEPI_ENDPOINT_ENDPOINT_H

#include "abi/link.h"
#include <stdint.h>

struct tepi_endpoint;

/* Zero in a number means the default. */
struct tepi_endpoint_config {
    const char *path;
    /* A device of its own for a client that has spoken: 0, or negative errno to turn it away. The
     * endpoint plugs and unplugs it. From any thread. */
    int (*open)(void *context, struct tepi_device_port *port);
    void (*close)(void *context, const struct tepi_device_port *port);
    void *context;
    uint32_t clients; /* most at a time; 32 */
    uint64_t spin_ns; /* how long doorbells are polled after the last one; 50 us */
};

/* Listens at config->path with mode 0660, and serves until closed. A socket that nobody listens on
 * any more is replaced. 0; -EADDRINUSE (a server lives there), -EEXIST (the path is no socket),
 * -ENAMETOOLONG, or the errno of the system. */
int tepi_endpoint_open(const struct tepi_endpoint_config *config, struct tepi_endpoint **endpoint);
/* Disconnects every client, closes their devices, removes the socket. */
void tepi_endpoint_close(struct tepi_endpoint *endpoint);
/* Clients that are connected now. */
uint32_t tepi_endpoint_clients(struct tepi_endpoint *endpoint);

#endif
