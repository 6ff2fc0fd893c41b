/* SPDX-License-Identifier: Apache-2.0 */
/* The software card as a whole: creation, removal and return, faults that all functions see. */
#include "card/card.h"

#include "card/state.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void tepi_card_detach(struct tepi_card *card)
{
    pthread_mutex_lock(&card->control);
    atomic_store(&card->present, false);
    for (struct tepi_function *at = card->functions; at; at = at->next) {
        pthread_mutex_lock(&at->control);
        tepi_function_interrupt_all(at);
        tepi_function_quiesce(at);
        pthread_mutex_unlock(&at->control);
    }
    pthread_mutex_unlock(&card->control);
}

void tepi_card_attach(struct tepi_card *card)
{
    tepi_card_remover_settle(card); /* or it would leave after it has returned */
    pthread_mutex_lock(&card->control);
    if (!atomic_load(&card->present)) {
        atomic_store(&card->faults.failing_resets, 0); /* power has been off */
        atomic_store(&card->ecc_corrected, 0);
        for (struct tepi_function *at = card->functions; at; at = at->next) {
            pthread_mutex_lock(&at->control);
            tepi_function_reset_locked(at);
            pthread_mutex_lock(&at->log_lock);
            atomic_store(&at->fault_count, 0);
            pthread_mutex_unlock(&at->log_lock);
            pthread_mutex_unlock(&at->control);
        }
        atomic_store(&card->present, true);
    }
    pthread_mutex_unlock(&card->control);
}

void tepi_card_raise(struct tepi_card *card, uint32_t fault, uint32_t info)
{
    pthread_mutex_lock(&card->functions_lock);
    card->fatal = true;
    atomic_store(&card->heartbeat_stopped, tepi_card_heartbeat(card));
    for (struct tepi_function *at = card->functions; at; at = at->next) {
        tepi_function_log(at, fault, info, 0, 0);
        atomic_store(&at->status, TEPI_STATUS_FAULT);
        tepi_function_interrupt_all(at);
    }
    pthread_mutex_unlock(&card->functions_lock);
}

void tepi_card_inject(struct tepi_card *card, enum tepi_fault fault, uint32_t info)
{
    pthread_mutex_lock(&card->control);
    if (atomic_load(&card->present)) {
        tepi_card_raise(card, fault, info);
    }
    pthread_mutex_unlock(&card->control);
}

static void release(struct tepi_card *card)
{
    tepi_card_workers_stop(card);
    tepi_card_remover_destroy(card);
    pthread_cond_destroy(&card->units_idle);
    pthread_cond_destroy(&card->work_wanted);
    pthread_mutex_destroy(&card->work_lock);
    pthread_mutex_destroy(&card->resize_lock);
    pthread_mutex_destroy(&card->meter_lock);
    pthread_mutex_destroy(&card->faults.lock);
    pthread_mutex_destroy(&card->functions_lock);
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
    pthread_mutex_init(&card->functions_lock, NULL);
    pthread_mutex_init(&card->faults.lock, NULL);
    pthread_mutex_init(&card->meter_lock, NULL);
    pthread_mutex_init(&card->resize_lock, NULL);
    pthread_mutex_init(&card->work_lock, NULL);
    tepi_card_remover_init(card);
    pthread_cond_init(&card->work_wanted, NULL);
    pthread_cond_init(&card->units_idle, NULL);
    atomic_store(&card->present, true);
    int result = tepi_card_workers_start(card);
    if (result == 0) {
        result = tepi_function_open(card, &card->first);
    }
    if (result) {
        release(card);
        return result;
    }
    *out = card;
    return 0;
}

void tepi_card_destroy(struct tepi_card *card)
{
    tepi_card_remover_stop(card);
    while (card->functions) {
        tepi_function_close(card->functions);
    }
    release(card);
}

struct tepi_device_port tepi_card_port(struct tepi_card *card)
{
    return tepi_function_port(card->first);
}
