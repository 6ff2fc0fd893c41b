/* SPDX-License-Identifier: Apache-2.0 */
/* Listening, and the list of clients. */
#include "endpoint/endpoint.h"

#include "endpoint/client.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DEFAULT_CLIENTS 32u
#define DEFAULT_SPIN_NS 50000u
/* A machine out of descriptors is asked again after so long. */
#define FULL_PAUSE_MS   100

enum { BACKLOG = 16, SOCKET_MODE = 0660 };

struct tepi_endpoint {
    struct tepi_endpoint_config config;
    struct sockaddr_un address;
    struct stat bound; /* the socket's file, to remove that one only */
    int listener;
    int wake; /* a client has ended, or the endpoint is to stop */
    _Atomic bool stop;
    pthread_t thread;
    _Atomic uint32_t count;
    struct tepi_client *clients[]; /* NULL: free */
};

static void collect(struct tepi_endpoint *self, bool all)
{
    for (uint32_t i = 0; i < self->config.clients; i++) {
        struct tepi_client *client = self->clients[i];
        if (client && (all || tepi_client_has_ended(client))) {
            tepi_client_stop(client);
            self->clients[i] = NULL;
            atomic_fetch_sub(&self->count, 1);
        }
    }
}

/* One client too many is closed at once: it hears so before it has been promised anything. */
static void take_in(struct tepi_endpoint *self, int socket)
{
    for (uint32_t i = 0; i < self->config.clients; i++) {
        if (!self->clients[i]) {
            if (tepi_client_start(&self->config, socket, self->wake, &self->clients[i]) == 0) {
                atomic_fetch_add(&self->count, 1);
            }
            return;
        }
    }
    close(socket);
}

static void *listen_for_clients(void *argument)
{
    struct tepi_endpoint *self = argument;
    while (!atomic_load(&self->stop)) {
        struct pollfd events[] = {{.fd = self->listener, .events = POLLIN},
                                  {.fd = self->wake, .events = POLLIN}};
        poll(events, 2, -1);
        uint64_t count;
        ssize_t drained = read(self->wake, &count, sizeof count);
        (void)drained;
        collect(self, false);
        if (events[0].revents && !atomic_load(&self->stop)) {
            const int socket = accept4(self->listener, NULL, NULL, SOCK_CLOEXEC);
            if (socket >= 0) {
                take_in(self, socket);
            } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                poll(&events[1], 1, FULL_PAUSE_MS);
            }
        }
    }
    collect(self, true);
    return NULL;
}

/* Removes a socket that its server left behind. 0, -EADDRINUSE, -EEXIST or another errno. */
static int clear_stale(const struct sockaddr_un *address)
{
    struct stat about;
    if (lstat(address->sun_path, &about)) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(about.st_mode)) {
        return -EEXIST;
    }
    const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (probe < 0) {
        return -errno;
    }
    const int refused = connect(probe, (const void *)address, sizeof *address) ? errno : 0;
    close(probe);
    if (refused != ECONNREFUSED) {
        /* It answered, or its backlog is full, or it is not ours to ask. */
        return refused == 0 || refused == EAGAIN ? -EADDRINUSE : -refused;
    }
    return unlink(address->sun_path) && errno != ENOENT ? -errno : 0;
}

static int bind_socket(struct tepi_endpoint *self)
{
    int result = clear_stale(&self->address);
    if (result) {
        return result;
    }
    self->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (self->listener < 0) {
        return -errno;
    }
    /* The mode is set before anyone can connect: until listen() the socket refuses. */
    if (bind(self->listener, (const void *)&self->address, sizeof self->address)) {
        result = -errno;
        goto close_listener;
    }
    if (chmod(self->address.sun_path, SOCKET_MODE) || listen(self->listener, BACKLOG) ||
        lstat(self->address.sun_path, &self->bound)) {
        result = -errno;
        goto remove;
    }
    return 0;
remove:
    unlink(self->address.sun_path);
close_listener:
    close(self->listener);
    return result;
}

/* Unless another server has taken the path since. */
static void remove_socket(const struct tepi_endpoint *self)
{
    struct stat now;
    if (lstat(self->address.sun_path, &now) == 0 && now.st_dev == self->bound.st_dev &&
        now.st_ino == self->bound.st_ino) {
        unlink(self->address.sun_path);
    }
}

int tepi_endpoint_open(const struct tepi_endpoint_config *config, struct tepi_endpoint **out)
{
    const uint32_t clients = config->clients ? config->clients : DEFAULT_CLIENTS;
    if (strlen(config->path) >= sizeof((struct sockaddr_un *)0)->sun_path) {
        return -ENAMETOOLONG;
    }
    struct tepi_endpoint *self = calloc(1, sizeof *self + clients * sizeof self->clients[0]);
    if (!self) {
        return -ENOMEM;
    }
    self->config = *config;
    self->config.clients = clients;
    self->config.spin_ns = config->spin_ns ? config->spin_ns : DEFAULT_SPIN_NS;
    self->address.sun_family = AF_UNIX;
    strcpy(self->address.sun_path, config->path);
    self->config.path = self->address.sun_path;
    int result = 0;
    self->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (self->wake < 0) {
        result = -errno;
        goto free_self;
    }
    result = bind_socket(self);
    if (result) {
        goto close_wake;
    }
    result = -pthread_create(&self->thread, NULL, listen_for_clients, self);
    if (result) {
        goto unbind;
    }
    pthread_setname_np(self->thread, "tepi-endpoint");
    *out = self;
    return 0;
unbind:
    remove_socket(self);
    close(self->listener);
close_wake:
    close(self->wake);
free_self:
    free(self);
    return result;
}

void tepi_endpoint_close(struct tepi_endpoint *endpoint)
{
    const uint64_t one = 1;
    remove_socket(endpoint);
    atomic_store(&endpoint->stop, true);
    ssize_t written = write(endpoint->wake, &one, sizeof one);
    (void)written;
    pthread_join(endpoint->thread, NULL);
    close(endpoint->listener);
    close(endpoint->wake);
    free(endpoint);
}

uint32_t tepi_endpoint_clients(struct tepi_endpoint *endpoint)
{
    return atomic_load(&endpoint->count);
}
