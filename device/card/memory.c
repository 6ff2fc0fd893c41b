/* SPDX-License-Identifier: Apache-2.0 */
/* Card memory as a budget over the host's own. */
#include "card/memory.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 64 };

/* From this size on a block asks for huge pages: weights are streamed once per item, and a 4 KiB
 * page per 64 lines of them costs a TLB miss each. */
#define HUGE_PAGE (UINT64_C(2) << 20)

static bool charge(struct tepi_memory *memory, uint64_t bytes)
{
    uint64_t used = atomic_load_explicit(&memory->used, memory_order_relaxed);
    do {
        if (bytes > memory->bytes - used)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&memory->used, &used, used + bytes,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void *allocate(uint64_t bytes)
{
    const uint64_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    if (bytes > SIZE_MAX - alignment)
        return NULL;
    const size_t rounded = (size_t)((bytes + alignment - 1) / alignment * alignment);
    void *block = aligned_alloc((size_t)alignment, rounded);
    if (!block)
        return NULL;
    if (alignment == HUGE_PAGE)
        (void)madvise(block, rounded, MADV_HUGEPAGE); /* only a wish */
    memset(block, 0, rounded);
    return block;
}

void *tepi_memory_take(struct tepi_memory *memory, uint64_t bytes)
{
    if (!charge(memory, bytes))
        return NULL;
    void *block = allocate(bytes ? bytes : 1);
    if (!block)
        atomic_fetch_sub_explicit(&memory->used, bytes, memory_order_relaxed);
    return block;
}

void tepi_memory_give(struct tepi_memory *memory, void *block, uint64_t bytes)
{
    if (!block)
        return;
    free(block);
    atomic_fetch_sub_explicit(&memory->used, bytes, memory_order_relaxed);
}

uint64_t tepi_memory_free(const struct tepi_memory *memory)
{
    return memory->bytes - atomic_load_explicit(&memory->used, memory_order_relaxed);
}
