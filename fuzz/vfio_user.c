/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as what a vfio-user client sends. Sound if no request gets through that
 * reaches outside a region, a vector or the address space, and every reply is whole and in bounds.
 */
#include "endpoint/config_space.h"
#include "endpoint/protocol.h"
#include "seed.h"
#include <stdlib.h>
#include <string.h>

#define MUST(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum { PAIRS = 4 };

static void check_reply(const struct tepi_reply *reply, const struct tepi_request *request)
{
    struct tepi_vfio_user_header header;
    memcpy(&header, reply->bytes, sizeof header);
    MUST(reply->size <= sizeof reply->bytes && header.size == reply->size);
    MUST(header.id == request->id && header.command == request->command);
    MUST((header.flags & TEPI_VFIO_USER_TYPE) == TEPI_VFIO_USER_REPLY);
}

static void access_region(const struct tepi_request *request, struct tepi_config_space *space,
                          struct tepi_reply *reply)
{
    const struct tepi_vfio_user_access *access = &request->access;
    const struct tepi_region region = tepi_region_at(access->region);
    MUST(access->offset < region.size && access->count <= region.size - access->offset);
    if (request->command == TEPI_VFIO_USER_REGION_READ) {
        memset(tepi_reply_read(reply, request), 0xff, access->count);
        return;
    }
    tepi_reply_write(reply, request);
    if (access->region == VFIO_PCI_CONFIG_REGION_INDEX) {
        tepi_config_write(space, (uint32_t)access->offset, request->data, access->count);
        MUST(space->bytes[0] == (TEPI_PCI_VENDOR & 0xff)); /* read-only stays */
    } else if (access->region == VFIO_PCI_BAR4_REGION_INDEX) {
        tepi_msix_write(space, (uint32_t)access->offset, request->data, access->count);
    }
}

static void serve(const struct tepi_request *request, const struct tepi_peer *peer, uint32_t fds,
                  struct tepi_config_space *space)
{
    struct tepi_reply reply;
    tepi_reply_empty(&reply, request);
    switch (request->command) {
    case TEPI_VFIO_USER_VERSION:
        tepi_reply_version(&reply, request, peer);
        break;
    case TEPI_VFIO_USER_DMA_MAP:
        MUST(fds == 1 && request->map.size && request->map.address % TEPI_VFIO_USER_PAGE == 0 &&
             request->map.address + request->map.size > request->map.address);
        break;
    case TEPI_VFIO_USER_DMA_UNMAP:
        tepi_reply_unmap(&reply, request);
        break;
    case TEPI_VFIO_USER_DEVICE_GET_INFO:
        tepi_reply_device(&reply, request);
        break;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_INFO:
        (void)tepi_reply_region(&reply, request);
        break;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        MUST(tepi_reply_io_fds(&reply, request, peer, PAIRS) <= PAIRS);
        break;
    case TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO:
        tepi_reply_irq(&reply, request);
        break;
    case TEPI_VFIO_USER_DEVICE_SET_IRQS:
        MUST(request->irq_set.start + request->irq_set.count <= TEPI_QUEUES_MAX);
        break;
    case TEPI_VFIO_USER_DEVICE_RESET:
        break;
    default:
        access_region(request, space, &reply);
        break;
    }
    check_reply(&reply, request);
}

/* Each message is copied to where the sanitizers see its end. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct tepi_peer peer = {0};
    struct tepi_config_space space;
    tepi_config_init(&space);
    while (size >= sizeof(struct tepi_vfio_user_header)) {
        struct tepi_vfio_user_header header;
        struct tepi_request request;
        memcpy(&header, data, sizeof header);
        const int64_t rest = tepi_message_rest(&header);
        if (rest < 0 || (size_t)rest > size - sizeof header) {
            break;
        }
        uint8_t *message = malloc(header.size);
        MUST(message);
        memcpy(message, data, header.size);
        /* As many descriptors as a field says that replies alone use. */
        const uint32_t fds = header.error % (TEPI_VFIO_USER_FDS_MAX + 1);
        const int error = tepi_request_read(message, header.size, fds, &peer, &request);
        MUST(error >= 0 && error < 4096);
        if (error) {
            struct tepi_reply reply;
            tepi_reply_error(&reply, &request, error);
            check_reply(&reply, &request);
        } else {
            serve(&request, &peer, fds, &space);
        }
        free(message);
        data += header.size;
        size -= header.size;
    }
    return 0;
}

struct writer {
    uint8_t *data;
    size_t size;
    uint16_t id;
};

static void say(struct writer *writer, uint16_t command, uint32_t fds, const void *payload,
                size_t bytes)
{
    const struct tepi_vfio_user_header header = {
        .id = writer->id++,
        .command = command,
        .size = (uint32_t)(sizeof header + bytes),
        .error = fds,
    };
    memcpy(writer->data + writer->size, &header, sizeof header);
    if (bytes > 0) {
        memcpy(writer->data + writer->size + sizeof header, payload, bytes);
    }
    writer->size += sizeof header + bytes;
}

/* A client's whole conversation. */
size_t fuzz_seed(uint8_t *data, size_t room)
{
    static const char hello[] =
        "\0\0\1\0{\"capabilities\":{\"max_msg_fds\":8,\"x\":[1,{\"y\":\"z\"}],"
        "\"max_data_xfer_size\":65536}}";
    struct writer writer = {.data = data};
    const struct tepi_vfio_user_dma_map map = {sizeof map, 3, 0, 0x200000000, 0x400000};
    const struct tepi_vfio_user_dma_unmap unmap = {sizeof unmap, 0, 0x200000000, 0x400000};
    const struct tepi_vfio_user_device_info info = {.argsz = sizeof info};
    const struct tepi_vfio_user_region_info region = {.argsz = 64};
    const struct tepi_vfio_user_io_fds io_fds = {.argsz = 1024};
    const struct tepi_vfio_user_irq_info irq = {.argsz = sizeof irq, .index = 2};
    const struct tepi_vfio_user_irq_set set = {sizeof set, 0x24, 2, 1, 2};
    struct {
        struct tepi_vfio_user_access access;
        uint64_t value;
    } write = {{TEPI_REG_QUEUE, VFIO_PCI_BAR0_REGION_INDEX, 8}, 1};
    if (room < 2048) {
        return 0;
    }
    say(&writer, TEPI_VFIO_USER_VERSION, 0, hello, sizeof hello);
    say(&writer, TEPI_VFIO_USER_DEVICE_GET_INFO, 0, &info, sizeof info);
    say(&writer, TEPI_VFIO_USER_DEVICE_GET_REGION_INFO, 0, &region, sizeof region);
    say(&writer, TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS, 0, &io_fds, sizeof io_fds);
    say(&writer, TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO, 0, &irq, sizeof irq);
    say(&writer, TEPI_VFIO_USER_DEVICE_SET_IRQS, 2, &set, sizeof set);
    say(&writer, TEPI_VFIO_USER_DMA_MAP, 1, &map, sizeof map);
    say(&writer, TEPI_VFIO_USER_REGION_WRITE, 0, &write, sizeof write);
    write.access.region = VFIO_PCI_CONFIG_REGION_INDEX;
    write.access.offset = 0;
    say(&writer, TEPI_VFIO_USER_REGION_WRITE, 0, &write, sizeof write);
    say(&writer, TEPI_VFIO_USER_REGION_READ, 0, &write.access, sizeof write.access);
    say(&writer, TEPI_VFIO_USER_DMA_UNMAP, 0, &unmap, sizeof unmap);
    say(&writer, TEPI_VFIO_USER_DEVICE_RESET, 0, NULL, 0);
    return writer.size;
}
