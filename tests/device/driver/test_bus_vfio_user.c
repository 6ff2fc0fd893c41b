/* SPDX-License-Identifier: Apache-2.0 */
/* The driver on a card behind a vfio-user socket: commands, interrupts, loss and return. */
#include "driver/bus_vfio_user.h"

#include "abi/vfio_user.h"
#include "check.h"
#include "driver/clock.h"
#include "driver/controller.h"
#include "endpoint/card_endpoint.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};

/* A controller on the endpoint's card, or NULL. */
static struct tepi_controller *attach(const struct card_endpoint *server)
{
    struct tepi_bus *bus = NULL;
    struct tepi_controller *controller = NULL;
    struct tepi_failure failure;
    if (tepi_bus_vfio_user_open(server->path, &bus) == 0) {
        (void)tepi_controller_open(bus, NULL, &controller, &failure);
    }
    return controller;
}

static int run_nop(struct tepi_controller *controller)
{
    struct tepi_completion done;
    struct tepi_failure failure;
    return tepi_controller_command(controller, &nop, &done, &failure);
}

CHECK_CASE(commands_come_back)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    /* Past the end of the rings many times, so that places are given back too. */
    for (int i = 0; i < 5000; i++) {
        CHECK_INT(run_nop(controller), 0);
    }
    struct tepi_controller_info info;
    CHECK_INT(tepi_controller_info(controller, &info), 0);
    CHECK_INT(info.memory, 16 << 20);
    CHECK(tepi_controller_alive(controller));
    tepi_controller_close(controller);
    CHECK(card_endpoint_await_closed(&server, 1));
    card_endpoint_close(&server);
    CHECK_INT(access(server.path, F_OK), -1);
}

/* The doorbell thread goes to sleep in between: every command needs the wake-up. */
CHECK_CASE(a_card_that_sleeps_is_woken)
{
    struct card_endpoint server;
    const struct timespec pause = {.tv_nsec = 300000};
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    for (int i = 0; i < 500; i++) {
        CHECK_INT(run_nop(controller), 0);
        nanosleep(&pause, NULL);
    }
    CHECK_INT(tepi_controller_epoch(controller), 1);
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

CHECK_CASE(event_loop_hears_of_completions)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 2, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    for (int i = 0; i < 2000; i++) {
        struct pollfd event = {.fd = tepi_controller_eventfd(controller), .events = POLLIN};
        struct tepi_done done = {0};
        struct tepi_failure failure;
        uint16_t id;
        CHECK_INT(tepi_controller_submit(controller, &nop, &server, &id, &failure), 0);
        while (tepi_controller_collect(controller, &done, 1) == 0) {
            CHECK_INT(poll(&event, 1, 5000), 1);
        }
        CHECK(done.owner == &server);
        CHECK_INT(TEPI_TAG_STATUS(done.completion.tag), TEPI_FAULT_OK);
    }
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

static void *hammer(void *argument)
{
    for (int i = 0; i < 3000; i++) {
        if (run_nop(argument)) {
            return argument;
        }
    }
    return NULL;
}

/* Doorbells of threads that overtake each other: an older value must not hide a newer one. */
CHECK_CASE(threads_share_a_pair)
{
    struct card_endpoint server;
    pthread_t threads[4];
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    for (int i = 0; i < 4; i++) {
        CHECK_INT(pthread_create(&threads[i], NULL, hammer, controller), 0);
    }
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        CHECK(!failed);
    }
    CHECK_INT(tepi_controller_epoch(controller), 1);
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

CHECK_CASE(two_clients_side_by_side)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *one = attach(&server);
    struct tepi_controller *two = attach(&server);
    CHECK(one && two);
    CHECK_INT(tepi_endpoint_clients(server.endpoint), 2);
    CHECK_INT(run_nop(one), 0);
    CHECK_INT(run_nop(two), 0);
    tepi_controller_close(one);
    CHECK(card_endpoint_await_closed(&server, 1));
    CHECK_INT(run_nop(two), 0);
    tepi_controller_close(two);
    card_endpoint_close(&server);
}

CHECK_CASE(server_that_stops_is_a_card_that_is_gone_and_comes_back)
{
    struct card_endpoint server;
    struct tepi_failure failure;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    CHECK_INT(run_nop(controller), 0);
    card_endpoint_close(&server);
    CHECK(!tepi_controller_alive(controller));
    CHECK(run_nop(controller) < 0);
    CHECK_INT(tepi_controller_fault(controller), TEPI_FAULT_GONE);
    CHECK_INT(tepi_controller_reset(controller, &failure), -ENODEV);
    CHECK_INT(failure.fault, TEPI_FAULT_GONE);

    CHECK_INT(card_endpoint_serve(&server, 0), 0);
    CHECK_INT(tepi_controller_reset(controller, &failure), 0);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    for (int i = 0; i < 1000; i++) {
        CHECK_INT(run_nop(controller), 0);
    }
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

CHECK_CASE(surprise_removal_and_reset_through_the_socket)
{
    struct card_endpoint server;
    struct tepi_failure failure;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    tepi_card_detach(server.card);
    CHECK(!tepi_controller_alive(controller));
    tepi_card_attach(server.card);
    CHECK_INT(tepi_controller_reset(controller, &failure), 0);
    CHECK_INT(run_nop(controller), 0);
    tepi_card_inject(server.card, TEPI_FAULT_MEMORY_ECC, 7);
    CHECK(run_nop(controller) < 0);
    CHECK_INT(run_nop(controller), 0); /* reset by the loss */
    struct tepi_fault_entry log[4];
    CHECK_INT(tepi_controller_faults(controller, log, 4), 1);
    CHECK_INT(log[0].code, TEPI_FAULT_MEMORY_ECC);
    CHECK_INT(log[0].info, 7);
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

CHECK_CASE(leaving_and_coming_back)
{
    struct card_endpoint server;
    struct tepi_bus *bus = NULL;
    struct tepi_controller *controller = NULL;
    struct tepi_failure failure;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), 0);
    CHECK_INT(tepi_controller_open(bus, NULL, &controller, &failure), 0);
    tepi_bus_vfio_user_leave(bus);
    CHECK(!tepi_controller_alive(controller));
    CHECK(card_endpoint_await_closed(&server, 1));
    CHECK_INT(tepi_controller_reset(controller, &failure), 0);
    CHECK_INT(run_nop(controller), 0);
    tepi_controller_close(controller);
    card_endpoint_close(&server);
}

CHECK_CASE(no_server_no_card)
{
    struct tepi_bus *bus = NULL;
    char path[200];
    CHECK_INT(tepi_bus_vfio_user_open("/tmp/tepi-no-such-socket", &bus), -ENOENT);
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = 0;
    CHECK_INT(tepi_bus_vfio_user_open(path, &bus), -ENAMETOOLONG);
    CHECK_INT(tepi_bus_vfio_user_open("/dev/null", &bus), -ECONNREFUSED);
}

/* Accepts one client and answers its first message with `bytes`. */
struct stranger {
    int listener;
    const void *bytes;
    size_t size;
};

static void *answer(void *argument)
{
    struct stranger *stranger = argument;
    char message[4096];
    const int socket = accept(stranger->listener, NULL, NULL);
    ssize_t moved = recv(socket, message, sizeof message, 0);
    moved += send(socket, stranger->bytes, stranger->size, MSG_NOSIGNAL);
    close(socket);
    return moved < 0 ? argument : NULL;
}

static int open_at_stranger(const void *bytes, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stranger stranger = {socket(AF_UNIX, SOCK_STREAM, 0), bytes, size};
    struct tepi_bus *bus = NULL;
    pthread_t thread;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/tepi-stranger-%d", (int)getpid());
    unlink(address.sun_path);
    if (bind(stranger.listener, (void *)&address, sizeof address) || listen(stranger.listener, 1) ||
        pthread_create(&thread, NULL, answer, &stranger)) {
        return -errno;
    }
    const int result = tepi_bus_vfio_user_open(address.sun_path, &bus);
    pthread_join(thread, NULL);
    close(stranger.listener);
    unlink(address.sun_path);
    return result;
}

CHECK_CASE(servers_that_are_no_card)
{
    struct {
        struct tepi_vfio_user_header header;
        struct tepi_vfio_user_version version;
    } reply = {{0, TEPI_VFIO_USER_VERSION, sizeof reply, TEPI_VFIO_USER_REPLY, 0}, {1, 0}};
    CHECK_INT(open_at_stranger("HTTP/1.1 400 Bad Request\r\n\r\n", 28), -EPROTO);
    CHECK_INT(open_at_stranger("", 0), -ECONNRESET);
    CHECK_INT(open_at_stranger(&reply, sizeof reply), -EPROTONOSUPPORT);
    reply.version = (struct tepi_vfio_user_version){0, 9};
    CHECK_INT(open_at_stranger(&reply, sizeof reply), -EPROTONOSUPPORT);
    reply.header.size = UINT32_MAX;
    CHECK_INT(open_at_stranger(&reply, sizeof reply), -EPROTO);
    reply.header.size = sizeof reply.header;
    reply.header.flags |= TEPI_VFIO_USER_ERROR;
    reply.header.error = EPROTONOSUPPORT;
    CHECK_INT(open_at_stranger(&reply, sizeof reply.header), -EPROTONOSUPPORT);
}

CHECK_CASE(memory_of_this_process_alone_is_refused)
{
    struct card_endpoint server;
    struct tepi_bus *bus = NULL;
    uint64_t iova;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), 0);
    struct tepi_dma_memory memory = {.address = &server, .bytes = 4096, .fd = -1, .file = true};
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iova), -EINVAL);
    /* And a file that could be cut short, by the server. */
    memory.fd = memfd_create("unsealed", MFD_ALLOW_SEALING);
    CHECK_INT(ftruncate(memory.fd, 4096), 0);
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iova), -EPERM);
    close(memory.fd);
    bus->ops->close(bus);
    card_endpoint_close(&server);
}

/* The socket accepts and then says nothing, as a stopped process does. */
CHECK_CASE(wedged_server_times_out)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 1), 0);
    struct tepi_controller *controller = attach(&server);
    CHECK(controller);
    struct tepi_bus *bus = NULL;
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), -ECONNRESET); /* one client is its most */
    tepi_controller_close(controller);
    card_endpoint_close(&server);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    strcpy(address.sun_path, server.path);
    CHECK_INT(bind(listener, (void *)&address, sizeof address), 0);
    CHECK_INT(listen(listener, 1), 0);
    const uint64_t start = tepi_now_ns();
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), -ETIMEDOUT);
    CHECK(tepi_now_ns() - start < 8000000000u);
    close(listener);
    unlink(server.path);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(commands_come_back),
    CHECK_ENTRY(a_card_that_sleeps_is_woken),
    CHECK_ENTRY(event_loop_hears_of_completions),
    CHECK_ENTRY(threads_share_a_pair),
    CHECK_ENTRY(two_clients_side_by_side),
    CHECK_ENTRY(server_that_stops_is_a_card_that_is_gone_and_comes_back),
    CHECK_ENTRY(surprise_removal_and_reset_through_the_socket),
    CHECK_ENTRY(leaving_and_coming_back),
    CHECK_ENTRY(no_server_no_card),
    CHECK_ENTRY(servers_that_are_no_card),
    CHECK_ENTRY(memory_of_this_process_alone_is_refused),
    CHECK_ENTRY(wedged_server_times_out),
};

CHECK_MAIN(cases)
