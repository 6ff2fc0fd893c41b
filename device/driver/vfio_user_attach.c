/* SPDX-License-Identifier: Apache-2.0 */
/* Getting hold of a card behind a vfio-user socket: version, regions, doorbells, and again what the
 * card knew before. */
#include "driver/vfio_user_state.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define GREETING_NS 2000000000ull

/* The server said something else than a card's would. */
static int unlike(int result)
{
    return result > 0 ? -EPROTO : result;
}

static int greet(struct tepi_vfio_user_bus *self)
{
    char json[64];
    uint8_t reply[TEPI_VFIO_USER_DATA_MAX];
    const struct tepi_vfio_user_version mine = {TEPI_VFIO_USER_MAJOR, TEPI_VFIO_USER_MINOR};
    struct tepi_vfio_user_version theirs;
    const int length = snprintf(json, sizeof json, "{\"capabilities\":{\"max_msg_fds\":%u}}",
                                TEPI_VFIO_USER_FDS_MAX);
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_VERSION,
        .request = &mine,
        .request_bytes = sizeof mine,
        .data = json,
        .data_bytes = (size_t)length + 1,
        .timeout_ns = GREETING_NS,
        .reply = reply,
        .reply_most = sizeof reply,
    };
    const int result = tepi_vfio_user_ask(self, &call);
    if (result) {
        return result > 0 ? -result : result;
    }
    if (call.reply_bytes < sizeof theirs) {
        return -EPROTO;
    }
    memcpy(&theirs, reply, sizeof theirs);
    /* "VFIO_USER_VERSION": the same major, and no newer minor than was proposed. */
    return theirs.major == mine.major && theirs.minor <= mine.minor ? 0 : -EPROTONOSUPPORT;
}

static int check_device(struct tepi_vfio_user_bus *self)
{
    struct tepi_vfio_user_device_info info = {.argsz = sizeof info};
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DEVICE_GET_INFO,
        .request = &info,
        .request_bytes = sizeof info,
        .timeout_ns = TEPI_VFIO_USER_READ_NS,
        .reply = &info,
        .reply_most = sizeof info,
    };
    const int result = tepi_vfio_user_ask(self, &call);
    if (result) {
        return unlike(result);
    }
    return call.reply_bytes == sizeof info && (info.flags & VFIO_DEVICE_FLAGS_PCI) &&
                   info.regions > VFIO_PCI_CONFIG_REGION_INDEX &&
                   info.irqs > VFIO_PCI_MSIX_IRQ_INDEX
               ? 0
               : -EPROTO;
}

/* Maps the doorbells over those of the connection before. */
static int map_page(struct tepi_vfio_user_bus *self, int file, uint64_t offset)
{
    struct stat about;
    const int seals = fcntl(file, F_GET_SEALS);
    /* A page that the server could cut off would end this process. */
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(file, &about) || offset > INT64_MAX ||
        (uint64_t)about.st_size < offset + TEPI_DOORBELL_PAGE) {
        return -EPROTO;
    }
    void *page = mmap(self->page, TEPI_DOORBELL_PAGE, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED, file, (off_t)offset);
    return page == MAP_FAILED ? -errno : 0;
}

static int take_page(struct tepi_vfio_user_bus *self)
{
    struct {
        struct tepi_vfio_user_region_info info;
        struct tepi_vfio_user_sparse sparse;
    } region = {.info = {.argsz = sizeof region, .index = VFIO_PCI_BAR0_REGION_INDEX}};
    int file = -1;
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DEVICE_GET_REGION_INFO,
        .request = &region.info,
        .request_bytes = sizeof region.info,
        .timeout_ns = TEPI_VFIO_USER_READ_NS,
        .reply = &region,
        .reply_most = sizeof region,
        .got = &file,
        .got_most = 1,
    };
    int result = tepi_vfio_user_ask(self, &call);
    if (result) {
        return unlike(result);
    }
    /* The card's reply to the letter: one capability, one area, the doorbells. */
    const bool known =
        call.reply_bytes == sizeof region && call.got_count == 1 &&
        region.info.size >= TEPI_BAR0_BYTES && region.info.cap_offset == sizeof region.info &&
        region.sparse.id == VFIO_REGION_INFO_CAP_SPARSE_MMAP && region.sparse.areas == 1 &&
        region.sparse.offset == TEPI_REG_DOORBELL && region.sparse.size == TEPI_DOORBELL_PAGE &&
        region.info.offset <= INT64_MAX - TEPI_BAR0_BYTES;
    result = known ? map_page(self, file, region.info.offset + region.sparse.offset) : -EPROTO;
    if (call.got_count == 1) {
        close(file);
    }
    return result;
}

/* Puts a connection's ioeventfd where the bus has them; takes it over. */
static int place_bell(int *place, int fd)
{
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    if (*place < 0) {
        *place = fd;
        return 0;
    }
    const int result = dup3(fd, *place, O_CLOEXEC) < 0 ? -errno : 0;
    close(fd);
    return result;
}

static int take_bells(struct tepi_vfio_user_bus *self)
{
    struct {
        struct tepi_vfio_user_io_fds info;
        struct tepi_vfio_user_io_fd subs[TEPI_QUEUES_MAX];
    } area = {.info = {.argsz = sizeof area, .index = VFIO_PCI_BAR0_REGION_INDEX}};
    int fds[TEPI_VFIO_USER_FDS_MAX];
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS,
        .request = &area.info,
        .request_bytes = sizeof area.info,
        .timeout_ns = TEPI_VFIO_USER_READ_NS,
        .reply = &area,
        .reply_most = sizeof area,
        .got = fds,
        .got_most = TEPI_VFIO_USER_FDS_MAX,
    };
    int result = unlike(tepi_vfio_user_ask(self, &call));
    if (result) {
        return result;
    }
    const uint32_t count = area.info.count;
    bool known = call.reply_bytes >= sizeof area.info && count == call.got_count &&
                 call.reply_bytes == sizeof area.info + count * sizeof area.subs[0];
    for (uint32_t i = 0; known && i < count; i++) {
        known = area.subs[i].type == TEPI_VFIO_USER_IOEVENTFD && area.subs[i].fd_index == i &&
                area.subs[i].offset == TEPI_REG_DOORBELL + i * TEPI_REG_DOORBELL_STRIDE;
    }
    for (uint32_t i = 0; i < call.got_count; i++) {
        if (known && result == 0) {
            result = place_bell(&self->bells[i], fds[i]);
        } else {
            close(fds[i]);
        }
    }
    atomic_store(&self->bell_count, known && result == 0 ? count : 0);
    return known ? result : -EPROTO;
}

/* Lets the device answer on BAR0 and reach memory, as firmware does with a PCI device. */
static int enable_device(struct tepi_vfio_user_bus *self)
{
    const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    struct tepi_vfio_user_access access = {
        .offset = PCI_COMMAND, .region = VFIO_PCI_CONFIG_REGION_INDEX, .count = sizeof command};
    struct tepi_vfio_user_call call = {
        .command = TEPI_VFIO_USER_REGION_WRITE,
        .request = &access,
        .request_bytes = sizeof access,
        .data = &command,
        .data_bytes = sizeof command,
        .timeout_ns = TEPI_VFIO_USER_WRITE_NS,
        .reply = &access,
        .reply_most = sizeof access,
    };
    return unlike(tepi_vfio_user_ask(self, &call));
}

int tepi_vfio_user_attach(struct tepi_vfio_user_bus *self)
{
    const int socket = tepi_vfio_user_connect(self->path, GREETING_NS);
    if (socket < 0) {
        return socket;
    }
    self->socket = socket;
    int result = greet(self);
    result = result ? result : check_device(self);
    result = result ? result : take_page(self);
    result = result ? result : take_bells(self);
    result = result ? result : enable_device(self);
    for (uint32_t i = 0; i < TEPI_VFIO_USER_MAPS_MAX && result == 0; i++) {
        if (self->mappings[i].bytes) {
            result = tepi_vfio_user_map(self, &self->mappings[i]);
        }
    }
    for (uint32_t vector = 0; vector < TEPI_QUEUES_MAX && result == 0; vector++) {
        if (self->vectors[vector] >= 0) {
            result = tepi_vfio_user_vector(self, vector);
        }
    }
    if (result) {
        tepi_vfio_user_lose(self);
    }
    return result;
}
