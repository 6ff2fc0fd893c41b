/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of the vfio-user client. */
#include "driver/vfio_user_call.h"

#include "driver/clock.h"
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

enum { SEND_TRY_MS = 1 };

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(TEPI_VFIO_USER_FDS_MAX * sizeof(int))];
};

int tepi_vfio_user_connect(const char *path, uint64_t timeout_ns)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -errno;
    }
    /* Bounds connect too, which waits while the server's backlog is full. */
    const struct timeval limit = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                                  .tv_usec = (suseconds_t)(timeout_ns % 1000000000u / 1000)};
    int result = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    result = result ? result : connect(fd, (const void *)&address, sizeof address);
    if (result) {
        result = errno == EAGAIN ? -ETIMEDOUT : -errno;
        close(fd);
        return result;
    }
    return fd;
}

/* A message is far smaller than a socket's buffer, which is empty between calls: where it does not
 * fit the server has stopped reading. */
static int send_whole(int socket, struct msghdr *message, size_t bytes, uint64_t deadline)
{
    for (;;) {
        const ssize_t sent = sendmsg(socket, message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent >= 0) {
            return (size_t)sent == bytes ? 0 : -EPROTO;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return errno == EPIPE ? -ECONNRESET : -errno;
        }
        if (tepi_now_ns() >= deadline) {
            return -ETIMEDOUT;
        }
        struct pollfd event = {.fd = socket, .events = POLLOUT};
        poll(&event, 1, SEND_TRY_MS);
    }
}

static int put(int socket, uint16_t id, const struct tepi_vfio_user_call *call, uint64_t deadline)
{
    union control control = {0};
    const size_t bytes =
        sizeof(struct tepi_vfio_user_header) + call->request_bytes + call->data_bytes;
    struct tepi_vfio_user_header header = {
        .id = id, .command = call->command, .size = (uint32_t)bytes};
    struct iovec parts[] = {{&header, sizeof header},
                            {(void *)(uintptr_t)call->request, call->request_bytes},
                            {(void *)(uintptr_t)call->data, call->data_bytes}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    if (call->fd_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(call->fd_count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(call->fd_count * sizeof(int));
        memcpy(CMSG_DATA(rights), call->fds, call->fd_count * sizeof(int));
    }
    return send_whole(socket, &message, bytes, deadline);
}

static void keep_fds(struct msghdr *message, struct tepi_vfio_user_call *call)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (call->got_count < call->got_most) {
                call->got[call->got_count++] = fd;
            } else {
                close(fd);
            }
        }
    }
}

/* Exactly `bytes`; descriptors are taken where `call` is given. */
static int get(int socket, void *to, size_t bytes, struct tepi_vfio_user_call *call,
               uint64_t deadline)
{
    size_t have = 0;
    while (have < bytes) {
        union control control;
        struct iovec part = {(unsigned char *)to + have, bytes - have};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
        if (call) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof control.bytes;
        }
        const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (got > 0) {
            have += (size_t)got;
            if (call) {
                keep_fds(&message, call);
            }
            continue;
        }
        if (got == 0) {
            return -ECONNRESET;
        }
        if (errno != EAGAIN && errno != EINTR) {
            return -errno;
        }
        const uint64_t now = tepi_now_ns();
        if (now >= deadline) {
            return -ETIMEDOUT;
        }
        struct pollfd event = {.fd = socket, .events = POLLIN};
        const struct timespec rest = tepi_timespec(deadline - now);
        ppoll(&event, 1, &rest, NULL);
    }
    return 0;
}

int tepi_vfio_user_do(int socket, uint16_t id, struct tepi_vfio_user_call *call)
{
    const uint64_t deadline = tepi_later(tepi_now_ns(), call->timeout_ns);
    struct tepi_vfio_user_header header;
    call->got_count = 0;
    call->reply_bytes = 0;
    int result = put(socket, id, call, deadline);
    result = result ? result : get(socket, &header, sizeof header, call, deadline);
    if (result) {
        goto fail;
    }
    result = -EPROTO;
    if ((header.flags & TEPI_VFIO_USER_TYPE) != TEPI_VFIO_USER_REPLY || header.id != id ||
        header.command != call->command || header.size < sizeof header) {
        goto fail;
    }
    call->reply_bytes = header.size - sizeof header;
    if (header.flags & TEPI_VFIO_USER_ERROR) {
        /* "If an error occurs, the reply message must only include the reply header." */
        if (call->reply_bytes == 0) {
            /* The errno is optional, and bounded here so that it stays one. */
            result = header.error > 0 && header.error < 4096 ? (int)header.error : EIO;
        }
        goto fail;
    }
    if (call->reply_bytes > call->reply_most) {
        goto fail;
    }
    result = get(socket, call->reply, call->reply_bytes, NULL, deadline);
    if (result == 0) {
        return 0;
    }
fail:
    for (uint32_t i = 0; i < call->got_count; i++) {
        close(call->got[i]);
    }
    call->got_count = 0;
    return result;
}
