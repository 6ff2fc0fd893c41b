/* SPDX-License-Identifier: Apache-2.0 */
/* Queue pairs against a card that completes late, out of order, twice, falsely, or not at all. */
#include "driver/queue.h"

#include "abi/faults.h"
#include "check.h"
#include "driver/fake_card.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>

enum { ENTRIES = 8 };

#define MS     1000000ull
#define SECOND 1000000000ull

struct bench {
    struct fake_card fake;
    struct tepi_bus *bus;
    struct tepi_pool *pool;
    struct tepi_queue *queue;
};

static bool bench_open(struct bench *bench, bool signals)
{
    fake_init(&bench->fake);
    bench->bus = fake_bus(&bench->fake);
    const struct tepi_queue_config config = {.id = 1, .entries = ENTRIES, .signals = signals};
    return tepi_pool_create(bench->bus, 1 << 20, &bench->pool) == 0 &&
           tepi_queue_create(bench->bus, bench->pool, &config, &bench->queue) == 0 &&
           tepi_queue_start(bench->queue, atomic_load(&bench->fake.generation)) == 0;
}

static void bench_close(struct bench *bench)
{
    tepi_queue_close(bench->queue, TEPI_FAULT_GONE);
    tepi_queue_fail(bench->queue, TEPI_FAULT_GONE);
    tepi_queue_destroy(bench->queue);
    tepi_pool_destroy(bench->pool);
    bench->bus->ops->close(bench->bus);
}

static const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};

CHECK_CASE(entries_reach_the_card_as_written)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    struct tepi_submission entry = {.opcode = TEPI_CMD_EXECUTE, .batch = 9, .program = 77};
    const int id = tepi_queue_post(bench.queue, &entry, NULL);
    CHECK(id >= 0);
    CHECK_INT(atomic_load(&bench.fake.tails[1]), 0);
    tepi_queue_ring(bench.queue);
    CHECK_INT(atomic_load(&bench.fake.tails[1]), 1);
    const struct tepi_submission seen = fake_entry(&bench.fake, 1, 0);
    entry.command_id = (uint16_t)id;
    entry.generation = atomic_load(&bench.fake.generation);
    CHECK_BYTES(&seen, &entry, sizeof entry);
    bench_close(&bench);
}

CHECK_CASE(ring_wraps_many_times)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    bench.fake.on_doorbell = fake_obey;
    struct tepi_completion done;
    for (int i = 0; i < 10 * ENTRIES + 3; i++) {
        const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
        CHECK(id >= 0);
        CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, SECOND, &done), 0);
        CHECK_INT(done.result, id + 1000);
    }
    CHECK_INT(tepi_queue_in_flight(bench.queue), 0);
    bench_close(&bench);
}

CHECK_CASE(full_ring_says_so_and_recovers)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    int ids[ENTRIES];
    for (int i = 0; i < ENTRIES; i++) {
        ids[i] = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
        CHECK(ids[i] >= 0);
    }
    CHECK_INT(tepi_queue_submit(bench.queue, &nop, NULL, NULL), -EAGAIN);
    CHECK_INT(tepi_queue_wait_slot(bench.queue, MS), -ETIMEDOUT);
    struct tepi_completion done;
    for (int i = ENTRIES - 1; i >= 0; i--) {
        fake_complete(&bench.fake, 1, (uint16_t)ids[i], 0);
    }
    for (int i = 0; i < ENTRIES; i++) {
        CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)ids[i], SECOND, &done), 0);
        CHECK_INT(done.result, ids[i] + 1000);
    }
    CHECK_INT(tepi_queue_wait_slot(bench.queue, MS), 0);
    CHECK(tepi_queue_submit(bench.queue, &nop, NULL, NULL) >= 0);
    /* The card has been given its completion entries back before it was shown a 9th command. */
    const uint32_t head = TEPI_REG_DOORBELL + TEPI_REG_DOORBELL_STRIDE + TEPI_DOORBELL_CQ_HEAD;
    CHECK_INT(bench.fake.registers[head / 4], ENTRIES);
    bench_close(&bench);
}

CHECK_CASE(stale_completion_from_before_a_reset)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    const uint32_t generation = atomic_load(&bench.fake.generation);
    fake_write(&bench.fake, 1, 0, generation - 1, TEPI_TAG(id, 0, 1));
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, 0, &done), -ETIMEDOUT);
    CHECK(tepi_queue_stale(bench.queue) > 0);
    CHECK_INT(tepi_queue_fault(bench.queue), 0);
    fake_complete(&bench.fake, 1, (uint16_t)id, 0);
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, SECOND, &done), 0);
    bench_close(&bench);
}

CHECK_CASE(completion_with_the_wrong_phase_is_not_there)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    fake_write(&bench.fake, 1, 0, atomic_load(&bench.fake.generation), TEPI_TAG(id, 0, 0));
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, 0, &done), -ETIMEDOUT);
    bench_close(&bench);
}

static void corrupt(int *check_failures, uint16_t offset)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    fake_complete(&bench.fake, 1, (uint16_t)(id + offset), 0);
    CHECK_INT(tepi_queue_reap(bench.queue), -EBADMSG);
    CHECK_INT(tepi_queue_fault(bench.queue), TEPI_FAULT_CORRUPT_COMPLETION);
    CHECK_INT(tepi_queue_submit(bench.queue, &nop, NULL, NULL), -ESHUTDOWN);
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, SECOND, &done), -EBADMSG);
    bench_close(&bench);
}

CHECK_CASE(completion_of_a_command_not_in_flight)
{
    corrupt(check_failures, 1);
}

CHECK_CASE(completion_of_a_command_outside_the_ring)
{
    corrupt(check_failures, 40000);
}

CHECK_CASE(completion_given_twice)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    fake_complete(&bench.fake, 1, (uint16_t)id, 0);
    fake_complete(&bench.fake, 1, (uint16_t)id, 0);
    CHECK_INT(tepi_queue_reap(bench.queue), -EBADMSG);
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, 0, &done), 0);
    bench_close(&bench);
}

CHECK_CASE(timeout_leaves_the_command_in_flight)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, MS, &done), -ETIMEDOUT);
    CHECK_INT(tepi_queue_in_flight(bench.queue), 1);
    tepi_queue_abandon(bench.queue, (uint16_t)id);
    CHECK_INT(tepi_queue_in_flight(bench.queue), 1);
    fake_complete(&bench.fake, 1, (uint16_t)id, 0);
    CHECK_INT(tepi_queue_reap(bench.queue), 1);
    CHECK_INT(tepi_queue_in_flight(bench.queue), 0);
    bench_close(&bench);
}

struct waiter {
    struct bench *bench;
    uint16_t id;
    int result;
    _Atomic bool returned;
};

static void *wait_long(void *argument)
{
    struct waiter *waiter = argument;
    struct tepi_completion done;
    waiter->result = tepi_queue_wait(waiter->bench->queue, waiter->id, 60 * SECOND, &done);
    atomic_store(&waiter->returned, true);
    return NULL;
}

CHECK_CASE(removal_wakes_every_waiter)
{
    enum { WAITERS = 3 };
    struct bench bench;
    CHECK(bench_open(&bench, false));
    struct waiter waiters[WAITERS];
    pthread_t threads[WAITERS];
    for (int i = 0; i < WAITERS; i++) {
        waiters[i] = (struct waiter){.bench = &bench};
        waiters[i].id = (uint16_t)tepi_queue_submit(bench.queue, &nop, NULL, NULL);
        pthread_create(&threads[i], NULL, wait_long, &waiters[i]);
    }
    atomic_store(&bench.fake.gone, true);
    bench.fake.host.interrupt(bench.fake.host.host, 1);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(waiters[i].result, -ENODEV);
    }
    bench_close(&bench);
}

CHECK_CASE(fatal_fault_is_noticed_while_waiting)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    struct tepi_completion done;
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    atomic_store(&bench.fake.status, TEPI_STATUS_FAULT);
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, 60 * SECOND, &done), -EIO);
    bench_close(&bench);
}

CHECK_CASE(sleepers_hand_the_lead_on)
{
    /* Completions come in reverse, one after the other's waiter has left: each must be woken. */
    enum { WAITERS = ENTRIES };
    struct bench bench;
    CHECK(bench_open(&bench, false));
    struct waiter waiters[WAITERS];
    pthread_t threads[WAITERS];
    for (int i = 0; i < WAITERS; i++) {
        waiters[i] = (struct waiter){.bench = &bench};
        waiters[i].id = (uint16_t)tepi_queue_submit(bench.queue, &nop, NULL, NULL);
        pthread_create(&threads[i], NULL, wait_long, &waiters[i]);
    }
    for (int i = WAITERS - 1; i >= 0; i--) {
        fake_complete(&bench.fake, 1, waiters[i].id, 0);
        pthread_join(threads[i], NULL);
        CHECK_INT(waiters[i].result, 0);
    }
    bench_close(&bench);
}

CHECK_CASE(failing_ends_all_and_restart_begins_anew)
{
    struct bench bench;
    CHECK(bench_open(&bench, false));
    const int id = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    tepi_queue_close(bench.queue, TEPI_FAULT_STALE_GENERATION);
    CHECK_INT(tepi_queue_submit(bench.queue, &nop, NULL, NULL), -ESHUTDOWN);
    tepi_queue_fail(bench.queue, TEPI_FAULT_STALE_GENERATION);
    struct tepi_completion done;
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)id, 0, &done), 0);
    CHECK_INT(TEPI_TAG_STATUS(done.tag), TEPI_FAULT_STALE_GENERATION);
    CHECK_INT(tepi_queue_start(bench.queue, atomic_load(&bench.fake.generation)), 0);
    bench.fake.on_doorbell = fake_obey;
    const int next = tepi_queue_submit(bench.queue, &nop, NULL, NULL);
    CHECK(next >= 0);
    CHECK_INT(tepi_queue_wait(bench.queue, (uint16_t)next, SECOND, &done), 0);
    bench_close(&bench);
}

CHECK_CASE(event_loop_is_signalled_and_collects)
{
    struct bench bench;
    CHECK(bench_open(&bench, true));
    struct tepi_done done[ENTRIES];
    struct pollfd event = {.fd = tepi_queue_eventfd(bench.queue), .events = POLLIN};
    int owners[2];
    uint16_t ids[2];
    CHECK(tepi_queue_submit(bench.queue, &nop, &owners[0], &ids[0]) >= 0);
    CHECK(tepi_queue_submit(bench.queue, &nop, &owners[1], &ids[1]) >= 0);
    CHECK_INT(poll(&event, 1, 0), 0);
    fake_complete(&bench.fake, 1, ids[1], 3);
    CHECK_INT(poll(&event, 1, 0), 1);
    CHECK_INT(tepi_queue_collect(bench.queue, done, ENTRIES), 1);
    CHECK(done[0].owner == &owners[1]);
    CHECK_INT(TEPI_TAG_STATUS(done[0].completion.tag), 3);
    CHECK_INT(poll(&event, 1, 0), 0);
    tepi_queue_close(bench.queue, TEPI_FAULT_GONE);
    tepi_queue_fail(bench.queue, TEPI_FAULT_GONE);
    CHECK_INT(poll(&event, 1, 0), 1);
    CHECK_INT(tepi_queue_collect(bench.queue, done, ENTRIES), 1);
    CHECK(done[0].owner == &owners[0]);
    CHECK_INT(tepi_queue_in_flight(bench.queue), 0);
    bench_close(&bench);
}

CHECK_CASE(collecting_less_than_all_signals_again)
{
    struct bench bench;
    CHECK(bench_open(&bench, true));
    bench.fake.on_doorbell = fake_obey;
    struct tepi_done done[1];
    struct pollfd event = {.fd = tepi_queue_eventfd(bench.queue), .events = POLLIN};
    int owners[3];
    for (int i = 0; i < 3; i++) {
        CHECK(tepi_queue_submit(bench.queue, &nop, &owners[i], NULL) >= 0);
    }
    for (int i = 0; i < 3; i++) {
        CHECK_INT(poll(&event, 1, 0), 1);
        CHECK_INT(tepi_queue_collect(bench.queue, done, 1), 1);
        CHECK(done[0].owner == &owners[i]);
    }
    CHECK_INT(poll(&event, 1, 0), 0);
    bench_close(&bench);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(entries_reach_the_card_as_written),
    CHECK_ENTRY(ring_wraps_many_times),
    CHECK_ENTRY(full_ring_says_so_and_recovers),
    CHECK_ENTRY(stale_completion_from_before_a_reset),
    CHECK_ENTRY(completion_with_the_wrong_phase_is_not_there),
    CHECK_ENTRY(completion_of_a_command_not_in_flight),
    CHECK_ENTRY(completion_of_a_command_outside_the_ring),
    CHECK_ENTRY(completion_given_twice),
    CHECK_ENTRY(timeout_leaves_the_command_in_flight),
    CHECK_ENTRY(removal_wakes_every_waiter),
    CHECK_ENTRY(fatal_fault_is_noticed_while_waiting),
    CHECK_ENTRY(sleepers_hand_the_lead_on),
    CHECK_ENTRY(failing_ends_all_and_restart_begins_anew),
    CHECK_ENTRY(event_loop_is_signalled_and_collects),
    CHECK_ENTRY(collecting_less_than_all_signals_again),
};

CHECK_MAIN(cases)
