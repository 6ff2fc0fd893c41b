/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format, byte for byte as the specification lays it out, and what is refused. */
#include "endpoint/protocol.h"

#include "check.h"
#include "endpoint/config_space.h"
#include <errno.h>
#include <linux/pci_regs.h>

static struct tepi_peer greeted(void)
{
    return (struct tepi_peer){.greeted = true, .max_msg_fds = 8, .max_data_xfer_size = 4096};
}

/* A message of `command` around a payload. */
static size_t frame(uint8_t *message, uint16_t command, const void *payload, size_t bytes)
{
    const struct tepi_vfio_user_header header = {
        .id = 0x1234, .command = command, .size = (uint32_t)(sizeof header + bytes)};
    memcpy(message, &header, sizeof header);
    memcpy(message + sizeof header, payload, bytes);
    return header.size;
}

static int read_one(uint16_t command, const void *payload, size_t bytes, uint32_t fds,
                    struct tepi_request *request)
{
    uint8_t message[512];
    struct tepi_peer peer = greeted();
    const size_t size = frame(message, command, payload, bytes);
    return tepi_request_read(message, size, fds, &peer, request);
}

CHECK_CASE(header_and_version)
{
    /* id 0x0102, VERSION, 55 bytes, a command; version 0.1 and JSON that ends with 0. */
    static const char message[] = "\x02\x01\x01\x00\x37\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                                  "\x00\x00\x01\x00{\"capabilities\":{\"max_msg_fds\":3}}";
    struct tepi_vfio_user_header header;
    struct tepi_peer peer = {0};
    struct tepi_request request;
    struct tepi_reply reply;
    memcpy(&header, message, sizeof header);
    CHECK_INT(header.size, sizeof message);
    CHECK_INT(tepi_message_rest(&header), sizeof message - 16);
    CHECK_INT(tepi_request_read((const uint8_t *)message, sizeof message, 0, &peer, &request), 0);
    CHECK_INT(request.id, 0x0102);
    CHECK(peer.greeted);
    CHECK_INT(peer.minor, 1);
    CHECK_INT(peer.max_msg_fds, 3);
    CHECK_INT(peer.max_data_xfer_size, 1048576);
    tepi_reply_version(&reply, &request, &peer);
    static const char expected[] =
        "\x02\x01\x01\x00\x74\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00"
        "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":4096,"
        "\"max_dma_maps\":256,\"pgsizes\":4096}}";
    CHECK_INT(reply.size, sizeof expected);
    CHECK_BYTES(reply.bytes, expected, sizeof expected);
    /* VERSION comes first, and once. */
    CHECK_INT(tepi_request_read((const uint8_t *)message, sizeof message, 0, &peer, &request),
              EINVAL);
    peer.greeted = false;
    header.command = TEPI_VFIO_USER_DEVICE_RESET;
    header.size = sizeof header;
    CHECK_INT(tepi_request_read((const uint8_t *)&header, sizeof header, 0, &peer, &request),
              EINVAL);
}

static int hello(const char *json, size_t bytes, uint16_t major, struct tepi_peer *peer)
{
    uint8_t message[512];
    uint8_t payload[256];
    struct tepi_request request;
    const struct tepi_vfio_user_version version = {major, 0};
    memcpy(payload, &version, sizeof version);
    memcpy(payload + sizeof version, json, bytes);
    *peer = (struct tepi_peer){0};
    const size_t size = frame(message, TEPI_VFIO_USER_VERSION, payload, sizeof version + bytes);
    return tepi_request_read(message, size, 0, peer, &request);
}

CHECK_CASE(version_data)
{
    struct tepi_peer peer;
    static const char *const broken[] = {
        "",
        "{",
        "[]",
        "{\"capabilities\":3}",
        "{\"capabilities\":{\"max_msg_fds\":-1}}",
        "{\"capabilities\":{\"max_msg_fds\":1.5}}",
        "{\"capabilities\":{\"max_msg_fds\":\"8\"}}",
        "{\"capabilities\":{\"max_msg_fds\":99999999999999999999}}",
        "{\"capabilities\":{}} x",
        "{\"a\":[[[[[[[[[[[[1]]]]]]]]]]]]}",
        "{\"a\":\"\\",
        "{\"a\" 1}",
    };
    CHECK_INT(hello("", 0, 0, &peer), 0);
    CHECK_INT(peer.max_msg_fds, 1);
    CHECK_INT(hello("{}", 3, 0, &peer), 0);
    CHECK_INT(hello("{}", 2, 0, &peer), EINVAL); /* no terminating NUL */
    CHECK_INT(hello("{}", 3, 1, &peer), EPROTONOSUPPORT);
    static const char rich[] = " { \"x\\\"\" : [ 1 , {\"max_msg_fds\":9} ], \"capabilities\" : "
                               "{ \"write_multiple\":true, \"max_msg_fds\" : 5 } } ";
    CHECK_INT(hello(rich, sizeof rich, 0, &peer), 0);
    CHECK_INT(peer.max_msg_fds, 5);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        CHECK_INT(hello(broken[i], strlen(broken[i]) + 1, 0, &peer), EINVAL);
        CHECK(!peer.greeted);
    }
}

CHECK_CASE(streams_that_cannot_be_trusted)
{
    struct tepi_vfio_user_header header = {.command = 1, .size = 15};
    CHECK_INT(tepi_message_rest(&header), -EPROTO);
    header.size = UINT32_MAX;
    CHECK_INT(tepi_message_rest(&header), -EMSGSIZE);
    header.size = 16;
    CHECK_INT(tepi_message_rest(&header), 0);
    header.flags = TEPI_VFIO_USER_REPLY;
    CHECK_INT(tepi_message_rest(&header), -EPROTO);
}

CHECK_CASE(region_info_of_bar0)
{
    struct tepi_vfio_user_region_info info = {.argsz = 64, .index = 0};
    struct tepi_vfio_user_sparse sparse;
    struct tepi_request request;
    struct tepi_reply reply;
    const uint16_t command = TEPI_VFIO_USER_DEVICE_GET_REGION_INFO;
    CHECK_INT(read_one(command, &info, sizeof info, 0, &request), 0);
    CHECK(tepi_reply_region(&reply, &request));
    CHECK_INT(reply.size, 16 + 32 + 32);
    memcpy(&info, reply.bytes + 16, sizeof info);
    memcpy(&sparse, reply.bytes + 48, sizeof sparse);
    CHECK_INT(info.argsz, 64);
    CHECK_INT(info.flags, 0xf);
    CHECK_INT(info.cap_offset, 32);
    CHECK_INT(info.size, 0x4000);
    CHECK_INT(sparse.id, 1);
    CHECK_INT(sparse.offset, 0x1000);
    CHECK_INT(sparse.size, 0x1000);
    /* Less room than it takes: the fixed part tells how much is needed. */
    info = (struct tepi_vfio_user_region_info){.argsz = 32};
    CHECK_INT(read_one(command, &info, sizeof info, 0, &request), 0);
    tepi_reply_region(&reply, &request);
    CHECK_INT(reply.size, 16 + 32);
    CHECK_INT(reply.bytes[16], 64);
    info = (struct tepi_vfio_user_region_info){.argsz = 31};
    CHECK_INT(read_one(command, &info, sizeof info, 0, &request), EINVAL);
    info = (struct tepi_vfio_user_region_info){.argsz = 32, .index = 9};
    CHECK_INT(read_one(command, &info, sizeof info, 0, &request), EINVAL);
}

CHECK_CASE(io_fds_fit_the_client)
{
    const struct tepi_vfio_user_io_fds area = {.argsz = 4096};
    struct tepi_peer peer = greeted();
    struct tepi_request request;
    struct tepi_reply reply;
    const uint16_t command = TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS;
    CHECK_INT(read_one(command, &area, sizeof area, 0, &request), 0);
    CHECK_INT(tepi_reply_io_fds(&reply, &request, &peer, 4), 4);
    CHECK_INT(reply.size, 16 + 16 + 4 * 40);
    peer.max_msg_fds = 1;
    CHECK_INT(tepi_reply_io_fds(&reply, &request, &peer, 4), 1);
    request.io_fds.argsz = 16;
    CHECK_INT(tepi_reply_io_fds(&reply, &request, &peer, 4), 0);
    CHECK_INT(reply.bytes[16], 56);
}

CHECK_CASE(maps_that_are_refused)
{
    const struct tepi_vfio_user_dma_map good = {32, 3, 0, 0x10000, 0x2000};
    struct tepi_request request;
    const uint16_t command = TEPI_VFIO_USER_DMA_MAP;
    CHECK_INT(read_one(command, &good, sizeof good, 1, &request), 0);
    CHECK_INT(request.map.size, 0x2000);
    CHECK_INT(read_one(command, &good, sizeof good, 0, &request), EINVAL);
    CHECK_INT(read_one(command, &good, sizeof good, 2, &request), EINVAL);
    CHECK_INT(read_one(command, &good, sizeof good - 1, 1, &request), EINVAL);
    struct tepi_vfio_user_dma_map bad = good;
    bad.size = 0;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EINVAL);
    bad.size = 0x1001;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EINVAL);
    bad = good;
    bad.address = UINT64_MAX - 0xfff;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EINVAL);
    bad = good;
    bad.offset = 1ull << 63;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EINVAL);
    bad = good;
    bad.flags = TEPI_VFIO_USER_DMA_READABLE;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EACCES);
    bad.flags = 7;
    CHECK_INT(read_one(command, &bad, sizeof bad, 1, &request), EINVAL);
}

CHECK_CASE(accesses_and_vectors_in_bounds)
{
    struct {
        struct tepi_vfio_user_access access;
        uint8_t data[8];
    } write = {{0x3ff8, 0, 8}, {0}};
    struct tepi_request request;
    const uint16_t writes = TEPI_VFIO_USER_REGION_WRITE;
    const uint16_t reads = TEPI_VFIO_USER_REGION_READ;
    CHECK_INT(read_one(writes, &write, sizeof write, 0, &request), 0);
    CHECK_INT(read_one(writes, &write, sizeof write - 1, 0, &request), EINVAL);
    write.access.offset++;
    CHECK_INT(read_one(writes, &write, sizeof write, 0, &request), EINVAL);
    CHECK_INT(read_one(reads, &write.access, sizeof write.access, 0, &request), EINVAL);
    write.access.offset = UINT64_MAX;
    CHECK_INT(read_one(reads, &write.access, sizeof write.access, 0, &request), EINVAL);
    write.access = (struct tepi_vfio_user_access){0, 1, 4};
    CHECK_INT(read_one(reads, &write.access, sizeof write.access, 0, &request), EINVAL);
    write.access = (struct tepi_vfio_user_access){0, 0, UINT32_MAX};
    CHECK_INT(read_one(reads, &write.access, sizeof write.access, 0, &request), EINVAL);

    struct tepi_vfio_user_irq_set set = {20, 0x24, 2, 14, 2};
    const uint16_t irqs = TEPI_VFIO_USER_DEVICE_SET_IRQS;
    CHECK_INT(read_one(irqs, &set, sizeof set, 2, &request), 0);
    CHECK_INT(read_one(irqs, &set, sizeof set, 0, &request), 0);
    CHECK_INT(read_one(irqs, &set, sizeof set, 1, &request), EINVAL);
    set.count = UINT32_MAX;
    CHECK_INT(read_one(irqs, &set, sizeof set, 2, &request), EINVAL);
    set = (struct tepi_vfio_user_irq_set){20, 0x21, 2, 0, 0};
    CHECK_INT(read_one(irqs, &set, sizeof set, 0, &request), 0);
    set.flags = 0x27;
    CHECK_INT(read_one(irqs, &set, sizeof set, 0, &request), EINVAL);
    set = (struct tepi_vfio_user_irq_set){20, 0x24, 0, 0, 1}; /* INTx: none */
    CHECK_INT(read_one(irqs, &set, sizeof set, 1, &request), EINVAL);
    CHECK_INT(read_one(99, &set, sizeof set, 0, &request), EOPNOTSUPP);
}

CHECK_CASE(configuration_space)
{
    static const uint8_t ones[4] = {0xff, 0xff, 0xff, 0xff};
    struct tepi_config_space space;
    tepi_config_init(&space);
    CHECK_INT(space.bytes[PCI_CLASS_DEVICE + 1], 0x12);
    /* Sizing: all ones read back as the size, and the rest does not change. */
    tepi_config_write(&space, PCI_BASE_ADDRESS_0, ones, 4);
    CHECK_BYTES(space.bytes + PCI_BASE_ADDRESS_0, "\x04\xc0\xff\xff", 4);
    tepi_config_write(&space, PCI_BASE_ADDRESS_2, ones, 4);
    CHECK_BYTES(space.bytes + PCI_BASE_ADDRESS_2, "\0\0\0\0", 4);
    tepi_config_write(&space, PCI_VENDOR_ID, ones, 4);
    CHECK_BYTES(space.bytes, "\x50\x54\x01\x00", 4);
    const uint8_t at = space.bytes[PCI_CAPABILITY_LIST];
    CHECK_INT(space.bytes[at], PCI_CAP_ID_MSIX);
    CHECK_INT(space.bytes[at + PCI_MSIX_FLAGS], TEPI_QUEUES_MAX - 1);
    /* Pending bits are the card's. */
    tepi_msix_write(&space, TEPI_MSIX_PENDING, ones, 4);
    CHECK_INT(space.msix[TEPI_MSIX_PENDING], 0);
    tepi_msix_write(&space, 0, ones, 4);
    CHECK_INT(space.msix[0], 0xff);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(header_and_version),
    CHECK_ENTRY(version_data),
    CHECK_ENTRY(streams_that_cannot_be_trusted),
    CHECK_ENTRY(region_info_of_bar0),
    CHECK_ENTRY(io_fds_fit_the_client),
    CHECK_ENTRY(maps_that_are_refused),
    CHECK_ENTRY(accesses_and_vectors_in_bounds),
    CHECK_ENTRY(configuration_space),
};

CHECK_MAIN(cases)
