/* SPDX-License-Identifier: Apache-2.0 */
/* Replies of the vfio-user server: what the card is made of, in the specification's layout. */
#include "endpoint/protocol.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static void begin(struct tepi_reply *reply, const struct tepi_request *request, int error)
{
    const struct tepi_vfio_user_header header = {
        .id = request->id,
        .command = request->command,
        .size = sizeof header,
        .flags = TEPI_VFIO_USER_REPLY | (error ? TEPI_VFIO_USER_ERROR : 0),
        .error = (uint32_t)error,
    };
    memcpy(reply->bytes, &header, sizeof header);
    reply->size = sizeof header;
}

/* Appends, and keeps the header's size right. */
static void add(struct tepi_reply *reply, const void *part, size_t bytes)
{
    assert(reply->size + bytes <= sizeof reply->bytes);
    memcpy(reply->bytes + reply->size, part, bytes);
    reply->size += bytes;
    const uint32_t size = (uint32_t)reply->size;
    memcpy(reply->bytes + offsetof(struct tepi_vfio_user_header, size), &size, sizeof size);
}

void tepi_reply_error(struct tepi_reply *reply, const struct tepi_request *request, int error)
{
    begin(reply, request, error);
}

void tepi_reply_empty(struct tepi_reply *reply, const struct tepi_request *request)
{
    begin(reply, request, 0);
}

void tepi_reply_version(struct tepi_reply *reply, const struct tepi_request *request,
                        const struct tepi_peer *peer)
{
    char json[160];
    const struct tepi_vfio_user_version version = {TEPI_VFIO_USER_MAJOR, peer->minor};
    const int length = snprintf(json, sizeof json,
                                "{\"capabilities\":{\"max_msg_fds\":%u,\"max_data_xfer_size\":%u,"
                                "\"max_dma_maps\":%u,\"pgsizes\":%u}}",
                                TEPI_VFIO_USER_FDS_MAX, TEPI_VFIO_USER_DATA_MAX,
                                TEPI_VFIO_USER_MAPS_MAX, TEPI_VFIO_USER_PAGE);
    begin(reply, request, 0);
    add(reply, &version, sizeof version);
    add(reply, json, (size_t)length + 1); /* including terminating NUL */
}

void tepi_reply_unmap(struct tepi_reply *reply, const struct tepi_request *request)
{
    begin(reply, request, 0);
    add(reply, &request->unmap, sizeof request->unmap);
}

void tepi_reply_device(struct tepi_reply *reply, const struct tepi_request *request)
{
    const struct tepi_vfio_user_device_info info = {
        .argsz = sizeof info,
        .flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
        .regions = VFIO_PCI_NUM_REGIONS,
        .irqs = VFIO_PCI_NUM_IRQS,
    };
    begin(reply, request, 0);
    add(reply, &info, sizeof info);
}

bool tepi_reply_region(struct tepi_reply *reply, const struct tepi_request *request)
{
    const struct tepi_region region = tepi_region_at(request->region.index);
    const bool mapped = (region.flags & VFIO_REGION_INFO_FLAG_MMAP) != 0;
    const struct tepi_vfio_user_sparse sparse = {
        .id = VFIO_REGION_INFO_CAP_SPARSE_MMAP,
        .version = 1,
        .areas = 1,
        .offset = TEPI_REG_DOORBELL,
        .size = TEPI_DOORBELL_PAGE,
    };
    struct tepi_vfio_user_region_info info = {
        .argsz = sizeof info + (mapped ? sizeof sparse : 0),
        .flags = region.flags,
        .index = request->region.index,
        .size = region.size,
    };
    /* "Message sizes": argsz tells what the whole would take; the rest comes only where it fits. */
    const bool whole = request->argsz >= info.argsz;
    info.cap_offset = mapped && whole ? sizeof info : 0;
    begin(reply, request, 0);
    add(reply, &info, sizeof info);
    if (mapped && whole) {
        add(reply, &sparse, sizeof sparse);
    }
    return mapped;
}

uint32_t tepi_reply_io_fds(struct tepi_reply *reply, const struct tepi_request *request,
                           const struct tepi_peer *peer, uint32_t pairs)
{
    /* A client takes so many descriptors in one message; further pairs it rings by REGION_WRITE. */
    const uint32_t count = peer->max_msg_fds < pairs ? (uint32_t)peer->max_msg_fds : pairs;
    const struct tepi_vfio_user_io_fds info = {
        .argsz = (uint32_t)(sizeof info + count * sizeof(struct tepi_vfio_user_io_fd)),
        .index = request->io_fds.index,
        .count = count,
    };
    begin(reply, request, 0);
    add(reply, &info, sizeof info);
    if (request->argsz < info.argsz) {
        return 0;
    }
    for (uint32_t pair = 0; pair < count; pair++) {
        const struct tepi_vfio_user_io_fd sub = {
            .offset = TEPI_REG_DOORBELL + (uint64_t)pair * TEPI_REG_DOORBELL_STRIDE,
            .size = TEPI_REG_DOORBELL_STRIDE,
            .fd_index = pair,
            .type = TEPI_VFIO_USER_IOEVENTFD,
        };
        add(reply, &sub, sizeof sub);
    }
    return count;
}

void tepi_reply_irq(struct tepi_reply *reply, const struct tepi_request *request)
{
    const bool msix = request->irq.index == VFIO_PCI_MSIX_IRQ_INDEX;
    const struct tepi_vfio_user_irq_info info = {
        .argsz = sizeof info,
        .flags = msix ? VFIO_IRQ_INFO_EVENTFD : 0,
        .index = request->irq.index,
        .count = msix ? TEPI_QUEUES_MAX : 0,
    };
    begin(reply, request, 0);
    add(reply, &info, sizeof info);
}

uint8_t *tepi_reply_read(struct tepi_reply *reply, const struct tepi_request *request)
{
    static const uint8_t nothing[TEPI_VFIO_USER_DATA_MAX];
    begin(reply, request, 0);
    add(reply, &request->access, sizeof request->access);
    add(reply, nothing, request->access.count);
    return reply->bytes + reply->size - request->access.count;
}

void tepi_reply_write(struct tepi_reply *reply, const struct tepi_request *request)
{
    begin(reply, request, 0);
    add(reply, &request->access, sizeof request->access);
}
