/* SPDX-License-Identifier: Apache-2.0 */
/* The DMA pool: memfd regions with sorted lists of free extents. */
#include "driver/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define REGION_BYTES (4ull << 20)
#define PAGE_BYTES   4096ull

struct extent {
    uint64_t offset;
    uint64_t bytes;
};

struct region {
    struct region *next;
    unsigned char *address;
    uint64_t iova;
    uint64_t bytes;
    int fd;
    struct extent *free; /* sorted by offset, neighbours merged */
    size_t free_count, free_capacity;
    size_t taken; /* blocks out */
};

struct tepi_pool {
    struct tepi_bus *bus;
    uint64_t limit;
    pthread_mutex_t lock;
    uint64_t mapped, used;
    struct region *regions;
};

static uint64_t round_up(uint64_t value, uint64_t step)
{
    return (value + step - 1) & ~(step - 1);
}

static void region_destroy(struct tepi_pool *pool, struct region *region)
{
    pool->bus->ops->dma_unmap(pool->bus, region->iova, region->bytes);
    munmap(region->address, region->bytes);
    close(region->fd);
    free(region->free);
    free(region);
}

static int region_create(struct tepi_pool *pool, uint64_t bytes, struct region **out)
{
    int result = -ENOMEM;
    struct region *region = calloc(1, sizeof *region);
    if (!region) {
        return -ENOMEM;
    }
    region->bytes = bytes;
    region->free_capacity = 16;
    region->free = calloc(region->free_capacity, sizeof *region->free);
    if (!region->free) {
        goto free_region;
    }
    region->fd = memfd_create("tepi-dma", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (region->fd < 0) {
        result = -errno;
        goto free_extents;
    }
    /* Sealed: a card in another process maps only what cannot be cut off under it. */
    if (ftruncate(region->fd, (off_t)bytes) ||
        fcntl(region->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)) {
        result = -errno;
        goto close_fd;
    }
    void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd, 0);
    if (address == MAP_FAILED) {
        result = -errno;
        goto close_fd;
    }
    region->address = address;
    const struct tepi_dma_memory memory = {.address = address, .bytes = bytes, .fd = region->fd};
    result = pool->bus->ops->dma_map(pool->bus, &memory, &region->iova);
    if (result) {
        goto unmap;
    }
    region->free[0] = (struct extent){.offset = 0, .bytes = bytes};
    region->free_count = 1;
    *out = region;
    return 0;
unmap:
    munmap(region->address, bytes);
close_fd:
    close(region->fd);
free_extents:
    free(region->free);
free_region:
    free(region);
    return result;
}

/* With n blocks out there are at most n + 1 free extents: room for one block more is made when it
 * is taken, so that giving a block back cannot fail. */
static int region_reserve(struct region *region)
{
    if (region->taken + 2 < region->free_capacity) {
        return 0;
    }
    size_t capacity = region->free_capacity * 2;
    struct extent *grown = realloc(region->free, capacity * sizeof *grown);
    if (!grown) {
        return -ENOMEM;
    }
    region->free = grown;
    region->free_capacity = capacity;
    return 0;
}

static void extents_insert(struct region *region, size_t at, struct extent extent)
{
    memmove(&region->free[at + 1], &region->free[at],
            (region->free_count - at) * sizeof *region->free);
    region->free[at] = extent;
    region->free_count++;
}

static void extents_remove(struct region *region, size_t at)
{
    region->free_count--;
    memmove(&region->free[at], &region->free[at + 1],
            (region->free_count - at) * sizeof *region->free);
}

static bool region_take(struct region *region, uint64_t bytes, uint64_t align,
                        struct tepi_block *block)
{
    for (size_t i = 0; i < region->free_count; i++) {
        struct extent *extent = &region->free[i];
        uint64_t start = round_up(extent->offset, align);
        uint64_t gap = start - extent->offset;
        if (extent->bytes < gap || extent->bytes - gap < bytes) {
            continue;
        }
        uint64_t rest = extent->bytes - gap - bytes;
        if (gap && rest) {
            extent->bytes = gap;
            extents_insert(region, i + 1, (struct extent){start + bytes, rest});
        } else if (gap) {
            extent->bytes = gap;
        } else if (rest) {
            *extent = (struct extent){start + bytes, rest};
        } else {
            extents_remove(region, i);
        }
        *block = (struct tepi_block){region->address + start, region->iova + start, bytes};
        region->taken++;
        return true;
    }
    return false;
}

static void region_give(struct region *region, struct extent extent)
{
    region->taken--;
    size_t low = 0;
    size_t high = region->free_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (region->free[middle].offset < extent.offset) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    struct extent *free_list = region->free;
    bool joins_left =
        low > 0 && free_list[low - 1].offset + free_list[low - 1].bytes == extent.offset;
    bool joins_right =
        low < region->free_count && extent.offset + extent.bytes == free_list[low].offset;
    if (joins_left && joins_right) {
        free_list[low - 1].bytes += extent.bytes + free_list[low].bytes;
        extents_remove(region, low);
    } else if (joins_left) {
        free_list[low - 1].bytes += extent.bytes;
    } else if (joins_right) {
        free_list[low].offset = extent.offset;
        free_list[low].bytes += extent.bytes;
    } else {
        extents_insert(region, low, extent);
    }
}

int tepi_pool_create(struct tepi_bus *bus, uint64_t limit_bytes, struct tepi_pool **pool)
{
    struct tepi_pool *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    self->bus = bus;
    self->limit = limit_bytes;
    pthread_mutex_init(&self->lock, NULL);
    *pool = self;
    return 0;
}

void tepi_pool_destroy(struct tepi_pool *pool)
{
    struct region *next = NULL;
    for (struct region *region = pool->regions; region; region = next) {
        next = region->next;
        region_destroy(pool, region);
    }
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

/* Maps a region that holds `bytes`: of the usual size where the limit allows it, else smaller. */
static int pool_grow(struct tepi_pool *pool, uint64_t bytes, struct region **out)
{
    uint64_t least = round_up(bytes, PAGE_BYTES);
    uint64_t size = least > REGION_BYTES ? least : REGION_BYTES;
    uint64_t room = pool->limit - pool->mapped;
    if (size > room) {
        size = room & ~(PAGE_BYTES - 1);
    }
    if (size < least) {
        return -ENOMEM;
    }
    int result = region_create(pool, size, out);
    if (result) {
        return result;
    }
    (*out)->next = pool->regions;
    pool->regions = *out;
    pool->mapped += size;
    return 0;
}

int tepi_pool_take(struct tepi_pool *pool, uint64_t bytes, uint64_t align, struct tepi_block *block)
{
    if (bytes == 0 || bytes > pool->limit || align < TEPI_POOL_ALIGN || align > PAGE_BYTES ||
        (align & (align - 1))) {
        return bytes > pool->limit ? -ENOMEM : -EINVAL;
    }
    bytes = round_up(bytes, TEPI_POOL_ALIGN);
    int result = 0;
    pthread_mutex_lock(&pool->lock);
    for (struct region *region = pool->regions; region; region = region->next) {
        result = region_reserve(region);
        if (result) {
            goto out;
        }
        if (region_take(region, bytes, align, block)) {
            pool->used += bytes;
            goto out;
        }
    }
    struct region *region = NULL;
    result = pool_grow(pool, bytes, &region);
    if (result == 0) {
        bool taken = region_take(region, bytes, align, block);
        pool->used += taken ? bytes : 0;
    }
out:
    pthread_mutex_unlock(&pool->lock);
    return result;
}

void tepi_pool_give(struct tepi_pool *pool, struct tepi_block *block)
{
    if (!block->address) {
        return;
    }
    const unsigned char *address = block->address;
    pthread_mutex_lock(&pool->lock);
    struct region **link = &pool->regions;
    while (*link && (address < (*link)->address || address >= (*link)->address + (*link)->bytes)) {
        link = &(*link)->next;
    }
    struct region *region = *link;
    struct region *empty = NULL;
    if (region) {
        region_give(region, (struct extent){(uint64_t)(address - region->address), block->bytes});
        pool->used -= block->bytes;
        /* One region stays mapped so that a pool in use does not map and unmap at each turn. */
        if (region->free_count == 1 && region->free[0].bytes == region->bytes &&
            (pool->regions->next || region->bytes > REGION_BYTES)) {
            *link = region->next;
            pool->mapped -= region->bytes;
            empty = region;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    if (empty) {
        region_destroy(pool, empty);
    }
    *block = (struct tepi_block){0};
}

int tepi_pool_show(struct tepi_pool *pool, const void *address, uint64_t bytes, uint64_t *iova)
{
    const struct tepi_dma_memory memory = {
        .address = (void *)(uintptr_t)address, /* the card only reads it */
        .bytes = bytes,
        .fd = -1,
        .file = true,
    };
    return pool->bus->ops->dma_map(pool->bus, &memory, iova);
}

void tepi_pool_hide(struct tepi_pool *pool, uint64_t iova, uint64_t bytes)
{
    pool->bus->ops->dma_unmap(pool->bus, iova, bytes);
}

uint64_t tepi_pool_mapped(struct tepi_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t mapped = pool->mapped;
    pthread_mutex_unlock(&pool->lock);
    return mapped;
}

uint64_t tepi_pool_used(struct tepi_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    uint64_t used = pool->used;
    pthread_mutex_unlock(&pool->lock);
    return used;
}
