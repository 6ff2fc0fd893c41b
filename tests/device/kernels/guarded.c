/* SPDX-License-Identifier: Apache-2.0 */
/* Guarded memory by mmap: a page without access on both sides of the block's pages. */
#include "kernels/guarded.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct guarded guarded_new(size_t size, bool at_end)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t inside = (size + page - 1) / page * page;
    struct guarded block = {.size = size, .mapped = inside + 2 * page};
    block.map = mmap(NULL, block.mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block.map == MAP_FAILED ||
        (inside && mprotect((uint8_t *)block.map + page, inside, PROT_READ | PROT_WRITE))) {
        perror("guarded memory");
        abort();
    }
    block.bytes = (uint8_t *)block.map + page + (at_end ? inside - size : 0);
    return block;
}

void guarded_free(struct guarded *block)
{
    munmap(block->map, block->mapped);
}

uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t random_below(uint64_t *state, uint32_t bound)
{
    return (uint32_t)((random_next(state) >> 32) * bound >> 32);
}

void random_fill(uint64_t *state, void *bytes, size_t size)
{
    uint8_t *out = bytes;
    for (size_t i = 0; i < size; i++)
        out[i] = (uint8_t)random_next(state);
}
