/* SPDX-License-Identifier: Apache-2.0 */
/* The endpoint against clients that mean it no good, and its socket. */
#include "endpoint/endpoint.h"

#include "check.h"
#include "driver/bus_vfio_user.h"
#include "driver/controller.h"
#include "driver/vfio_user_call.h"
#include "endpoint/card_endpoint.h"
#include "endpoint/mappings.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SECOND 1000000000ull

static int greet(const struct card_endpoint *server)
{
    const struct tepi_vfio_user_version version = {0, 1};
    uint8_t reply[512];
    struct tepi_vfio_user_call call = {.command = TEPI_VFIO_USER_VERSION,
                                       .request = &version,
                                       .request_bytes = sizeof version,
                                       .timeout_ns = 5 * SECOND,
                                       .reply = reply,
                                       .reply_most = sizeof reply};
    const int socket = tepi_vfio_user_connect(server->path, SECOND);
    if (socket >= 0 && tepi_vfio_user_do(socket, 0, &call)) {
        close(socket);
        return -1;
    }
    return socket;
}

static int call(int socket, uint16_t command, const void *request, size_t bytes, const int *fds,
                uint32_t fd_count)
{
    uint8_t reply[512];
    struct tepi_vfio_user_call one = {.command = command,
                                      .request = request,
                                      .request_bytes = bytes,
                                      .fds = fds,
                                      .fd_count = fd_count,
                                      .timeout_ns = 20 * SECOND,
                                      .reply = reply,
                                      .reply_most = sizeof reply};
    return tepi_vfio_user_do(socket, 7, &one);
}

static int sealed_memory(uint64_t bytes, int seals)
{
    const int fd = memfd_create("client", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (ftruncate(fd, (off_t)bytes) || (seals && fcntl(fd, F_ADD_SEALS, seals))) {
        close(fd);
        return -1;
    }
    return fd;
}

static bool good_client_is_served(const struct card_endpoint *server)
{
    const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};
    struct tepi_bus *bus = NULL;
    struct tepi_controller *controller = NULL;
    struct tepi_completion done;
    struct tepi_failure failure;
    if (tepi_bus_vfio_user_open(server->path, &bus) ||
        tepi_controller_open(bus, NULL, &controller, &failure)) {
        return false;
    }
    const bool served = tepi_controller_command(controller, &nop, &done, &failure) == 0;
    tepi_controller_close(controller);
    return served;
}

CHECK_CASE(socket_of_a_live_server_is_left_alone)
{
    struct card_endpoint server;
    struct stat about;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    CHECK_INT(stat(server.path, &about), 0);
    CHECK_INT(about.st_mode & 0777, 0660);
    struct card_endpoint second = {.workers = 1};
    strcpy(second.path, server.path);
    CHECK_INT(card_endpoint_serve(&second, 0), -EADDRINUSE);
    CHECK(good_client_is_served(&server));
    card_endpoint_close(&server);
}

CHECK_CASE(socket_left_behind_is_replaced)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    card_endpoint_close(&server);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, server.path);
    const int dead = socket(AF_UNIX, SOCK_STREAM, 0);
    CHECK_INT(bind(dead, (void *)&address, sizeof address), 0);
    close(dead);
    CHECK_INT(card_endpoint_serve(&server, 0), 0);
    CHECK(good_client_is_served(&server));
    card_endpoint_close(&server);
    /* Anything else at the path is not ours to remove. */
    const int file = open(server.path, O_CREAT | O_WRONLY, 0600);
    CHECK_INT(card_endpoint_serve(&server, 0), -EEXIST);
    CHECK_INT(access(server.path, F_OK), 0);
    close(file);
    unlink(server.path);
}

CHECK_CASE(mappings_over_each_other_and_beyond_their_file)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    const int socket = greet(&server);
    const int good = sealed_memory(0x4000, F_SEAL_SHRINK);
    const int loose = sealed_memory(0x4000, 0);
    const uint16_t map_command = TEPI_VFIO_USER_DMA_MAP;
    struct tepi_vfio_user_dma_map map = {32, 3, 0, 0x100000, 0x4000};
    CHECK(socket >= 0);
    CHECK_INT(call(socket, map_command, &map, sizeof map, &loose, 1), EPERM);
    CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), 0);
    CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), EEXIST);
    map.address = 0x103000;
    CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), EEXIST);
    map.address = 0x200000;
    map.offset = 0x1000;
    CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), EINVAL);
    struct tepi_vfio_user_dma_unmap unmap = {24, 0, 0x100000, 0x3000};
    CHECK_INT(call(socket, TEPI_VFIO_USER_DMA_UNMAP, &unmap, sizeof unmap, NULL, 0), ENOENT);
    unmap.size = 0x4000;
    CHECK_INT(call(socket, TEPI_VFIO_USER_DMA_UNMAP, &unmap, sizeof unmap, NULL, 0), 0);
    CHECK_INT(call(socket, TEPI_VFIO_USER_DMA_UNMAP, &unmap, sizeof unmap, NULL, 0), ENOENT);
    /* As many as there may be, and one more. */
    map = (struct tepi_vfio_user_dma_map){32, 3, 0, 0, 0x1000};
    for (uint32_t i = 0; i < TEPI_VFIO_USER_MAPS_MAX; i++) {
        map.address = i * 0x1000ull;
        CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), 0);
    }
    map.address = TEPI_VFIO_USER_MAPS_MAX * 0x1000ull;
    CHECK_INT(call(socket, map_command, &map, sizeof map, &good, 1), ENOSPC);
    close(good);
    close(loose);
    close(socket);
    CHECK(card_endpoint_await_closed(&server, 1));
    card_endpoint_close(&server);
}

/* Registers, the page of doorbells and what lies behind it, in both widths, and across each end. */
CHECK_CASE(every_offset_of_bar0_is_answered)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    const int socket = greet(&server);
    CHECK(socket >= 0);
    for (uint32_t offset = 0; offset < TEPI_BAR0_BYTES; offset++) {
        for (uint32_t width = 4; width <= 8; width += 4) {
            const struct tepi_vfio_user_access access = {offset, 0, width};
            const bool page = offset >= TEPI_REG_DOORBELL && offset < TEPI_REG_BUSY;
            const bool whole = page ? offset + width <= TEPI_REG_BUSY : offset % width == 0;
            const bool inside = offset + width <= TEPI_BAR0_BYTES;
            const int result =
                call(socket, TEPI_VFIO_USER_REGION_READ, &access, sizeof access, NULL, 0);
            CHECK_INT(result, whole && inside ? 0 : EINVAL);
        }
    }
    close(socket);
    CHECK(good_client_is_served(&server));
    card_endpoint_close(&server);
}

static int write_register(int socket, uint32_t offset, uint64_t value, uint32_t width)
{
    struct {
        struct tepi_vfio_user_access access;
        uint64_t value;
    } write = {{offset, VFIO_PCI_BAR0_REGION_INDEX, width}, value};
    return call(socket, TEPI_VFIO_USER_REGION_WRITE, &write, sizeof write.access + width, NULL, 0);
}

/* Rings pair 0 up in memory of the client's own. */
static int attach_pair(int socket, uint64_t iova)
{
    int error = write_register(socket, TEPI_REG_CONTROL, TEPI_CONTROL_ENABLE, 4);
    error = error ? error : write_register(socket, TEPI_REG_QUEUE, iova, 8);
    error = error ? error : write_register(socket, TEPI_REG_QUEUE + 8, iova + 0x1000, 8);
    error = error ? error : write_register(socket, TEPI_REG_QUEUE + 0x10, 16, 4);
    return error ? error : write_register(socket, TEPI_REG_QUEUE + 0x18, 1, 4);
}

CHECK_CASE(client_dies_while_the_card_holds_its_memory)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    const int socket = greet(&server);
    const int memory = sealed_memory(0x2000, F_SEAL_SHRINK);
    const struct tepi_vfio_user_dma_map map = {32, 3, 0, 0x100000, 0x2000};
    CHECK_INT(call(socket, TEPI_VFIO_USER_DMA_MAP, &map, sizeof map, &memory, 1), 0);
    CHECK_INT(attach_pair(socket, 0x100000), 0);
    /* The rings are in use: an unmap waits for them, in vain, and the client goes meanwhile. */
    const struct tepi_vfio_user_header header = {.command = TEPI_VFIO_USER_DMA_UNMAP,
                                                 .size = sizeof header +
                                                         sizeof(struct tepi_vfio_user_dma_unmap)};
    const struct tepi_vfio_user_dma_unmap unmap = {24, 0, 0x100000, 0x2000};
    CHECK_INT(send(socket, &header, sizeof header, 0), sizeof header);
    CHECK_INT(send(socket, &unmap, sizeof unmap, 0), sizeof unmap);
    usleep(50000);
    CHECK_INT(server.closed, 0);
    close(socket);
    close(memory);
    CHECK(card_endpoint_await_closed(&server, 1));
    card_endpoint_close(&server);
}

CHECK_CASE(eventfd_that_blocks_holds_nobody_up)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    const int socket = greet(&server);
    const int memory = sealed_memory(0x2000, F_SEAL_SHRINK);
    const int event = eventfd(0, EFD_CLOEXEC); /* blocking */
    const uint64_t full = UINT64_MAX - 1;
    const struct tepi_vfio_user_dma_map map = {32, 3, 0, 0x100000, 0x2000};
    const struct tepi_vfio_user_irq_set set = {20, 0x24, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1};
    const struct tepi_vfio_user_irq_set trigger = {20, 0x21, VFIO_PCI_MSIX_IRQ_INDEX, 0, 1};
    CHECK_INT(call(socket, TEPI_VFIO_USER_DMA_MAP, &map, sizeof map, &memory, 1), 0);
    /* What is no eventfd is refused. */
    CHECK_INT(call(socket, TEPI_VFIO_USER_DEVICE_SET_IRQS, &set, sizeof set, &memory, 1), EINVAL);
    CHECK_INT(call(socket, TEPI_VFIO_USER_DEVICE_SET_IRQS, &set, sizeof set, &event, 1), 0);
    uint64_t count;
    CHECK_INT(read(event, &count, sizeof count), sizeof count);
    CHECK_INT(write(event, &full, sizeof full), sizeof full);
    for (int i = 0; i < 300; i++) { /* more than the card keeps account of at a time */
        CHECK_INT(call(socket, TEPI_VFIO_USER_DEVICE_SET_IRQS, &trigger, sizeof trigger, NULL, 0),
                  0);
    }
    CHECK_INT(read(event, &count, sizeof count), sizeof count);
    CHECK_INT(call(socket, TEPI_VFIO_USER_DEVICE_SET_IRQS, &trigger, sizeof trigger, NULL, 0), 0);
    CHECK_INT(read(event, &count, sizeof count), sizeof count);
    close(event);
    close(memory);
    close(socket);
    card_endpoint_close(&server);
}

/* Says nothing, or stops in the middle; the others do not notice. */
CHECK_CASE(silent_clients_delay_nobody)
{
    struct card_endpoint server;
    CHECK_INT(card_endpoint_open(&server, 1, 8), 0);
    const int silent = tepi_vfio_user_connect(server.path, SECOND);
    const int half = greet(&server);
    const struct tepi_vfio_user_header header = {.command = TEPI_VFIO_USER_DMA_MAP, .size = 48};
    CHECK_INT(send(half, &header, sizeof header, 0), sizeof header);
    /* Asks and never reads: its own thread waits, no other. */
    const int deaf = greet(&server);
    const struct {
        struct tepi_vfio_user_header header;
        struct tepi_vfio_user_access access;
    } ask = {{.command = TEPI_VFIO_USER_REGION_READ, .size = sizeof ask},
             {0, VFIO_PCI_CONFIG_REGION_INDEX, 256}};
    while (send(deaf, &ask, sizeof ask, MSG_DONTWAIT) == (ssize_t)sizeof ask) {
    }
    CHECK_INT(errno, EAGAIN);
    CHECK(good_client_is_served(&server));
    close(silent);
    close(half);
    close(deaf);
    CHECK(card_endpoint_await_closed(&server, 3));
    card_endpoint_close(&server);
}

CHECK_CASE(no_device_left)
{
    struct card_endpoint server;
    struct tepi_bus *bus = NULL;
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    atomic_store(&server.room, 1);
    const int first = greet(&server);
    CHECK(first >= 0);
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), -ENOSPC);
    close(first);
    CHECK(card_endpoint_await_closed(&server, 1));
    CHECK(good_client_is_served(&server));
    card_endpoint_close(&server);
}

static bool twice(void *context)
{
    uint32_t *asks = context;
    return ++*asks < 2;
}

CHECK_CASE(unmap_waits_for_the_last_access)
{
    struct tepi_mappings mappings = {0};
    const int memory = sealed_memory(0x2000, F_SEAL_SHRINK);
    const struct tepi_vfio_user_dma_map map = {32, 3, 0, 0x7000, 0x2000};
    tepi_mappings_init(&mappings);
    CHECK_INT(tepi_mappings_add(&mappings, &map, memory), 0);
    CHECK(!tepi_mappings_acquire(&mappings, 0x6fff, 1));
    CHECK(!tepi_mappings_acquire(&mappings, 0x8fff, 2));
    CHECK(!tepi_mappings_acquire(&mappings, 0x9000, 0));
    CHECK(!tepi_mappings_acquire(&mappings, 0x7000, UINT64_MAX));
    unsigned char *byte = tepi_mappings_acquire(&mappings, 0x8fff, 1);
    CHECK(byte);
    *byte = 1;
    /* In use: patience runs out, and the mapping is as it was. */
    uint32_t asks = 0;
    CHECK_INT(tepi_mappings_remove(&mappings, 0x7000, 0x2000, twice, &asks), EBUSY);
    CHECK_INT(asks, 2);
    CHECK(tepi_mappings_acquire(&mappings, 0x7000, 0x2000));
    tepi_mappings_release(&mappings, 0x7000);
    tepi_mappings_release(&mappings, 0x8fff);
    CHECK_INT(tepi_mappings_remove(&mappings, 0x7000, 0x2000, twice, &asks), 0);
    CHECK(!tepi_mappings_acquire(&mappings, 0x7000, 1));
    tepi_mappings_destroy(&mappings);
    close(memory);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(socket_of_a_live_server_is_left_alone),
    CHECK_ENTRY(socket_left_behind_is_replaced),
    CHECK_ENTRY(every_offset_of_bar0_is_answered),
    CHECK_ENTRY(mappings_over_each_other_and_beyond_their_file),
    CHECK_ENTRY(client_dies_while_the_card_holds_its_memory),
    CHECK_ENTRY(eventfd_that_blocks_holds_nobody_up),
    CHECK_ENTRY(silent_clients_delay_nobody),
    CHECK_ENTRY(no_device_left),
    CHECK_ENTRY(unmap_waits_for_the_last_access),
};

CHECK_MAIN(cases)
