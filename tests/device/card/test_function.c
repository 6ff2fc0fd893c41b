/* SPDX-License-Identifier: Apache-2.0 */
/* Several functions of one card: what one host does, no other sees; what they share is shared
 * fairly and comes back. */
#include "card/raw_host.h"
#include "check.h"
#include <errno.h>
#include <pthread.h>

enum {
    ITEM = RAW_ITEM,
    FUNCTIONS = 64,
    WHOLE = 64 << 20,
    ROUNDS = 300,
};

static void reset(struct raw_host *raw)
{
    raw_write32(raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    raw_start(raw);
}

CHECK_CASE(each_function_is_a_card_of_its_own)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, NULL));
    CHECK(raw_join(&two, one.card));
    const uint32_t first = raw_load_copy(&one, ITEM);
    CHECK(raw_copies(&one, first, 11));
    CHECK(raw_read64(&two, TEPI_REG_MEMORY_FREE) < WHOLE);
    CHECK_INT(raw_read64(&two, TEPI_REG_MEMORY_FREE), raw_read64(&one, TEPI_REG_MEMORY_FREE));

    /* No handle of one function means anything to another. */
    struct tepi_completion done;
    const struct tepi_submission foreign = raw_copy_entry(&two, first, 1);
    CHECK_INT(raw_do(&two, 1, &foreign, &done), TEPI_FAULT_NO_PROGRAM);
    struct tepi_submission unload = raw_entry(&two, TEPI_CMD_UNLOAD, 2);
    unload.program = first;
    CHECK_INT(raw_do(&two, 1, &unload, &done), TEPI_FAULT_NO_PROGRAM);
    CHECK_INT(raw_read32(&two, TEPI_REG_FAULT_COUNT), 2);
    CHECK_INT(raw_read32(&one, TEPI_REG_FAULT_COUNT), 0);
    CHECK(raw_copies(&one, first, 12));

    raw_close(&two);
    CHECK(raw_copies(&one, first, 13));
    reset(&one);
    CHECK_INT(raw_read64(&one, TEPI_REG_MEMORY_FREE), WHOLE);
    raw_close(&one);
}

CHECK_CASE(reset_and_removal_of_a_host_leave_the_others_running)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, &(struct raw_options){.workers = 2}));
    CHECK(raw_join(&two, one.card));
    const struct tepi_submission running = raw_endless(&one, raw_load_copy(&one, ITEM), 1);
    raw_submit(&one, 1, &running);
    CHECK(raw_has_begun(&one));
    const uint32_t generation = raw_read32(&one, TEPI_REG_GENERATION);
    /* Waits for none of the other's commands: this one would take minutes. */
    for (uint8_t i = 0; i < 5; i++) {
        const uint32_t program = raw_load_copy(&two, ITEM);
        CHECK(raw_copies(&two, program, i));
        reset(&two);
        CHECK_INT(raw_read32(&two, TEPI_REG_GENERATION), 2u + i);
    }
    two.port.plug(two.port.device, NULL);
    CHECK_INT(raw_read32(&one, TEPI_REG_GENERATION), generation);
    CHECK_INT(raw_completion(&one, 1, 0)->tag, 0);
    struct tepi_completion done;
    struct tepi_submission abort = raw_entry(&one, TEPI_CMD_ABORT, 3);
    abort.program = 1;
    raw_submit(&one, 1, &abort);
    unsigned seen = 0;
    for (int i = 0; i < 2; i++) {
        CHECK(raw_wait(&one, 1, &done));
        seen |= 1u << TEPI_TAG_COMMAND_ID(done.tag);
    }
    CHECK_INT(seen, 1u << 1 | 1u << 3);
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(closed_under_load_it_leaves_nothing_behind)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, NULL));
    for (int round = 0; round < 20; round++) {
        CHECK(raw_join(&two, one.card));
        struct tepi_submission running = raw_endless(&two, raw_load_copy(&two, ITEM), 1);
        for (uint16_t id = 0; id < 8; id++) {
            running.command_id = id;
            raw_submit(&two, 1, &running);
        }
        CHECK(raw_has_begun(&two));
        raw_close(&two);
        CHECK_INT(atomic_load(&two.held), 0);
        CHECK_INT(raw_read64(&one, TEPI_REG_MEMORY_FREE), WHOLE);
    }
    CHECK(raw_copies(&one, raw_load_copy(&one, ITEM), 3));
    raw_close(&one);
}

/* One worker, and a host that has filled its ring: the other's command is second, not last. */
CHECK_CASE(a_full_queue_does_not_starve_another_function)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, NULL));
    CHECK(raw_join(&two, one.card));
    const uint32_t program = raw_load_copy(&one, ITEM);
    const uint32_t other = raw_load_copy(&two, ITEM);
    const struct tepi_submission blocker = raw_endless(&one, program, 1);
    raw_submit(&one, 1, &blocker);
    CHECK(raw_has_begun(&one));
    raw_queue(&one, 2, 1024, 1);
    struct tepi_submission many = blocker;
    for (uint32_t i = 0; i < 1000; i++) {
        many.command_id = (uint16_t)(1000 + i);
        raw_submit(&one, 2, &many);
    }
    const struct tepi_submission entry = raw_copy_entry(&two, other, 5);
    raw_submit(&two, 1, &entry);
    struct tepi_submission abort = raw_entry(&one, TEPI_CMD_ABORT, 3);
    struct tepi_completion done;
    /* The worker now runs one of the 1000, then the other function's only one. */
    raw_write32(&one, TEPI_REG_QUEUE + 1 * TEPI_REG_QUEUE_STRIDE + TEPI_QUEUE_ENABLE, 0);
    abort.program = 1000;
    raw_submit(&one, 2, &abort);
    CHECK(raw_wait(&two, 1, &done));
    CHECK_INT(done.tag >> 1, 5u << 15 | TEPI_FAULT_OK);
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(fatal_fault_stands_in_every_function_until_its_own_reset)
{
    struct raw_host one, two, three;
    CHECK(raw_open(&one, NULL));
    CHECK(raw_join(&two, one.card));
    const unsigned heard = atomic_load(&two.interrupts[1]);
    tepi_card_inject(one.card, TEPI_FAULT_MEMORY_ECC, 77);
    CHECK(raw_join(&three, one.card));
    CHECK_INT(raw_read32(&one, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    CHECK_INT(raw_read32(&two, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    CHECK_INT(raw_read32(&three, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    CHECK_INT(raw_read32(&one, TEPI_REG_FAULT_CODE), TEPI_FAULT_MEMORY_ECC);
    CHECK_INT(raw_read32(&two, TEPI_REG_FAULT_CODE), TEPI_FAULT_MEMORY_ECC);
    CHECK(atomic_load(&two.interrupts[1]) > heard);

    reset(&two);
    struct tepi_completion done;
    const struct tepi_submission nop = raw_entry(&two, TEPI_CMD_NOP, 1);
    CHECK_INT(raw_do(&two, 1, &nop, &done), TEPI_FAULT_OK);
    CHECK(raw_copies(&two, raw_load_copy(&two, ITEM), 9));
    CHECK_INT(raw_read32(&one, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    raw_submit(&one, 1, &nop);
    CHECK_INT(raw_completion(&one, 1, 0)->tag, 0);
    reset(&one);
    CHECK_INT(raw_read32(&one, TEPI_REG_STATUS), TEPI_STATUS_READY);
    CHECK(raw_copies(&one, raw_load_copy(&one, ITEM), 10));
    raw_close(&three);
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(removal_takes_all_functions_and_return_brings_them_back)
{
    struct raw_host one, two;
    CHECK(raw_open(&one, NULL));
    CHECK(raw_join(&two, one.card));
    tepi_card_detach(one.card);
    CHECK_INT(raw_read32(&one, TEPI_REG_STATUS), TEPI_ALL_ONES);
    CHECK_INT(raw_read32(&two, TEPI_REG_STATUS), TEPI_ALL_ONES);
    CHECK_INT(atomic_load(&two.held), 0);
    tepi_card_attach(one.card);
    CHECK_INT(raw_read32(&two, TEPI_REG_GENERATION), 2);
    raw_start(&two);
    CHECK(raw_copies(&two, raw_load_copy(&two, ITEM), 1));
    raw_close(&two);
    raw_close(&one);
}

CHECK_CASE(no_more_functions_than_there_is_room_for)
{
    struct raw_host one;
    struct tepi_function *functions[FUNCTIONS];
    CHECK(raw_open(&one, NULL));
    for (int i = 0; i < FUNCTIONS - 1; i++) {
        CHECK_INT(tepi_function_open(one.card, &functions[i]), 0);
    }
    CHECK_INT(tepi_function_open(one.card, &functions[FUNCTIONS - 1]), -ENOSPC);
    for (int i = 0; i < FUNCTIONS - 1; i++) {
        tepi_function_close(functions[i]);
    }
    CHECK_INT(tepi_function_open(one.card, &functions[0]), 0);
    raw_close(&one); /* closes the other as well */
}

struct life {
    struct raw_host raw;
    struct tepi_card *card;
    uint32_t seed;
    bool failed;
};

/* Loads, runs, resets and comes back at random, and always finds its own bytes. */
static void *live(void *argument)
{
    struct life *life = argument;
    struct raw_host *raw = &life->raw;
    uint32_t program = 0;
    for (uint32_t round = 0; round < ROUNDS && !life->failed; round++) {
        life->seed = life->seed * 1664525u + 1013904223u;
        const uint32_t chance = life->seed >> 24;
        if (chance < 16) {
            reset(raw);
            program = 0;
        } else if (chance < 32 && program) {
            struct tepi_submission running = raw_endless(raw, program, 1);
            raw_submit(raw, 1, &running);
            reset(raw);
            program = 0;
        } else if (chance < 48) {
            raw_close(raw);
            life->failed = !raw_join(raw, life->card);
            program = 0;
        } else if (!program || chance < 80) {
            program = raw_load_copy(raw, ITEM);
            life->failed = program == 0;
        } else {
            life->failed = !raw_copies(raw, program, (uint8_t)chance);
        }
    }
    return NULL;
}

CHECK_CASE(functions_live_side_by_side)
{
    struct raw_host one;
    struct life lives[3] = {{.seed = 1}, {.seed = 2}, {.seed = 3}};
    pthread_t threads[3];
    CHECK(raw_open(&one, &(struct raw_options){.workers = 2}));
    const uint32_t program = raw_load_copy(&one, ITEM);
    for (int i = 0; i < 3; i++) {
        lives[i].card = one.card;
        CHECK(raw_join(&lives[i].raw, one.card));
        CHECK_INT(pthread_create(&threads[i], NULL, live, &lives[i]), 0);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        CHECK(raw_copies(&one, program, (uint8_t)i));
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        CHECK(!lives[i].failed);
        raw_close(&lives[i].raw);
    }
    CHECK_INT(raw_read32(&one, TEPI_REG_FAULT_COUNT), 0);
    reset(&one);
    CHECK_INT(raw_read64(&one, TEPI_REG_MEMORY_FREE), WHOLE);
    raw_close(&one);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(each_function_is_a_card_of_its_own),
    CHECK_ENTRY(reset_and_removal_of_a_host_leave_the_others_running),
    CHECK_ENTRY(closed_under_load_it_leaves_nothing_behind),
    CHECK_ENTRY(a_full_queue_does_not_starve_another_function),
    CHECK_ENTRY(fatal_fault_stands_in_every_function_until_its_own_reset),
    CHECK_ENTRY(removal_takes_all_functions_and_return_brings_them_back),
    CHECK_ENTRY(no_more_functions_than_there_is_room_for),
    CHECK_ENTRY(functions_live_side_by_side),
};

CHECK_MAIN(cases)
