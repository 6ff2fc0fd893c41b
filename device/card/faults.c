/* SPDX-License-Identifier: Apache-2.0 */
/* Planned faults: counting commands, and what each fault does to those that follow. */
#include "card/faults.h"

#include "card/state.h"
#include <errno.h>
#include <time.h>

#define STALL_STEP_NS 100000u /* between two looks at abort and deadline */

enum { FACTOR_MOST = 1000, FLIPS_MOST = 1000 };

/* One less, unless it is 0; true where it was not. */
static bool take_one(_Atomic uint32_t *count)
{
    uint32_t left = atomic_load(count);
    while (left && !atomic_compare_exchange_weak(count, &left, left - 1)) {
    }
    return left != 0;
}

/* A hang is silent: STATUS stays as it is, and only the log, which the worker's watchdog writes,
 * and the heartbeat tell. */
static void hang(struct tepi_card *card)
{
    pthread_mutex_lock(&card->functions_lock);
    atomic_store(&card->heartbeat_stopped, tepi_card_heartbeat(card));
    pthread_mutex_lock(&card->work_lock);
    atomic_store(&card->faults.hung, true);
    pthread_mutex_unlock(&card->work_lock);
    for (struct tepi_function *at = card->functions; at; at = at->next) {
        tepi_function_log(at, TEPI_FAULT_HANG, 0, 0, 0);
    }
    pthread_mutex_unlock(&card->functions_lock);
}

static void throttle(struct tepi_card *card, uint32_t factor)
{
    pthread_mutex_lock(&card->functions_lock);
    atomic_store(&card->faults.throttle, factor);
    for (struct tepi_function *at = card->functions; at; at = at->next) {
        tepi_function_log(at, TEPI_FAULT_THERMAL_THROTTLE, factor, 0, 0);
    }
    pthread_mutex_unlock(&card->functions_lock);
}

/* `command`: with which it happens; NULL: at once. */
static void happen(struct tepi_card *card, const struct tepi_planned_fault *fault,
                   const struct tepi_card_command *command)
{
    struct tepi_card_faults *faults = &card->faults;
    switch (fault->kind) {
    case TEPI_PLANNED_HANG:
        hang(card);
        break;
    case TEPI_PLANNED_SLOW:
        atomic_store(&faults->slow_factor, fault->factor);
        atomic_store(&faults->slow_ns, fault->ns);
        atomic_store(&faults->slow, fault->count);
        break;
    case TEPI_PLANNED_WRONG_GENERATION:
        atomic_store(&faults->wrong_generation, fault->count);
        break;
    case TEPI_PLANNED_CORRUPT_COMPLETION:
        atomic_store(&faults->corrupt, fault->count);
        break;
    case TEPI_PLANNED_DMA_ERROR:
        atomic_store(&faults->dma_errors, fault->count);
        break;
    case TEPI_PLANNED_THERMAL_THROTTLE:
        throttle(card, fault->factor);
        break;
    case TEPI_PLANNED_THERMAL_SHUTDOWN:
        atomic_store(&faults->overheated, true);
        tepi_card_raise(card, TEPI_FAULT_THERMAL_SHUTDOWN, 0);
        break;
    case TEPI_PLANNED_RESET_FAILS:
        atomic_store(&faults->failing_resets, fault->count ? fault->count : UINT32_MAX);
        break;
    case TEPI_PLANNED_BIT_FLIP:
        tepi_card_ecc_flip(card, command, fault->count, faults->flip_number++);
        break;
    case TEPI_PLANNED_BIT_FLIP_UNDETECTED:
        tepi_card_ecc_flip_undetected(card, command, fault->count, faults->flip_number++);
        break;
    case TEPI_PLANNED_REMOVAL:
        tepi_card_remove(card, fault->ns);
        break;
    default:
        tepi_card_raise(card, TEPI_FAULT_FIRMWARE_ASSERT, fault->count);
        break;
    }
}

static bool valid(const struct tepi_planned_fault *fault)
{
    const bool slows =
        fault->kind == TEPI_PLANNED_SLOW || fault->kind == TEPI_PLANNED_THERMAL_THROTTLE;
    const uint32_t bits_most = fault->kind == TEPI_PLANNED_BIT_FLIP              ? 2
                               : fault->kind == TEPI_PLANNED_BIT_FLIP_UNDETECTED ? FLIPS_MOST
                                                                                 : 0;
    return fault->kind >= TEPI_PLANNED_HANG && fault->kind <= TEPI_PLANNED_REMOVAL &&
           (!bits_most || (fault->count >= 1 && fault->count <= bits_most)) &&
           fault->trigger < TEPI_PLANNED_TRIGGERS && (fault->after || !fault->repeat) &&
           (!slows || (fault->factor >= 1 && fault->factor <= FACTOR_MOST));
}

int tepi_card_plan_faults(struct tepi_card *card, const struct tepi_planned_fault *plan,
                          uint32_t count)
{
    struct tepi_card_faults *faults = &card->faults;
    if (count > TEPI_PLANNED_MOST) {
        return -E2BIG;
    }
    bool removes = false;
    for (uint32_t i = 0; i < count; i++) {
        if (!valid(&plan[i])) {
            return -EINVAL;
        }
        removes |= plan[i].kind == TEPI_PLANNED_REMOVAL;
    }
    const int result = removes ? tepi_card_remover_start(card) : 0;
    if (result) {
        return result;
    }
    pthread_mutex_lock(&faults->lock);
    faults->count = count;
    for (uint32_t i = 0; i < TEPI_PLANNED_TRIGGERS; i++) {
        faults->seen[i] = 0;
    }
    atomic_store(&faults->slow, 0);
    atomic_store(&faults->wrong_generation, 0);
    atomic_store(&faults->corrupt, 0);
    atomic_store(&faults->dma_errors, 0);
    atomic_store(&faults->failing_resets, 0);
    atomic_store(&faults->throttle, 0);
    faults->flip_number = 0;
    /* Before a bit changes: who begins with its program afterwards has to look. */
    atomic_store(&faults->active, count != 0 || atomic_load(&faults->flips) != 0);
    for (uint32_t i = 0; i < count; i++) {
        faults->plan[i] = plan[i];
        faults->due[i] = plan[i].after;
        faults->left[i] = plan[i].after ? (uint64_t)plan[i].repeat + 1 : 0;
        if (!plan[i].after) {
            happen(card, &plan[i], NULL);
        }
    }
    pthread_mutex_unlock(&faults->lock);
    return 0;
}

void tepi_card_faults_arrive(struct tepi_card_command *command)
{
    struct tepi_card *card = command->queue->function->card;
    struct tepi_card_faults *faults = &card->faults;
    const uint8_t opcode = command->entry.opcode;
    pthread_mutex_lock(&faults->lock);
    faults->seen[TEPI_PLANNED_ON_COMMAND]++;
    faults->seen[TEPI_PLANNED_ON_EXECUTE] += opcode == TEPI_CMD_EXECUTE;
    faults->seen[TEPI_PLANNED_ON_LOAD] += opcode == TEPI_CMD_LOAD_PROGRAM;
    for (uint32_t i = 0; i < faults->count; i++) {
        const struct tepi_planned_fault *fault = &faults->plan[i];
        if (faults->left[i] && faults->seen[fault->trigger] == faults->due[i]) {
            faults->left[i]--;
            faults->due[i] += fault->after;
            happen(card, fault, command);
        }
    }
    command->slow = opcode == TEPI_CMD_EXECUTE && take_one(&faults->slow);
    pthread_mutex_unlock(&faults->lock);
}

bool tepi_card_faults_park(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->work_lock);
    const bool parked = atomic_load(&card->faults.hung) && !function->quiescing;
    if (parked) {
        command->next = function->parked;
        function->parked = command;
    }
    pthread_mutex_unlock(&card->work_lock);
    return parked;
}

void tepi_card_faults_unpark(struct tepi_function *function, bool quiescing)
{
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->work_lock);
    function->quiescing = quiescing;
    struct tepi_card_command *first = function->parked;
    function->parked = NULL;
    pthread_mutex_unlock(&card->work_lock);
    while (first) {
        struct tepi_card_command *command = first;
        first = command->next;
        tepi_card_perform_aborted(command);
    }
}

struct tepi_verdict tepi_card_faults_stall(struct tepi_card_command *command, uint64_t taken_ns)
{
    struct tepi_card_faults *faults = &command->queue->function->card->faults;
    const uint32_t throttle = atomic_load(&faults->throttle);
    uint64_t stall = throttle ? taken_ns * (throttle - 1) : 0;
    if (command->slow) {
        stall += taken_ns * (atomic_load(&faults->slow_factor) - 1) + atomic_load(&faults->slow_ns);
        tepi_function_log(command->queue->function, TEPI_FAULT_SLOW, (uint32_t)(stall / 1000),
                          command->queue->id, command->entry.command_id);
    }
    const struct timespec step = {.tv_nsec = STALL_STEP_NS};
    const uint64_t begun = tepi_card_clock_ns();
    for (uint64_t now = begun; now - begun < stall; now = tepi_card_clock_ns()) {
        if (atomic_load(&command->abort)) {
            return (struct tepi_verdict){TEPI_FAULT_ABORTED, 0};
        }
        if (command->deadline_ns && now >= command->deadline_ns) {
            return (struct tepi_verdict){TEPI_FAULT_DEADLINE, 0};
        }
        nanosleep(&step, NULL);
    }
    return (struct tepi_verdict){TEPI_FAULT_OK, 0};
}

bool tepi_card_faults_reset_fails(struct tepi_card *card)
{
    _Atomic uint32_t *left = &card->faults.failing_resets;
    return atomic_load(left) == UINT32_MAX || take_one(left);
}

void tepi_card_faults_corrupt(const struct tepi_card_command *command, uint16_t *command_id,
                              uint32_t *generation)
{
    struct tepi_card_queue *queue = command->queue;
    struct tepi_card_faults *faults = &queue->function->card->faults;
    if (take_one(&faults->wrong_generation)) {
        *generation -= 1;
        tepi_function_log(queue->function, TEPI_FAULT_WRONG_GENERATION, *generation, queue->id,
                          command->entry.command_id);
    }
    if (!take_one(&faults->corrupt)) {
        return;
    }
    /* There are 65536 identifiers and at most 4096 commands. */
    for (bool taken = true; taken;) {
        *command_id -= 1;
        taken = false;
        for (uint32_t i = 0; i < queue->entries; i++) {
            const struct tepi_card_command *other = &queue->commands[i];
            taken |= other->in_flight && other->entry.command_id == *command_id;
        }
    }
    tepi_function_log(queue->function, TEPI_FAULT_CORRUPT_COMPLETION, *command_id, queue->id,
                      command->entry.command_id);
}

void *tepi_function_acquire(struct tepi_function *function, uint64_t iova, uint64_t bytes)
{
    struct tepi_host_port *host = &function->host;
    _Atomic uint32_t *errors = &function->card->faults.dma_errors;
    if (atomic_load_explicit(errors, memory_order_relaxed) && take_one(errors)) {
        return NULL;
    }
    return host->dma_acquire(host->host, iova, bytes);
}
