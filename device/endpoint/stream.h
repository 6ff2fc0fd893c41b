/* SPDX-License-Identifier: Apache-2.0 */
/* Whole messages over a UNIX stream socket, with the descriptors that come with them. */
#ifndef TEPI_ENDPOINT_STREAM_H
#define TEPI_ENDPOINT_STREAM_H

#include "endpoint/protocol.h"

/* A message as it was received. Its descriptors are the receiver's to close; -1: taken over. */
struct tepi_message {
    uint8_t bytes[TEPI_VFIO_USER_BYTES_MAX];
    size_t size;
    int fds[TEPI_VFIO_USER_FDS_MAX];
    uint32_t fd_count;
};

/* Blocks until a message is whole. 0; -EPIPE (the peer has closed); -EPROTO, -EMSGSIZE (see
 * tepi_message_rest); -EAGAIN (SO_RCVTIMEO has passed) or another errno of recvmsg. After any of
 * them the stream is of no more use. */
int tepi_message_receive(int socket, struct tepi_message *message);
void tepi_message_close_fds(struct tepi_message *message);

/* Blocks while the peer does not read. 0 or negative errno. */
int tepi_reply_send(int socket, const struct tepi_reply *reply, const int *fds, uint32_t fd_count);

#endif
