/* SPDX-License-Identifier: Apache-2.0 */
/* vfio-user without input and output: bytes of a message in, a checked request out; a reply's
 * bytes out. Knows the card's regions and interrupts, keeps no state beyond what is passed in. */
#ifndef TEPI_ENDPOINT_PROTOCOL_H
#define TEPI_ENDPOINT_PROTOCOL_H

#include "abi/vfio_user.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the client said of itself in VERSION; its defaults where it said nothing. */
struct tepi_peer {
    bool greeted;
    uint16_t minor; /* agreed */
    uint64_t max_msg_fds;
    uint64_t max_data_xfer_size;
};

struct tepi_request {
    uint16_t id;
    uint16_t command;
    bool no_reply;
    const uint8_t *data; /* of REGION_WRITE and SET_IRQS: in the message */
    union {
        struct tepi_vfio_user_dma_map map;
        struct tepi_vfio_user_dma_unmap unmap;
        struct tepi_vfio_user_region_info region;
        struct tepi_vfio_user_io_fds io_fds;
        struct tepi_vfio_user_irq_info irq;
        struct tepi_vfio_user_irq_set irq_set;
        struct tepi_vfio_user_access access;
        uint32_t argsz;
    };
};

struct tepi_reply {
    uint8_t bytes[TEPI_VFIO_USER_BYTES_MAX];
    size_t size;
};

struct tepi_region {
    uint64_t size;
    uint32_t flags; /* VFIO_REGION_INFO_FLAG_* */
};

/* Length of what follows the header; negative errno where the stream cannot be trusted any more:
 * -EPROTO (no command, or shorter than its own header), -EMSGSIZE. */
int64_t tepi_message_rest(const struct tepi_vfio_user_header *header);

/* Checks a whole message against the specification and the card's bounds. `fds`: descriptors that
 * came with it. 0, or the errno to answer with (positive, as on the wire). Request and reply are
 * paired by `request->id`, which is filled in either way. VERSION fills `peer`. */
int tepi_request_read(const uint8_t *message, size_t size, uint32_t fds, struct tepi_peer *peer,
                      struct tepi_request *request);

/* Replies; each starts from the header. */
void tepi_reply_error(struct tepi_reply *reply, const struct tepi_request *request, int error);
void tepi_reply_empty(struct tepi_reply *reply, const struct tepi_request *request);
void tepi_reply_version(struct tepi_reply *reply, const struct tepi_request *request,
                        const struct tepi_peer *peer);
void tepi_reply_unmap(struct tepi_reply *reply, const struct tepi_request *request);
void tepi_reply_device(struct tepi_reply *reply, const struct tepi_request *request);
/* True where the reply takes the doorbell file with it. */
bool tepi_reply_region(struct tepi_reply *reply, const struct tepi_request *request);
/* Returns how many descriptors go with it: those of pairs 0 to that number. */
uint32_t tepi_reply_io_fds(struct tepi_reply *reply, const struct tepi_request *request,
                           const struct tepi_peer *peer, uint32_t pairs);
void tepi_reply_irq(struct tepi_reply *reply, const struct tepi_request *request);
/* Where the data of a READ goes, request->access.count bytes. */
uint8_t *tepi_reply_read(struct tepi_reply *reply, const struct tepi_request *request);
void tepi_reply_write(struct tepi_reply *reply, const struct tepi_request *request);

/* The region at a VFIO PCI index; size 0: the card has none there. */
struct tepi_region tepi_region_at(uint32_t index);

/* capabilities.`name` of VERSION's JSON, a number without a sign; `otherwise` where it is absent.
 * False where the text is no JSON object. */
bool tepi_json_capability(const char *text, size_t length, const char *name, uint64_t otherwise,
                          uint64_t *value);

#endif
