/* SPDX-License-Identifier: Apache-2.0 */
/* The IOVA allocator: next fit over the gaps between sorted extents. */
#include "driver/vfio_iova.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Below it lie small numbers that a card may take for an address by mistake. */
#define LOWEST  0x10000ull
/* Addresses of the card have 48 bits; sums of them do not overflow. */
#define HIGHEST ((1ull << 48) - 1)

/* For kernels that do not tell (before 5.4): the least width of x86 IOMMUs, without the window that
 * interrupts go to. */
static const struct tepi_iova_range untold[] = {
    {0, 0xfedfffff},
    {0xfef00000, (1ull << 39) - 1},
};

int tepi_iova_init(struct tepi_iova_space *space, const struct tepi_iova_range *ranges,
                   uint32_t count, uint64_t page)
{
    *space = (struct tepi_iova_space){.page = page};
    if (count == 0) {
        ranges = untold;
        count = sizeof untold / sizeof untold[0];
    }
    uint64_t least = LOWEST;
    for (uint32_t i = 0; i < count && space->range_count < TEPI_IOVA_RANGES_MAX; i++) {
        if (ranges[i].last < ranges[i].first || (i && ranges[i].first <= ranges[i - 1].last)) {
            return -EBADMSG;
        }
        if (ranges[i].first > HIGHEST) {
            break;
        }
        const uint64_t first = ranges[i].first > least ? ranges[i].first : least;
        const uint64_t last = ranges[i].last < HIGHEST ? ranges[i].last : HIGHEST;
        const uint64_t begin = (first + page - 1) & ~(page - 1);
        const uint64_t end = (last + 1) & ~(page - 1);
        if (begin < end) {
            space->ranges[space->range_count++] = (struct tepi_iova_range){begin, end - 1};
        }
    }
    return space->range_count ? 0 : -ENOSPC;
}

void tepi_iova_free(struct tepi_iova_space *space)
{
    free(space->taken);
    *space = (struct tepi_iova_space){0};
}

/* The lowest address from `from` on with `bytes` free and a free page on either side of them within
 * the range; 0 where there is none. */
static uint64_t find(const struct tepi_iova_space *space, uint64_t bytes, uint64_t from)
{
    for (uint32_t r = 0; r < space->range_count; r++) {
        const struct tepi_iova_range *range = &space->ranges[r];
        uint64_t at = range->first > from ? range->first : from;
        for (uint32_t i = 0; i < space->count; i++) {
            const struct tepi_iova_extent *extent = &space->taken[i];
            const uint64_t end = extent->iova + extent->bytes + space->page;
            if (end <= at) {
                continue;
            }
            if (extent->iova > range->last ||
                (extent->iova > at && extent->iova - at >= bytes + space->page)) {
                break;
            }
            at = end;
        }
        if (at <= range->last && range->last - at >= bytes - 1) {
            return at;
        }
    }
    return 0;
}

int tepi_iova_take(struct tepi_iova_space *space, struct tepi_iova_extent *extent)
{
    if (extent->bytes == 0 || (extent->bytes & (space->page - 1))) {
        return -EINVAL;
    }
    if (extent->bytes > HIGHEST) {
        return -ENOSPC;
    }
    if (space->count == space->room) {
        const uint32_t room = space->room ? space->room * 2 : 16;
        struct tepi_iova_extent *taken = realloc(space->taken, room * sizeof *taken);
        if (!taken) {
            return -ENOMEM;
        }
        space->taken = taken;
        space->room = room;
    }
    uint64_t iova = find(space, extent->bytes, space->cursor);
    iova = iova ? iova : find(space, extent->bytes, 0);
    if (iova == 0) {
        return -ENOSPC;
    }
    uint32_t place = space->count;
    while (place > 0 && space->taken[place - 1].iova > iova) {
        place--;
    }
    memmove(&space->taken[place + 1], &space->taken[place],
            (space->count - place) * sizeof *space->taken);
    extent->iova = iova;
    space->taken[place] = *extent;
    space->count++;
    space->cursor = iova + extent->bytes + space->page;
    return 0;
}

struct tepi_iova_extent tepi_iova_give(struct tepi_iova_space *space, uint64_t iova)
{
    for (uint32_t i = 0; i < space->count; i++) {
        if (space->taken[i].iova == iova) {
            const struct tepi_iova_extent extent = space->taken[i];
            space->count--;
            memmove(&space->taken[i], &space->taken[i + 1],
                    (space->count - i) * sizeof *space->taken);
            return extent;
        }
    }
    return (struct tepi_iova_extent){0};
}
