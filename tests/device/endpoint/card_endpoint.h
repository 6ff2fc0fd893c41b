/* SPDX-License-Identifier: Apache-2.0 */
/* An endpoint in this process that gives every client a function of one software card. */
#ifndef TEPI_TESTS_ENDPOINT_CARD_ENDPOINT_H
#define TEPI_TESTS_ENDPOINT_CARD_ENDPOINT_H

#include "card/card.h"
#include "endpoint/endpoint.h"
#include <stdatomic.h>
#include <stdbool.h>

struct card_endpoint {
    char path[64];
    struct tepi_endpoint *endpoint;
    struct tepi_card *card; /* while it serves */
    uint32_t workers;
    _Atomic uint32_t opened, closed; /* devices, ever */
    _Atomic uint32_t room;           /* devices that may be open at a time; 0: any */
};

/* Listens on a path of its own; 0 or negative errno. `clients` 0: the endpoint's default. */
int card_endpoint_open(struct card_endpoint *self, uint32_t workers, uint32_t clients);
/* Serves again at the same path, as after a restart. */
int card_endpoint_serve(struct card_endpoint *self, uint32_t clients);
void card_endpoint_close(struct card_endpoint *self);
/* Waits until as many devices were closed; false after 10 s. */
bool card_endpoint_await_closed(struct card_endpoint *self, uint32_t count);

#endif
