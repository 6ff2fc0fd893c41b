/* SPDX-License-Identifier: Apache-2.0 */
/* Card memory as a budget: finite, accounted, and failing cleanly when it is full. */
#ifndef TEPI_CARD_MEMORY_H
#define TEPI_CARD_MEMORY_H

#include <stdatomic.h>
#include <stdint.h>

struct tepi_memory {
    uint64_t bytes;
    _Atomic uint64_t used;
};

/* 64-byte aligned, zeroed; NULL when the budget or the host is out of memory. */
void *tepi_memory_take(struct tepi_memory *memory, uint64_t bytes);
void tepi_memory_give(struct tepi_memory *memory, void *block, uint64_t bytes);
uint64_t tepi_memory_free(const struct tepi_memory *memory);

#endif
