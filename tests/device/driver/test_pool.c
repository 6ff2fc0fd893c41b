/* SPDX-License-Identifier: Apache-2.0 */
/* The DMA pool and the in-process bus's IOVA table below it. */
#include "card/builder.h"
#include "check.h"
#include "driver/fake_card.h"
#include "driver/pool.h"
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define MIB (1ull << 20)

static unsigned char *acquire(struct fake_card *fake, uint64_t iova, uint64_t bytes)
{
    return fake->host.dma_acquire(fake->host.host, iova, bytes);
}

static void release(struct fake_card *fake, uint64_t iova)
{
    fake->host.dma_release(fake->host.host, iova, 1);
}

CHECK_CASE(card_sees_exactly_what_is_mapped)
{
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct tepi_dma_memory memory = {.bytes = 8192};
    memory.address = aligned_alloc(4096, memory.bytes);
    uint64_t first;
    uint64_t second;
    CHECK_INT(bus->ops->dma_map(bus, &memory, &first), 0);
    CHECK(first != (uint64_t)(uintptr_t)memory.address);
    CHECK(acquire(&fake, first, 8192) == memory.address);
    CHECK(acquire(&fake, first + 8191, 1) == (unsigned char *)memory.address + 8191);
    CHECK(!acquire(&fake, first, 8193));
    CHECK(!acquire(&fake, first + 8191, 2));
    CHECK(!acquire(&fake, first - 1, 1));
    CHECK(!acquire(&fake, first, UINT64_MAX));
    CHECK(!acquire(&fake, 0, 1));
    CHECK(!acquire(&fake, UINT64_MAX, 1));
    CHECK(!acquire(&fake, (uint64_t)(uintptr_t)memory.address, 1));
    release(&fake, first);
    release(&fake, first);
    bus->ops->dma_unmap(bus, first, 8192);
    CHECK(!acquire(&fake, first, 1));
    /* The next mapping takes the same slot, but not the same address: a stale one still faults. */
    CHECK_INT(bus->ops->dma_map(bus, &memory, &second), 0);
    CHECK(second != first);
    CHECK(!acquire(&fake, first, 1));
    bus->ops->dma_unmap(bus, second, 8192);
    bus->ops->close(bus);
    free(memory.address);
}

struct unmapping {
    struct tepi_bus *bus;
    uint64_t iova;
    _Atomic bool done;
};

static void *unmap(void *argument)
{
    struct unmapping *unmapping = argument;
    unmapping->bus->ops->dma_unmap(unmapping->bus, unmapping->iova, 4096);
    atomic_store(&unmapping->done, true);
    return NULL;
}

CHECK_CASE(unmapping_waits_for_the_card_to_let_go)
{
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct tepi_dma_memory memory = {.address = aligned_alloc(4096, 4096), .bytes = 4096};
    struct unmapping unmapping = {.bus = bus};
    CHECK_INT(bus->ops->dma_map(bus, &memory, &unmapping.iova), 0);
    unsigned char *held = acquire(&fake, unmapping.iova, 4096);
    pthread_t thread;
    pthread_create(&thread, NULL, unmap, &unmapping);
    while (acquire(&fake, unmapping.iova, 1)) {
        release(&fake, unmapping.iova);
    }
    CHECK(!atomic_load(&unmapping.done));
    held[4095] = 1;
    release(&fake, unmapping.iova);
    pthread_join(thread, NULL);
    bus->ops->close(bus);
    free(memory.address);
}

CHECK_CASE(mappings_run_out_cleanly)
{
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct tepi_dma_memory memory = {.address = aligned_alloc(4096, 4096), .bytes = 4096};
    uint64_t iovas[300];
    int count = 0;
    while (count < 300 && bus->ops->dma_map(bus, &memory, &iovas[count]) == 0) {
        count++;
    }
    CHECK_INT(count, 256);
    memory.bytes = 1ull << 40;
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iovas[0]), -E2BIG);
    memory.bytes = 0;
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iovas[0]), -EINVAL);
    bus->ops->close(bus);
    free(memory.address);
}

CHECK_CASE(blocks_are_disjoint_aligned_and_come_back_whole)
{
    enum { BLOCKS = 400, ROUNDS = 20000 };
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct tepi_pool *pool;
    CHECK_INT(tepi_pool_create(bus, 64 * MIB, &pool), 0);
    static struct tepi_block blocks[BLOCKS];
    struct chance chance = {.state = 11};
    for (int round = 0; round < ROUNDS; round++) {
        const uint32_t i = chance_below(&chance, BLOCKS);
        struct tepi_block *block = &blocks[i];
        if (block->address) {
            for (uint64_t at = 0; at < block->bytes; at += 64) {
                CHECK_INT(((uint32_t *)block->address)[at / 4], i);
            }
            tepi_pool_give(pool, block);
            CHECK(!block->address);
            continue;
        }
        const uint64_t bytes = 1 + chance_below(&chance, chance_below(&chance, 4) ? 3000 : 300000);
        const uint64_t align = 64ull << chance_below(&chance, 7);
        CHECK_INT(tepi_pool_take(pool, bytes, align, block), 0);
        CHECK(block->bytes >= bytes && (uintptr_t)block->address % align == 0);
        CHECK(acquire(&fake, block->iova, block->bytes) == block->address);
        release(&fake, block->iova);
        for (uint64_t at = 0; at < block->bytes; at += 64) {
            ((uint32_t *)block->address)[at / 4] = i;
        }
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        tepi_pool_give(pool, &blocks[i]);
    }
    CHECK_INT(tepi_pool_used(pool), 0);
    CHECK(tepi_pool_mapped(pool) <= 4 * MIB);
    tepi_pool_destroy(pool);
    bus->ops->close(bus);
}

CHECK_CASE(limit_is_kept_and_memory_is_given_back)
{
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct tepi_pool *pool;
    CHECK_INT(tepi_pool_create(bus, 10 * MIB, &pool), 0);
    struct tepi_block big = {0};
    struct tepi_block small = {0};
    struct tepi_block more = {0};
    CHECK_INT(tepi_pool_take(pool, 11 * MIB, 64, &big), -ENOMEM);
    CHECK_INT(tepi_pool_take(pool, 0, 64, &big), -EINVAL);
    CHECK_INT(tepi_pool_take(pool, 64, 96, &big), -EINVAL);
    CHECK_INT(tepi_pool_take(pool, 64, 64, &small), 0);
    CHECK_INT(tepi_pool_take(pool, 6 * MIB, 64, &big), 0);
    CHECK_INT(tepi_pool_mapped(pool), 10 * MIB);
    CHECK_INT(tepi_pool_take(pool, 4 * MIB, 64, &more), -ENOMEM);
    CHECK_INT(tepi_pool_take(pool, 3 * MIB, 4096, &more), 0);
    tepi_pool_give(pool, &big);
    CHECK_INT(tepi_pool_mapped(pool), 4 * MIB);
    tepi_pool_give(pool, &more);
    tepi_pool_give(pool, &small);
    CHECK_INT(tepi_pool_used(pool), 0);
    tepi_pool_destroy(pool);
    bus->ops->close(bus);
}

struct churn {
    struct tepi_pool *pool;
    uint64_t seed;
    int failures;
};

static void *churn(void *argument)
{
    struct churn *self = argument;
    struct chance chance = {.state = self->seed};
    for (int round = 0; round < 3000; round++) {
        struct tepi_block block;
        if (tepi_pool_take(self->pool, 1 + chance_below(&chance, 9000), 64, &block)) {
            self->failures++;
            continue;
        }
        *(uint64_t *)block.address = self->seed;
        self->failures += *(uint64_t *)block.address != self->seed;
        tepi_pool_give(self->pool, &block);
    }
    return NULL;
}

CHECK_CASE(threads_share_a_pool)
{
    struct fake_card fake;
    fake_init(&fake);
    struct tepi_bus *bus = fake_bus(&fake);
    struct churn churns[3] = {{.seed = 1}, {.seed = 2}, {.seed = 3}};
    struct tepi_pool *pool;
    CHECK_INT(tepi_pool_create(bus, 64 * MIB, &pool), 0);
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) {
        churns[i].pool = pool;
        pthread_create(&threads[i], NULL, churn, &churns[i]);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(churns[i].failures, 0);
    }
    tepi_pool_destroy(pool);
    bus->ops->close(bus);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(card_sees_exactly_what_is_mapped),
    CHECK_ENTRY(unmapping_waits_for_the_card_to_let_go),
    CHECK_ENTRY(mappings_run_out_cleanly),
    CHECK_ENTRY(blocks_are_disjoint_aligned_and_come_back_whole),
    CHECK_ENTRY(limit_is_kept_and_memory_is_given_back),
    CHECK_ENTRY(threads_share_a_pool),
};

CHECK_MAIN(cases)
