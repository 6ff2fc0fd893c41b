/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that say anything, ring anything and go at any moment, several at a time. Sound if the
 * endpoint lives, serves a good client all the while, and keeps nothing of theirs. */
#include "card/builder.h"
#include "check.h"
#include "driver/bus_vfio_user.h"
#include "driver/controller.h"
#include "driver/vfio_user_call.h"
#include "endpoint/card_endpoint.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND 1000000000ull

enum { HOSTS = 3, LIVES = 60, ACTS = 40, MEMORY = 0x8000 };

struct hostile {
    const struct card_endpoint *server;
    struct chance chance;
    int socket;
    int memory;
    unsigned char *page; /* doorbells, or NULL */
    unsigned char *rings;
};

static int say(struct hostile *self, uint16_t command, const void *request, size_t bytes,
               const int *fds, uint32_t fd_count, int *got)
{
    uint8_t reply[TEPI_VFIO_USER_BYTES_MAX];
    struct tepi_vfio_user_call call = {.command = command,
                                       .request = request,
                                       .request_bytes = bytes,
                                       .fds = fds,
                                       .fd_count = fd_count,
                                       .timeout_ns = 30 * SECOND,
                                       .reply = reply,
                                       .reply_most = sizeof reply,
                                       .got = got,
                                       .got_most = got ? 1 : 0};
    const int result = tepi_vfio_user_do(self->socket, 0, &call);
    return result || !got || call.got_count == 1 ? result : EIO;
}

/* Greets, maps the doorbells and some memory, as a good client does. */
static void begin(struct hostile *self)
{
    const struct tepi_vfio_user_version version = {0, 1};
    const struct tepi_vfio_user_region_info info = {.argsz = 64};
    const struct tepi_vfio_user_dma_map map = {32, 3, 0, 0x100000, MEMORY};
    int page = -1;
    self->page = NULL;
    self->socket = tepi_vfio_user_connect(self->server->path, SECOND);
    if (chance_below(&self->chance, 8) == 0) {
        return; /* rude from the first message on */
    }
    say(self, TEPI_VFIO_USER_VERSION, &version, sizeof version, NULL, 0, NULL);
    say(self, TEPI_VFIO_USER_DMA_MAP, &map, sizeof map, &self->memory, 1, NULL);
    if (say(self, TEPI_VFIO_USER_DEVICE_GET_REGION_INFO, &info, sizeof info, NULL, 0, &page) == 0) {
        void *mapped = mmap(NULL, TEPI_DOORBELL_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, page,
                            TEPI_REG_DOORBELL);
        self->page = mapped == MAP_FAILED ? NULL : mapped;
        if (ftruncate(page, 0) == 0) {
            abort(); /* it must be sealed */
        }
        close(page);
    }
}

static void write_register(struct hostile *self, uint32_t offset, uint64_t value, uint32_t width)
{
    struct {
        struct tepi_vfio_user_access access;
        uint64_t value;
    } write = {{offset, VFIO_PCI_BAR0_REGION_INDEX, width}, value};
    say(self, TEPI_VFIO_USER_REGION_WRITE, &write, sizeof write.access + width, NULL, 0, NULL);
}

static void enable_pair(struct hostile *self)
{
    const uint32_t pair = chance_below(&self->chance, 4);
    const uint32_t at = TEPI_REG_QUEUE + pair * TEPI_REG_QUEUE_STRIDE;
    write_register(self, TEPI_REG_CONTROL, TEPI_CONTROL_ENABLE, 4);
    write_register(self, at + TEPI_QUEUE_SQ_BASE, 0x100000, 8);
    write_register(self, at + TEPI_QUEUE_CQ_BASE, 0x104000, 8);
    write_register(self, at + TEPI_QUEUE_ENTRIES, 16, 4);
    write_register(self, at + TEPI_QUEUE_ENABLE, 1 + 2 * chance_below(&self->chance, 2), 4);
}

/* Entries of all kinds, and a doorbell that may be right. */
static void ring(struct hostile *self)
{
    const uint32_t pair = chance_below(&self->chance, 4);
    struct tepi_submission *entry = (void *)(self->rings + 64 * chance_below(&self->chance, 16));
    chance_fill(&self->chance, entry, sizeof *entry);
    entry->opcode = (uint8_t)chance_below(&self->chance, 6);
    entry->generation = 1 + chance_below(&self->chance, 3);
    entry->list_iova = entry->data_iova = 0x100000 + chance_below(&self->chance, 2 * MEMORY);
    if (self->page) {
        uint32_t *doorbell = (void *)(self->page + 8 * pair);
        const uint32_t step = chance_below(&self->chance, 8);
        __atomic_store_n(doorbell, step < 7 ? *doorbell + step : chance_next(&self->chance),
                         __ATOMIC_SEQ_CST);
    }
}

static void odd_message(struct hostile *self)
{
    const uint16_t command = (uint16_t)chance_below(&self->chance, 16);
    const size_t bytes = chance_below(&self->chance, 48);
    const uint32_t fd_count = chance_below(&self->chance, 3);
    const int fds[2] = {self->memory, eventfd(0, 0)};
    uint32_t words[12];
    for (int i = 0; i < 12; i++) {
        const uint32_t kind = chance_below(&self->chance, 4);
        words[i] = kind ? chance_below(&self->chance, 64) << 4 * kind : chance_next(&self->chance);
    }
    say(self, command, words, bytes, fds, fd_count, NULL);
    close(fds[1]);
}

static void scribble(struct hostile *self)
{
    if (self->page) {
        uint32_t *word = (void *)(self->page + 4 * chance_below(&self->chance, 1024));
        __atomic_store_n(word, chance_next(&self->chance), __ATOMIC_SEQ_CST);
    }
}

/* A header that promises more than comes, and the end. */
static void break_off(struct hostile *self)
{
    uint8_t bytes[24];
    chance_fill(&self->chance, bytes, sizeof bytes);
    const struct tepi_vfio_user_header header = {.command = TEPI_VFIO_USER_REGION_WRITE,
                                                 .size = 16 + chance_below(&self->chance, 4096)};
    memcpy(bytes, &header, sizeof header);
    const ssize_t sent =
        send(self->socket, bytes, 1 + chance_below(&self->chance, sizeof bytes - 1), MSG_NOSIGNAL);
    (void)sent;
}

static void *live(void *argument)
{
    struct hostile *self = argument;
    for (int life = 0; life < LIVES; life++) {
        begin(self);
        const uint32_t acts = chance_below(&self->chance, ACTS);
        for (uint32_t i = 0; i < acts; i++) {
            switch (chance_below(&self->chance, 6)) {
            case 0:
                enable_pair(self);
                break;
            case 1:
                odd_message(self);
                break;
            case 2:
                scribble(self);
                break;
            default:
                ring(self);
                break;
            }
        }
        if (chance_below(&self->chance, 2)) {
            break_off(self);
        }
        close(self->socket);
        if (self->page) {
            munmap(self->page, TEPI_DOORBELL_PAGE);
        }
    }
    return NULL;
}

static int open_files(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (readdir(folder)) {
        count++;
    }
    closedir(folder);
    return count;
}

CHECK_CASE(good_client_among_hostile_ones)
{
    const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};
    struct card_endpoint server;
    struct hostile hosts[HOSTS];
    pthread_t threads[HOSTS];
    struct tepi_bus *bus = NULL;
    struct tepi_controller *controller = NULL;
    struct tepi_failure failure;
    const int files = open_files();
    CHECK_INT(card_endpoint_open(&server, 1, 0), 0);
    CHECK_INT(tepi_bus_vfio_user_open(server.path, &bus), 0);
    CHECK_INT(tepi_controller_open(bus, NULL, &controller, &failure), 0);
    for (int i = 0; i < HOSTS; i++) {
        struct hostile *host = &hosts[i];
        *host = (struct hostile){.server = &server, .chance = {.state = 77u + (unsigned)i}};
        host->memory = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        CHECK_INT(ftruncate(host->memory, MEMORY), 0);
        CHECK_INT(fcntl(host->memory, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        host->rings = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_SHARED, host->memory, 0);
        CHECK(host->rings != MAP_FAILED);
        CHECK_INT(pthread_create(&threads[i], NULL, live, host), 0);
    }
    for (int i = 0; i < 20000; i++) {
        struct tepi_completion done;
        CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    }
    for (int i = 0; i < HOSTS; i++) {
        pthread_join(threads[i], NULL);
        munmap(hosts[i].rings, MEMORY);
        close(hosts[i].memory);
    }
    CHECK_INT(tepi_controller_epoch(controller), 1); /* never disturbed */
    tepi_controller_close(controller);
    card_endpoint_close(&server);
    CHECK_INT(server.opened, server.closed);
    CHECK_INT(open_files(), files);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(good_client_among_hostile_ones),
};

CHECK_MAIN(cases)
