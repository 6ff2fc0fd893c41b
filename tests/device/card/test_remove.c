/* SPDX-License-Identifier: Apache-2.0 */
/* Removal by plan: the card leaves the bus by itself, and returns as after a reset. */
#include "card/faults.h"
#include "card/raw_host.h"
#include "check.h"
#include <sched.h>
#include <time.h>

#define AWAY_NS  UINT64_C(20000000)
#define NEVER_NS UINT64_C(3600000000000)
#define ALL_ONES UINT32_MAX

static bool plan(struct raw_host *raw, uint64_t after, uint64_t away_ns)
{
    const struct tepi_planned_fault fault = {.kind = TEPI_PLANNED_REMOVAL,
                                             .trigger = TEPI_PLANNED_ON_EXECUTE,
                                             .after = after,
                                             .ns = away_ns};
    return tepi_card_plan_faults(raw->card, &fault, 1) == 0;
}

static bool comes_back(struct raw_host *raw)
{
    const time_t until = time(NULL) + 20;
    while (raw_read32(raw, TEPI_REG_STATUS) == ALL_ONES && time(NULL) < until) {
        sched_yield();
    }
    return raw_read32(raw, TEPI_REG_STATUS) == TEPI_STATUS_READY;
}

static bool lets_go(struct raw_host *raw)
{
    const time_t until = time(NULL) + 20;
    while (atomic_load(&raw->held) && time(NULL) < until) {
        sched_yield();
    }
    return atomic_load(&raw->held) == 0;
}

static bool works(struct raw_host *raw)
{
    raw_start(raw);
    return raw_copies(raw, raw_load_copy(raw, RAW_ITEM), 5);
}

CHECK_CASE(removed_card_returns_by_itself)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, &(struct raw_options){.workers = 2}));
    CHECK(raw_join(&two, one.card));
    const uint32_t program = raw_load_copy(&one, RAW_ITEM);
    for (uint32_t turn = 0; turn < 3; turn++) {
        /* So that the second function has work, and the first is in the doorbell that removes. */
        const uint32_t other = raw_load_copy(&two, RAW_ITEM);
        const struct tepi_submission endless = raw_endless(&two, other, 1);
        raw_submit(&two, 1, &endless);
        CHECK(raw_has_begun(&two));
        const uint32_t mine = turn ? raw_load_copy(&one, RAW_ITEM) : program;
        CHECK(plan(&one, 2, AWAY_NS));
        CHECK(raw_copies(&one, mine, 1));
        const uint32_t head = one.head[1];
        const struct tepi_submission entry = raw_copy_entry(&one, mine, 2);
        raw_submit(&one, 1, &entry);
        /* The command with which it leaves does not complete. */
        CHECK_INT(TEPI_TAG_PHASE(raw_completion(&one, 1, head)->tag), 0);
        CHECK(comes_back(&one));
        CHECK(comes_back(&two));
        CHECK_INT(atomic_load(&one.held) + atomic_load(&two.held), 0);
        CHECK_INT(raw_read32(&one, TEPI_REG_GENERATION), turn + 2);
        CHECK_INT(raw_read32(&two, TEPI_REG_GENERATION), turn + 2);
        CHECK_INT(raw_read32(&one, TEPI_REG_FAULT_COUNT), 0);
        CHECK(works(&one));
        CHECK(works(&two));
    }
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(removed_card_is_gone_at_once_and_until_attached)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    const struct tepi_submission endless = raw_endless(&raw, program, 1);
    raw_submit(&raw, 1, &endless);
    CHECK(raw_has_begun(&raw));
    CHECK(plan(&raw, 0, 0));
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), ALL_ONES);
    CHECK(lets_go(&raw));
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), ALL_ONES);
    /* One that is away cannot leave. */
    CHECK(plan(&raw, 0, 1));
    tepi_card_attach(raw.card);
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK(works(&raw));
    /* Whoever attaches it while it leaves has it back for good. */
    for (int i = 0; i < 50; i++) {
        CHECK(plan(&raw, 0, 0));
        tepi_card_attach(raw.card);
        CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    }
    CHECK(works(&raw));
    raw_close(&raw);
}

CHECK_CASE(cards_that_are_away_close)
{
    for (int i = 0; i < 20; i++) {
        struct raw_host raw;
        CHECK(raw_open(&raw, NULL));
        const struct tepi_submission entry = raw_copy_entry(&raw, raw_load_copy(&raw, RAW_ITEM), 1);
        /* At once, or with a command on this thread. */
        CHECK(plan(&raw, i & 1, NEVER_NS));
        raw_submit(&raw, 0, &entry);
        CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), ALL_ONES);
        raw_close(&raw);
        CHECK_INT(atomic_load(&raw.held), 0);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(removed_card_returns_by_itself),
    CHECK_ENTRY(removed_card_is_gone_at_once_and_until_attached),
    CHECK_ENTRY(cards_that_are_away_close),
};

CHECK_MAIN(cases)
