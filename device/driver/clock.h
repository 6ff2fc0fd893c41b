/* SPDX-License-Identifier: Apache-2.0 */
/* The driver's clock: CLOCK_MONOTONIC in nanoseconds. */
#ifndef TEPI_DRIVER_CLOCK_H
#define TEPI_DRIVER_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t tepi_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* `now` plus a time span, saturating. */
static inline uint64_t tepi_later(uint64_t now, uint64_t span)
{
    return now + span < now ? UINT64_MAX : now + span;
}

static inline struct timespec tepi_timespec(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

#endif
