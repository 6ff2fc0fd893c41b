/* SPDX-License-Identifier: Apache-2.0 */
/* One vfio-user message to the server and its reply, with descriptors either way and a time limit.
 */
#ifndef TEPI_DRIVER_VFIO_USER_CALL_H
#define TEPI_DRIVER_VFIO_USER_CALL_H

#include "abi/vfio_user.h"
#include <stddef.h>
#include <stdint.h>

struct tepi_vfio_user_call {
    uint16_t command;
    const void *request; /* the command's structure */
    size_t request_bytes;
    const void *data; /* what follows it */
    size_t data_bytes;
    const int *fds;
    uint32_t fd_count;
    uint64_t timeout_ns;
    /* What comes back; *_most on the way in. Descriptors are the caller's to close. */
    void *reply;
    size_t reply_most, reply_bytes;
    int *got;
    uint32_t got_most, got_count;
};

/* Connects to the socket at `path`. The descriptor, or negative errno. */
int tepi_vfio_user_connect(const char *path, uint64_t timeout_ns);
/* 0; a positive errno that the server answered with; or negative errno where the connection is of
 * no more use: -ETIMEDOUT, -ECONNRESET (closed), -EPROTO (no vfio-user reply). */
int tepi_vfio_user_do(int socket, uint16_t id, struct tepi_vfio_user_call *call);

#endif
