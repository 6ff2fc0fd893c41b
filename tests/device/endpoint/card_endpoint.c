/* SPDX-License-Identifier: Apache-2.0 */
/* One card per client. */
#include "endpoint/card_endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int open_card(void *context, struct tepi_device_port *port)
{
    struct card_endpoint *self = context;
    const uint32_t room = atomic_load(&self->room);
    const struct tepi_card_config config = {
        .memory_bytes = 16u << 20, .workers = self->workers, .queues = 4};
    struct tepi_card *card = NULL;
    if (room && atomic_load(&self->opened) - atomic_load(&self->closed) >= room) {
        return -ENOSPC;
    }
    int result = tepi_card_create(&config, &card);
    if (result == 0) {
        *port = tepi_card_port(card);
        atomic_store(&self->newest, card);
        atomic_fetch_add(&self->opened, 1);
    }
    return result;
}

static void close_card(void *context, const struct tepi_device_port *port)
{
    struct card_endpoint *self = context;
    tepi_card_destroy(port->device);
    atomic_fetch_add(&self->closed, 1);
}

int card_endpoint_serve(struct card_endpoint *self, uint32_t clients)
{
    const struct tepi_endpoint_config config = {.path = self->path,
                                                .open = open_card,
                                                .close = close_card,
                                                .context = self,
                                                .clients = clients};
    return tepi_endpoint_open(&config, &self->endpoint);
}

int card_endpoint_open(struct card_endpoint *self, uint32_t workers, uint32_t clients)
{
    static _Atomic uint32_t number;
    memset(self, 0, sizeof *self);
    self->workers = workers;
    snprintf(self->path, sizeof self->path, "/tmp/tepi-test-%d-%u.sock", (int)getpid(),
             atomic_fetch_add(&number, 1));
    return card_endpoint_serve(self, clients);
}

void card_endpoint_close(struct card_endpoint *self)
{
    tepi_endpoint_close(self->endpoint);
}

bool card_endpoint_await_closed(struct card_endpoint *self, uint32_t count)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000 && atomic_load(&self->closed) < count; i++) {
        nanosleep(&pause, NULL);
    }
    return atomic_load(&self->closed) >= count;
}
