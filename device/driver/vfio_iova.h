/* SPDX-License-Identifier: Apache-2.0 */
/* Which bus addresses are taken, inside the ranges that the IOMMU lets a card use. No I/O here.
 *
 * Addresses are given out in ascending order, from the lowest again only when the highest is
 * reached, and with an unmapped page between neighbours: a card that uses memory after it was
 * unmapped, or past its end, meets a fault of the IOMMU rather than other memory. */
#ifndef TEPI_DRIVER_VFIO_IOVA_H
#define TEPI_DRIVER_VFIO_IOVA_H

#include "driver/vfio_chain.h"
#include <stdbool.h>
#include <stdint.h>

enum { TEPI_IOVA_RANGES_MAX = 32 };

/* What lies at an address: all that it takes to map it again. */
struct tepi_iova_extent {
    uint64_t iova, bytes;
    void *address;
    bool read_only;
};

struct tepi_iova_space {
    uint64_t page;
    struct tepi_iova_range ranges[TEPI_IOVA_RANGES_MAX];
    uint32_t range_count;
    struct tepi_iova_extent *taken; /* sorted by address */
    uint32_t count, room;
    uint64_t cursor;
};

/* `ranges` in ascending order; none: what every x86 IOMMU has. `page`: the size of the IOMMU's
 * pages, a power of two. 0, -EBADMSG (they overlap), -ENOSPC (nothing is left of them). */
int tepi_iova_init(struct tepi_iova_space *space, const struct tepi_iova_range *ranges,
                   uint32_t count, uint64_t page);
void tepi_iova_free(struct tepi_iova_space *space);

/* Fills in extent->iova for extent->bytes, a multiple of the page, and keeps a copy of it.
 * 0, -EINVAL, -ENOSPC or -ENOMEM. */
int tepi_iova_take(struct tepi_iova_space *space, struct tepi_iova_extent *extent);
/* Gives the extent at `iova` back and returns it; one of 0 bytes where nothing starts there. */
struct tepi_iova_extent tepi_iova_give(struct tepi_iova_space *space, uint64_t iova);

#endif
