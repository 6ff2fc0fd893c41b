/* SPDX-License-Identifier: Apache-2.0 */
/* A card, and a function per client. */
#include "endpoint/card_endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int open_function(void *context, struct tepi_device_port *port)
{
    struct card_endpoint *self = context;
    const uint32_t room = atomic_load(&self->room);
    struct tepi_function *function = NULL;
    if (room && atomic_load(&self->opened) - atomic_load(&self->closed) >= room) {
        return -ENOSPC;
    }
    const int result = tepi_function_open(self->card, &function);
    if (result == 0) {
        *port = tepi_function_port(function);
        atomic_fetch_add(&self->opened, 1);
    }
    return result;
}

static void close_function(void *context, const struct tepi_device_port *port)
{
    struct card_endpoint *self = context;
    tepi_function_close(port->device);
    atomic_fetch_add(&self->closed, 1);
}

int card_endpoint_serve(struct card_endpoint *self, uint32_t clients)
{
    const struct tepi_card_config card = {
        .memory_bytes = 16u << 20, .workers = self->workers, .queues = 4};
    const struct tepi_endpoint_config config = {.path = self->path,
                                                .open = open_function,
                                                .close = close_function,
                                                .context = self,
                                                .clients = clients};
    int result = tepi_card_create(&card, &self->card);
    if (result) {
        return result;
    }
    result = tepi_endpoint_open(&config, &self->endpoint);
    if (result) {
        tepi_card_destroy(self->card);
    }
    return result;
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
    tepi_card_destroy(self->card);
}

bool card_endpoint_await_closed(struct card_endpoint *self, uint32_t count)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    for (int i = 0; i < 10000 && atomic_load(&self->closed) < count; i++) {
        nanosleep(&pause, NULL);
    }
    return atomic_load(&self->closed) >= count;
}
