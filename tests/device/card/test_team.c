/* SPDX-License-Identifier: Apache-2.0 */
/* One run shared by several threads: the same bytes for any number of them, any order of the parts
 * and any team; and a card whose workers help each other's commands stops as promptly as ever. */
#include "card/raw_host.h"
#include "card/team_program.h"
#include "check.h"
#include <stdlib.h>

enum { PROGRAMS = 24, INPUT_AT = 1 << 20, OUTPUT_AT = 3 << 20, LIST_AT = 1 << 19 };

/* A team without threads: parts run from the last to the first, each in scratch of its own. */
struct backwards {
    struct tepi_team face;
    uint32_t threads, jobs;
};

static uint32_t backwards_size(struct tepi_team *face)
{
    return ((struct backwards *)(void *)face)->threads;
}

static void backwards_run(struct tepi_team *face, const struct tepi_job *job)
{
    ((struct backwards *)(void *)face)->jobs++;
    for (uint32_t i = job->parts; i-- > 0;) {
        const size_t bytes = (size_t)(job->scratch_bytes + 63) / 64 * 64;
        void *scratch = bytes ? aligned_alloc(64, bytes) : NULL;
        job->part(job, i, scratch);
        free(scratch);
    }
}

struct specimen_run {
    uint8_t *image;
    size_t bytes;
    uint32_t items[2];
    uint8_t *input, *output;
};

static void make(struct specimen_run *s, uint64_t seed)
{
    struct chance chance = {seed * 7919 + 1};
    s->image = team_program(&chance, &s->bytes, s->items);
    s->input = malloc(s->items[0]);
    s->output = malloc(s->items[1]);
    chance_fill(&chance, s->input, s->items[0]);
}

static void drop(struct specimen_run *s)
{
    free(s->image);
    free(s->input);
    free(s->output);
}

/* The output of `threads` threads; NULL: refused. */
static uint8_t *run_on(struct specimen_run *s, const struct tepi_kernel_set *kernels,
                       struct backwards *team)
{
    struct tepi_memory memory = {.bytes = UINT64_C(64) << 20};
    struct tepi_program *program;
    if (tepi_program_load(s->image, s->bytes, kernels, &memory, &program).fault)
        return NULL;
    uint8_t *output = malloc(s->items[1]);
    const size_t bytes = (size_t)(tepi_program_scratch_bytes(program) + 63) / 64 * 64;
    void *scratch = aligned_alloc(64, bytes);
    memset(scratch, 0x5a, bytes);
    const struct tepi_run_control control = {.team = team ? &team->face : NULL};
    const struct tepi_verdict found =
        tepi_program_run(program, (void *[]){s->input, output}, scratch, &control);
    free(scratch);
    tepi_program_free(program);
    if (found.fault) {
        free(output);
        return NULL;
    }
    return output;
}

CHECK_CASE(any_number_of_threads_gives_the_same_bytes)
{
    static const uint32_t threads[] = {2, 3, 5};
    uint32_t jobs = 0;
    for (uint64_t seed = 0; seed < PROGRAMS; seed++) {
        struct specimen_run s;
        make(&s, seed);
        uint8_t *expected = run_on(&s, builder_kernels(0), NULL);
        CHECK(expected);
        for (unsigned k = 0; builder_kernels(k); k++) {
            const size_t some = builder_kernels(k)->isa == TEPI_KERNEL_SCALAR ? 1 : 3;
            for (size_t t = 0; t < some; t++) {
                struct backwards team = {
                    {backwards_size, backwards_run}, threads[(t + seed) % 3], 0};
                uint8_t *found = run_on(&s, builder_kernels(k), &team);
                CHECK(found);
                CHECK(memcmp(found, expected, s.items[1]) == 0);
                jobs += team.jobs;
                free(found);
            }
        }
        free(expected);
        drop(&s);
    }
    CHECK(jobs > PROGRAMS);
}

static struct tepi_submission entry_of(struct raw_host *raw, const struct specimen_run *s,
                                       uint32_t handle, uint32_t place)
{
    const uint64_t base = RAW_WINDOW + RAW_RINGS_BYTES;
    const struct tepi_segment list[2] = {
        {.iova = base + INPUT_AT, .bytes = s->items[0], .port = 0},
        {.iova = base + OUTPUT_AT + place * (1u << 20), .bytes = s->items[1], .port = 1}};
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, (uint16_t)place);
    entry.program = handle;
    entry.list_iova = raw_put(raw, LIST_AT + place * 4096, list, sizeof list);
    entry.segments = 2;
    return entry;
}

static const uint8_t *output_of(const struct raw_host *raw, uint32_t place)
{
    return raw->memory + RAW_RINGS_BYTES + OUTPUT_AT + place * (1u << 20);
}

CHECK_CASE(workers_help_two_commands_at_once)
{
    static const uint32_t workers[] = {1, 2, 3, 5};
    for (uint64_t seed = 0; seed < PROGRAMS; seed++) {
        struct specimen_run s;
        struct raw_host raw;
        make(&s, seed);
        uint8_t *expected = run_on(&s, builder_kernels(0), NULL);
        CHECK(raw_open(&raw, &(struct raw_options){.workers = workers[seed % 4]}));
        uint32_t handle = 0;
        raw_put(&raw, INPUT_AT, s.input, s.items[0]);
        CHECK_INT(raw_load(&raw, s.image, s.bytes, &handle), TEPI_FAULT_OK);
        raw_put(&raw, INPUT_AT, s.input, s.items[0]);
        for (int round = 0; round < 20; round++) {
            struct tepi_completion done;
            for (uint32_t place = 0; place < 2; place++) {
                const struct tepi_submission entry = entry_of(&raw, &s, handle, place);
                raw_submit(&raw, 1, &entry);
            }
            const struct tepi_submission lent = entry_of(&raw, &s, handle, 2);
            CHECK_INT(raw_do(&raw, 0, &lent, &done), TEPI_FAULT_OK);
            for (uint32_t place = 0; place < 2; place++) {
                CHECK(raw_wait(&raw, 1, &done));
                CHECK_INT(done.tag >> 1 & 0x7fff, TEPI_FAULT_OK);
            }
            for (uint32_t place = 0; place < 3; place++) {
                CHECK(memcmp(output_of(&raw, place), expected, s.items[1]) == 0);
            }
        }
        raw_close(&raw);
        free(expected);
        drop(&s);
    }
}

/* Reset, removal and abort at any point of a shared run. */
CHECK_CASE(shared_runs_stop_at_once)
{
    struct specimen_run s;
    struct raw_host raw;
    make(&s, 3);
    CHECK(raw_open(&raw, &(struct raw_options){.workers = 3}));
    for (uint32_t round = 0; round < 90; round++) {
        uint32_t handle = 0;
        CHECK_INT(raw_load(&raw, s.image, s.bytes, &handle), TEPI_FAULT_OK);
        for (uint32_t place = 0; place < 3; place++) {
            const struct tepi_submission entry = entry_of(&raw, &s, handle, place);
            raw_submit(&raw, 1, &entry);
        }
        struct tepi_completion done;
        struct tepi_submission other = raw_entry(&raw, TEPI_CMD_NOP, 9);
        for (uint32_t i = 0; i < round % 30; i++) {
            CHECK_INT(raw_do(&raw, 0, &other, &done), TEPI_FAULT_OK);
        }
        if (round % 3 == 0) {
            raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
        } else if (round % 3 == 1) {
            tepi_card_detach(raw.card);
            tepi_card_attach(raw.card);
        } else {
            for (uint32_t place = 0; place < 3; place++) {
                other = raw_entry(&raw, TEPI_CMD_ABORT, 10);
                other.program = place;
                CHECK_INT(raw_do(&raw, 0, &other, &done), TEPI_FAULT_OK);
            }
            for (uint32_t place = 0; place < 3; place++) {
                CHECK(raw_wait(&raw, 1, &done));
            }
            raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
        }
        CHECK_INT(atomic_load(&raw.held), 0);
        CHECK_INT(raw_read64(&raw, TEPI_REG_MEMORY_FREE), 64u << 20);
        raw_start(&raw);
    }
    raw_close(&raw);
    drop(&s);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(any_number_of_threads_gives_the_same_bytes),
    CHECK_ENTRY(workers_help_two_commands_at_once),
    CHECK_ENTRY(shared_runs_stop_at_once),
};

CHECK_MAIN(cases)
