/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a card: probe, bring-up, loss, reset, close. */
#include "driver/controller_state.h"

#include "driver/clock.h"
#include "driver/mmio.h"
#include <errno.h>
#include <stdlib.h>

#define DEFAULT_ENTRIES   256u
#define DEFAULT_POOL      (1ull << 30)
#define DEFAULT_TIMEOUT   120000000000ull
#define DEFAULT_GRACE     1000000000ull
#define DEFAULT_RESET     5000000000ull
#define RESET_POLL_NS     50000u
#define TEPI_ABI_SPOKEN   TEPI_ABI_VERSION
#define FAULT_ENTRY_BYTES sizeof(struct tepi_fault_entry)

static int probe(struct tepi_controller *self, struct tepi_failure *failure)
{
    const uint32_t magic = tepi_read32(self->bus, TEPI_REG_MAGIC);
    if (magic == TEPI_ALL_ONES) {
        return tepi_fail(failure, TEPI_FAULT_GONE, 0);
    }
    const uint32_t abi_min = tepi_read32(self->bus, TEPI_REG_ABI_MIN);
    const uint32_t abi_max = tepi_read32(self->bus, TEPI_REG_ABI_MAX);
    if (magic != TEPI_MAGIC || TEPI_ABI_SPOKEN < abi_min || TEPI_ABI_SPOKEN > abi_max) {
        return tepi_fail(failure, TEPI_FAULT_NOT_A_CARD, magic != TEPI_MAGIC ? magic : abi_min);
    }
    return 0;
}

static int await_ready(struct tepi_controller *self)
{
    const uint64_t deadline = tepi_now_ns() + self->config.reset_timeout_ns;
    const struct timespec pause = tepi_timespec(RESET_POLL_NS);
    for (;;) {
        const uint32_t status = tepi_read32(self->bus, TEPI_REG_STATUS);
        if (status == TEPI_ALL_ONES) {
            return -ENODEV;
        }
        if ((status & (TEPI_STATUS_READY | TEPI_STATUS_RESETTING)) == TEPI_STATUS_READY) {
            return 0;
        }
        if (tepi_now_ns() >= deadline) {
            return -ETIMEDOUT;
        }
        nanosleep(&pause, NULL);
    }
}

/* Brings the card to rest with no queues and no programs; then it touches no host memory. */
static int quiesce(struct tepi_controller *self, struct tepi_failure *failure)
{
    tepi_write32(self->bus, TEPI_REG_RESET, TEPI_RESET_KEY);
    int result = await_ready(self);
    if (result == -ETIMEDOUT && self->bus->ops->reset(self->bus) == 0) {
        result = await_ready(self);
    }
    if (result) {
        return tepi_fail(failure, result == -ENODEV ? TEPI_FAULT_GONE : TEPI_FAULT_TIMEOUT, 0);
    }
    return 0;
}

static int bring_up(struct tepi_controller *self, struct tepi_failure *failure)
{
    int result = probe(self, failure);
    if (result) {
        return result;
    }
    const uint32_t generation = tepi_read32(self->bus, TEPI_REG_GENERATION);
    atomic_store(&self->generation, generation);
    tepi_write32(self->bus, TEPI_REG_CONTROL, TEPI_CONTROL_ENABLE);
    for (int i = 0; i < TEPI_PAIRS; i++) {
        if (tepi_queue_start(self->pairs[i], generation)) {
            const bool gone = tepi_controller_status(self) == -ENODEV;
            return tepi_fail(failure, gone ? TEPI_FAULT_GONE : TEPI_FAULT_QUEUE_SETUP, (uint32_t)i);
        }
    }
    atomic_fetch_add(&self->epoch, 1);
    /* Last: a thread that sees no fault finds the pairs open and the epoch counted. */
    atomic_store(&self->fault, TEPI_FAULT_OK);
    return 0;
}

static void close_pairs(struct tepi_controller *self, uint32_t fault)
{
    atomic_store(&self->fault, fault);
    for (int i = 0; i < TEPI_PAIRS; i++) {
        tepi_queue_close(self->pairs[i], fault);
    }
}

static void fail_pairs(struct tepi_controller *self, uint32_t fault)
{
    for (int i = 0; i < TEPI_PAIRS; i++) {
        tepi_queue_fail(self->pairs[i], fault);
    }
}

/* Reset and bring-up with `life` held. What is in flight ends with `fault`, only after the card
 * has come to rest, so that their memory is free when they hear of it. */
static int restart_locked(struct tepi_controller *self, uint32_t fault,
                          struct tepi_failure *failure)
{
    struct tepi_failure why = {0};
    close_pairs(self, fault);
    int result = quiesce(self, &why);
    fail_pairs(self, fault);
    if (result == 0) {
        result = bring_up(self, &why);
    }
    if (result) {
        close_pairs(self, why.fault);
        if (failure) {
            *failure = why;
        }
    }
    return result;
}

int tepi_controller_status(struct tepi_controller *controller)
{
    const uint32_t status = tepi_read32(controller->bus, TEPI_REG_STATUS);
    if (status == TEPI_ALL_ONES) {
        return -ENODEV;
    }
    return status & TEPI_STATUS_FAULT ? -EIO : 0;
}

void tepi_controller_lose(struct tepi_controller *controller, uint32_t epoch, uint32_t fault)
{
    pthread_mutex_lock(&controller->life);
    if (atomic_load(&controller->epoch) == epoch && atomic_load(&controller->fault) == 0) {
        if (fault == TEPI_FAULT_GONE) {
            close_pairs(controller, fault);
            fail_pairs(controller, fault);
        } else {
            restart_locked(controller, fault, NULL);
        }
    }
    pthread_mutex_unlock(&controller->life);
}

int tepi_controller_reset(struct tepi_controller *controller, struct tepi_failure *failure)
{
    struct tepi_bus *bus = controller->bus;
    pthread_mutex_lock(&controller->life);
    if (!controller->shut && bus->ops->rescan) {
        (void)bus->ops->rescan(bus); /* probe finds out what came of it */
    }
    int result =
        controller->shut ? tepi_fail(failure, TEPI_FAULT_GONE, 0) : probe(controller, failure);
    if (result == 0) {
        result = restart_locked(controller, TEPI_FAULT_STALE_GENERATION, failure);
    } else {
        close_pairs(controller, TEPI_FAULT_GONE);
        fail_pairs(controller, TEPI_FAULT_GONE);
    }
    pthread_mutex_unlock(&controller->life);
    return result;
}

static void fill_defaults(struct tepi_controller_config *config)
{
    config->entries = config->entries ? config->entries : DEFAULT_ENTRIES;
    config->pool_bytes = config->pool_bytes ? config->pool_bytes : DEFAULT_POOL;
    config->timeout_ns = config->timeout_ns ? config->timeout_ns : DEFAULT_TIMEOUT;
    config->grace_ns = config->grace_ns ? config->grace_ns : DEFAULT_GRACE;
    config->reset_timeout_ns = config->reset_timeout_ns ? config->reset_timeout_ns : DEFAULT_RESET;
}

static void release(struct tepi_controller *self)
{
    for (int i = 0; i < TEPI_PAIRS; i++) {
        if (self->pairs[i]) {
            tepi_queue_destroy(self->pairs[i]);
        }
    }
    if (self->pool) {
        tepi_pool_destroy(self->pool);
    }
    self->bus->ops->close(self->bus);
    pthread_mutex_destroy(&self->life);
    free(self);
}

int tepi_controller_open(struct tepi_bus *bus, const struct tepi_controller_config *config,
                         struct tepi_controller **out, struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    struct tepi_controller *self = calloc(1, sizeof *self);
    if (!self) {
        bus->ops->close(bus);
        return -ENOMEM;
    }
    self->bus = bus;
    self->config = config ? *config : (struct tepi_controller_config){0};
    fill_defaults(&self->config);
    pthread_mutex_init(&self->life, NULL);
    int result = probe(self, failure);
    if (result) {
        goto fail;
    }
    const uint32_t most = tepi_read32(bus, TEPI_REG_CAP_QUEUE_ENTRIES);
    if (self->config.entries > most) {
        self->config.entries = most;
    }
    /* The one thread that relays doorbells is not lent where workers would wait behind it. */
    const bool lends = !bus->relayed || tepi_read32(bus, TEPI_REG_CAP_WORKERS) == 1;
    result = tepi_pool_create(bus, self->config.pool_bytes, &self->pool);
    for (uint32_t i = 0; i < TEPI_PAIRS && result == 0; i++) {
        const struct tepi_queue_config pair = {
            .id = i,
            .entries = self->config.entries,
            .lend = i == TEPI_PAIR_WAITED && lends,
            .signals = i == TEPI_PAIR_SIGNALED,
        };
        result = tepi_queue_create(bus, self->pool, &pair, &self->pairs[i]);
    }
    if (result == 0) {
        result = quiesce(self, failure);
    }
    if (result == 0) {
        result = bring_up(self, failure);
    }
    if (result) {
        goto fail;
    }
    *out = self;
    return 0;
fail:
    release(self);
    return result;
}

void tepi_controller_shut(struct tepi_controller *controller)
{
    pthread_mutex_lock(&controller->life);
    if (!controller->shut) {
        controller->shut = true;
        close_pairs(controller, TEPI_FAULT_GONE);
        quiesce(controller, NULL);
        fail_pairs(controller, TEPI_FAULT_GONE);
    }
    pthread_mutex_unlock(&controller->life);
}

void tepi_controller_close(struct tepi_controller *controller)
{
    tepi_controller_shut(controller);
    release(controller);
}

bool tepi_controller_alive(struct tepi_controller *controller)
{
    return atomic_load(&controller->fault) == 0 && tepi_controller_status(controller) == 0 &&
           tepi_read32(controller->bus, TEPI_REG_GENERATION) ==
               atomic_load(&controller->generation);
}

uint32_t tepi_controller_fault(const struct tepi_controller *controller)
{
    return atomic_load_explicit(&controller->fault, memory_order_acquire);
}

uint32_t tepi_controller_epoch(const struct tepi_controller *controller)
{
    return atomic_load_explicit(&controller->epoch, memory_order_acquire);
}

int tepi_controller_info(struct tepi_controller *controller, struct tepi_controller_info *info)
{
    struct tepi_bus *bus = controller->bus;
    *info = (struct tepi_controller_info){
        .abi_min = tepi_read32(bus, TEPI_REG_ABI_MIN),
        .abi_max = tepi_read32(bus, TEPI_REG_ABI_MAX),
        .isa = tepi_read32(bus, TEPI_REG_ISA),
        .workers = tepi_read32(bus, TEPI_REG_CAP_WORKERS),
        .queues = tepi_read32(bus, TEPI_REG_CAP_QUEUES),
        .generation = tepi_read32(bus, TEPI_REG_GENERATION),
        .opcodes = tepi_read64(bus, TEPI_REG_CAP_OPCODES),
        .memory = tepi_read64(bus, TEPI_REG_CAP_MEMORY),
        .memory_free = tepi_read64(bus, TEPI_REG_MEMORY_FREE),
        .heartbeat = tepi_read64(bus, TEPI_REG_HEARTBEAT),
        .clock_ns = tepi_read64(bus, TEPI_REG_CLOCK),
        .status = tepi_read32(bus, TEPI_REG_STATUS),
        .fault_count = tepi_read32(bus, TEPI_REG_FAULT_COUNT),
        .temperature_mc = tepi_read32(bus, TEPI_REG_TEMPERATURE),
        .power_mw = tepi_read32(bus, TEPI_REG_POWER),
        .executed = tepi_read64(bus, TEPI_REG_EXECUTED),
        .ecc_corrected = tepi_read32(bus, TEPI_REG_ECC_CORRECTED),
    };
    return info->status == TEPI_ALL_ONES ? -ENODEV : 0;
}

uint32_t tepi_controller_busy(struct tepi_controller *controller, uint64_t *busy_ns, uint32_t most)
{
    const uint32_t workers = tepi_read32(controller->bus, TEPI_REG_CAP_WORKERS);
    if (workers == TEPI_ALL_ONES) {
        return 0;
    }
    const uint32_t count = workers < most ? workers : most;
    for (uint32_t i = 0; i < count; i++) {
        busy_ns[i] = tepi_read64(controller->bus, TEPI_REG_BUSY + i * 8);
    }
    return count;
}

uint32_t tepi_controller_faults(struct tepi_controller *controller, struct tepi_fault_entry *log,
                                uint32_t most)
{
    struct tepi_bus *bus = controller->bus;
    const uint32_t count = tepi_read32(bus, TEPI_REG_FAULT_COUNT);
    if (count == TEPI_ALL_ONES) {
        return 0;
    }
    uint32_t kept = count < TEPI_FAULT_LOG_ENTRIES ? count : TEPI_FAULT_LOG_ENTRIES;
    kept = kept < most ? kept : most;
    uint32_t taken = 0;
    for (uint32_t n = count - kept; n != count; n++) {
        uint64_t words[FAULT_ENTRY_BYTES / sizeof(uint64_t)];
        const uint32_t at =
            TEPI_REG_FAULT_LOG + n % TEPI_FAULT_LOG_ENTRIES * (uint32_t)FAULT_ENTRY_BYTES;
        for (uint32_t i = 0; i < FAULT_ENTRY_BYTES / sizeof(uint64_t); i++) {
            words[i] = tepi_read64(bus, at + i * 8);
        }
        memcpy(&log[taken], words, FAULT_ENTRY_BYTES);
        /* The card may have written over it meanwhile, or be gone; then it is not this entry. */
        taken += log[taken].sequence == n + 1;
    }
    return taken;
}

struct tepi_pool *tepi_controller_pool(struct tepi_controller *controller)
{
    return controller->pool;
}
