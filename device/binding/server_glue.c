/* SPDX-License-Identifier: Apache-2.0 */
/* Software cards for the clients of a vfio-user endpoint. */
#include "binding/card_glue.h"

#include "card/card.h"
#include "endpoint/endpoint.h"
#include <errno.h>
#include <stdlib.h>

enum { QUEUES = 4 };

struct tepi_card_server {
    struct tepi_card_config config;
    struct tepi_endpoint *endpoint;
};

static int open_card(void *context, struct tepi_device_port *port)
{
    const struct tepi_card_server *server = context;
    struct tepi_card *card = NULL;
    const int result = tepi_card_create(&server->config, &card);
    if (result == 0) {
        *port = tepi_card_port(card);
    }
    return result;
}

static void close_card(void *context, const struct tepi_device_port *port)
{
    (void)context;
    tepi_card_destroy(port->device);
}

int tepi_server_open(const char *path, uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                     struct tepi_card_server **out)
{
    struct tepi_card *card = NULL;
    struct tepi_card_server *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    self->config = (struct tepi_card_config){
        .memory_bytes = memory_bytes, .workers = workers, .isa = isa, .queues = QUEUES};
    /* Once now, so that what cannot be is said before anyone connects. */
    int result = tepi_card_create(&self->config, &card);
    if (result) {
        goto free_self;
    }
    tepi_card_destroy(card);
    const struct tepi_endpoint_config config = {
        .path = path, .open = open_card, .close = close_card, .context = self};
    result = tepi_endpoint_open(&config, &self->endpoint);
    if (result) {
        goto free_self;
    }
    *out = self;
    return 0;
free_self:
    free(self);
    return result;
}

void tepi_server_close(struct tepi_card_server *server)
{
    tepi_endpoint_close(server->endpoint);
    free(server);
}

uint32_t tepi_server_clients(struct tepi_card_server *server)
{
    return tepi_endpoint_clients(server->endpoint);
}
