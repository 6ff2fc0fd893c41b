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

static uint64_t round_up(uint64_t bytes, uint64_t step)
{
    return (bytes + step - 1) / step * step;
}

/* Pages that become resident, and zero, as they are first written. */
static void *map_huge(uint64_t bytes)
{
    if (bytes > SIZE_MAX - 2 * HUGE_PAGE)
        return NULL;
    const size_t rounded = (size_t)round_up(bytes, HUGE_PAGE);
    uint8_t *wide =
        mmap(NULL, rounded + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (wide == MAP_FAILED)
        return NULL;
    const size_t before = (size_t)(round_up((uintptr_t)wide, HUGE_PAGE) - (uintptr_t)wide);
    uint8_t *block = wide + before;
    if (before)
        (void)munmap(wide, before);
    if (before < HUGE_PAGE)
        (void)munmap(block + rounded, HUGE_PAGE - before);
    (void)madvise(block, rounded, MADV_HUGEPAGE); /* only a wish */
    return block;
}

static void *allocate(uint64_t bytes)
{
    if (bytes >= HUGE_PAGE)
        return map_huge(bytes);
    const size_t rounded = (size_t)round_up(bytes, ALIGNMENT);
    void *block = aligned_alloc(ALIGNMENT, rounded);
    return block ? memset(block, 0, rounded) : NULL;
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
    if (bytes >= HUGE_PAGE)
        (void)munmap(block, (size_t)round_up(bytes, HUGE_PAGE));
    else
        free(block);
    atomic_fetch_sub_explicit(&memory->used, bytes, memory_order_relaxed);
}

uint64_t tepi_memory_free(const struct tepi_memory *memory)
{
    return memory->bytes - atomic_load_explicit(&memory->used, memory_order_relaxed);
}
