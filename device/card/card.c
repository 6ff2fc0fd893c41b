/* SPDX-License-Identifier: Apache-2.0 */
/* The software card as a whole: creation, plugging, reset, removal, injected faults. */
#include "card/card.h"

#include "card/state.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void quiesce(struct tepi_card *card)
{
    for (uint32_t i = 0; i < card->config.queues; i++) {
        tepi_card_queue_disable(&card->queues[i]);
    }
    /* Workers that helped the last commands may be on their way out. */
    tepi_card_units_settle(card);
    tepi_card_programs_clear(card);
}

/* What a reset leaves: no queues, no programs, a new generation. */
static void start_over(struct tepi_card *card)
{
    quiesce(card);
    atomic_store(&card->control_register, 0);
    atomic_store(&card->fault_code, TEPI_FAULT_OK);
    atomic_store(&card->fault_info, 0);
    atomic_store(&card->heartbeat_stopped, 0);
    uint32_t generation = atomic_load(&card->generation) + 1;
    /* Neither 0 nor what a card that is gone reads as. */
    atomic_store(&card->generation,
                 generation == 0 || generation == TEPI_ALL_ONES ? 1 : generation);
    atomic_store(&card->status, TEPI_STATUS_READY);
}

void tepi_card_reset_locked(struct tepi_card *card)
{
    atomic_store(&card->status, TEPI_STATUS_RESETTING);
    start_over(card);
}

static int plug(void *device, const struct tepi_host_port *host)
{
    struct tepi_card *card = device;
    int result = 0;
    pthread_mutex_lock(&card->control);
    if (host && card->plugged) {
        result = -EBUSY;
    } else if (host) {
        card->host = *host;
        card->plugged = true;
    } else if (card->plugged) {
        tepi_card_reset_locked(card);
        card->plugged = false;
        card->host = (struct tepi_host_port){0};
    }
    pthread_mutex_unlock(&card->control);
    return result;
}

/* Wakes whoever waits on the host's side, so that it looks at STATUS. */
static void interrupt_all(struct tepi_card *card)
{
    for (uint32_t i = 0; i < card->config.queues; i++) {
        struct tepi_card_queue *queue = &card->queues[i];
        pthread_mutex_lock(&queue->lock);
        if (queue->enabled) {
            card->host.interrupt(card->host.host, queue->vector);
        }
        pthread_mutex_unlock(&queue->lock);
    }
}

void tepi_card_detach(struct tepi_card *card)
{
    pthread_mutex_lock(&card->control);
    atomic_store(&card->present, false);
    interrupt_all(card);
    quiesce(card);
    pthread_mutex_unlock(&card->control);
}

void tepi_card_attach(struct tepi_card *card)
{
    pthread_mutex_lock(&card->control);
    if (!atomic_load(&card->present)) {
        start_over(card);
        pthread_mutex_lock(&card->log_lock);
        atomic_store(&card->fault_count, 0);
        pthread_mutex_unlock(&card->log_lock);
        atomic_store(&card->present, true);
    }
    pthread_mutex_unlock(&card->control);
}

void tepi_card_inject(struct tepi_card *card, enum tepi_fault fault, uint32_t info)
{
    pthread_mutex_lock(&card->control);
    if (atomic_load(&card->present)) {
        tepi_card_log(card, fault, info, 0, 0);
        atomic_store(&card->heartbeat_stopped, tepi_card_read(card, TEPI_REG_HEARTBEAT, 8));
        atomic_store(&card->status, TEPI_STATUS_FAULT);
        interrupt_all(card);
    }
    pthread_mutex_unlock(&card->control);
}

static void release(struct tepi_card *card)
{
    tepi_card_workers_stop(card);
    for (uint32_t i = 0; i < TEPI_QUEUES_MAX; i++) {
        pthread_cond_destroy(&card->queues[i].idle);
        pthread_mutex_destroy(&card->queues[i].lock);
    }
    pthread_cond_destroy(&card->units_idle);
    pthread_cond_destroy(&card->work_wanted);
    pthread_mutex_destroy(&card->work_lock);
    pthread_mutex_destroy(&card->resize_lock);
    pthread_mutex_destroy(&card->programs_lock);
    pthread_mutex_destroy(&card->log_lock);
    pthread_mutex_destroy(&card->control);
    free(card);
}

int tepi_card_create(const struct tepi_card_config *config, struct tepi_card **out)
{
    if (config->workers < 1 || config->workers > TEPI_CARD_WORKERS_MAX || config->queues < 2 ||
        config->queues > TEPI_QUEUES_MAX || config->memory_bytes == 0 ||
        config->isa > TEPI_ISA_AMXINT8) {
        return -EINVAL;
    }
    const enum tepi_kernel_isa isa =
        config->isa == TEPI_ISA_AUTO ? tepi_kernels_best() : (enum tepi_kernel_isa)config->isa;
    const struct tepi_kernel_set *kernels = tepi_kernels_for(isa);
    if (!kernels) {
        return -ENOTSUP;
    }
    struct tepi_card *card = aligned_alloc(_Alignof(struct tepi_card), sizeof *card);
    if (!card) {
        return -ENOMEM;
    }
    memset(card, 0, sizeof *card);
    card->config = *config;
    card->kernels = kernels;
    card->memory.bytes = config->memory_bytes;
    pthread_mutex_init(&card->control, NULL);
    pthread_mutex_init(&card->log_lock, NULL);
    pthread_mutex_init(&card->programs_lock, NULL);
    pthread_mutex_init(&card->resize_lock, NULL);
    pthread_mutex_init(&card->work_lock, NULL);
    pthread_cond_init(&card->work_wanted, NULL);
    pthread_cond_init(&card->units_idle, NULL);
    for (uint32_t i = 0; i < TEPI_QUEUES_MAX; i++) {
        card->queues[i].card = card;
        card->queues[i].id = i;
        pthread_mutex_init(&card->queues[i].lock, NULL);
        pthread_cond_init(&card->queues[i].idle, NULL);
    }
    atomic_store(&card->generation, 1);
    atomic_store(&card->status, TEPI_STATUS_READY);
    atomic_store(&card->present, true);
    int result = tepi_card_workers_start(card);
    if (result) {
        release(card);
        return result;
    }
    *out = card;
    return 0;
}

void tepi_card_destroy(struct tepi_card *card)
{
    quiesce(card);
    release(card);
}

struct tepi_device_port tepi_card_port(struct tepi_card *card)
{
    return (struct tepi_device_port){
        .device = card,
        .read = tepi_card_read,
        .write = tepi_card_write,
        .plug = plug,
    };
}
