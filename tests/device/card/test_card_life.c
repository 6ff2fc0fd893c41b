/* SPDX-License-Identifier: Apache-2.0 */
/* The card's life: registers, reset, removal and return, aborts, programs and card memory. */
#include "card/raw_host.h"
#include "check.h"
#include <errno.h>
#include <stdlib.h>

enum { ITEM = 64, INPUT_AT = 1 << 20, OUTPUT_AT = INPUT_AT + 4096, LIST_AT = 4096 * 8 };

static struct tepi_submission copy_entry(struct raw_host *raw, uint32_t program, uint16_t id)
{
    const uint64_t base = RAW_WINDOW + RAW_RINGS_BYTES;
    const struct tepi_segment list[2] = {{.iova = base + INPUT_AT, .bytes = ITEM, .port = 0},
                                         {.iova = base + OUTPUT_AT, .bytes = ITEM, .port = 1}};
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, id);
    entry.program = program;
    entry.list_iova = raw_put(raw, LIST_AT, list, sizeof list);
    entry.segments = 2;
    return entry;
}

CHECK_CASE(registers_say_what_the_card_is)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, &(struct raw_options){.workers = 3, .plugged_only = true}));
    CHECK_INT(raw_read32(&raw, TEPI_REG_MAGIC), TEPI_MAGIC);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ABI_MIN), TEPI_ABI_VERSION);
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK_INT(raw_read32(&raw, TEPI_REG_GENERATION), 1);
    CHECK_INT(raw_read32(&raw, TEPI_REG_CAP_WORKERS), 3);
    CHECK_INT(raw_read32(&raw, TEPI_REG_CAP_QUEUES), RAW_QUEUES);
    CHECK_INT(raw_read64(&raw, TEPI_REG_CAP_MEMORY), 64u << 20);
    CHECK_INT(raw_read64(&raw, TEPI_REG_CAP_OPCODES), 0x1fffe);
    const uint64_t beat = raw_read64(&raw, TEPI_REG_HEARTBEAT);
    CHECK(beat > 0 && raw_read64(&raw, TEPI_REG_HEARTBEAT) >= beat);
    /* Reserved, misaligned or wrongly wide: zero, and no effect. */
    CHECK_INT(raw_read32(&raw, 0x0fc), 0);
    CHECK_INT(raw_read32(&raw, 0x002), 0);
    CHECK_INT(raw.port.read(raw.port.device, 0, 2), 0);
    CHECK_INT(raw_read32(&raw, TEPI_BAR0_BYTES + 4), 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_QUEUE + RAW_QUEUES * TEPI_REG_QUEUE_STRIDE), 0);
    raw_write32(&raw, TEPI_REG_MAGIC, 5);
    raw_write32(&raw, TEPI_REG_RESET, 5);
    raw_write32(&raw, 0xfffffffc, 5);
    CHECK_INT(raw_read32(&raw, TEPI_REG_MAGIC), TEPI_MAGIC);
    CHECK_INT(raw_read32(&raw, TEPI_REG_GENERATION), 1);
    CHECK_INT(raw.port.plug(raw.port.device, &raw.host), -EBUSY);
    raw_close(&raw);
}

CHECK_CASE(commands_wait_for_control_enable)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, &(struct raw_options){.plugged_only = true}));
    CHECK_INT(raw_queue(&raw, 0, 16, 1), 1);
    const struct tepi_submission entry = raw_entry(&raw, TEPI_CMD_NOP, 1);
    raw_submit(&raw, 0, &entry);
    CHECK_INT(raw_completion(&raw, 0, 0)->tag, 0);
    raw_write32(&raw, TEPI_REG_CONTROL, TEPI_CONTROL_ENABLE);
    raw_write32(&raw, TEPI_REG_DOORBELL, 1);
    struct tepi_completion done;
    CHECK(raw_wait(&raw, 0, &done));
    raw_close(&raw);
}

CHECK_CASE(reset_drops_queues_and_programs)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    CHECK(raw_read64(&raw, TEPI_REG_MEMORY_FREE) < 64u << 20);
    raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK_INT(raw_read32(&raw, TEPI_REG_GENERATION), 2);
    CHECK_INT(raw_read32(&raw, TEPI_REG_CONTROL), 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_QUEUE + TEPI_QUEUE_ENABLE), 0);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
    CHECK_INT(atomic_load(&raw.held), 0);
    raw_start(&raw);
    struct tepi_completion done;
    const struct tepi_submission entry = copy_entry(&raw, program, 1);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_NO_PROGRAM);
    CHECK_INT(done.generation, 2);
    raw_close(&raw);
}

CHECK_CASE(reset_ends_running_work_without_completing_it)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const struct tepi_submission entry = raw_endless(&raw, raw_load_copy(&raw, ITEM), 1);
    raw_submit(&raw, 1, &entry);
    CHECK(raw_has_begun(&raw));
    raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    CHECK_INT(atomic_load(&raw.held), 0);
    CHECK_INT(raw_completion(&raw, 1, 0)->tag, 0);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
    raw_close(&raw);
}

CHECK_CASE(surprise_removal_in_flight)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const struct tepi_submission entry = raw_endless(&raw, raw_load_copy(&raw, ITEM), 1);
    raw_submit(&raw, 1, &entry);
    CHECK(raw_has_begun(&raw));
    const unsigned before = atomic_load(&raw.interrupts[1]);
    tepi_card_detach(raw.card);
    CHECK_INT(atomic_load(&raw.held), 0);
    CHECK(atomic_load(&raw.interrupts[1]) > before);
    CHECK_INT(raw_completion(&raw, 1, 0)->tag, 0);
    for (uint32_t offset = 0; offset < TEPI_BAR0_BYTES; offset += 4) {
        CHECK_INT(raw_read32(&raw, offset), UINT32_MAX);
    }
    CHECK(raw_read64(&raw, TEPI_REG_CLOCK) == UINT64_MAX);
    raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    raw_submit(&raw, 1, &entry);
    CHECK_INT(raw_completion(&raw, 1, 0)->tag, 0);
    tepi_card_detach(raw.card);

    tepi_card_attach(raw.card);
    CHECK_INT(raw_read32(&raw, TEPI_REG_GENERATION), 2);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
    raw_start(&raw);
    struct tepi_completion done;
    const struct tepi_submission nop = raw_entry(&raw, TEPI_CMD_NOP, 2);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), TEPI_FAULT_OK);
    raw_close(&raw);
}

CHECK_CASE(fatal_fault_stops_everything_until_reset)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    tepi_card_inject(raw.card, TEPI_FAULT_MEMORY_ECC, 77);
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), TEPI_FAULT_MEMORY_ECC);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_INFO), 77);
    const uint64_t beat = raw_read64(&raw, TEPI_REG_HEARTBEAT);
    const struct tepi_submission nop = raw_entry(&raw, TEPI_CMD_NOP, 1);
    raw_submit(&raw, 0, &nop);
    CHECK_INT(raw_completion(&raw, 0, 0)->tag, 0);
    CHECK_INT(raw_read64(&raw, TEPI_REG_HEARTBEAT), beat);
    raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 1);
    raw_close(&raw);
}

CHECK_CASE(abort_of_running_waiting_and_absent_commands)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    const struct tepi_submission running = raw_endless(&raw, program, 1);
    struct tepi_submission waiting = running;
    waiting.command_id = 2;
    raw_submit(&raw, 1, &running);
    CHECK(raw_has_begun(&raw));
    raw_submit(&raw, 1, &waiting);

    struct tepi_completion done;
    struct tepi_submission abort = raw_entry(&raw, TEPI_CMD_ABORT, 3);
    abort.program = 2;
    raw_submit(&raw, 1, &abort);
    CHECK(raw_wait(&raw, 1, &done));
    CHECK_INT(done.tag >> 1, 2u << 15 | TEPI_FAULT_ABORTED);
    CHECK(raw_wait(&raw, 1, &done));
    CHECK_INT(TEPI_TAG_COMMAND_ID(done.tag), 3);
    CHECK_INT(done.result, 1);

    abort.program = 1;
    raw_submit(&raw, 1, &abort);
    unsigned seen = 0;
    for (int i = 0; i < 2; i++) {
        CHECK(raw_wait(&raw, 1, &done));
        seen |= 1u << TEPI_TAG_COMMAND_ID(done.tag);
    }
    CHECK_INT(seen, 1u << 1 | 1u << 3);

    abort.program = 1;
    CHECK_INT(raw_do(&raw, 1, &abort, &done), TEPI_FAULT_OK);
    CHECK_INT(done.result, 0);
    raw_close(&raw);
}

CHECK_CASE(deadline_passes_while_running)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_submission entry = raw_endless(&raw, raw_load_copy(&raw, ITEM), 1);
    struct tepi_completion done;
    entry.deadline_ns = 1000000;
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_DEADLINE);
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DEADLINE);
    entry.deadline_ns = 1;
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DEADLINE);
    raw_close(&raw);
}

CHECK_CASE(unload_while_running_keeps_the_program_alive)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, ITEM);
    const struct tepi_submission running = raw_endless(&raw, program, 1);
    raw_submit(&raw, 1, &running);
    CHECK(raw_has_begun(&raw));
    struct tepi_completion done;
    struct tepi_submission unload = raw_entry(&raw, TEPI_CMD_UNLOAD, 2);
    unload.program = program;
    CHECK_INT(raw_do(&raw, 0, &unload, &done), TEPI_FAULT_OK);
    CHECK_INT(raw_do(&raw, 0, &unload, &done), TEPI_FAULT_NO_PROGRAM);
    CHECK(raw_read64(&raw, TEPI_REG_MEMORY_FREE) < 64u << 20);
    struct tepi_submission abort = raw_entry(&raw, TEPI_CMD_ABORT, 3);
    abort.program = 1;
    raw_submit(&raw, 1, &abort);
    CHECK(raw_wait(&raw, 1, &done));
    CHECK(raw_wait(&raw, 1, &done));
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
    raw_close(&raw);
}

CHECK_CASE(card_memory_full)
{
    struct raw_host raw;
    size_t bytes;
    uint8_t *image = raw_copy_image(ITEM, &bytes);
    CHECK(raw_open(&raw, &(struct raw_options){.memory_bytes = 16384, .workers = 2}));
    uint32_t handles[64];
    uint32_t fault = 0;
    uint32_t loaded = 0;
    while (loaded < 64 && (fault = raw_load(&raw, image, bytes, &handles[loaded])) == 0) {
        loaded++;
    }
    CHECK(loaded > 2 && loaded < 64);
    CHECK_INT(fault, TEPI_FAULT_NO_MEMORY);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_CODE), TEPI_FAULT_NO_MEMORY);
    CHECK(raw_read32(&raw, TEPI_REG_FAULT_INFO) > 0);
    struct tepi_completion done;
    struct tepi_submission entry = copy_entry(&raw, handles[loaded - 1], 1);
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_OK);
    for (uint32_t i = 0; i < loaded; i++) {
        struct tepi_submission unload = raw_entry(&raw, TEPI_CMD_UNLOAD, 2);
        unload.program = handles[i];
        CHECK_INT(raw_do(&raw, 0, &unload, &done), TEPI_FAULT_OK);
    }
    CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 16384);
    CHECK_INT(raw_load(&raw, image, bytes, &handles[0]), 0);
    /* A handle of an unloaded program is not its slot's next tenant. */
    CHECK_INT(raw_do(&raw, 0, &entry, &done), TEPI_FAULT_NO_PROGRAM);
    free(image);
    raw_close(&raw);
}

CHECK_CASE(fault_log_keeps_the_newest)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    struct tepi_completion done;
    for (uint32_t i = 0; i < 100; i++) {
        const struct tepi_submission bad = raw_entry(&raw, 77, (uint16_t)i);
        CHECK_INT(raw_do(&raw, 1, &bad, &done), TEPI_FAULT_BAD_OPCODE);
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 100);
    for (uint32_t n = 36; n < 100; n++) {
        const uint32_t at = TEPI_REG_FAULT_LOG + n % TEPI_FAULT_LOG_ENTRIES * 32;
        CHECK_INT(raw_read32(&raw, at + 24), n + 1);
        CHECK_INT(raw_read32(&raw, at + 8), TEPI_FAULT_BAD_OPCODE);
        CHECK_INT(raw_read32(&raw, at + 20), 1u | n << 16);
    }
    raw_close(&raw);
}

CHECK_CASE(impossible_configurations)
{
    struct tepi_card *card = NULL;
    const struct tepi_card_config good = {.memory_bytes = 4096, .workers = 1, .queues = 2};
    struct tepi_card_config config = good;
    config.workers = 0;
    CHECK_INT(tepi_card_create(&config, &card), -EINVAL);
    config.workers = 257;
    CHECK_INT(tepi_card_create(&config, &card), -EINVAL);
    config = good;
    config.queues = TEPI_QUEUES_MAX + 1;
    CHECK_INT(tepi_card_create(&config, &card), -EINVAL);
    config = good;
    config.isa = 99;
    CHECK_INT(tepi_card_create(&config, &card), -EINVAL);
    config = good;
    config.isa = TEPI_ISA_SCALAR;
    CHECK_INT(tepi_card_create(&config, &card), 0);
    tepi_card_destroy(card);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(registers_say_what_the_card_is),
    CHECK_ENTRY(commands_wait_for_control_enable),
    CHECK_ENTRY(reset_drops_queues_and_programs),
    CHECK_ENTRY(reset_ends_running_work_without_completing_it),
    CHECK_ENTRY(surprise_removal_in_flight),
    CHECK_ENTRY(fatal_fault_stops_everything_until_reset),
    CHECK_ENTRY(abort_of_running_waiting_and_absent_commands),
    CHECK_ENTRY(deadline_passes_while_running),
    CHECK_ENTRY(unload_while_running_keeps_the_program_alive),
    CHECK_ENTRY(card_memory_full),
    CHECK_ENTRY(fault_log_keeps_the_newest),
    CHECK_ENTRY(impossible_configurations),
};

CHECK_MAIN(cases)
