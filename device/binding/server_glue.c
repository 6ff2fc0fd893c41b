/* SPDX-License-Identifier: Apache-2.0 */
/* A software card whose functions the clients of a vfio-user endpoint get. */
#include "binding/card_glue.h"

#include "card/card.h"
#include "endpoint/endpoint.h"
#include <errno.h>
#include <stdlib.h>

enum { QUEUES = 4 };

struct tepi_card_server {
    struct tepi_card *card;
    struct tepi_endpoint *endpoint;
};

static int open_function(void *context, struct tepi_device_port *port)
{
    const struct tepi_card_server *server = context;
    struct tepi_function *function = NULL;
    const int result = tepi_function_open(server->card, &function);
    if (result == 0) {
        *port = tepi_function_port(function);
    }
    return result;
}

static void close_function(void *context, const struct tepi_device_port *port)
{
    (void)context;
    tepi_function_close(port->device);
}

int tepi_server_open(const char *path, uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                     struct tepi_card_server **out)
{
    struct tepi_card_server *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    const struct tepi_card_config card = {
        .memory_bytes = memory_bytes, .workers = workers, .isa = isa, .queues = QUEUES};
    int result = tepi_card_create(&card, &self->card);
    if (result) {
        goto free_self;
    }
    const struct tepi_endpoint_config config = {
        .path = path, .open = open_function, .close = close_function, .context = self};
    result = tepi_endpoint_open(&config, &self->endpoint);
    if (result) {
        goto destroy_card;
    }
    *out = self;
    return 0;
destroy_card:
    tepi_card_destroy(self->card);
free_self:
    free(self);
    return result;
}

void tepi_server_close(struct tepi_card_server *server)
{
    tepi_endpoint_close(server->endpoint);
    tepi_card_destroy(server->card);
    free(server);
}

int tepi_server_plan_faults(struct tepi_card_server *server,
                            const struct tepi_planned_fault *faults, uint32_t count)
{
    return tepi_card_plan_faults(server->card, faults, count);
}

void tepi_server_detach(struct tepi_card_server *server)
{
    tepi_card_detach(server->card);
}

void tepi_server_attach(struct tepi_card_server *server)
{
    tepi_card_attach(server->card);
}

uint32_t tepi_server_clients(struct tepi_card_server *server)
{
    return tepi_endpoint_clients(server->endpoint);
}
