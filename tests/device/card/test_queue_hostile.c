/* SPDX-License-Identifier: Apache-2.0 */
/* The card against a host that writes anything into entries, lists, rings and registers. */
#include "card/raw_host.h"
#include "check.h"
#include <stddef.h>
#include <stdlib.h>

enum { ITEM = 64, BATCH = 3, INPUT_AT = 1 << 20, OUTPUT_AT = INPUT_AT + 4096, LIST_AT = 4096 * 8 };

/* An EXECUTE of a 64-byte copy program whose scatter list the caller gives. */
static uint32_t execute(struct raw_host *raw, uint32_t program, const struct tepi_segment *list,
                        uint32_t segments, struct tepi_completion *completion)
{
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, 7);
    entry.program = program;
    entry.batch = BATCH;
    entry.list_iova = raw_put(raw, LIST_AT, list, segments * sizeof *list);
    entry.segments = segments;
    return raw_do(raw, 0, &entry, completion);
}

static uint64_t at(uint32_t offset)
{
    return RAW_WINDOW + RAW_RINGS_BYTES + offset;
}

static void fill_input(struct raw_host *raw, uint8_t *bytes)
{
    struct chance chance = {.state = 5};
    chance_fill(&chance, bytes, ITEM * BATCH);
    raw_put(raw, INPUT_AT, bytes, ITEM * BATCH);
}

CHECK_CASE(bad_fields_are_named_by_their_offset)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, 1);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    entry.flags = 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    CHECK_INT(done.info, offsetof(struct tepi_submission, flags));
    entry = raw_entry(&raw, TEPI_CMD_NOP, 2);
    entry.reserved0 = 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    CHECK_INT(done.info, offsetof(struct tepi_submission, reserved0));
    entry = raw_entry(&raw, TEPI_CMD_NOP, 3);
    entry.reserved1 = 1ull << 63;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    CHECK_INT(done.info, offsetof(struct tepi_submission, reserved1));
    entry = raw_entry(&raw, TEPI_CMD_EXECUTE, 4);
    entry.batch = 0;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    CHECK_INT(done.info, offsetof(struct tepi_submission, batch));
    entry.batch = 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    CHECK_INT(done.info, offsetof(struct tepi_submission, segments));
    entry.segments = TEPI_SEGMENTS_MAX + 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    entry.segments = 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_NO_PROGRAM);
    for (unsigned opcode = TEPI_CMD_ABORT + 1; opcode < 256; opcode++) {
        entry = raw_entry(&raw, (uint8_t)opcode, 5);
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_OPCODE);
        CHECK_INT(done.info, opcode);
    }
    entry = raw_entry(&raw, TEPI_CMD_NOP, 6);
    entry.generation--;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_STALE_GENERATION);
    raw_close(&raw);
}

CHECK_CASE(load_of_unmapped_or_absurd_image)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_LOAD_PROGRAM, 1);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    entry.data_bytes = TEPI_PROGRAM_BYTES_MAX + 1;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    entry.data_bytes = TEPI_PROGRAM_BYTES_MAX;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_NO_MEMORY);
    CHECK(done.info >= (TEPI_PROGRAM_BYTES_MAX - (64u << 20)) >> 10);
    entry.data_bytes = 4096;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_DMA);
    entry.data_iova = RAW_WINDOW + RAW_BYTES - 4095;
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DMA);
    entry.data_iova = at(0);
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_PROGRAM_MAGIC);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
    raw_close(&raw);
}

CHECK_CASE(scatter_lists_that_do_not_cover_the_ports)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    CHECK(program != 0);
    struct tepi_completion done;
    const struct tepi_segment in = {.iova = at(INPUT_AT), .bytes = ITEM * BATCH, .port = 0};
    const struct tepi_segment out = {.iova = at(OUTPUT_AT), .bytes = ITEM * BATCH, .port = 1};
    struct tepi_segment list[3] = {in, out, in};
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_OK);
    CHECK_INT(execute(&raw, program, list, 1, &done), TEPI_FAULT_SCATTER_LIST);
    CHECK_INT(done.info, 1);
    CHECK_INT(execute(&raw, program, list, 3, &done), TEPI_FAULT_SCATTER_LIST);
    CHECK_INT(done.info, 0);
    list[1].bytes--;
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_SCATTER_LIST);
    CHECK_INT(done.info, 1);
    list[1] = out;
    list[1].port = 2;
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_SCATTER_LIST);
    CHECK_INT(done.info, 2);
    list[1].port = 65535;
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_SCATTER_LIST);
    list[1] = out;
    list[2] = (struct tepi_segment){.iova = at(OUTPUT_AT), .bytes = 0, .port = 1};
    CHECK_INT(execute(&raw, program, list, 3, &done), TEPI_FAULT_SCATTER_LIST);
    list[1].flags = 1;
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_SCATTER_LIST);
    raw_close(&raw);
}

CHECK_CASE(dma_to_unmapped_memory)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    const int held = atomic_load(&raw.held);
    struct tepi_completion done;
    struct tepi_segment list[2] = {
        {.iova = at(INPUT_AT), .bytes = ITEM * BATCH, .port = 0},
        {.iova = RAW_WINDOW + RAW_BYTES - 1, .bytes = ITEM * BATCH, .port = 1},
    };
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_DMA);
    CHECK_INT(done.info, 1);
    list[1].iova = UINT64_MAX - 8;
    CHECK_INT(execute(&raw, program, list, 2, &done), TEPI_FAULT_DMA);
    struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_EXECUTE, 9);
    entry.program = program;
    entry.segments = 2;
    entry.list_iova = RAW_WINDOW + RAW_BYTES - 16;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_DMA);
    CHECK_INT(done.info, TEPI_NONE);
    CHECK_INT(atomic_load(&raw.held), held);
    raw_close(&raw);
}

CHECK_CASE(pieces_that_cut_items_and_interleave)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    uint8_t input[ITEM * BATCH];
    fill_input(&raw, input);
    /* Item 0 cut in three, 1 whole but unaligned, 2 whole; outputs cut elsewhere and far apart. */
    const struct tepi_segment list[] = {
        {.iova = at(OUTPUT_AT), .bytes = 1, .port = 1},
        {.iova = at(INPUT_AT), .bytes = 3, .port = 0},
        {.iova = at(INPUT_AT + 3), .bytes = 50, .port = 0},
        {.iova = at(OUTPUT_AT + 500), .bytes = 127, .port = 1},
        {.iova = at(INPUT_AT + 53), .bytes = 139, .port = 0},
        {.iova = at(OUTPUT_AT + 1000), .bytes = 64, .port = 1},
    };
    struct tepi_completion done;
    const uint64_t free_before = raw_read64(&raw, TEPI_REG_MEMORY_FREE);
    CHECK_INT(execute(&raw, program, list, 6, &done), TEPI_FAULT_OK);
    const unsigned char *output = raw.memory + RAW_RINGS_BYTES + OUTPUT_AT;
    CHECK_BYTES(output, input, 1);
    CHECK_BYTES(output + 500, input + 1, 127);
    CHECK_BYTES(output + 1000, input + 128, 64);
    CHECK_INT(output[1], 0);
    CHECK_INT(output[627], 0);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), free_before);
    CHECK(done.compute_ns > 0 && done.copy_out_ns > 0);
    raw_close(&raw);
}

CHECK_CASE(batch_times_bytes_that_overflows)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_EXECUTE, 1);
    const struct tepi_segment list[2] = {{.iova = at(INPUT_AT), .bytes = ITEM, .port = 0},
                                         {.iova = at(OUTPUT_AT), .bytes = ITEM, .port = 1}};
    struct tepi_completion done;
    entry.program = program;
    entry.list_iova = raw_put(&raw, LIST_AT, list, sizeof list);
    entry.segments = 2;
    entry.batch = UINT32_MAX;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_SCATTER_LIST);
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_SCATTER_LIST);
    raw_close(&raw);
}

CHECK_CASE(queue_set_up_wrongly)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, &(struct raw_options){.plugged_only = true}));
    const uint32_t bad_sizes[] = {0, 1, 3, 100, 1u << 20, UINT32_MAX};
    for (size_t i = 0; i < sizeof bad_sizes / sizeof bad_sizes[0]; i++) {
        CHECK_INT(raw_queue(&raw, 2, bad_sizes[i], 1), 0);
        CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), TEPI_FAULT_QUEUE_SETUP);
    }
    const uint32_t file = TEPI_REG_QUEUE + 2 * TEPI_REG_QUEUE_STRIDE;
    CHECK_INT(raw_queue(&raw, 2, 16, 1), 1);
    const uint64_t bad_bases[] = {0, RAW_WINDOW + 64, RAW_WINDOW + RAW_BYTES,
                                  UINT64_MAX & ~4095ull};
    for (size_t i = 0; i < sizeof bad_bases / sizeof bad_bases[0]; i++) {
        raw_write64(&raw, file + TEPI_QUEUE_CQ_BASE, bad_bases[i]);
        raw_write32(&raw, file + TEPI_QUEUE_ENABLE, 1);
        CHECK_INT(raw_read32(&raw, file + TEPI_QUEUE_ENABLE), 0);
    }
    raw_write64(&raw, file + TEPI_QUEUE_CQ_BASE, RAW_WINDOW + 4096);
    raw_write32(&raw, file + TEPI_QUEUE_VECTOR, TEPI_QUEUES_MAX);
    raw_write32(&raw, file + TEPI_QUEUE_ENABLE, 1);
    CHECK_INT(raw_read32(&raw, file + TEPI_QUEUE_ENABLE), 0);
    CHECK_INT(atomic_load(&raw.held), 0);
    raw_close(&raw);
}

CHECK_CASE(doorbell_past_the_ring_stops_the_pair)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    raw_write32(&raw, TEPI_REG_DOORBELL, 17);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), TEPI_FAULT_QUEUE_OVERRUN);
    CHECK_INT(raw_read32(&raw, TEPI_REG_QUEUE + TEPI_QUEUE_ENABLE), 0);
    raw_write32(&raw, TEPI_REG_DOORBELL, 1);
    CHECK_INT(raw_completion(&raw, 0, 0)->tag, 0);
    /* The other pair goes on. */
    struct tepi_completion done;
    const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, 1);
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_OK);
    /* So does the stopped one once it is set up again. */
    CHECK_INT(raw_queue(&raw, 0, 16, 1), 1);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    /* Giving back completions that were never written. */
    raw_write32(&raw, TEPI_REG_DOORBELL + TEPI_DOORBELL_CQ_HEAD, 2);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), TEPI_FAULT_QUEUE_OVERRUN);
    raw_close(&raw);
}

CHECK_CASE(doorbell_overtaken_by_a_newer_one)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    for (uint16_t id = 0; id < 3; id++) {
        *raw_slot(&raw, 0, id) = raw_entry(&raw, TEPI_CMD_NOP, id);
    }
    raw_write32(&raw, TEPI_REG_DOORBELL, 3);
    raw_write32(&raw, TEPI_REG_DOORBELL, 1);
    raw_write32(&raw, TEPI_REG_DOORBELL, 2);
    for (uint16_t id = 0; id < 3; id++) {
        CHECK(raw_wait(&raw, 0, &done));
        CHECK_INT(TEPI_TAG_COMMAND_ID(done.tag), id);
    }
    CHECK_INT(raw_completion(&raw, 0, 3)->tag, 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    raw_close(&raw);
}

CHECK_CASE(doorbell_that_slept_through_many_turns_of_the_ring)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    for (uint16_t id = 0; id < 1000; id++) {
        const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, id);
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    }
    raw_write32(&raw, TEPI_REG_DOORBELL, 3);
    raw_write32(&raw, TEPI_REG_DOORBELL + TEPI_DOORBELL_CQ_HEAD, 5);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, 7);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    raw_close(&raw);
}

CHECK_CASE(completions_never_overflow_their_ring)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    for (uint16_t id = 0; id < 16; id++) {
        const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, id);
        raw_submit(&raw, 0, &entry);
    }
    /* The host has given none back: these two stay in the submission ring. */
    for (uint16_t id = 16; id < 18; id++) {
        const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, id);
        raw_submit(&raw, 0, &entry);
    }
    CHECK_INT(TEPI_TAG_COMMAND_ID(raw_completion(&raw, 0, 0)->tag), 0);
    struct tepi_completion done;
    for (uint16_t id = 0; id < 18; id++) {
        CHECK(raw_wait(&raw, 0, &done));
        CHECK_INT(TEPI_TAG_COMMAND_ID(done.tag), id);
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    raw_close(&raw);
}

CHECK_CASE(rings_wrap_and_flip_the_phase)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    for (uint32_t i = 0; i < 100; i++) {
        const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, (uint16_t)(i * 655));
        CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_OK);
        CHECK_INT(TEPI_TAG_PHASE(done.tag), (i / 16) % 2 == 0);
        CHECK_INT(done.generation, entry.generation);
    }
    CHECK_INT(atomic_load(&raw.interrupts[1]), 100);
    raw_close(&raw);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(bad_fields_are_named_by_their_offset),
    CHECK_ENTRY(load_of_unmapped_or_absurd_image),
    CHECK_ENTRY(scatter_lists_that_do_not_cover_the_ports),
    CHECK_ENTRY(dma_to_unmapped_memory),
    CHECK_ENTRY(pieces_that_cut_items_and_interleave),
    CHECK_ENTRY(batch_times_bytes_that_overflows),
    CHECK_ENTRY(queue_set_up_wrongly),
    CHECK_ENTRY(doorbell_past_the_ring_stops_the_pair),
    CHECK_ENTRY(doorbell_overtaken_by_a_newer_one),
    CHECK_ENTRY(doorbell_that_slept_through_many_turns_of_the_ring),
    CHECK_ENTRY(completions_never_overflow_their_ring),
    CHECK_ENTRY(rings_wrap_and_flip_the_phase),
};

CHECK_MAIN(cases)
