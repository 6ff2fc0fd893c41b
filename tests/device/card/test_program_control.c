/* SPDX-License-Identifier: Apache-2.0 */
/* Abort and deadline stop a run between instructions and inside a long convolution; runs of one
 * program in several threads do not disturb each other. */
#include "card/specimen.h"
#include "check.h"
#include <pthread.h>
#include <stdlib.h>

struct loaded {
    struct specimen specimen;
    struct tepi_memory memory;
    struct tepi_program *program;
};

static bool load(struct loaded *l)
{
    specimen_make(&l->specimen);
    l->memory = (struct tepi_memory){.bytes = 1 << 20};
    return tepi_program_load(l->specimen.image, l->specimen.bytes, builder_kernels(0), &l->memory,
                             &l->program)
               .fault == TEPI_FAULT_OK;
}

static void unload(struct loaded *l)
{
    tepi_program_free(l->program);
    specimen_free(&l->specimen);
}

struct item {
    const struct tepi_program *program;
    float input[128], floats[128];
    uint8_t output[128], bytes[128];
    struct tepi_verdict found;
};

static void run_item(struct item *item, const struct tepi_run_control *control)
{
    void *ports[] = {item->input, item->output, item->floats, item->bytes};
    void *scratch =
        aligned_alloc(64, (size_t)(tepi_program_scratch_bytes(item->program) + 63) / 64 * 64);
    item->found = tepi_program_run(item->program, ports, scratch, control);
    free(scratch);
}

CHECK_CASE(the_program_describes_itself)
{
    struct loaded l;
    CHECK(load(&l));
    CHECK_INT(tepi_program_inputs(l.program), 1);
    CHECK_INT(tepi_program_outputs(l.program), 3);
    CHECK_INT(tepi_program_port_bytes(l.program, 0), 512);
    CHECK_INT(tepi_program_port_bytes(l.program, 1), 128);
    CHECK_INT(tepi_program_port_bytes(l.program, 2), 512);
    CHECK_INT(tepi_program_port_bytes(l.program, 3), 128);
    CHECK_INT(tepi_program_macs(l.program), 16 * 8 * 9 * 8 + 2 * 4 * 4 * 4 * 8);
    CHECK(tepi_program_scratch_bytes(l.program) >=
          l.specimen.header->arena_bytes + TEPI_KERNEL_SLACK);
    unload(&l);
}

CHECK_CASE(an_abort_before_the_run_stops_it_at_once)
{
    struct loaded l;
    struct item item = {0};
    const atomic_bool abort_flag = true;
    CHECK(load(&l));
    item.program = l.program;
    run_item(&item, &(struct tepi_run_control){.abort = &abort_flag});
    CHECK_INT(item.found.fault, TEPI_FAULT_ABORTED);
    CHECK_INT(item.found.info, 0);
    unload(&l);
}

CHECK_CASE(a_deadline_that_passed_stops_the_run)
{
    struct loaded l;
    struct item item = {0};
    const atomic_bool abort_flag = false;
    CHECK(load(&l));
    item.program = l.program;
    run_item(&item, &(struct tepi_run_control){.abort = &abort_flag, .deadline_ns = 1});
    CHECK_INT(item.found.fault, TEPI_FAULT_DEADLINE);
    run_item(&item, &(struct tepi_run_control){.abort = &abort_flag, .deadline_ns = UINT64_MAX});
    CHECK_INT(item.found.fault, TEPI_FAULT_OK);
    unload(&l);
}

/* A stand-in for a slow kernel: counts its calls and aborts the run during the first. */
enum { SCRATCH = 12345 };
static atomic_bool stop;
static atomic_uint calls;

static bool takes_all(const struct tepi_conv *conv)
{
    (void)conv;
    return true;
}

static size_t nothing(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

static void pack_nothing(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    (void)conv, (void)canonical, (void)packed;
}

static size_t some_scratch(const struct tepi_conv *conv)
{
    (void)conv;
    return SCRATCH;
}

static void run_and_stop(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    (void)row_begin, (void)row_end;
    memset(conv->scratch, 1, SCRATCH);
    atomic_fetch_add(&calls, 1);
    atomic_store(&stop, true);
}

CHECK_CASE(an_abort_reaches_into_a_long_convolution)
{
    static const struct tepi_conv_kernel slow = {.name = "slow",
                                                 .takes = takes_all,
                                                 .packed_bytes = nothing,
                                                 .pack = pack_nothing,
                                                 .scratch_bytes = some_scratch,
                                                 .run = run_and_stop};
    static const struct tepi_conv_kernel *const convolutions[] = {&slow, NULL};
    static int8_t weights[512 * 512];
    static const int32_t constants[512];
    struct tepi_kernel_set kernels = *builder_kernels(0);
    struct builder b;
    struct tepi_memory memory = {.bytes = 1 << 22};
    struct tepi_program *program;
    size_t bytes;
    kernels.convolutions = convolutions;
    builder_init(&b);
    builder_output(&b, TEPI_TYPE_U8, 1);
    /* Rows of 64 pixels that do not follow each other: 2^24 steps each, 64 of them. */
    const uint16_t a = builder_arena(&b, (const uint32_t[]){1, 64, 64, 512}, 512, 1, 0);
    const uint16_t out = builder_arena(&b, (const uint32_t[]){1, 64, 64, 512}, 512, 0, 0);
    builder_add(&b, TEPI_OP_CONV, a, out)->conv =
        (struct tepi_conv_params){.kernel_h = 1,
                                  .kernel_w = 1,
                                  .stride_h = 1,
                                  .stride_w = 1,
                                  .dilation_h = 1,
                                  .dilation_w = 1,
                                  .groups = 1,
                                  .weights = builder_constant(&b, weights, sizeof(weights)),
                                  .bias = builder_constant(&b, constants, sizeof(constants)),
                                  .multiplier = builder_constant(&b, constants, sizeof(constants)),
                                  .table = TEPI_NONE,
                                  .hi = 255};
    uint8_t *image = builder_image(&b, &bytes);
    CHECK_INT(tepi_program_load(image, bytes, &kernels, &memory, &program).fault, TEPI_FAULT_OK);
    void *scratch = aligned_alloc(64, (size_t)(tepi_program_scratch_bytes(program) + 63) / 64 * 64);
    CHECK(tepi_program_scratch_bytes(program) >= b.header.arena_bytes + SCRATCH);
    uint8_t output;
    const struct tepi_verdict found = tepi_program_run(program, (void *[]){&output}, scratch,
                                                       &(struct tepi_run_control){.abort = &stop});
    CHECK_INT(found.fault, TEPI_FAULT_ABORTED);
    CHECK_INT(atomic_load(&calls), 1);
    free(scratch);
    free(image);
    tepi_program_free(program);
    builder_free(&b);
}

static void *run_many(void *argument)
{
    struct item *item = argument;
    for (int i = 0; i < 50 && !item->found.fault; i++)
        run_item(item, NULL);
    return NULL;
}

CHECK_CASE(threads_with_their_own_scratch_agree)
{
    enum { THREADS = 4 };
    static struct item items[THREADS];
    pthread_t threads[THREADS];
    struct loaded l;
    CHECK(load(&l));
    for (int i = 0; i < THREADS; i++) {
        items[i].program = l.program;
        for (int k = 0; k < 128; k++)
            items[i].input[k] = (float)(k % 97);
        pthread_create(&threads[i], NULL, run_many, &items[i]);
    }
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        CHECK_INT(items[i].found.fault, TEPI_FAULT_OK);
        CHECK_BYTES(items[i].output, items[0].output, 128);
        CHECK_BYTES(items[i].floats, items[0].floats, 512);
    }
    unload(&l);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(the_program_describes_itself),
    CHECK_ENTRY(an_abort_before_the_run_stops_it_at_once),
    CHECK_ENTRY(a_deadline_that_passed_stops_the_run),
    CHECK_ENTRY(an_abort_reaches_into_a_long_convolution),
    CHECK_ENTRY(threads_with_their_own_scratch_agree),
};
CHECK_MAIN(cases)
