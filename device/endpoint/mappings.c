/* SPDX-License-Identifier: Apache-2.0 */
/* The mapping table: slots with use counts, found by range. */
#include "endpoint/mappings.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#define LIVE        0x80000000u
#define PATIENCE_MS 20

void tepi_mappings_init(struct tepi_mappings *mappings)
{
    pthread_condattr_t monotonic;
    pthread_mutex_init(&mappings->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&mappings->dropped, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void tepi_mappings_destroy(struct tepi_mappings *mappings)
{
    const uint32_t reach = atomic_load(&mappings->reach);
    for (uint32_t i = 0; i < reach; i++) {
        struct tepi_mapping *slot = &mappings->slots[i];
        if (atomic_load(&slot->use)) {
            munmap(slot->memory, slot->bytes);
        }
    }
    pthread_cond_destroy(&mappings->dropped);
    pthread_mutex_destroy(&mappings->lock);
}

/* Whether [iova, iova + bytes) lies in the slot's range; it cannot wrap, as check_map has seen. */
static bool holds(struct tepi_mapping *slot, uint64_t iova, uint64_t bytes)
{
    const uint64_t base = atomic_load_explicit(&slot->iova, memory_order_relaxed);
    const uint64_t size = atomic_load_explicit(&slot->bytes, memory_order_relaxed);
    const uint64_t offset = iova - base;
    return iova >= base && offset < size && bytes <= size - offset;
}

static void drop(struct tepi_mappings *mappings, struct tepi_mapping *slot)
{
    /* Release: this access is over before a removal that sees the count at 0 unmaps. */
    if (atomic_fetch_sub_explicit(&slot->use, 1, memory_order_acq_rel) == 1) {
        pthread_mutex_lock(&mappings->lock);
        pthread_cond_broadcast(&mappings->dropped);
        pthread_mutex_unlock(&mappings->lock);
    }
}

static bool pin(struct tepi_mapping *slot)
{
    uint32_t use = atomic_load_explicit(&slot->use, memory_order_relaxed);
    do {
        if (!(use & LIVE)) {
            return false;
        }
        /* Acquire: the fields are read again after the count has pinned them. */
    } while (!atomic_compare_exchange_weak_explicit(&slot->use, &use, use + 1, memory_order_acquire,
                                                    memory_order_relaxed));
    return true;
}

void *tepi_mappings_acquire(struct tepi_mappings *mappings, uint64_t iova, uint64_t bytes)
{
    const uint32_t reach = atomic_load_explicit(&mappings->reach, memory_order_acquire);
    for (uint32_t i = 0; i < reach; i++) {
        struct tepi_mapping *slot = &mappings->slots[i];
        if (!holds(slot, iova, bytes) || !pin(slot)) {
            continue;
        }
        if (holds(slot, iova, bytes)) {
            return slot->memory + (iova - slot->iova);
        }
        drop(mappings, slot);
    }
    return NULL;
}

void tepi_mappings_release(struct tepi_mappings *mappings, uint64_t iova)
{
    const uint32_t reach = atomic_load_explicit(&mappings->reach, memory_order_acquire);
    for (uint32_t i = 0; i < reach; i++) {
        struct tepi_mapping *slot = &mappings->slots[i];
        /* A pinned mapping keeps its fields, and no other overlaps it: it is found, LIVE or not. */
        if (atomic_load_explicit(&slot->use, memory_order_relaxed) & ~LIVE &&
            holds(slot, iova, 0)) {
            drop(mappings, slot);
            return;
        }
    }
}

/* Memory of the file, or NULL with *error. */
static void *map_file(const struct tepi_vfio_user_dma_map *map, int file, int *error)
{
    struct stat about;
    const int seals = fcntl(file, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        *error = EPERM;
        return NULL;
    }
    if (fstat(file, &about) || (uint64_t)about.st_size < map->offset + map->size) {
        *error = EINVAL;
        return NULL;
    }
    void *memory =
        mmap(NULL, map->size, PROT_READ | PROT_WRITE, MAP_SHARED, file, (off_t)map->offset);
    if (memory == MAP_FAILED) {
        *error = errno;
        return NULL;
    }
    return memory;
}

/* A free slot with the lock held, *error where the range cannot be mapped. */
static struct tepi_mapping *free_slot(struct tepi_mappings *mappings,
                                      const struct tepi_vfio_user_dma_map *map, int *error)
{
    struct tepi_mapping *found = NULL;
    for (uint32_t i = 0; i < TEPI_VFIO_USER_MAPS_MAX; i++) {
        struct tepi_mapping *slot = &mappings->slots[i];
        if (atomic_load_explicit(&slot->use, memory_order_acquire) == 0) {
            found = found ? found : slot;
        } else if (map->address < slot->iova + slot->bytes &&
                   slot->iova < map->address + map->size) {
            *error = EEXIST; /* "VFIO_USER_DMA_MAP": a map over an existing region */
            return NULL;
        }
    }
    *error = found && map->size <= TEPI_MAPPED_MOST - mappings->total ? 0 : ENOSPC;
    return *error ? NULL : found;
}

int tepi_mappings_add(struct tepi_mappings *mappings, const struct tepi_vfio_user_dma_map *map,
                      int file)
{
    int error = 0;
    pthread_mutex_lock(&mappings->lock);
    struct tepi_mapping *slot = free_slot(mappings, map, &error);
    void *memory = slot ? map_file(map, file, &error) : NULL;
    if (memory) {
        const uint32_t index = (uint32_t)(slot - mappings->slots);
        atomic_store_explicit(&slot->iova, map->address, memory_order_relaxed);
        atomic_store_explicit(&slot->bytes, map->size, memory_order_relaxed);
        slot->memory = memory;
        mappings->total += map->size;
        /* Release: the fields are whole before a look-up can pin the slot. */
        atomic_store_explicit(&slot->use, LIVE, memory_order_release);
        if (index >= atomic_load_explicit(&mappings->reach, memory_order_relaxed)) {
            atomic_store_explicit(&mappings->reach, index + 1, memory_order_release);
        }
    }
    pthread_mutex_unlock(&mappings->lock);
    return error;
}

/* Waits a little for a use count to fall; with the lock held. */
static void wait_shortly(struct tepi_mappings *mappings)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PATIENCE_MS * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_cond_timedwait(&mappings->dropped, &mappings->lock, &until);
}

int tepi_mappings_remove(struct tepi_mappings *mappings, uint64_t iova, uint64_t bytes,
                         bool (*patience)(void *context), void *context)
{
    int error = ENOENT;
    pthread_mutex_lock(&mappings->lock);
    for (uint32_t i = 0; i < TEPI_VFIO_USER_MAPS_MAX && error == ENOENT; i++) {
        struct tepi_mapping *slot = &mappings->slots[i];
        if (!atomic_load(&slot->use) || slot->iova != iova || slot->bytes != bytes) {
            continue;
        }
        error = 0;
        atomic_fetch_and_explicit(&slot->use, ~LIVE, memory_order_acq_rel);
        while (atomic_load_explicit(&slot->use, memory_order_acquire) != 0 && error == 0) {
            wait_shortly(mappings);
            error = patience(context) ? 0 : EBUSY;
        }
        if (atomic_load_explicit(&slot->use, memory_order_acquire) != 0) {
            atomic_fetch_or_explicit(&slot->use, LIVE, memory_order_acq_rel);
            break;
        }
        error = 0;
        munmap(slot->memory, slot->bytes);
        mappings->total -= slot->bytes;
        atomic_store_explicit(&slot->bytes, 0, memory_order_relaxed);
    }
    pthread_mutex_unlock(&mappings->lock);
    return error;
}
