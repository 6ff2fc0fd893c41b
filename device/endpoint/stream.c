/* SPDX-License-Identifier: Apache-2.0 */
/* recvmsg and sendmsg with SCM_RIGHTS. */
#include "endpoint/stream.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Room for one descriptor too many: a sender that goes beyond the bound is told apart by
 * MSG_CTRUNC, and the kernel closes the rest. */
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(TEPI_VFIO_USER_FDS_MAX * sizeof(int))];
};

static void keep_fds(struct msghdr *header, struct tepi_message *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(header); part; part = CMSG_NXTHDR(header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (message->fd_count < TEPI_VFIO_USER_FDS_MAX) {
                message->fds[message->fd_count++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

/* Receives exactly `bytes` at message->size. Descriptors belong to the first byte of a message,
 * and those of a later one are dropped by the kernel, for want of room. */
static int receive(int socket, struct tepi_message *message, size_t bytes)
{
    const size_t end = message->size + bytes;
    while (message->size < end) {
        union control control;
        struct iovec part = {message->bytes + message->size, end - message->size};
        struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
        if (message->size == 0) {
            header.msg_control = control.bytes;
            header.msg_controllen = sizeof control.bytes;
        }
        const ssize_t got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (message->size == 0) {
            keep_fds(&header, message);
        }
        if (got == 0) {
            return -EPIPE;
        }
        if (header.msg_flags & MSG_CTRUNC) {
            return -EPROTO;
        }
        message->size += (size_t)got;
    }
    return 0;
}

int tepi_message_receive(int socket, struct tepi_message *message)
{
    struct tepi_vfio_user_header header;
    message->size = 0;
    message->fd_count = 0;
    int result = receive(socket, message, sizeof header);
    if (result) {
        return result;
    }
    memcpy(&header, message->bytes, sizeof header);
    const int64_t rest = tepi_message_rest(&header);
    return rest < 0 ? (int)rest : receive(socket, message, (size_t)rest);
}

void tepi_message_close_fds(struct tepi_message *message)
{
    for (uint32_t i = 0; i < message->fd_count; i++) {
        if (message->fds[i] >= 0) {
            close(message->fds[i]);
        }
    }
    message->fd_count = 0;
}

int tepi_reply_send(int socket, const struct tepi_reply *reply, const int *fds, uint32_t fd_count)
{
    size_t sent = 0;
    while (sent < reply->size) {
        union control control = {0};
        struct iovec part = {(void *)(uintptr_t)(reply->bytes + sent), reply->size - sent};
        struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
        if (sent == 0 && fd_count > 0) {
            header.msg_control = control.bytes;
            header.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
            struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
            rights->cmsg_level = SOL_SOCKET;
            rights->cmsg_type = SCM_RIGHTS;
            rights->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
            memcpy(CMSG_DATA(rights), fds, fd_count * sizeof(int));
        }
        const ssize_t put = sendmsg(socket, &header, MSG_NOSIGNAL);
        if (put < 0 && errno != EINTR) {
            return -errno;
        }
        sent += put > 0 ? (size_t)put : 0;
    }
    return 0;
}
