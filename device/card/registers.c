/* SPDX-License-Identifier: Apache-2.0 */
/* BAR0 of a function of the software card: decoding of reads and writes, and the fault log page. */
#include "card/state.h"

#include <string.h>

#define NS_PER_BEAT 1000000u
#define ALL_OPCODES                                                                                \
    (1ull << TEPI_OP_FILL | 1ull << TEPI_OP_MAP | 1ull << TEPI_OP_CONV | 1ull << TEPI_OP_ADD |     \
     1ull << TEPI_OP_MUL | 1ull << TEPI_OP_TABLE | 1ull << TEPI_OP_MAXPOOL |                       \
     1ull << TEPI_OP_AVGPOOL | 1ull << TEPI_OP_RESIZE | 1ull << TEPI_OP_SOFTMAX |                  \
     1ull << TEPI_OP_MATMUL | 1ull << TEPI_OP_LAYERNORM | 1ull << TEPI_OP_VECTOR |                 \
     1ull << TEPI_OP_FMATMUL | 1ull << TEPI_OP_GATHER | 1ull << TEPI_OP_RANGE)

static const uint32_t queue_file_end = TEPI_REG_QUEUE + TEPI_QUEUES_MAX * TEPI_REG_QUEUE_STRIDE;
static const uint32_t fault_log_end =
    TEPI_REG_FAULT_LOG + TEPI_FAULT_LOG_ENTRIES * (uint32_t)sizeof(struct tepi_fault_entry);

static uint32_t read_control32(struct tepi_function *function, uint32_t offset)
{
    struct tepi_card *card = function->card;
    switch (offset) {
    case TEPI_REG_MAGIC:
        return TEPI_MAGIC;
    case TEPI_REG_ABI_MIN:
    case TEPI_REG_ABI_MAX:
        return TEPI_ABI_VERSION;
    case TEPI_REG_ISA:
        return (uint32_t)card->kernels->isa;
    case TEPI_REG_CAP_QUEUES:
        return card->config.queues;
    case TEPI_REG_CAP_QUEUE_ENTRIES:
        return TEPI_CARD_ENTRIES_MAX;
    case TEPI_REG_CAP_WORKERS:
        return card->config.workers;
    case TEPI_REG_CONTROL:
        return atomic_load(&function->control_register);
    case TEPI_REG_STATUS:
        return atomic_load(&function->status) |
               (atomic_load(&card->faults.throttle) ? TEPI_STATUS_THROTTLED : 0);
    case TEPI_REG_TEMPERATURE:
        return tepi_card_temperature_mc(card);
    case TEPI_REG_POWER:
        return tepi_card_power_mw(card);
    case TEPI_REG_ECC_CORRECTED:
        return atomic_load(&card->ecc_corrected);
    case TEPI_REG_GENERATION:
        return atomic_load(&function->generation);
    case TEPI_REG_FAULT_CODE:
        return atomic_load(&function->fault_code);
    case TEPI_REG_FAULT_INFO:
        return atomic_load(&function->fault_info);
    case TEPI_REG_FAULT_COUNT:
        return atomic_load(&function->fault_count);
    default:
        return 0;
    }
}

uint64_t tepi_card_heartbeat(struct tepi_card *card)
{
    const uint64_t stopped = atomic_load(&card->heartbeat_stopped);
    return stopped ? stopped : tepi_card_clock_ns() / NS_PER_BEAT;
}

static uint64_t read_control64(struct tepi_card *card, uint32_t offset)
{
    switch (offset) {
    case TEPI_REG_CAP_OPCODES:
        return ALL_OPCODES;
    case TEPI_REG_CAP_MEMORY:
        return card->config.memory_bytes;
    case TEPI_REG_MEMORY_FREE:
        return tepi_memory_free(&card->memory);
    case TEPI_REG_HEARTBEAT:
        return tepi_card_heartbeat(card);
    case TEPI_REG_EXECUTED:
        return tepi_card_executed(card);
    case TEPI_REG_CLOCK:
        return tepi_card_clock_ns();
    default:
        return 0;
    }
}

static uint64_t read_log(struct tepi_function *function, uint32_t at, unsigned width)
{
    uint64_t value = 0;
    pthread_mutex_lock(&function->log_lock);
    memcpy(&value, (const unsigned char *)function->log + at, width);
    pthread_mutex_unlock(&function->log_lock);
    return value;
}

uint64_t tepi_function_read(void *device, uint32_t offset, unsigned width)
{
    struct tepi_function *function = device;
    struct tepi_card *card = function->card;
    if (!atomic_load(&card->present)) {
        return width == 8 ? UINT64_MAX : UINT32_MAX;
    }
    if ((width != 4 && width != 8) || offset % width) {
        return 0;
    }
    if (offset < TEPI_REG_QUEUE) {
        return width == 4 ? read_control32(function, offset) : read_control64(card, offset);
    }
    if (offset < queue_file_end) {
        const uint32_t at = offset - TEPI_REG_QUEUE;
        const uint32_t id = at / TEPI_REG_QUEUE_STRIDE;
        return id >= card->config.queues
                   ? 0
                   : tepi_card_queue_read(&function->queues[id], at % TEPI_REG_QUEUE_STRIDE, width);
    }
    if (width == 8 && offset >= TEPI_REG_BUSY &&
        (offset - TEPI_REG_BUSY) / 8 < card->config.workers) {
        return tepi_card_busy_ns(card, (offset - TEPI_REG_BUSY) / 8);
    }
    if (offset >= TEPI_REG_FAULT_LOG && offset < fault_log_end) {
        return read_log(function, offset - TEPI_REG_FAULT_LOG, width);
    }
    return 0;
}

/* Registers that change what the card is; under `control`, where the card may have been detached
 * since the caller looked. */
static void write_control(struct tepi_function *function, uint32_t offset, uint32_t value)
{
    pthread_mutex_lock(&function->control);
    if (!atomic_load(&function->card->present)) {
        goto out;
    }
    if (offset == TEPI_REG_CONTROL) {
        atomic_store(&function->control_register, value & TEPI_CONTROL_ENABLE);
    } else if (offset == TEPI_REG_RESET && value == TEPI_RESET_KEY) {
        tepi_function_reset_locked(function);
    }
out:
    pthread_mutex_unlock(&function->control);
}

static void write_queue(struct tepi_function *function, uint32_t at, unsigned width, uint64_t value)
{
    const uint32_t id = at / TEPI_REG_QUEUE_STRIDE;
    if (id >= function->card->config.queues) {
        return;
    }
    pthread_mutex_lock(&function->control);
    if (atomic_load(&function->card->present)) {
        tepi_card_queue_write(&function->queues[id], at % TEPI_REG_QUEUE_STRIDE, width, value);
    }
    pthread_mutex_unlock(&function->control);
}

void tepi_function_write(void *device, uint32_t offset, unsigned width, uint64_t value)
{
    struct tepi_function *function = device;
    struct tepi_card *card = function->card;
    if (!atomic_load(&card->present) || (width != 4 && width != 8) || offset % width) {
        return;
    }
    if (offset >= TEPI_REG_DOORBELL && width == 4) {
        const uint32_t at = offset - TEPI_REG_DOORBELL;
        const uint32_t id = at / TEPI_REG_DOORBELL_STRIDE;
        if (id < card->config.queues) {
            tepi_card_queue_doorbell(&function->queues[id], at % TEPI_REG_DOORBELL_STRIDE,
                                     (uint32_t)value);
        }
    } else if (offset >= TEPI_REG_QUEUE && offset < queue_file_end) {
        write_queue(function, offset - TEPI_REG_QUEUE, width, value);
    } else if (offset < TEPI_REG_QUEUE && width == 4) {
        write_control(function, offset, (uint32_t)value);
    }
}

void tepi_function_log(struct tepi_function *function, uint32_t fault, uint32_t info,
                       uint32_t queue, uint16_t command_id)
{
    pthread_mutex_lock(&function->log_lock);
    const uint32_t count = atomic_load(&function->fault_count);
    function->log[count % TEPI_FAULT_LOG_ENTRIES] = (struct tepi_fault_entry){
        .time_ns = tepi_card_clock_ns(),
        .code = fault,
        .info = info,
        .generation = atomic_load(&function->generation),
        .queue = (uint16_t)queue,
        .command_id = command_id,
        .sequence = count + 1,
    };
    atomic_store(&function->fault_code, fault);
    atomic_store(&function->fault_info, info);
    /* Last: whoever reads the count finds the entry. */
    atomic_store(&function->fault_count, count + 1);
    pthread_mutex_unlock(&function->log_lock);
}
