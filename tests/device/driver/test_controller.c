/* SPDX-License-Identifier: Apache-2.0 */
/* A card's life as the host sees it: probing, timeouts, aborts, loss, reset. */
#include "driver/controller.h"

#include "check.h"
#include "driver/fake_card.h"
#include <errno.h>
#include <pthread.h>

#define MS 1000000ull

/* Patience short enough for tests of a card that never answers. */
static const struct tepi_controller_config hasty = {
    .entries = 8,
    .pool_bytes = 1 << 22,
    .timeout_ns = 2 * MS,
    .grace_ns = 2 * MS,
    .reset_timeout_ns = 20 * MS,
};

static const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};

CHECK_CASE(not_a_card)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    atomic_store(&fake.magic, 0x12345678);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), -ENXIO);
    CHECK_INT(failure.fault, TEPI_FAULT_NOT_A_CARD);
    CHECK(!fake.plugged);
    fake_init(&fake);
    atomic_store(&fake.abi_max, 0);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), -ENXIO);
    CHECK_INT(failure.fault, TEPI_FAULT_NOT_A_CARD);
}

CHECK_CASE(no_card_in_the_slot)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    atomic_store(&fake.gone, true);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), -ENODEV);
    CHECK_INT(failure.fault, TEPI_FAULT_GONE);
}

CHECK_CASE(card_that_refuses_its_queues)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.refuses_queues = true;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), -EIO);
    CHECK_INT(failure.fault, TEPI_FAULT_QUEUE_SETUP);
}

CHECK_CASE(reset_register_ignored_then_the_bus_resets)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.ignores_reset = true;
    fake.on_doorbell = fake_obey;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    CHECK_INT(atomic_load(&fake.plugs), 2);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

/* Obeys aborts and nothing else. */
static void only_aborts(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    while (fake->fetched[queue] != tail) {
        const struct tepi_submission entry = fake_entry(fake, queue, fake->fetched[queue]++);
        if (entry.opcode == TEPI_CMD_ABORT) {
            fake_complete(fake, queue, entry.command_id, 0);
            fake_complete(fake, queue, (uint16_t)entry.program, TEPI_FAULT_ABORTED);
        }
    }
}

CHECK_CASE(late_command_is_aborted)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.on_doorbell = only_aborts;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    const uint32_t resets = atomic_load(&fake.resets);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -ETIMEDOUT);
    CHECK_INT(failure.fault, TEPI_FAULT_DEADLINE);
    CHECK_INT(atomic_load(&fake.resets), resets);
    CHECK_INT(tepi_controller_epoch(controller), 1);
    CHECK(tepi_controller_alive(controller));
    tepi_controller_close(controller);
}

CHECK_CASE(card_that_does_not_obey_an_abort_is_reset)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    const uint32_t resets = atomic_load(&fake.resets);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -ETIMEDOUT);
    CHECK_INT(failure.fault, TEPI_FAULT_TIMEOUT);
    CHECK_INT(atomic_load(&fake.resets), resets + 1);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    fake.on_doorbell = fake_obey;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

static void lies(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    fake->on_doorbell = fake_obey;
    fake->fetched[queue] = tail;
    fake_complete(fake, queue, 7, 0);
}

CHECK_CASE(corrupt_completion_resets_the_card)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.on_doorbell = lies;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -EIO);
    CHECK_INT(failure.fault, TEPI_FAULT_CORRUPT_COMPLETION);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

static void leaves(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    (void)queue;
    (void)tail;
    atomic_store(&fake->gone, true);
}

CHECK_CASE(removal_in_flight_and_return)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.on_doorbell = leaves;
    struct tepi_controller_config patient = hasty;
    patient.timeout_ns = 60000 * MS;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &patient, &controller, &failure), 0);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -ENODEV);
    CHECK_INT(failure.fault, TEPI_FAULT_GONE);
    CHECK(!tepi_controller_alive(controller));
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -ENODEV);
    CHECK_INT(tepi_controller_reset(controller, &failure), -ENODEV);
    struct tepi_controller_info info;
    CHECK_INT(tepi_controller_info(controller, &info), -ENODEV);
    struct tepi_fault_entry log[4];
    CHECK_INT(tepi_controller_faults(controller, log, 4), 0);

    atomic_store(&fake.gone, false);
    fake.on_doorbell = fake_obey;
    CHECK(!tepi_controller_alive(controller));
    CHECK_INT(tepi_controller_reset(controller, &failure), 0);
    CHECK(tepi_controller_alive(controller));
    CHECK_INT(tepi_controller_epoch(controller), 2);
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

CHECK_CASE(card_that_came_back_unnoticed_is_not_alive)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    CHECK(tepi_controller_alive(controller));
    atomic_fetch_add(&fake.generation, 1);
    CHECK(!tepi_controller_alive(controller));
    tepi_controller_close(controller);
}

static void breaks(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    (void)queue;
    (void)tail;
    fake->on_doorbell = fake_obey;
    atomic_store(&fake->fault_code, TEPI_FAULT_MEMORY_ECC);
    atomic_store(&fake->status, TEPI_STATUS_FAULT);
}

CHECK_CASE(fatal_fault_is_reported_by_its_code_and_reset)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.on_doorbell = breaks;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), NULL, &controller, &failure), 0);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -EIO);
    CHECK_INT(failure.fault, TEPI_FAULT_MEMORY_ECC);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

static void stops(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    (void)tail;
    fake->on_doorbell = fake_obey;
    fake->registers[(TEPI_REG_QUEUE + queue * TEPI_REG_QUEUE_STRIDE + TEPI_QUEUE_ENABLE) / 4] = 0;
}

CHECK_CASE(pair_that_the_card_stopped)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    fake.on_doorbell = stops;
    CHECK_INT(tepi_controller_open(fake_bus(&fake), NULL, &controller, &failure), 0);
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), -EIO);
    CHECK_INT(failure.fault, TEPI_FAULT_QUEUE_OVERRUN);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

CHECK_CASE(event_loop_hears_of_removal_and_expiry)
{
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    fake_init(&fake);
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &hasty, &controller, &failure), 0);
    int owner;
    uint16_t id;
    struct tepi_done done[2];
    CHECK_INT(tepi_controller_submit(controller, &nop, &owner, &id, &failure), 0);
    CHECK_INT(tepi_controller_collect(controller, done, 2), 0);
    tepi_controller_abort(controller, id);
    tepi_controller_expire(controller, 1);
    CHECK_INT(tepi_controller_collect(controller, done, 2), 1);
    CHECK(done[0].owner == &owner);
    CHECK_INT(TEPI_TAG_STATUS(done[0].completion.tag), TEPI_FAULT_TIMEOUT);
    CHECK_INT(tepi_controller_epoch(controller), 2);
    /* An expiry of the epoch before is old news. */
    tepi_controller_expire(controller, 1);
    CHECK_INT(tepi_controller_epoch(controller), 2);

    CHECK_INT(tepi_controller_submit(controller, &nop, &owner, &id, &failure), 0);
    atomic_store(&fake.gone, true);
    CHECK_INT(tepi_controller_collect(controller, done, 2), 1);
    CHECK_INT(TEPI_TAG_STATUS(done[0].completion.tag), TEPI_FAULT_GONE);
    CHECK_INT(tepi_controller_submit(controller, &nop, &owner, &id, &failure), -ENODEV);
    tepi_controller_close(controller);
}

struct user {
    struct tepi_controller *controller;
    _Atomic bool *stop;
    unsigned fine, stale, other;
};

static void *use(void *argument)
{
    struct user *user = argument;
    while (!atomic_load(user->stop)) {
        struct tepi_completion done;
        struct tepi_failure failure;
        const int result = tepi_controller_command(user->controller, &nop, &done, &failure);
        user->fine += result == 0;
        user->stale += result == -ESTALE;
        user->other += result != 0 && result != -ESTALE;
    }
    return NULL;
}

static pthread_mutex_t obey_lock = PTHREAD_MUTEX_INITIALIZER;

static void obey_threads(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    pthread_mutex_lock(&obey_lock);
    if ((int32_t)(tail - fake->fetched[queue]) > 0 && (int32_t)(tail - fake->fetched[queue]) < 9) {
        fake_obey(fake, queue, tail);
    }
    pthread_mutex_unlock(&obey_lock);
}

CHECK_CASE(resets_while_threads_submit)
{
    enum { USERS = 3 };
    struct fake_card fake;
    struct tepi_failure failure;
    struct tepi_controller *controller = NULL;
    _Atomic bool stop = false;
    fake_init(&fake);
    fake.on_doorbell = obey_threads;
    struct tepi_controller_config config = {.entries = 8};
    CHECK_INT(tepi_controller_open(fake_bus(&fake), &config, &controller, &failure), 0);
    struct user users[USERS];
    pthread_t threads[USERS];
    for (int i = 0; i < USERS; i++) {
        users[i] = (struct user){.controller = controller, .stop = &stop};
        pthread_create(&threads[i], NULL, use, &users[i]);
    }
    for (int i = 0; i < 50; i++) {
        CHECK_INT(tepi_controller_reset(controller, &failure), 0);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < USERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(users[i].other, 0);
    }
    struct tepi_completion done;
    CHECK_INT(tepi_controller_command(controller, &nop, &done, &failure), 0);
    tepi_controller_close(controller);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(not_a_card),
    CHECK_ENTRY(no_card_in_the_slot),
    CHECK_ENTRY(card_that_refuses_its_queues),
    CHECK_ENTRY(reset_register_ignored_then_the_bus_resets),
    CHECK_ENTRY(late_command_is_aborted),
    CHECK_ENTRY(card_that_does_not_obey_an_abort_is_reset),
    CHECK_ENTRY(corrupt_completion_resets_the_card),
    CHECK_ENTRY(removal_in_flight_and_return),
    CHECK_ENTRY(card_that_came_back_unnoticed_is_not_alive),
    CHECK_ENTRY(fatal_fault_is_reported_by_its_code_and_reset),
    CHECK_ENTRY(pair_that_the_card_stopped),
    CHECK_ENTRY(event_loop_hears_of_removal_and_expiry),
    CHECK_ENTRY(resets_while_threads_submit),
};

CHECK_MAIN(cases)
