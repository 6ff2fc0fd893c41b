/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: what a message of each command must be before anything is done about it. */
#include "endpoint/protocol.h"

#include <errno.h>
#include <string.h>

#define DEFAULT_DATA_XFER 1048576u /* "Capabilities": max_data_xfer_size not given */

enum { FDS_ANY = TEPI_VFIO_USER_FDS_MAX };

/* What each command's message is made of. */
struct shape {
    uint16_t command;
    uint16_t fixed;    /* bytes after the header, at least */
    bool more;         /* bytes may follow those */
    uint8_t fds_least; /* descriptors that come with it */
    uint8_t fds_most;
};

static const struct shape shapes[] = {
    {TEPI_VFIO_USER_VERSION, sizeof(struct tepi_vfio_user_version), true, 0, 0},
    {TEPI_VFIO_USER_DMA_MAP, sizeof(struct tepi_vfio_user_dma_map), false, 1, 1},
    {TEPI_VFIO_USER_DMA_UNMAP, sizeof(struct tepi_vfio_user_dma_unmap), false, 0, 0},
    {TEPI_VFIO_USER_DEVICE_GET_INFO, sizeof(struct tepi_vfio_user_device_info), false, 0, 0},
    {TEPI_VFIO_USER_DEVICE_GET_REGION_INFO, sizeof(struct tepi_vfio_user_region_info), false, 0, 0},
    {TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS, sizeof(struct tepi_vfio_user_io_fds), false, 0, 0},
    {TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO, sizeof(struct tepi_vfio_user_irq_info), false, 0, 0},
    {TEPI_VFIO_USER_DEVICE_SET_IRQS, sizeof(struct tepi_vfio_user_irq_set), true, 0, FDS_ANY},
    {TEPI_VFIO_USER_REGION_READ, sizeof(struct tepi_vfio_user_access), false, 0, 0},
    {TEPI_VFIO_USER_REGION_WRITE, sizeof(struct tepi_vfio_user_access), true, 0, 0},
    {TEPI_VFIO_USER_DEVICE_RESET, 0, false, 0, 0},
};

static const struct shape *shape_of(uint16_t command)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        if (shapes[i].command == command) {
            return &shapes[i];
        }
    }
    return NULL;
}

int64_t tepi_message_rest(const struct tepi_vfio_user_header *header)
{
    if (header->flags & TEPI_VFIO_USER_TYPE || header->size < sizeof *header) {
        return -EPROTO;
    }
    return header->size > TEPI_VFIO_USER_BYTES_MAX ? -EMSGSIZE
                                                   : (int64_t)(header->size - sizeof *header);
}

struct tepi_region tepi_region_at(uint32_t index)
{
    const uint32_t access = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
    switch (index) {
    case VFIO_PCI_BAR0_REGION_INDEX:
        return (struct tepi_region){TEPI_BAR0_BYTES, access | VFIO_REGION_INFO_FLAG_MMAP |
                                                         VFIO_REGION_INFO_FLAG_CAPS};
    case VFIO_PCI_BAR4_REGION_INDEX: /* the MSI-X table and its pending bits */
        return (struct tepi_region){TEPI_MSIX_BYTES, access};
    case VFIO_PCI_CONFIG_REGION_INDEX:
        return (struct tepi_region){TEPI_CONFIG_BYTES, access};
    default:
        return (struct tepi_region){0, 0};
    }
}

static int read_version(const uint8_t *payload, size_t size, struct tepi_peer *peer)
{
    struct tepi_vfio_user_version version;
    memcpy(&version, payload, sizeof version);
    const char *json = (const char *)payload + sizeof version;
    const size_t length = size - sizeof version;
    if (version.major != TEPI_VFIO_USER_MAJOR) {
        return EPROTONOSUPPORT;
    }
    *peer = (struct tepi_peer){.max_msg_fds = 1, .max_data_xfer_size = DEFAULT_DATA_XFER};
    if (length > 0 &&
        (json[length - 1] != 0 ||
         !tepi_json_capability(json, length - 1, "max_msg_fds", 1, &peer->max_msg_fds) ||
         !tepi_json_capability(json, length - 1, "max_data_xfer_size", DEFAULT_DATA_XFER,
                               &peer->max_data_xfer_size))) {
        return EINVAL;
    }
    peer->minor = version.minor < TEPI_VFIO_USER_MINOR ? version.minor : TEPI_VFIO_USER_MINOR;
    peer->greeted = true;
    return 0;
}

static int check_map(const struct tepi_vfio_user_dma_map *map)
{
    const uint64_t either = TEPI_VFIO_USER_DMA_READABLE | TEPI_VFIO_USER_DMA_WRITEABLE;
    uint64_t end;
    if (map->argsz < sizeof *map || (map->flags & ~either) || map->size == 0 ||
        (map->address | map->size | map->offset) % TEPI_VFIO_USER_PAGE ||
        __builtin_add_overflow(map->address, map->size, &end) ||
        __builtin_add_overflow(map->offset, map->size, &end) || end > INT64_MAX) {
        return EINVAL;
    }
    /* The card decides by itself what it reads and writes, so that it needs both. */
    return (map->flags & either) == either ? 0 : EACCES;
}

static int check_access(const struct tepi_request *request, const struct tepi_peer *peer,
                        size_t data)
{
    const struct tepi_vfio_user_access *access = &request->access;
    const struct tepi_region region = tepi_region_at(access->region);
    const bool write = request->command == TEPI_VFIO_USER_REGION_WRITE;
    /* "Read and Write Operations": count must not exceed the peer's max_data_xfer_size. */
    if (access->count == 0 || access->count > TEPI_VFIO_USER_DATA_MAX ||
        (!write && access->count > peer->max_data_xfer_size) || access->offset > region.size ||
        access->count > region.size - access->offset) {
        return EINVAL;
    }
    return write && data != access->count ? EINVAL : 0;
}

static int check_irq_set(const struct tepi_vfio_user_irq_set *set, size_t data, uint32_t fds)
{
    const uint32_t kind = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
    const uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
    if (set->argsz < sizeof *set || set->flags != (kind | action) || (kind & (kind - 1)) || !kind ||
        set->index >= VFIO_PCI_NUM_IRQS || set->start > TEPI_QUEUES_MAX ||
        set->count > TEPI_QUEUES_MAX - set->start ||
        (set->count == 0 && (set->start || kind != VFIO_IRQ_SET_DATA_NONE))) {
        return EINVAL;
    }
    if (action != VFIO_IRQ_SET_ACTION_TRIGGER || set->index != VFIO_PCI_MSIX_IRQ_INDEX) {
        return EINVAL; /* as DEVICE_GET_IRQ_INFO says: MSI-X alone, and not maskable */
    }
    if (data != (kind == VFIO_IRQ_SET_DATA_BOOL ? set->count : 0)) {
        return EINVAL;
    }
    return fds == 0 || (kind == VFIO_IRQ_SET_DATA_EVENTFD && fds == set->count) ? 0 : EINVAL;
}

static int check(struct tepi_request *request, const struct tepi_peer *peer, size_t data,
                 uint32_t fds)
{
    switch (request->command) {
    case TEPI_VFIO_USER_DMA_MAP:
        return check_map(&request->map);
    case TEPI_VFIO_USER_DMA_UNMAP:
        return request->unmap.flags || request->unmap.size == 0 ? EINVAL : 0;
    case TEPI_VFIO_USER_DEVICE_GET_INFO:
        return request->argsz < sizeof(struct tepi_vfio_user_device_info) ? EINVAL : 0;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_INFO:
        return request->argsz < sizeof request->region ||
                       request->region.index >= VFIO_PCI_NUM_REGIONS
                   ? EINVAL
                   : 0;
    case TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS:
        return request->argsz < sizeof request->io_fds || request->io_fds.flags ||
                       request->io_fds.index != VFIO_PCI_BAR0_REGION_INDEX
                   ? EINVAL
                   : 0;
    case TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO:
        return request->argsz < sizeof request->irq || request->irq.index >= VFIO_PCI_NUM_IRQS
                   ? EINVAL
                   : 0;
    case TEPI_VFIO_USER_DEVICE_SET_IRQS:
        return check_irq_set(&request->irq_set, data, fds);
    case TEPI_VFIO_USER_REGION_READ:
    case TEPI_VFIO_USER_REGION_WRITE:
        return check_access(request, peer, data);
    default:
        return 0;
    }
}

int tepi_request_read(const uint8_t *message, size_t size, uint32_t fds, struct tepi_peer *peer,
                      struct tepi_request *request)
{
    struct tepi_vfio_user_header header;
    memcpy(&header, message, sizeof header);
    memset(request, 0, sizeof *request);
    request->id = header.id;
    request->command = header.command;
    request->no_reply = (header.flags & TEPI_VFIO_USER_NO_REPLY) != 0;
    const struct shape *shape = shape_of(header.command);
    const uint8_t *payload = message + sizeof header;
    const size_t payload_size = size - sizeof header;
    if (!shape) {
        return EOPNOTSUPP;
    }
    if (payload_size < shape->fixed || (payload_size > shape->fixed && !shape->more) ||
        fds < shape->fds_least || fds > shape->fds_most) {
        return EINVAL;
    }
    /* "VFIO_USER_VERSION" is the initial message, and comes once. */
    if (peer->greeted == (header.command == TEPI_VFIO_USER_VERSION)) {
        return EINVAL;
    }
    if (header.command == TEPI_VFIO_USER_VERSION) {
        return read_version(payload, payload_size, peer);
    }
    memcpy(&request->map, payload, shape->fixed);
    request->data = payload + shape->fixed;
    return check(request, peer, payload_size - shape->fixed, fds);
}
