/* SPDX-License-Identifier: Apache-2.0 */
/* The driverless host of the card's tests. */
#include "card/raw_host.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum {
    SECONDS_MOST = 20,
    PAIR_BYTES = RAW_RINGS_BYTES / RAW_QUEUES,
    ENDLESS_AT = 2 << 20,
    ENDLESS_PIECE = 1 << 20,
    ENDLESS_ITEM = RAW_ITEM,
    INPUT_AT = 7 << 18,
    OUTPUT_AT = INPUT_AT + 4096,
    LIST_AT = 4096 * 8,
};

static void *acquire(void *host, uint64_t iova, uint64_t bytes)
{
    struct raw_host *raw = host;
    const uint64_t offset = iova - RAW_WINDOW;
    if (iova < RAW_WINDOW || offset > RAW_BYTES || bytes > RAW_BYTES - offset ||
        atomic_load(&raw->unmapped)) {
        return NULL;
    }
    atomic_fetch_add(&raw->held, 1);
    return raw->memory + offset;
}

static void release(void *host, uint64_t iova, uint64_t bytes)
{
    struct raw_host *raw = host;
    (void)iova;
    (void)bytes;
    atomic_fetch_sub(&raw->held, 1);
}

static void interrupt(void *host, uint32_t vector)
{
    struct raw_host *raw = host;
    if (vector < TEPI_QUEUES_MAX) {
        atomic_fetch_add(&raw->interrupts[vector], 1);
    }
}

uint32_t raw_read32(struct raw_host *raw, uint32_t offset)
{
    return (uint32_t)raw->port.read(raw->port.device, offset, 4);
}

uint64_t raw_read64(struct raw_host *raw, uint32_t offset)
{
    return raw->port.read(raw->port.device, offset, 8);
}

void raw_write32(struct raw_host *raw, uint32_t offset, uint32_t value)
{
    raw->port.write(raw->port.device, offset, 4, value);
}

void raw_write64(struct raw_host *raw, uint32_t offset, uint64_t value)
{
    raw->port.write(raw->port.device, offset, 8, value);
}

static uint64_t pair_offset(uint32_t queue)
{
    return (uint64_t)queue * PAIR_BYTES;
}

uint32_t raw_queue(struct raw_host *raw, uint32_t queue, uint32_t entries, uint32_t enable)
{
    const uint32_t file = TEPI_REG_QUEUE + queue * TEPI_REG_QUEUE_STRIDE;
    const uint64_t base = RAW_WINDOW + pair_offset(queue);
    memset(raw->memory + pair_offset(queue), 0, PAIR_BYTES);
    raw_write64(raw, file + TEPI_QUEUE_SQ_BASE, base);
    raw_write64(raw, file + TEPI_QUEUE_CQ_BASE, base + PAIR_BYTES / 2);
    raw_write32(raw, file + TEPI_QUEUE_ENTRIES, entries);
    raw_write32(raw, file + TEPI_QUEUE_VECTOR, queue);
    raw_write32(raw, file + TEPI_QUEUE_ENABLE, enable);
    raw->entries[queue] = entries;
    raw->tail[queue] = raw->head[queue] = 0;
    return raw_read32(raw, file + TEPI_QUEUE_ENABLE);
}

void raw_start(struct raw_host *raw)
{
    raw_write32(raw, TEPI_REG_CONTROL, TEPI_CONTROL_ENABLE);
    raw_queue(raw, 0, 16, 1 | TEPI_QUEUE_ENABLE_LEND);
    raw_queue(raw, 1, 16, 1);
}

static bool map_window(struct raw_host *raw)
{
    *raw = (struct raw_host){
        .memory = mmap(NULL, RAW_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
    };
    return raw->memory != MAP_FAILED;
}

static void plug(struct raw_host *raw, struct tepi_device_port port)
{
    raw->port = port;
    raw->host = (struct tepi_host_port){
        .host = raw, .dma_acquire = acquire, .dma_release = release, .interrupt = interrupt};
    raw->port.plug(raw->port.device, &raw->host);
}

bool raw_open(struct raw_host *raw, const struct raw_options *options)
{
    const struct raw_options given = options ? *options : (struct raw_options){0};
    if (!map_window(raw)) {
        return false;
    }
    const struct tepi_card_config config = {
        .memory_bytes = given.memory_bytes ? given.memory_bytes : 64u << 20,
        .workers = given.workers ? given.workers : 1,
        .queues = RAW_QUEUES,
    };
    if (tepi_card_create(&config, &raw->card)) {
        munmap(raw->memory, RAW_BYTES);
        return false;
    }
    plug(raw, tepi_card_port(raw->card));
    if (!given.plugged_only) {
        raw_start(raw);
    }
    return true;
}

bool raw_join(struct raw_host *raw, struct tepi_card *card)
{
    if (!map_window(raw)) {
        return false;
    }
    raw->card = card;
    if (tepi_function_open(card, &raw->function)) {
        munmap(raw->memory, RAW_BYTES);
        return false;
    }
    plug(raw, tepi_function_port(raw->function));
    raw_start(raw);
    return true;
}

void raw_close(struct raw_host *raw)
{
    if (raw->function) {
        tepi_function_close(raw->function);
    } else {
        raw->port.plug(raw->port.device, NULL);
        tepi_card_destroy(raw->card);
    }
    munmap(raw->memory, RAW_BYTES);
}

struct tepi_submission *raw_slot(struct raw_host *raw, uint32_t queue, uint32_t index)
{
    struct tepi_submission *ring = (void *)(raw->memory + pair_offset(queue));
    return &ring[index & (raw->entries[queue] - 1)];
}

struct tepi_completion *raw_completion(struct raw_host *raw, uint32_t queue, uint32_t index)
{
    struct tepi_completion *ring = (void *)(raw->memory + pair_offset(queue) + PAIR_BYTES / 2);
    return &ring[index & (raw->entries[queue] - 1)];
}

struct tepi_submission raw_entry(struct raw_host *raw, uint8_t opcode, uint16_t command_id)
{
    return (struct tepi_submission){
        .opcode = opcode,
        .command_id = command_id,
        .generation = raw_read32(raw, TEPI_REG_GENERATION),
        .batch = 1,
    };
}

void raw_submit(struct raw_host *raw, uint32_t queue, const struct tepi_submission *entry)
{
    *raw_slot(raw, queue, raw->tail[queue]++) = *entry;
    raw_write32(raw, TEPI_REG_DOORBELL + queue * TEPI_REG_DOORBELL_STRIDE, raw->tail[queue]);
}

bool raw_wait(struct raw_host *raw, uint32_t queue, struct tepi_completion *completion)
{
    const uint32_t head = raw->head[queue];
    struct tepi_completion *place = raw_completion(raw, queue, head);
    const uint32_t phase = (head & raw->entries[queue]) ? 0 : 1;
    const _Atomic uint32_t *tag = (const _Atomic uint32_t *)(const void *)&place->tag;
    const time_t until = time(NULL) + SECONDS_MOST;
    while (TEPI_TAG_PHASE(atomic_load(tag)) != phase) {
        if (time(NULL) > until) {
            return false;
        }
        sched_yield();
    }
    *completion = *place;
    raw->head[queue]++;
    raw_write32(raw, TEPI_REG_DOORBELL + queue * TEPI_REG_DOORBELL_STRIDE + TEPI_DOORBELL_CQ_HEAD,
                raw->head[queue]);
    return true;
}

uint32_t raw_do(struct raw_host *raw, uint32_t queue, const struct tepi_submission *entry,
                struct tepi_completion *completion)
{
    raw_submit(raw, queue, entry);
    if (!raw_wait(raw, queue, completion) ||
        TEPI_TAG_COMMAND_ID(completion->tag) != entry->command_id) {
        return UINT32_MAX;
    }
    return TEPI_TAG_STATUS(completion->tag);
}

uint64_t raw_put(struct raw_host *raw, uint32_t offset, const void *bytes, size_t count)
{
    memcpy(raw->memory + RAW_RINGS_BYTES + offset, bytes, count);
    return RAW_WINDOW + RAW_RINGS_BYTES + offset;
}

uint8_t *raw_copy_image(uint32_t elements, size_t *bytes)
{
    struct builder builder;
    builder_init(&builder);
    const uint16_t input = builder_input(&builder, TEPI_TYPE_U8, elements);
    const uint16_t output = builder_output(&builder, TEPI_TYPE_U8, elements);
    struct tepi_instruction *copy = builder_add(&builder, TEPI_OP_MAP, input, output);
    copy->map.rank = 1;
    copy->map.dims[0] = elements;
    copy->map.stride[0] = copy->map.out_stride[0] = 1;
    copy->map.table = TEPI_NONE;
    copy->map.hi = 255;
    uint8_t *image = builder_image(&builder, bytes);
    builder_free(&builder);
    return image;
}

uint32_t raw_load(struct raw_host *raw, const void *image, size_t bytes, uint32_t *handle)
{
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_LOAD_PROGRAM, 900);
    struct tepi_completion completion = {0};
    entry.data_iova = raw_put(raw, 0, image, bytes);
    entry.data_bytes = bytes;
    const uint32_t fault = raw_do(raw, 0, &entry, &completion);
    *handle = completion.result;
    return fault;
}

uint32_t raw_load_copy(struct raw_host *raw, uint32_t elements)
{
    size_t bytes;
    uint32_t handle = 0;
    uint8_t *image = raw_copy_image(elements, &bytes);
    if (raw_load(raw, image, bytes, &handle)) {
        handle = 0;
    }
    free(image);
    return handle;
}

struct tepi_submission raw_copy_entry(struct raw_host *raw, uint32_t program, uint16_t command_id)
{
    const uint64_t base = RAW_WINDOW + RAW_RINGS_BYTES;
    const struct tepi_segment list[2] = {{.iova = base + INPUT_AT, .bytes = RAW_ITEM, .port = 0},
                                         {.iova = base + OUTPUT_AT, .bytes = RAW_ITEM, .port = 1}};
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, command_id);
    entry.program = program;
    entry.list_iova = raw_put(raw, LIST_AT, list, sizeof list);
    entry.segments = 2;
    return entry;
}

bool raw_copies(struct raw_host *raw, uint32_t program, uint8_t value)
{
    uint8_t item[RAW_ITEM];
    struct tepi_completion done;
    memset(item, value, sizeof item);
    raw_put(raw, INPUT_AT, item, sizeof item);
    const struct tepi_submission entry = raw_copy_entry(raw, program, 7);
    return raw_do(raw, 1, &entry, &done) == TEPI_FAULT_OK &&
           memcmp(raw->memory + RAW_RINGS_BYTES + OUTPUT_AT, item, sizeof item) == 0;
}

struct tepi_submission raw_endless(struct raw_host *raw, uint32_t handle, uint16_t command_id)
{
    struct tepi_segment *list = calloc(TEPI_SEGMENTS_MAX, sizeof *list);
    unsigned char *input = raw->memory + RAW_RINGS_BYTES + ENDLESS_AT;
    memset(input, 1, ENDLESS_PIECE);
    memset(input + ENDLESS_PIECE, 0, ENDLESS_PIECE);
    for (uint32_t i = 0; i < TEPI_SEGMENTS_MAX; i++) {
        const uint16_t port = i & 1;
        list[i] = (struct tepi_segment){
            .iova = RAW_WINDOW + RAW_RINGS_BYTES + ENDLESS_AT + port * ENDLESS_PIECE,
            .bytes = ENDLESS_PIECE,
            .port = port,
        };
    }
    struct tepi_submission entry = raw_entry(raw, TEPI_CMD_EXECUTE, command_id);
    entry.program = handle;
    entry.batch = TEPI_SEGMENTS_MAX / 2 * (ENDLESS_PIECE / ENDLESS_ITEM);
    entry.list_iova = raw_put(raw, 1 << 20, list, TEPI_SEGMENTS_MAX * sizeof *list);
    entry.segments = TEPI_SEGMENTS_MAX;
    free(list);
    return entry;
}

bool raw_has_begun(struct raw_host *raw)
{
    const _Atomic unsigned char *output =
        (_Atomic unsigned char *)(raw->memory + RAW_RINGS_BYTES + ENDLESS_AT + ENDLESS_PIECE);
    const time_t until = time(NULL) + SECONDS_MOST;
    while (atomic_load(output) == 0) {
        if (time(NULL) > until) {
            return false;
        }
        sched_yield();
    }
    return true;
}
