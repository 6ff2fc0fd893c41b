/* SPDX-License-Identifier: Apache-2.0 */
/* DMA memory for rings and buffers: a few big mappings, cut into blocks.
 *
 * Mapping is slow and a bus has few mappings to give, so the pool maps regions and hands out
 * extents of them, first fit in address order. It grows up to its limit and gives empty regions
 * back. Safe from any thread. */
#ifndef TEPI_DRIVER_POOL_H
#define TEPI_DRIVER_POOL_H

#include "driver/bus.h"
#include <stdint.h>

struct tepi_pool;

/* A piece of DMA memory; address NULL: none. */
struct tepi_block {
    void *address;
    uint64_t iova;
    uint64_t bytes;
};

enum { TEPI_POOL_ALIGN = 64 };

/* limit_bytes bounds all mappings together. 0 or -ENOMEM. */
int tepi_pool_create(struct tepi_bus *bus, uint64_t limit_bytes, struct tepi_pool **pool);
/* Unmaps everything; blocks still out become invalid. */
void tepi_pool_destroy(struct tepi_pool *pool);

/* A block of at least `bytes`, aligned to `align` (a power of two, 64 to 4096). Contents undefined.
 * 0, -ENOMEM (limit reached, or the machine is out of memory), -EINVAL, or the bus's refusal. */
int tepi_pool_take(struct tepi_pool *pool, uint64_t bytes, uint64_t align,
                   struct tepi_block *block);
/* Clears *block; NULL address: nothing to do. */
void tepi_pool_give(struct tepi_pool *pool, struct tepi_block *block);

/* Shows the card `bytes` at `address`, page-aligned and a shared mapping of a file, without a copy.
 * 0, or the bus's refusal: then a block has to do. */
int tepi_pool_show(struct tepi_pool *pool, const void *address, uint64_t bytes, uint64_t *iova);
void tepi_pool_hide(struct tepi_pool *pool, uint64_t iova, uint64_t bytes);

/* Bytes mapped, and bytes handed out. */
uint64_t tepi_pool_mapped(struct tepi_pool *pool);
uint64_t tepi_pool_used(struct tepi_pool *pool);

#endif
