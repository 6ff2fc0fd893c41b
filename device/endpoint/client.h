/* SPDX-License-Identifier: Apache-2.0 */
/* One client of an endpoint: its socket, its device, and a thread that answers its messages. */
#ifndef TEPI_ENDPOINT_CLIENT_H
#define TEPI_ENDPOINT_CLIENT_H

#include "endpoint/endpoint.h"
#include <stdatomic.h>
#include <stdbool.h>

struct tepi_client;

/* Starts serving `socket`, which it takes over. `ended` is an eventfd that it writes to when it is
 * to be collected. 0 or negative errno, and then the socket is closed. */
int tepi_client_start(const struct tepi_endpoint_config *config, int socket, int ended,
                      struct tepi_client **client);
bool tepi_client_has_ended(const struct tepi_client *client);
/* Ends the connection, waits for the thread, which gives everything back, and frees the client. */
void tepi_client_stop(struct tepi_client *client);

#endif
