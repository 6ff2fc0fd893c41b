/* SPDX-License-Identifier: Apache-2.0 */
/* A client's memory as the card may touch it: a small IOMMU of mapped files.
 *
 * Only files that cannot shrink are taken (F_SEAL_SHRINK on a memfd), since a page that is cut off
 * under the card would end its process. Look-ups take no lock. */
#ifndef TEPI_ENDPOINT_MAPPINGS_H
#define TEPI_ENDPOINT_MAPPINGS_H

#include "abi/vfio_user.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* `use`: LIVE, plus one per access in progress. Address, bytes and memory are written only while
 * it is 0; a reader that has not pinned the mapping yet may see them torn, and looks again. */
struct tepi_mapping {
    _Atomic uint32_t use;
    _Atomic uint64_t iova;
    _Atomic uint64_t bytes;
    unsigned char *memory;
};

struct tepi_mappings {
    pthread_mutex_t lock; /* of adding and removing */
    pthread_cond_t dropped;
    _Atomic uint32_t reach; /* slots ever used: a look-up goes no further */
    uint64_t total;         /* bytes mapped */
    struct tepi_mapping slots[TEPI_VFIO_USER_MAPS_MAX];
};

/* Most bytes that one client may have mapped at a time. */
#define TEPI_MAPPED_MOST (1ull << 40)

void tepi_mappings_init(struct tepi_mappings *mappings);
/* Unmaps everything; no access may be in progress. */
void tepi_mappings_destroy(struct tepi_mappings *mappings);

/* Maps what a checked DMA_MAP asks for; the file stays the caller's. 0, or the errno to answer:
 * EPERM (the file may shrink), EINVAL (beyond its end), EEXIST, ENOSPC, or mmap's. */
int tepi_mappings_add(struct tepi_mappings *mappings, const struct tepi_vfio_user_dma_map *map,
                      int file);
/* Returns when nobody uses the mapping any more: 0. ENOENT: there is none of exactly that address
 * and size. EBUSY: `patience` returned false, asked every PATIENCE_MS; it is mapped as before. */
int tepi_mappings_remove(struct tepi_mappings *mappings, uint64_t iova, uint64_t bytes,
                         bool (*patience)(void *context), void *context);

/* As tepi_host_port's dma_acquire and dma_release. */
void *tepi_mappings_acquire(struct tepi_mappings *mappings, uint64_t iova, uint64_t bytes);
void tepi_mappings_release(struct tepi_mappings *mappings, uint64_t iova);

#endif
