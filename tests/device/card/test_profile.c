/* SPDX-License-Identifier: Apache-2.0 */
/* EXECUTE with TEPI_EXECUTE_PROFILE: what the records say, and hostile places for them. */
#include "card/float_specimen.h"
#include "card/raw_host.h"
#include "check.h"
#include <stddef.h>
#include <stdlib.h>

enum { ITEM = 64, BATCH = 3, PORTS_AT = 1 << 20, RECORDS_AT = 2 << 20, LIST_AT = 4096 * 8 };

static uint64_t at(uint32_t offset)
{
    return RAW_WINDOW + RAW_RINGS_BYTES + offset;
}

/* An EXECUTE of BATCH items of a copy program, its records right behind RECORDS_AT. */
static struct tepi_submission profiled(struct raw_host *raw, uint32_t program)
{
    const struct tepi_segment list[2] = {
        {.iova = at(PORTS_AT), .bytes = ITEM * BATCH, .port = 0},
        {.iova = at(PORTS_AT + 4096), .bytes = ITEM * BATCH, .port = 1},
    };
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, 3);
    entry.flags = TEPI_EXECUTE_PROFILE;
    entry.program = program;
    entry.batch = BATCH;
    entry.list_iova = raw_put(raw, LIST_AT, list, sizeof list);
    entry.segments = 2;
    entry.data_iova = at(RECORDS_AT);
    entry.data_bytes = sizeof(struct tepi_profile_record);
    return entry;
}

static const unsigned char *records(const struct raw_host *raw)
{
    return raw->memory + RAW_RINGS_BYTES + RECORDS_AT;
}

CHECK_CASE(one_record_for_each_instruction)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    const uint64_t spare = raw_read64(&raw, TEPI_REG_MEMORY_FREE);
    const int held = atomic_load(&raw.held);
    struct tepi_completion done;
    struct tepi_submission entry = profiled(&raw, program);
    entry.data_iova += 1; /* no alignment is asked for */
    entry.data_bytes += 7;
    for (uint32_t queue = 0; queue < 2; queue++) {
        memset(raw.memory + RAW_RINGS_BYTES + RECORDS_AT, 0xa5, 256);
        CHECK_INT(raw_do(&raw, queue, &entry, &done), TEPI_FAULT_OK);
        CHECK_INT(done.result, 1);
        struct tepi_profile_record record;
        memcpy(&record, records(&raw) + 1, sizeof record);
        CHECK_INT(record.instruction, 0);
        CHECK_INT(record.code, TEPI_OP_MAP);
        CHECK_INT(record.macs, 0);
        CHECK_INT(record.bytes_read, ITEM);
        CHECK_INT(record.bytes_written, ITEM);
        CHECK_INT(record.reserved, 0);
        CHECK(record.elapsed_ns > 0 && record.elapsed_ns <= done.compute_ns);
        CHECK(strncmp(record.kernel, "u8-copy-", 8) == 0);
        CHECK_INT(records(&raw)[0], 0xa5);
        CHECK_INT(records(&raw)[1 + sizeof record], 0xa5);
    }
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), spare);
    CHECK_INT(atomic_load(&raw.held), held);
    raw_close(&raw);
}

CHECK_CASE(too_little_room_is_refused_and_left_alone)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    struct tepi_submission entry = profiled(&raw, raw_load_copy(&raw, ITEM));
    const uint64_t sizes[] = {0, 1, sizeof(struct tepi_profile_record) - 1};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        entry.data_bytes = sizes[i];
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
        CHECK_INT(done.info, offsetof(struct tepi_submission, data_bytes));
        CHECK_INT(done.result, 0);
        CHECK_INT(records(&raw)[0], 0);
    }
    raw_close(&raw);
}

CHECK_CASE(records_to_unmapped_memory)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    struct tepi_submission entry = profiled(&raw, raw_load_copy(&raw, ITEM));
    const uint64_t spare = raw_read64(&raw, TEPI_REG_MEMORY_FREE);
    const int held = atomic_load(&raw.held);
    const uint64_t places[] = {0, UINT64_MAX - 8, RAW_WINDOW + RAW_BYTES - 95};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        entry.data_iova = places[i];
        entry.data_bytes = i == 1 ? UINT64_MAX : 4096;
        CHECK_INT(raw_do(&raw, i & 1, &entry, &done), TEPI_FAULT_DMA);
        CHECK_INT(done.info, TEPI_NONE);
    }
    /* What the records do not need may lie outside. */
    entry.data_iova = RAW_WINDOW + RAW_BYTES - 96;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), spare);
    CHECK_INT(atomic_load(&raw.held), held);
    raw_close(&raw);
}

CHECK_CASE(the_flag_is_of_execute_alone)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    const uint32_t program = raw_load_copy(&raw, ITEM);
    const uint8_t others[] = {TEPI_CMD_NOP, TEPI_CMD_LOAD_PROGRAM, TEPI_CMD_UNLOAD, TEPI_CMD_ABORT};
    for (size_t i = 0; i < sizeof others; i++) {
        struct tepi_submission entry = profiled(&raw, program);
        entry.opcode = others[i];
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
        CHECK_INT(done.info, offsetof(struct tepi_submission, flags));
    }
    for (unsigned bit = 1; bit < 8; bit++) {
        struct tepi_submission entry = profiled(&raw, program);
        entry.flags = (uint8_t)(entry.flags | 1u << bit);
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_BAD_FIELD);
    }
    raw_close(&raw);
}

CHECK_CASE(records_over_the_outputs_and_the_list)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    struct tepi_submission entry = profiled(&raw, raw_load_copy(&raw, ITEM));
    const uint32_t places[] = {PORTS_AT, PORTS_AT + 4096, LIST_AT, LIST_AT + 8};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        entry = profiled(&raw, entry.program);
        entry.data_iova = at(places[i]);
        CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
        CHECK_INT(done.result, 1);
    }
    raw_close(&raw);
}

CHECK_CASE(a_run_that_is_cut_short_leaves_no_records)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    const uint32_t program = raw_load_copy(&raw, ITEM);
    struct tepi_submission entry = raw_endless(&raw, program, 5);
    entry.flags = TEPI_EXECUTE_PROFILE;
    entry.data_iova = RAW_WINDOW + RAW_BYTES - 4096;
    entry.data_bytes = 4096;
    entry.deadline_ns = 20000000;
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DEADLINE);
    CHECK_INT(done.result, 0);
    CHECK_INT(raw.memory[RAW_BYTES - 4096], 0);
    raw_close(&raw);
}

static void check_kernels(int *check_failures, void (*make)(struct specimen *))
{
    struct specimen specimen;
    make(&specimen);
    for (unsigned n = 0; builder_kernels(n); n++) {
        struct tepi_memory memory = {.bytes = 64u << 20};
        struct tepi_program *program;
        builder_seal(specimen.image, specimen.bytes);
        CHECK_INT(
            tepi_program_load(specimen.image, specimen.bytes, builder_kernels(n), &memory, &program)
                .fault,
            TEPI_FAULT_OK);
        CHECK_INT(tepi_program_instructions(program), specimen.header->instructions);
        uint64_t macs = 0;
        for (uint32_t i = 0; i < specimen.header->instructions; i++) {
            const struct tepi_instruction *in = &specimen.instructions[i];
            const struct tepi_profile_record record = tepi_program_describe(program, i);
            CHECK_INT(record.code, in->code);
            CHECK(record.kernel[0] != 0 && record.bytes_written > 0);
            const bool reads = in->code != TEPI_OP_FILL || in->b != TEPI_NO_TENSOR;
            CHECK((record.bytes_read > 0) == reads);
            macs += record.macs;
        }
        CHECK_INT(macs, tepi_program_macs(program));
        tepi_program_free(program);
    }
    specimen_free(&specimen);
}

CHECK_CASE(every_instruction_names_its_kernel)
{
    check_kernels(check_failures, specimen_make);
    check_kernels(check_failures, float_specimen_make);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(one_record_for_each_instruction),
    CHECK_ENTRY(too_little_room_is_refused_and_left_alone),
    CHECK_ENTRY(records_to_unmapped_memory),
    CHECK_ENTRY(the_flag_is_of_execute_alone),
    CHECK_ENTRY(records_over_the_outputs_and_the_list),
    CHECK_ENTRY(a_run_that_is_cut_short_leaves_no_records),
    CHECK_ENTRY(every_instruction_names_its_kernel),
};

CHECK_MAIN(cases)
