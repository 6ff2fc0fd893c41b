/* SPDX-License-Identifier: Apache-2.0 */
/* Planned faults: what each does, what the log says of it, and how the card comes back. */
#include "card/faults.h"
#include "card/raw_host.h"
#include "check.h"
#include <errno.h>
#include <time.h>

static bool plan(struct raw_host *raw, struct tepi_planned_fault fault)
{
    return tepi_card_plan_faults(raw->card, &fault, 1) == 0;
}

static void reset(struct raw_host *raw)
{
    raw_write32(raw, TEPI_REG_RESET, TEPI_RESET_KEY);
}

/* Code of the newest entry of the fault log. */
static uint32_t newest(struct raw_host *raw)
{
    const uint32_t count = raw_read32(raw, TEPI_REG_FAULT_COUNT);
    return raw_read32(raw, TEPI_REG_FAULT_LOG + (count - 1) % TEPI_FAULT_LOG_ENTRIES * 32 + 8);
}

static bool works(struct raw_host *raw)
{
    return raw_read32(raw, TEPI_REG_STATUS) == TEPI_STATUS_READY &&
           raw_copies(raw, raw_load_copy(raw, RAW_ITEM), 5);
}

CHECK_CASE(plans_that_make_no_sense)
{
    struct raw_host raw;
    struct tepi_planned_fault many[TEPI_PLANNED_MOST + 1];
    CHECK(raw_open(&raw, NULL));
    for (int i = 0; i <= TEPI_PLANNED_MOST; i++) {
        many[i] = (struct tepi_planned_fault){.kind = TEPI_PLANNED_HANG, .after = 1000};
    }
    CHECK_INT(tepi_card_plan_faults(raw.card, many, TEPI_PLANNED_MOST + 1), -E2BIG);
    CHECK_INT(tepi_card_plan_faults(raw.card, many, TEPI_PLANNED_MOST), 0);
    const struct tepi_planned_fault wrong[] = {
        {.kind = 0, .after = 1},
        {.kind = 99, .after = 1},
        {.kind = TEPI_PLANNED_HANG, .trigger = 3, .after = 1},
        {.kind = TEPI_PLANNED_HANG, .after = 0, .repeat = 1},
        {.kind = TEPI_PLANNED_SLOW, .after = 1, .factor = 0},
        {.kind = TEPI_PLANNED_THERMAL_THROTTLE, .after = 1, .factor = 1001},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_INT(tepi_card_plan_faults(raw.card, &wrong[i], 1), -EINVAL);
    }
    CHECK_INT(tepi_card_plan_faults(raw.card, NULL, 0), 0);
    CHECK(works(&raw));
    raw_close(&raw);
}

CHECK_CASE(hang_is_silent_until_a_reset)
{
    struct raw_host one, two;
    struct tepi_completion done;
    CHECK(raw_open(&one, &(struct raw_options){.workers = 2}));
    CHECK(raw_join(&two, one.card));
    const uint32_t program = raw_load_copy(&one, RAW_ITEM);
    CHECK(plan(&one, (struct tepi_planned_fault){.kind = TEPI_PLANNED_HANG,
                                                 .trigger = TEPI_PLANNED_ON_EXECUTE,
                                                 .after = 2}));
    CHECK(raw_copies(&one, program, 1));
    struct tepi_submission entry = raw_copy_entry(&one, program, 2);
    raw_submit(&one, 1, &entry);
    const uint64_t beat = raw_read64(&one, TEPI_REG_HEARTBEAT);
    /* Even a pair that lends its thread gets it back. */
    entry = raw_entry(&one, TEPI_CMD_NOP, 3);
    raw_submit(&one, 0, &entry);
    entry = raw_entry(&two, TEPI_CMD_NOP, 4);
    raw_submit(&two, 1, &entry);
    CHECK_INT(raw_completion(&one, 1, 1)->tag, 0);
    CHECK_INT(raw_completion(&one, 0, 1)->tag, 0);
    CHECK_INT(raw_completion(&two, 1, 0)->tag, 0);
    CHECK_INT(raw_read32(&one, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK_INT(newest(&one), TEPI_FAULT_HANG);
    CHECK_INT(newest(&two), TEPI_FAULT_HANG);
    CHECK_INT(raw_read64(&one, TEPI_REG_HEARTBEAT), beat);

    reset(&one);
    raw_start(&one);
    CHECK(works(&one));
    CHECK(raw_read64(&one, TEPI_REG_HEARTBEAT) >= beat);
    CHECK_INT(raw_read32(&two, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    reset(&two);
    raw_start(&two);
    entry = raw_entry(&two, TEPI_CMD_NOP, 5);
    CHECK_INT(raw_do(&two, 1, &entry, &done), TEPI_FAULT_OK);
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(hung_functions_close_and_leave_the_bus)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, NULL));
    CHECK(raw_join(&two, one.card));
    CHECK(plan(&one, (struct tepi_planned_fault){.kind = TEPI_PLANNED_HANG}));
    const struct tepi_submission first = raw_entry(&one, TEPI_CMD_NOP, 1);
    const struct tepi_submission second = raw_entry(&two, TEPI_CMD_NOP, 2);
    raw_submit(&one, 1, &first);
    raw_submit(&two, 1, &second);
    raw_close(&two);
    tepi_card_detach(one.card);
    CHECK_INT(atomic_load(&one.held), 0);
    tepi_card_attach(one.card);
    raw_start(&one);
    CHECK(works(&one));
    raw_close(&one);
}

CHECK_CASE(slow_commands_obey_deadline)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    CHECK(plan(&raw, (struct tepi_planned_fault){.kind = TEPI_PLANNED_SLOW,
                                                 .trigger = TEPI_PLANNED_ON_EXECUTE,
                                                 .after = 1,
                                                 .count = 2,
                                                 .factor = 2,
                                                 .ns = 60000000000u}));
    struct tepi_submission entry = raw_copy_entry(&raw, program, 1);
    entry.deadline_ns = 5000000;
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DEADLINE);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 2);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_LOG + 8), TEPI_FAULT_SLOW);
    CHECK_INT(newest(&raw), TEPI_FAULT_DEADLINE);
    /* One without a deadline is begun in the doorbell only where it is lent or short. */
    raw_write32(&raw, TEPI_REG_QUEUE + TEPI_REG_QUEUE_STRIDE + TEPI_QUEUE_ENABLE, 0);
    raw_queue(&raw, 1, 16, 1);
    struct tepi_submission running = raw_endless(&raw, program, 2);
    running.deadline_ns = 50000000;
    CHECK_INT(raw_do(&raw, 1, &running, &done), TEPI_FAULT_DEADLINE);
    CHECK(raw_copies(&raw, program, 9));
    raw_close(&raw);
}

CHECK_CASE(slow_commands_obey_abort)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    CHECK(plan(&raw, (struct tepi_planned_fault){
                         .kind = TEPI_PLANNED_SLOW, .count = 1, .factor = 1, .ns = 60000000000u}));
    /* The first two pieces: long enough for a worker, and done soon. */
    struct tepi_submission slow = raw_endless(&raw, program, 2);
    slow.batch /= slow.segments / 2;
    slow.segments = 2;
    raw_submit(&raw, 1, &slow);
    const time_t until = time(NULL) + 20;
    while (raw_read32(&raw, TEPI_REG_FAULT_COUNT) == 0 && time(NULL) < until) {
    }
    CHECK_INT(newest(&raw), TEPI_FAULT_SLOW);
    struct tepi_submission stop = raw_entry(&raw, TEPI_CMD_ABORT, 3);
    stop.program = slow.command_id;
    raw_submit(&raw, 1, &stop);
    uint32_t aborted = 0;
    for (int i = 0; i < 2; i++) {
        CHECK(raw_wait(&raw, 1, &done));
        const bool of_abort = TEPI_TAG_COMMAND_ID(done.tag) == 3;
        CHECK_INT(TEPI_TAG_STATUS(done.tag), of_abort ? TEPI_FAULT_OK : TEPI_FAULT_ABORTED);
        aborted += of_abort ? done.result : 0;
    }
    CHECK_INT(aborted, 1);
    CHECK(raw_copies(&raw, program, 9));
    raw_close(&raw);
}

CHECK_CASE(completion_of_an_earlier_generation)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, NULL));
    reset(&raw);
    raw_start(&raw);
    CHECK(plan(&raw, (struct tepi_planned_fault){
                         .kind = TEPI_PLANNED_WRONG_GENERATION, .after = 2, .count = 1}));
    const struct tepi_submission nop = raw_entry(&raw, TEPI_CMD_NOP, 6);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), TEPI_FAULT_OK);
    CHECK_INT(done.generation, 2);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), TEPI_FAULT_OK);
    CHECK_INT(done.generation, 1);
    CHECK_INT(newest(&raw), TEPI_FAULT_WRONG_GENERATION);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), TEPI_FAULT_OK);
    CHECK_INT(done.generation, 2);
    raw_close(&raw);
}

CHECK_CASE(completion_of_a_command_that_is_not_in_flight)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, NULL));
    CHECK(plan(&raw, (struct tepi_planned_fault){
                         .kind = TEPI_PLANNED_CORRUPT_COMPLETION, .after = 1, .count = 1}));
    const struct tepi_submission nop = raw_entry(&raw, TEPI_CMD_NOP, 0);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), UINT32_MAX);
    CHECK_INT(TEPI_TAG_COMMAND_ID(done.tag), 65535);
    CHECK_INT(newest(&raw), TEPI_FAULT_CORRUPT_COMPLETION);
    CHECK_INT(raw_do(&raw, 1, &nop, &done), TEPI_FAULT_OK);
    raw_close(&raw);
}

/* The same plan and commands fail in the same places, each time. */
CHECK_CASE(transfers_fail_where_planned)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    for (int turn = 0; turn < 2; turn++) {
        CHECK(plan(&raw, (struct tepi_planned_fault){.kind = TEPI_PLANNED_DMA_ERROR,
                                                     .trigger = TEPI_PLANNED_ON_EXECUTE,
                                                     .after = 3,
                                                     .count = 1,
                                                     .repeat = 2}));
        for (uint16_t i = 1; i <= 15; i++) {
            const struct tepi_submission entry = raw_copy_entry(&raw, program, i);
            const bool fails = i % 3 == 0 && i <= 9;
            CHECK_INT(raw_do(&raw, 1, &entry, &done), fails ? TEPI_FAULT_DMA : TEPI_FAULT_OK);
        }
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 6);
    CHECK_INT(newest(&raw), TEPI_FAULT_DMA);
    raw_close(&raw);
}

CHECK_CASE(too_hot)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    CHECK(plan(&raw, (struct tepi_planned_fault){
                         .kind = TEPI_PLANNED_THERMAL_THROTTLE, .after = 2, .factor = 3}));
    CHECK(raw_copies(&raw, program, 1));
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK(raw_copies(&raw, program, 2));
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY | TEPI_STATUS_THROTTLED);
    CHECK_INT(newest(&raw), TEPI_FAULT_THERMAL_THROTTLE);
    reset(&raw);
    raw_start(&raw);
    CHECK(works(&raw));
    raw_close(&raw);
}

CHECK_CASE(fatal_faults_by_plan)
{
    static const uint32_t kinds[][2] = {
        {TEPI_PLANNED_THERMAL_SHUTDOWN, TEPI_FAULT_THERMAL_SHUTDOWN},
        {TEPI_PLANNED_FIRMWARE_ASSERT, TEPI_FAULT_FIRMWARE_ASSERT},
    };
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    for (int i = 0; i < 2; i++) {
        CHECK(plan(&raw, (struct tepi_planned_fault){.kind = kinds[i][0], .after = 1}));
        const struct tepi_submission nop = raw_entry(&raw, TEPI_CMD_NOP, 1);
        raw_submit(&raw, 1, &nop);
        CHECK_INT(raw_completion(&raw, 1, raw.head[1])->tag, 0);
        CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
        CHECK_INT(newest(&raw), kinds[i][1]);
        reset(&raw);
        raw_start(&raw);
        CHECK(works(&raw));
    }
    raw_close(&raw);
}

CHECK_CASE(resets_that_fail)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    CHECK(plan(&raw, (struct tepi_planned_fault){.kind = TEPI_PLANNED_RESET_FAILS, .count = 2}));
    for (int i = 0; i < 2; i++) {
        reset(&raw);
        CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_RESETTING);
        CHECK_INT(newest(&raw), TEPI_FAULT_RESET_FAILED);
        CHECK_INT(raw_read32(&raw, TEPI_REG_GENERATION), 1);
    }
    reset(&raw);
    raw_start(&raw);
    CHECK(works(&raw));
    /* For ever: only a card that was without power works again. */
    CHECK(plan(&raw, (struct tepi_planned_fault){.kind = TEPI_PLANNED_RESET_FAILS}));
    for (int i = 0; i < 5; i++) {
        reset(&raw);
        CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_RESETTING);
    }
    tepi_card_detach(raw.card);
    tepi_card_attach(raw.card);
    raw_start(&raw);
    CHECK(works(&raw));
    raw_close(&raw);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(plans_that_make_no_sense),
    CHECK_ENTRY(hang_is_silent_until_a_reset),
    CHECK_ENTRY(hung_functions_close_and_leave_the_bus),
    CHECK_ENTRY(slow_commands_obey_deadline),
    CHECK_ENTRY(slow_commands_obey_abort),
    CHECK_ENTRY(completion_of_an_earlier_generation),
    CHECK_ENTRY(completion_of_a_command_that_is_not_in_flight),
    CHECK_ENTRY(transfers_fail_where_planned),
    CHECK_ENTRY(too_hot),
    CHECK_ENTRY(fatal_faults_by_plan),
    CHECK_ENTRY(resets_that_fail),
};

CHECK_MAIN(cases)
