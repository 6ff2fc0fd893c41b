/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving a client's messages and doing what they ask of the device. */
#include "endpoint/client.h"

#include "endpoint/config_space.h"
#include "endpoint/interrupts.h"
#include "endpoint/mappings.h"
#include "endpoint/stream.h"
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

/* A client that has connected must say VERSION within this time. */
#define GREETING_S 5
/* What DMA_UNMAP waits for a card that still uses the memory. */
#define UNMAP_ASKS 250 /* of PATIENCE_MS each: 5 s */

struct tepi_client {
    struct tepi_endpoint_config config;
    int socket, ended_fd;
    _Atomic bool ended;
    pthread_t thread;
    struct tepi_peer peer;
    bool open; /* the device is: set with VERSION */
    struct tepi_device_port port;
    struct tepi_host_port host;
    uint32_t asks; /* of an unmap in progress */
    struct tepi_doorbells doorbells;
    struct tepi_interrupts interrupts;
    struct tepi_mappings mappings;
    struct tepi_config_space space;
    struct tepi_message message;
    struct tepi_reply reply;
};

static void *dma_acquire(void *host, uint64_t iova, uint64_t bytes)
{
    struct tepi_client *client = host;
    return tepi_mappings_acquire(&client->mappings, iova, bytes);
}

static void dma_release(void *host, uint64_t iova, uint64_t bytes)
{
    struct tepi_client *client = host;
    (void)bytes;
    tepi_mappings_release(&client->mappings, iova);
}

static void interrupt(void *host, uint32_t vector)
{
    struct tepi_client *client = host;
    tepi_interrupts_raise(&client->interrupts, vector);
}

/* A device, plugged; everything of it or nothing. 0 or negative errno. */
static int open_device(struct tepi_client *client)
{
    int result = client->config.open(client->config.context, &client->port);
    if (result) {
        return result;
    }
    const struct tepi_device_port *port = &client->port;
    uint32_t queues = (uint32_t)port->read(port->device, TEPI_REG_CAP_QUEUES, 4);
    queues = queues < TEPI_QUEUES_MAX ? queues : TEPI_QUEUES_MAX;
    result = tepi_doorbells_open(&client->doorbells, port, queues, client->config.spin_ns);
    if (result) {
        goto close_device;
    }
    result = tepi_interrupts_open(&client->interrupts, &client->doorbells);
    if (result) {
        goto close_doorbells;
    }
    result = port->plug(port->device, &client->host);
    if (result) {
        goto close_interrupts;
    }
    client->open = true;
    return 0;
close_interrupts:
    tepi_interrupts_close(&client->interrupts);
close_doorbells:
    tepi_doorbells_close(&client->doorbells);
close_device:
    client->config.close(client->config.context, port);
    return result;
}

static void close_device(struct tepi_client *client)
{
    if (client->open) {
        /* First: the device drops the queues and every hold on memory, and no thread of it
         * interrupts any more. Then the doorbell threads have nothing left to compute. */
        client->port.plug(client->port.device, NULL);
        tepi_doorbells_close(&client->doorbells);
        tepi_interrupts_close(&client->interrupts);
        client->config.close(client->config.context, &client->port);
    }
    tepi_mappings_destroy(&client->mappings);
}

/* False where the client has gone, or the device should have let go long since. */
static bool unmap_patience(void *context)
{
    struct tepi_client *client = context;
    struct pollfd event = {.fd = client->socket, .events = POLLRDHUP};
    return ++client->asks < UNMAP_ASKS && poll(&event, 1, 0) == 0;
}

static int reset_device(struct tepi_client *client)
{
    const struct tepi_device_port *port = &client->port;
    int result = port->plug(port->device, NULL);
    result = result ? result : port->plug(port->device, &client->host);
    return -result;
}

/* In the page that the client maps; registers lie before and behind it. */
static bool is_doorbell(uint32_t offset)
{
    return offset >= TEPI_REG_DOORBELL && offset < TEPI_REG_DOORBELL + TEPI_DOORBELL_PAGE;
}

static int write_bar0(struct tepi_client *client, uint32_t offset, const uint8_t *data,
                      uint32_t count)
{
    const struct tepi_device_port *port = &client->port;
    uint64_t value = 0;
    if ((count != 4 && count != 8) || offset % count) {
        return EINVAL;
    }
    memcpy(&value, data, count);
    if (is_doorbell(offset)) {
        if (count != 4) {
            return EINVAL;
        }
        tepi_doorbells_write(&client->doorbells, offset, (uint32_t)value);
        return 0;
    }
    const uint32_t at = offset - TEPI_REG_QUEUE;
    if (offset >= TEPI_REG_QUEUE && at / TEPI_REG_QUEUE_STRIDE < client->doorbells.count &&
        at % TEPI_REG_QUEUE_STRIDE == TEPI_QUEUE_ENABLE && count == 4) {
        return -tepi_doorbells_enable(&client->doorbells, at / TEPI_REG_QUEUE_STRIDE,
                                      (uint32_t)value);
    }
    port->write(port->device, offset, count, value);
    return 0;
}

static int read_bar0(struct tepi_client *client, uint32_t offset, uint8_t *data, uint32_t count)
{
    const struct tepi_device_port *port = &client->port;
    if (is_doorbell(offset)) {
        if (count > TEPI_REG_BUSY - offset) {
            return EINVAL;
        }
        tepi_doorbells_read(&client->doorbells, offset, data, count);
        return 0;
    }
    if ((count != 4 && count != 8) || offset % count) {
        return EINVAL;
    }
    const uint64_t value = port->read(port->device, offset, count);
    memcpy(data, &value, count);
    return 0;
}

static int access_region(struct tepi_client *client, const struct tepi_request *request,
                         struct tepi_reply *reply)
{
    struct tepi_config_space *space = &client->space;
    const bool write = request->command == TEPI_VFIO_USER_REGION_WRITE;
    const uint32_t offset = (uint32_t)request->access.offset;
    const uint32_t count = request->access.count;
    uint8_t *data = NULL;
    if (write) {
        tepi_reply_write(reply, request);
    } else {
        data = tepi_reply_read(reply, request);
    }
    switch (request->access.region) {
    case VFIO_PCI_BAR0_REGION_INDEX:
        return write ? write_bar0(client, offset, request->data, count)
                     : read_bar0(client, offset, data, count);
    case VFIO_PCI_CONFIG_REGION_INDEX:
        if (write) {
            tepi_config_write(space, offset, request->data, count);
        } else {
            memcpy(data, space->bytes + offset, count);
        }
        return 0;
    default: /* BAR4, as check_access has seen */
        if (write) {
            tepi_msix_write(space, offset, request->data, count);
        } else {
            memcpy(data, space->msix + offset, count);
        }
        return 0;
    }
}

static int set_irqs(struct tepi_client *client, const struct tepi_request *request)
{
    const struct tepi_vfio_user_irq_set *set = &request->irq_set;
    struct tepi_message *message = &client->message;
    const uint32_t kind = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    /* A count of 0 with DATA_NONE disables all interrupts of the index. */
    const bool all = set->count == 0;
    const uint32_t end = all ? TEPI_QUEUES_MAX : set->start + set->count;
    int error = 0;
    for (uint32_t vector = set->start; vector < end && error == 0; vector++) {
        const uint32_t i = vector - set->start;
        if (all || kind == VFIO_IRQ_SET_DATA_EVENTFD) {
            int fd = -1;
            if (i < message->fd_count) {
                fd = message->fds[i];
                message->fds[i] = -1; /* handed over */
            }
            error = tepi_interrupts_connect(&client->interrupts, vector, fd);
        } else if (kind == VFIO_IRQ_SET_DATA_NONE || request->data[i]) {
            tepi_interrupts_raise(&client->interrupts, vector);
        }
    }
    return error;
}

/* Does what was asked and makes the reply; its descriptors go to *fds. Returns 0 or an errno. */
static int serve(struct tepi_client *client, const struct tepi_request *request, int *fds,
                 uint32_t *fd_count)
{
    struct tepi_reply *reply = &client->reply;
    tepi_reply_empty(reply, request);
    switch (request->command) {
    case TEPI_VFIO_USER_VERSION:
        tepi_reply_version(reply, request, &client->peer);
        return -open_device(client);
    case TEPI_VFIO_USER_DMA_MAP:
        return tepi_mappings_add(&client->mappings, &request->map, client->message.fds[0]);
    case TEPI_VFIO_USER_DMA_UNMAP:
        client->asks = 0;
        tepi_reply_unmap(reply, request);
        return tepi_mappings_remove(&client->mappings, request->unmap.address, request->unmap.size,
                                    unmap_patience, client);
    case TEPI_VFIO_USER_DEVICE_GET_INFO:
        tepi_reply_device(reply, request);
        return 0;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_INFO:
        if (tepi_reply_region(reply, request)) {
            fds[(*fd_count)++] = client->doorbells.file;
        }
        return 0;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        *fd_count = tepi_reply_io_fds(reply, request, &client->peer, client->doorbells.count);
        for (uint32_t pair = 0; pair < *fd_count; pair++) {
            fds[pair] = client->doorbells.pairs[pair].ioeventfd;
        }
        return 0;
    case TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO:
        tepi_reply_irq(reply, request);
        return 0;
    case TEPI_VFIO_USER_DEVICE_SET_IRQS:
        return set_irqs(client, request);
    case TEPI_VFIO_USER_DEVICE_RESET:
        return reset_device(client);
    default: /* REGION_READ, REGION_WRITE: tepi_request_read lets no other through */
        return access_region(client, request, reply);
    }
}

/* One message; false where the connection has come to its end. */
static bool turn(struct tepi_client *client)
{
    struct tepi_message *message = &client->message;
    struct tepi_request request;
    int fds[TEPI_VFIO_USER_FDS_MAX];
    uint32_t fd_count = 0;
    bool go_on = tepi_message_receive(client->socket, message) == 0;
    if (go_on) {
        int error = tepi_request_read(message->bytes, message->size, message->fd_count,
                                      &client->peer, &request);
        error = error ? error : serve(client, &request, fds, &fd_count);
        if (error) {
            fd_count = 0;
            tepi_reply_error(&client->reply, &request, error);
        }
        /* Without a version and a device there is nothing to talk about. */
        go_on = client->open;
        const bool silent = request.no_reply && !error;
        if (!silent && tepi_reply_send(client->socket, &client->reply, fds, fd_count)) {
            go_on = false;
        }
    }
    tepi_message_close_fds(message);
    return go_on;
}

static void *serve_client(void *argument)
{
    struct tepi_client *client = argument;
    struct timeval greeting = {.tv_sec = GREETING_S};
    const uint64_t one = 1;
    setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &greeting, sizeof greeting);
    bool go_on = turn(client);
    greeting.tv_sec = 0;
    setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &greeting, sizeof greeting);
    while (go_on) {
        go_on = turn(client);
    }
    close_device(client);
    /* The peer sees the end once nothing of it is held any more. */
    shutdown(client->socket, SHUT_RDWR);
    atomic_store(&client->ended, true);
    ssize_t written = write(client->ended_fd, &one, sizeof one);
    (void)written;
    return NULL;
}

int tepi_client_start(const struct tepi_endpoint_config *config, int socket, int ended,
                      struct tepi_client **out)
{
    int result = -ENOMEM;
    struct tepi_client *client = calloc(1, sizeof *client);
    if (!client) {
        goto close_socket;
    }
    client->config = *config;
    client->socket = socket;
    client->ended_fd = ended;
    client->host = (struct tepi_host_port){
        .host = client,
        .dma_acquire = dma_acquire,
        .dma_release = dma_release,
        .interrupt = interrupt,
    };
    tepi_mappings_init(&client->mappings);
    tepi_config_init(&client->space);
    result = -pthread_create(&client->thread, NULL, serve_client, client);
    if (result) {
        goto free_client;
    }
    pthread_setname_np(client->thread, "tepi-client");
    *out = client;
    return 0;
free_client:
    tepi_mappings_destroy(&client->mappings);
    free(client);
close_socket:
    close(socket);
    return result;
}

bool tepi_client_has_ended(const struct tepi_client *client)
{
    return atomic_load(&client->ended);
}

void tepi_client_stop(struct tepi_client *client)
{
    /* Wakes the thread out of recvmsg and sendmsg. */
    shutdown(client->socket, SHUT_RDWR);
    pthread_join(client->thread, NULL);
    close(client->socket);
    free(client);
}
