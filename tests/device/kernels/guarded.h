/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that ends, or begins, exactly at an unreadable page; and a seeded source of bytes. */
#ifndef TEPI_TESTS_KERNELS_GUARDED_H
#define TEPI_TESTS_KERNELS_GUARDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guarded {
    uint8_t *bytes; /* `size` of them, zeroed */
    size_t size;
    void *map;
    size_t mapped;
};

/* at_end: the byte after the last faults; else the byte before the first does. Aborts the test
 * program when the host is out of memory. */
struct guarded guarded_new(size_t size, bool at_end);
void guarded_free(struct guarded *block);

/* splitmix64. */
uint64_t random_next(uint64_t *state);
uint32_t random_below(uint64_t *state, uint32_t bound);
void random_fill(uint64_t *state, void *bytes, size_t size);

#endif
