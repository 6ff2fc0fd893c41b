/* SPDX-License-Identifier: Apache-2.0 */
/* The card's memory: a budget kept to the byte, from several threads, and the program checksum. */
#include "card/memory.h"
#include "card/program_crc.h"
#include "check.h"
#include <pthread.h>

CHECK_CASE(blocks_are_aligned_and_zero)
{
    struct tepi_memory memory = {.bytes = 8 << 20};
    const uint64_t sizes[] = {0, 1, 63, 64, 65, 4096, (2 << 20) - 1, 2 << 20, (2 << 20) + 1};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *block = tepi_memory_take(&memory, sizes[i]);
        CHECK(block);
        CHECK_INT((uintptr_t)block % 64, 0);
        for (uint64_t k = 0; k < sizes[i]; k++)
            CHECK(block[k] == 0);
        memset(block, 0xff, (size_t)sizes[i]);
        CHECK_INT(tepi_memory_free(&memory), memory.bytes - sizes[i]);
        tepi_memory_give(&memory, block, sizes[i]);
    }
    CHECK_INT(tepi_memory_free(&memory), memory.bytes);
}

CHECK_CASE(full_is_refused_and_charges_nothing)
{
    struct tepi_memory memory = {.bytes = 1000};
    void *first = tepi_memory_take(&memory, 600);
    CHECK(first);
    CHECK(!tepi_memory_take(&memory, 401));
    CHECK(!tepi_memory_take(&memory, UINT64_MAX));
    void *second = tepi_memory_take(&memory, 400);
    CHECK(second);
    CHECK_INT(tepi_memory_free(&memory), 0);
    CHECK(!tepi_memory_take(&memory, 1));
    tepi_memory_give(&memory, first, 600);
    CHECK_INT(tepi_memory_free(&memory), 600);
    tepi_memory_give(&memory, second, 400);
    tepi_memory_give(&memory, NULL, 1);
    CHECK_INT(tepi_memory_free(&memory), 1000);
}

CHECK_CASE(more_than_the_host_has_is_refused_and_charges_nothing)
{
    struct tepi_memory memory = {.bytes = UINT64_MAX};
    CHECK(!tepi_memory_take(&memory, UINT64_MAX));
    CHECK_INT(tepi_memory_free(&memory), UINT64_MAX);
}

static void *take_and_give(void *argument)
{
    struct tepi_memory *memory = argument;
    for (uint64_t i = 0; i < 2000; i++) {
        const uint64_t bytes = 1 + i % 300;
        void *block = tepi_memory_take(memory, bytes);
        tepi_memory_give(memory, block, block ? bytes : 0);
    }
    return NULL;
}

CHECK_CASE(threads_leave_the_account_even)
{
    struct tepi_memory memory = {.bytes = 500};
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, take_and_give, &memory), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(tepi_memory_free(&memory), 500);
}

/* The check value of CRC-32/ISO-HDLC, and of one byte and of no bytes. */
CHECK_CASE(crc_has_the_published_values)
{
    CHECK_INT(tepi_crc32(0, "123456789", 9), 0xcbf43926);
    CHECK_INT(tepi_crc32(0, "a", 1), 0xe8b7be43);
    CHECK_INT(tepi_crc32(0, "", 0), 0);
}

CHECK_CASE(crc_of_parts_is_crc_of_the_whole)
{
    uint8_t bytes[200];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * 37);
    const uint32_t whole = tepi_crc32(0, bytes, sizeof(bytes));
    for (size_t cut = 0; cut <= sizeof(bytes); cut++)
        CHECK_INT(tepi_crc32(tepi_crc32(0, bytes, cut), bytes + cut, sizeof(bytes) - cut), whole);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(blocks_are_aligned_and_zero),
    CHECK_ENTRY(full_is_refused_and_charges_nothing),
    CHECK_ENTRY(more_than_the_host_has_is_refused_and_charges_nothing),
    CHECK_ENTRY(threads_leave_the_account_even),
    CHECK_ENTRY(crc_has_the_published_values),
    CHECK_ENTRY(crc_of_parts_is_crc_of_the_whole),
};
CHECK_MAIN(cases)
