/* SPDX-License-Identifier: Apache-2.0 */
/* Driver and software card together: programs loaded and run, by threads, through removal. */
#include "driver/loaded.h"

#include "card/card.h"
#include "card/raw_host.h"
#include "check.h"
#include "driver/bus_inproc.h"
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ITEM = 96 };

struct pair {
    struct tepi_card *card;
    struct tepi_controller *controller;
    uint8_t *bytes;
    struct tepi_program_bytes image;
    struct tepi_loaded *loaded;
    struct tepi_failure failure;
};

static bool pair_open(struct pair *pair, uint32_t workers)
{
    *pair = (struct pair){0};
    const struct tepi_card_config config = {
        .memory_bytes = 16 << 20, .workers = workers, .queues = 2};
    if (tepi_card_create(&config, &pair->card)) {
        return false;
    }
    const struct tepi_device_port port = tepi_card_port(pair->card);
    struct tepi_bus *bus = NULL;
    size_t bytes;
    pair->bytes = raw_copy_image(ITEM, &bytes);
    pair->image = (struct tepi_program_bytes){.address = pair->bytes, .bytes = bytes};
    return tepi_bus_inproc_open(&port, &bus) == 0 &&
           tepi_controller_open(bus, NULL, &pair->controller, &pair->failure) == 0 &&
           tepi_loaded_open(pair->controller, &pair->image, &pair->loaded, &pair->failure) == 0;
}

static void pair_close(struct pair *pair)
{
    tepi_loaded_close(pair->loaded);
    tepi_controller_close(pair->controller);
    tepi_card_destroy(pair->card);
    free(pair->bytes);
}

/* Runs `batch` items of random bytes; 0, or the errno, or 1 where the outputs are not right. */
static int run(struct pair *pair, uint32_t batch, uint64_t seed, struct tepi_failure *failure)
{
    struct chance chance = {.state = seed};
    const size_t bytes = (size_t)batch * ITEM;
    uint8_t *input = malloc(bytes);
    uint8_t *output = calloc(1, bytes);
    chance_fill(&chance, input, bytes);
    void *ports[2] = {input, output};
    struct tepi_timings timings;
    int result =
        tepi_loaded_run(pair->loaded, &(struct tepi_request){ports, batch, 0}, &timings, failure);
    if (result == 0 && memcmp(input, output, bytes)) {
        result = 1;
    }
    free(input);
    free(output);
    return result;
}

CHECK_CASE(batches_of_any_size)
{
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    CHECK_INT(tepi_loaded_ports(pair.loaded)->inputs, 1);
    CHECK_INT(tepi_loaded_ports(pair.loaded)->bytes[1], ITEM);
    const uint32_t batches[] = {1, 7, 2, 1000, 1, 64};
    for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        CHECK_INT(run(&pair, batches[i], i + 1, &pair.failure), 0);
    }
    void *ports[2] = {NULL, NULL};
    CHECK_INT(
        tepi_loaded_run(pair.loaded, &(struct tepi_request){ports, 0, 0}, NULL, &pair.failure),
        -EINVAL);
    CHECK_INT(tepi_loaded_run(pair.loaded, &(struct tepi_request){ports, UINT32_MAX, 0}, NULL,
                              &pair.failure),
              -E2BIG);
    CHECK_INT(tepi_loaded_run(pair.loaded, &(struct tepi_request){ports, 40000000, 0}, NULL,
                              &pair.failure),
              -ENOMEM);
    CHECK_INT(run(&pair, 3, 9, &pair.failure), 0);
    pair_close(&pair);
}

CHECK_CASE(refused_program_says_why)
{
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    struct tepi_loaded *loaded = NULL;
    pair.bytes[pair.image.bytes - 1] ^= 1;
    CHECK_INT(tepi_loaded_open(pair.controller, &pair.image, &loaded, &pair.failure), -ENOEXEC);
    CHECK_INT(pair.failure.fault, TEPI_FAULT_PROGRAM_CRC);
    pair.image.bytes = 0;
    CHECK_INT(tepi_loaded_open(pair.controller, &pair.image, &loaded, &pair.failure), -ENOEXEC);
    CHECK_INT(pair.failure.fault, TEPI_FAULT_PROGRAM_TRUNCATED);
    pair_close(&pair);
}

struct runner {
    struct pair *pair;
    uint64_t seed;
    uint32_t rounds;
    unsigned fine, gone, stale, wrong;
};

static void *run_many(void *argument)
{
    struct runner *runner = argument;
    for (uint32_t i = 0; i < runner->rounds; i++) {
        struct tepi_failure failure = {0};
        const int result = run(runner->pair, 1 + i % 5, runner->seed * 1000 + i, &failure);
        runner->fine += result == 0;
        runner->gone += result == -ENODEV;
        runner->stale += result == -ESTALE;
        runner->wrong += result != 0 && result != -ENODEV && result != -ESTALE;
    }
    return NULL;
}

CHECK_CASE(threads_share_a_program)
{
    enum { THREADS = 4 };
    struct pair pair;
    CHECK(pair_open(&pair, 2));
    struct runner runners[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        runners[i] = (struct runner){.pair = &pair, .seed = (uint64_t)i + 1, .rounds = 500};
        pthread_create(&threads[i], NULL, run_many, &runners[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(runners[i].fine, 500);
    }
    pair_close(&pair);
}

static void *nop_many(void *argument)
{
    struct runner *runner = argument;
    const struct tepi_submission nop = {.opcode = TEPI_CMD_NOP, .batch = 1};
    for (uint32_t i = 0; i < runner->rounds; i++) {
        struct tepi_completion done;
        struct tepi_failure failure;
        const int result = tepi_controller_command(runner->pair->controller, &nop, &done, &failure);
        runner->fine += result == 0;
    }
    return NULL;
}

CHECK_CASE(threads_crowd_a_tiny_ring)
{
    enum { THREADS = 6, ROUNDS = 3000 };
    struct pair pair = {0};
    const struct tepi_card_config config = {.memory_bytes = 4096, .workers = 1, .queues = 2};
    const struct tepi_controller_config tiny = {.entries = 2};
    CHECK_INT(tepi_card_create(&config, &pair.card), 0);
    const struct tepi_device_port port = tepi_card_port(pair.card);
    struct tepi_bus *bus = NULL;
    CHECK_INT(tepi_bus_inproc_open(&port, &bus), 0);
    CHECK_INT(tepi_controller_open(bus, &tiny, &pair.controller, &pair.failure), 0);
    struct runner runners[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        runners[i] = (struct runner){.pair = &pair, .rounds = ROUNDS};
        pthread_create(&threads[i], NULL, nop_many, &runners[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(runners[i].fine, ROUNDS);
    }
    CHECK_INT(tepi_controller_epoch(pair.controller), 1);
    tepi_controller_close(pair.controller);
    tepi_card_destroy(pair.card);
}

CHECK_CASE(removal_and_return_under_load)
{
    enum { THREADS = 3, TURNS = 20 };
    struct pair pair;
    CHECK(pair_open(&pair, 2));
    struct runner runners[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        runners[i] = (struct runner){.pair = &pair, .seed = (uint64_t)i + 1, .rounds = 2000};
        pthread_create(&threads[i], NULL, run_many, &runners[i]);
    }
    struct tepi_failure failure;
    for (int turn = 0; turn < TURNS; turn++) {
        tepi_card_detach(pair.card);
        CHECK(!tepi_controller_alive(pair.controller));
        tepi_card_attach(pair.card);
        CHECK_INT(tepi_controller_reset(pair.controller, &failure), 0);
        CHECK_INT(tepi_loaded_reload(pair.loaded, &pair.image, &failure), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(runners[i].wrong, 0);
    }
    CHECK_INT(run(&pair, 2, 3, &failure), 0);
    pair_close(&pair);
}

CHECK_CASE(program_of_an_earlier_epoch_must_be_reloaded)
{
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    CHECK_INT(tepi_controller_reset(pair.controller, &pair.failure), 0);
    CHECK_INT(run(&pair, 1, 1, &pair.failure), -ESTALE);
    CHECK_INT(pair.failure.fault, TEPI_FAULT_STALE_GENERATION);
    CHECK(tepi_loaded_epoch(pair.loaded) != tepi_controller_epoch(pair.controller));
    CHECK_INT(tepi_loaded_reload(pair.loaded, &pair.image, &pair.failure), 0);
    CHECK_INT(run(&pair, 1, 1, &pair.failure), 0);
    tepi_loaded_unload(pair.loaded);
    CHECK_INT(run(&pair, 1, 1, &pair.failure), -ESTALE);
    CHECK_INT(pair.failure.fault, TEPI_FAULT_NO_PROGRAM);
    pair_close(&pair);
}

CHECK_CASE(program_in_a_file_is_read_in_place)
{
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    const int fd = memfd_create("program", MFD_CLOEXEC);
    CHECK_INT(write(fd, pair.image.address, pair.image.bytes), (long long)pair.image.bytes);
    void *file = mmap(NULL, pair.image.bytes, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(file != MAP_FAILED);
    tepi_loaded_close(pair.loaded);
    const struct tepi_program_bytes image = {file, pair.image.bytes, .file = true};
    CHECK_INT(tepi_loaded_open(pair.controller, &image, &pair.loaded, &pair.failure), 0);
    CHECK_INT(run(&pair, 2, 1, &pair.failure), 0);
    CHECK_INT(tepi_controller_reset(pair.controller, &pair.failure), 0);
    CHECK_INT(tepi_loaded_reload(pair.loaded, &image, &pair.failure), 0);
    CHECK_INT(run(&pair, 2, 2, &pair.failure), 0);
    munmap(file, pair.image.bytes);
    close(fd);
    CHECK_INT(run(&pair, 2, 3, &pair.failure), 0);
    pair_close(&pair);
}

CHECK_CASE(deadline_stops_a_long_run)
{
    enum { BATCH = 200000 };
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    void *ports[2] = {calloc(BATCH, ITEM), calloc(BATCH, ITEM)};
    CHECK_INT(tepi_loaded_run(pair.loaded, &(struct tepi_request){ports, BATCH, 1000000}, NULL,
                              &pair.failure),
              -ETIMEDOUT);
    CHECK_INT(pair.failure.fault, TEPI_FAULT_DEADLINE);
    CHECK(tepi_controller_alive(pair.controller));
    free(ports[0]);
    free(ports[1]);
    pair_close(&pair);
}

CHECK_CASE(event_loop_runs_and_aborts)
{
    enum { BATCH = 200000 };
    struct pair pair;
    CHECK(pair_open(&pair, 1));
    void *ports[2] = {calloc(BATCH, ITEM), calloc(BATCH, ITEM)};
    memset(ports[0], 7, (size_t)BATCH * ITEM);
    struct tepi_run *first = NULL;
    struct tepi_run *second = NULL;
    CHECK_INT(tepi_loaded_start(pair.loaded, &(struct tepi_request){ports, BATCH, 0}, &first,
                                &pair.failure),
              0);
    CHECK_INT(tepi_loaded_start(pair.loaded, &(struct tepi_request){ports, BATCH, 0}, &second,
                                &pair.failure),
              0);
    tepi_run_abort(second);
    struct pollfd event = {.fd = tepi_controller_eventfd(pair.controller), .events = POLLIN};
    int results[2] = {1, 1};
    for (int ended = 0; ended < 2;) {
        CHECK(poll(&event, 1, 20000) == 1);
        struct tepi_done done[4];
        const uint32_t taken = tepi_controller_collect(pair.controller, done, 4);
        for (uint32_t i = 0; i < taken; i++, ended++) {
            struct tepi_timings timings;
            results[done[i].owner == second] =
                tepi_run_end(done[i].owner, &done[i].completion, false, &timings, &pair.failure);
        }
    }
    CHECK_INT(results[0], 0);
    CHECK_INT(results[1], -ECANCELED);
    CHECK_INT(memcmp(ports[0], ports[1], (size_t)BATCH * ITEM), 0);
    free(ports[0]);
    free(ports[1]);
    pair_close(&pair);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(batches_of_any_size),
    CHECK_ENTRY(refused_program_says_why),
    CHECK_ENTRY(threads_share_a_program),
    CHECK_ENTRY(threads_crowd_a_tiny_ring),
    CHECK_ENTRY(removal_and_return_under_load),
    CHECK_ENTRY(program_of_an_earlier_epoch_must_be_reloaded),
    CHECK_ENTRY(program_in_a_file_is_read_in_place),
    CHECK_ENTRY(deadline_stops_a_long_run),
    CHECK_ENTRY(event_loop_runs_and_aborts),
};

CHECK_MAIN(cases)
