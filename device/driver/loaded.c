/* SPDX-License-Identifier: Apache-2.0 */
/* Loading programs, and running them through reused DMA buffers. */
#include "driver/loaded.h"

#include "driver/clock.h"
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { IDLE_RUNS_MOST = 16 };

/* DMA memory of a run: the scatter list, then each port's area, one after the other. */
struct tepi_run {
    struct tepi_run *next;
    struct tepi_loaded *loaded;
    struct tepi_block block;
    uint32_t capacity; /* items that the areas hold */
    uint32_t batch;    /* items that the scatter list describes */
    uint16_t command_id;
    uint32_t epoch;
    uint64_t started_ns;
    void *ports[]; /* the caller's buffers, of a run for an event loop */
};

struct tepi_loaded {
    struct tepi_controller *controller;
    struct tepi_ports ports;
    _Atomic uint64_t where; /* epoch << 32 | handle */
    pthread_mutex_t load_lock;
    pthread_mutex_t idle_lock;
    struct tepi_run *idle;
    uint32_t idle_count;
};

#define UNLOADED 0u /* handles are never 0 */

static uint64_t align_area(uint64_t bytes)
{
    return (bytes + TEPI_POOL_ALIGN - 1) & ~(uint64_t)(TEPI_POOL_ALIGN - 1);
}

static uint32_t port_count(const struct tepi_loaded *loaded)
{
    return loaded->ports.inputs + loaded->ports.outputs;
}

static int load(struct tepi_loaded *loaded, const struct tepi_program_bytes *image,
                struct tepi_failure *failure)
{
    struct tepi_pool *pool = tepi_controller_pool(loaded->controller);
    const uint32_t epoch = tepi_controller_epoch(loaded->controller);
    const uint64_t bytes = image->bytes;
    struct tepi_block block = {0};
    const bool shown = image->file && !tepi_pool_show(pool, image->address, bytes, &block.iova);
    int result = shown ? 0 : tepi_pool_take(pool, bytes, TEPI_POOL_ALIGN, &block);
    if (result) {
        return result;
    }
    if (!shown) {
        memcpy(block.address, image->address, bytes);
    }
    const struct tepi_submission entry = {
        .opcode = TEPI_CMD_LOAD_PROGRAM,
        .batch = 1,
        .data_iova = block.iova,
        .data_bytes = bytes,
    };
    struct tepi_completion completion;
    result = tepi_controller_command(loaded->controller, &entry, &completion, failure);
    shown ? tepi_pool_hide(pool, block.iova, bytes) : tepi_pool_give(pool, &block);
    if (result == 0) {
        atomic_store(&loaded->where, (uint64_t)epoch << 32 | completion.result);
    }
    return result;
}

int tepi_loaded_open(struct tepi_controller *controller, const struct tepi_program_bytes *image,
                     struct tepi_loaded **out, struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    if (image->bytes == 0) {
        return tepi_fail(failure, TEPI_FAULT_PROGRAM_TRUNCATED, 0);
    }
    struct tepi_loaded *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        return -ENOMEM;
    }
    loaded->controller = controller;
    pthread_mutex_init(&loaded->load_lock, NULL);
    pthread_mutex_init(&loaded->idle_lock, NULL);
    /* The card judges first: its checks are the stricter ones. */
    int result = load(loaded, image, failure);
    if (result == 0) {
        result = tepi_ports_read(image->address, image->bytes, &loaded->ports, failure);
    }
    if (result) {
        tepi_loaded_close(loaded);
        return result;
    }
    *out = loaded;
    return 0;
}

int tepi_loaded_reload(struct tepi_loaded *loaded, const struct tepi_program_bytes *image,
                       struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    int result = 0;
    pthread_mutex_lock(&loaded->load_lock);
    if (tepi_loaded_epoch(loaded) != tepi_controller_epoch(loaded->controller) ||
        tepi_controller_fault(loaded->controller)) {
        result = load(loaded, image, failure);
    }
    pthread_mutex_unlock(&loaded->load_lock);
    return result;
}

void tepi_loaded_unload(struct tepi_loaded *loaded)
{
    pthread_mutex_lock(&loaded->load_lock);
    const uint64_t where = atomic_load(&loaded->where);
    const uint32_t handle = (uint32_t)where;
    const uint32_t epoch = (uint32_t)(where >> 32);
    atomic_store(&loaded->where, (uint64_t)epoch << 32 | UNLOADED);
    if (handle != UNLOADED && epoch == tepi_controller_epoch(loaded->controller)) {
        const struct tepi_submission entry = {
            .opcode = TEPI_CMD_UNLOAD, .program = handle, .batch = 1};
        struct tepi_completion ignored;
        /* Where this fails the card has lost the program already. */
        (void)tepi_controller_command(loaded->controller, &entry, &ignored, NULL);
    }
    pthread_mutex_unlock(&loaded->load_lock);
}

static void run_free(struct tepi_run *run)
{
    tepi_pool_give(tepi_controller_pool(run->loaded->controller), &run->block);
    free(run);
}

void tepi_loaded_close(struct tepi_loaded *loaded)
{
    tepi_loaded_unload(loaded);
    struct tepi_run *next = NULL;
    for (struct tepi_run *run = loaded->idle; run; run = next) {
        next = run->next;
        run_free(run);
    }
    pthread_mutex_destroy(&loaded->idle_lock);
    pthread_mutex_destroy(&loaded->load_lock);
    free(loaded);
}

const struct tepi_ports *tepi_loaded_ports(const struct tepi_loaded *loaded)
{
    return &loaded->ports;
}

uint32_t tepi_loaded_epoch(const struct tepi_loaded *loaded)
{
    return (uint32_t)(atomic_load(&loaded->where) >> 32);
}

static uint64_t list_bytes(const struct tepi_loaded *loaded)
{
    return align_area(port_count(loaded) * sizeof(struct tepi_segment));
}

/* Gives the run memory for `batch` items. */
static int run_fit(struct tepi_run *run, uint32_t batch)
{
    const struct tepi_loaded *loaded = run->loaded;
    struct tepi_pool *pool = tepi_controller_pool(loaded->controller);
    if (batch <= run->capacity) {
        return 0;
    }
    uint64_t bytes = list_bytes(loaded);
    for (uint32_t port = 0; port < port_count(loaded); port++) {
        uint64_t area;
        if (__builtin_mul_overflow(loaded->ports.bytes[port], (uint64_t)batch, &area) ||
            area > UINT32_MAX) {
            return -E2BIG;
        }
        bytes += align_area(area);
    }
    struct tepi_block block;
    int result = tepi_pool_take(pool, bytes, TEPI_POOL_ALIGN, &block);
    if (result) {
        return result;
    }
    tepi_pool_give(pool, &run->block);
    run->block = block;
    run->capacity = batch;
    run->batch = 0;
    return 0;
}

static void run_describe(struct tepi_run *run, uint32_t batch)
{
    const struct tepi_loaded *loaded = run->loaded;
    struct tepi_segment *list = run->block.address;
    uint64_t offset = list_bytes(loaded);
    for (uint32_t port = 0; port < port_count(loaded); port++) {
        list[port] = (struct tepi_segment){
            .iova = run->block.iova + offset,
            .bytes = (uint32_t)(loaded->ports.bytes[port] * batch),
            .port = (uint16_t)port,
        };
        offset += align_area(loaded->ports.bytes[port] * run->capacity);
    }
    run->batch = batch;
}

static int run_take(struct tepi_loaded *loaded, uint32_t batch, struct tepi_run **out)
{
    pthread_mutex_lock(&loaded->idle_lock);
    struct tepi_run *run = loaded->idle;
    if (run) {
        loaded->idle = run->next;
        loaded->idle_count--;
    }
    pthread_mutex_unlock(&loaded->idle_lock);
    if (!run) {
        run = calloc(1, sizeof *run + port_count(loaded) * sizeof run->ports[0]);
        if (!run) {
            return -ENOMEM;
        }
        run->loaded = loaded;
    }
    int result = run_fit(run, batch);
    if (result) {
        run_free(run);
        return result;
    }
    if (run->batch != batch) {
        run_describe(run, batch);
    }
    *out = run;
    return 0;
}

static void run_give(struct tepi_run *run)
{
    struct tepi_loaded *loaded = run->loaded;
    pthread_mutex_lock(&loaded->idle_lock);
    const bool keep = loaded->idle_count < IDLE_RUNS_MOST;
    if (keep) {
        run->next = loaded->idle;
        loaded->idle = run;
        loaded->idle_count++;
    }
    pthread_mutex_unlock(&loaded->idle_lock);
    if (!keep) {
        run_free(run);
    }
}

static void copy_inputs(const struct tepi_run *run, void *const *ports)
{
    const struct tepi_loaded *loaded = run->loaded;
    unsigned char *area = (unsigned char *)run->block.address + list_bytes(loaded);
    for (uint32_t port = 0; port < loaded->ports.inputs; port++) {
        memcpy(area, ports[port], loaded->ports.bytes[port] * run->batch);
        area += align_area(loaded->ports.bytes[port] * run->capacity);
    }
}

static void copy_outputs(const struct tepi_run *run, void *const *ports)
{
    const struct tepi_loaded *loaded = run->loaded;
    const unsigned char *area = (const unsigned char *)run->block.address + list_bytes(loaded);
    for (uint32_t port = 0; port < port_count(loaded); port++) {
        if (port >= loaded->ports.inputs) {
            memcpy(ports[port], area, loaded->ports.bytes[port] * run->batch);
        }
        area += align_area(loaded->ports.bytes[port] * run->capacity);
    }
}

static void fill_timings(struct tepi_timings *timings, const struct tepi_completion *completion,
                         uint64_t started_ns)
{
    if (timings) {
        *timings = (struct tepi_timings){
            .queue_ns = completion->queue_ns,
            .copy_in_ns = completion->copy_in_ns,
            .compute_ns = completion->compute_ns,
            .copy_out_ns = completion->copy_out_ns,
            .host_ns = tepi_now_ns() - started_ns,
        };
    }
}

/* Everything up to the doorbell: memory, inputs, entry. */
static int prepare(struct tepi_loaded *loaded, const struct tepi_request *request,
                   struct tepi_run **out, struct tepi_submission *entry,
                   struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    const uint64_t started_ns = tepi_now_ns();
    const uint64_t where = atomic_load_explicit(&loaded->where, memory_order_acquire);
    if ((uint32_t)(where >> 32) != tepi_controller_epoch(loaded->controller)) {
        return tepi_fail(failure, TEPI_FAULT_STALE_GENERATION, 0);
    }
    if (request->batch == 0) {
        return -EINVAL;
    }
    struct tepi_run *run = NULL;
    int result = run_take(loaded, request->batch, &run);
    if (result) {
        return result;
    }
    copy_inputs(run, request->ports);
    run->epoch = (uint32_t)(where >> 32);
    run->started_ns = started_ns;
    *entry = (struct tepi_submission){
        .opcode = TEPI_CMD_EXECUTE,
        .program = (uint32_t)where,
        .batch = request->batch,
        .list_iova = run->block.iova,
        .segments = port_count(loaded),
        .deadline_ns = request->deadline_ns,
    };
    *out = run;
    return 0;
}

int tepi_loaded_profile(struct tepi_loaded *loaded, const struct tepi_request *request,
                        struct tepi_profile_record *records, uint32_t count,
                        struct tepi_timings *timings, struct tepi_failure *failure)
{
    struct tepi_run *run = NULL;
    struct tepi_submission entry;
    int result = prepare(loaded, request, &run, &entry, failure);
    if (result) {
        return result;
    }
    struct tepi_completion completion = {0};
    result = records ? tepi_controller_profile(loaded->controller, &entry, records, count,
                                               &completion, failure)
                     : tepi_controller_command(loaded->controller, &entry, &completion, failure);
    if (result == 0) {
        copy_outputs(run, request->ports);
    }
    fill_timings(timings, &completion, run->started_ns);
    run_give(run);
    return result;
}

int tepi_loaded_run(struct tepi_loaded *loaded, const struct tepi_request *request,
                    struct tepi_timings *timings, struct tepi_failure *failure)
{
    return tepi_loaded_profile(loaded, request, NULL, 0, timings, failure);
}

int tepi_loaded_start(struct tepi_loaded *loaded, const struct tepi_request *request,
                      struct tepi_run **out, struct tepi_failure *failure)
{
    struct tepi_run *run = NULL;
    struct tepi_submission entry;
    int result = prepare(loaded, request, &run, &entry, failure);
    if (result) {
        return result;
    }
    memcpy(run->ports, request->ports, port_count(loaded) * sizeof run->ports[0]);
    result = tepi_controller_submit(loaded->controller, &entry, run, &run->command_id, failure);
    if (result) {
        run_give(run);
        return result;
    }
    *out = run;
    return 0;
}

void tepi_run_abort(struct tepi_run *run)
{
    tepi_controller_abort(run->loaded->controller, run->command_id);
}

int tepi_run_end(struct tepi_run *run, const struct tepi_completion *completion, bool discard,
                 struct tepi_timings *timings, struct tepi_failure *failure)
{
    const uint32_t fault = TEPI_TAG_STATUS(completion->tag);
    if (fault == TEPI_FAULT_OK && !discard) {
        copy_outputs(run, run->ports);
    }
    fill_timings(timings, completion, run->started_ns);
    run_give(run);
    return tepi_fail(failure, fault, completion->info);
}

uint32_t tepi_run_epoch(const struct tepi_run *run)
{
    return run->epoch;
}
