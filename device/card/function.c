/* SPDX-License-Identifier: Apache-2.0 */
/* A function of the card: what one host holds. Opening, plugging, reset, closing. */
#include "card/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void tepi_function_quiesce(struct tepi_function *function)
{
    tepi_card_faults_unpark(function, true);
    for (uint32_t i = 0; i < function->card->config.queues; i++) {
        tepi_card_queue_disable(&function->queues[i]);
    }
    /* Workers that helped its last commands may be on their way out. */
    tepi_card_units_settle(function);
    tepi_card_programs_clear(function);
    tepi_card_faults_unpark(function, false);
}

/* The first reset after a fault of the whole card ends it, for all functions that are yet to come
 * and for the heartbeat. In the others it stands until they are reset themselves: their hosts have
 * to learn that what they had on the card cannot be trusted. */
static void end_fatal(struct tepi_function *function)
{
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->functions_lock);
    pthread_mutex_lock(&card->work_lock);
    const bool hung = atomic_exchange(&card->faults.hung, false);
    pthread_mutex_unlock(&card->work_lock);
    for (struct tepi_function *at = card->functions; at && hung; at = at->next) {
        if (at != function) {
            /* What it had begun is lost: of a hang, it hears only now. */
            atomic_store(&at->status, TEPI_STATUS_FAULT);
            tepi_function_interrupt_all(at);
        }
    }
    card->fatal = false;
    atomic_store(&card->faults.throttle, 0);
    atomic_store(&card->faults.overheated, false);
    atomic_store(&card->heartbeat_stopped, 0);
    pthread_mutex_unlock(&card->functions_lock);
}

void tepi_function_reset_locked(struct tepi_function *function)
{
    struct tepi_card *card = function->card;
    atomic_store(&function->status, TEPI_STATUS_RESETTING);
    if (tepi_card_faults_reset_fails(card)) {
        tepi_function_quiesce(function);
        tepi_function_log(function, TEPI_FAULT_RESET_FAILED, 0, 0, 0);
        return;
    }
    end_fatal(function);
    tepi_function_quiesce(function);
    atomic_store(&function->control_register, 0);
    atomic_store(&function->fault_code, TEPI_FAULT_OK);
    atomic_store(&function->fault_info, 0);
    uint32_t generation = atomic_load(&function->generation) + 1;
    /* Neither 0 nor what a card that is gone reads as. */
    atomic_store(&function->generation,
                 generation == 0 || generation == TEPI_ALL_ONES ? 1 : generation);
    pthread_mutex_lock(&card->functions_lock);
    /* A fault of the card during the reset is not forgotten by it. */
    atomic_store(&function->status, card->fatal ? TEPI_STATUS_FAULT : TEPI_STATUS_READY);
    pthread_mutex_unlock(&card->functions_lock);
}

static int plug(void *device, const struct tepi_host_port *host)
{
    struct tepi_function *function = device;
    int result = 0;
    pthread_mutex_lock(&function->control);
    if (host && function->plugged) {
        result = -EBUSY;
    } else if (host) {
        function->host = *host;
        function->plugged = true;
    } else if (function->plugged) {
        tepi_function_reset_locked(function);
        function->plugged = false;
        function->host = (struct tepi_host_port){0};
    }
    pthread_mutex_unlock(&function->control);
    return result;
}

void tepi_function_interrupt_all(struct tepi_function *function)
{
    for (uint32_t i = 0; i < function->card->config.queues; i++) {
        struct tepi_card_queue *queue = &function->queues[i];
        pthread_mutex_lock(&queue->lock);
        if (queue->enabled) {
            function->host.interrupt(function->host.host, queue->vector);
        }
        pthread_mutex_unlock(&queue->lock);
    }
}

/* With the card's `control` held; false where there are as many as there may be. */
static bool link_function(struct tepi_card *card, struct tepi_function *function)
{
    uint32_t count = 0;
    pthread_mutex_lock(&card->functions_lock);
    struct tepi_function **link = &card->functions;
    for (; *link; link = &(*link)->next) {
        count++;
    }
    if (count < TEPI_CARD_FUNCTIONS_MAX) {
        *link = function;
        atomic_store(&function->status, card->fatal ? TEPI_STATUS_FAULT : TEPI_STATUS_READY);
    }
    pthread_mutex_unlock(&card->functions_lock);
    return count < TEPI_CARD_FUNCTIONS_MAX;
}

static void unlink_function(struct tepi_card *card, struct tepi_function *function)
{
    pthread_mutex_lock(&card->functions_lock);
    struct tepi_function **link = &card->functions;
    while (*link != function) {
        link = &(*link)->next;
    }
    *link = function->next;
    pthread_mutex_unlock(&card->functions_lock);
}

static void release(struct tepi_function *function)
{
    for (uint32_t i = 0; i < TEPI_QUEUES_MAX; i++) {
        pthread_cond_destroy(&function->queues[i].idle);
        pthread_mutex_destroy(&function->queues[i].lock);
    }
    pthread_mutex_destroy(&function->programs_lock);
    pthread_mutex_destroy(&function->log_lock);
    pthread_mutex_destroy(&function->control);
    free(function);
}

int tepi_function_open(struct tepi_card *card, struct tepi_function **out)
{
    struct tepi_function *function = calloc(1, sizeof *function);
    if (!function) {
        return -ENOMEM;
    }
    function->card = card;
    pthread_mutex_init(&function->control, NULL);
    pthread_mutex_init(&function->log_lock, NULL);
    pthread_mutex_init(&function->programs_lock, NULL);
    for (uint32_t i = 0; i < TEPI_QUEUES_MAX; i++) {
        function->queues[i].function = function;
        function->queues[i].id = i;
        pthread_mutex_init(&function->queues[i].lock, NULL);
        pthread_cond_init(&function->queues[i].idle, NULL);
    }
    atomic_store(&function->generation, 1);
    pthread_mutex_lock(&card->control);
    const bool linked = link_function(card, function);
    pthread_mutex_unlock(&card->control);
    if (!linked) {
        release(function);
        return -ENOSPC;
    }
    *out = function;
    return 0;
}

void tepi_function_close(struct tepi_function *function)
{
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->control);
    pthread_mutex_lock(&function->control);
    tepi_function_quiesce(function);
    pthread_mutex_unlock(&function->control);
    unlink_function(card, function);
    pthread_mutex_unlock(&card->control);
    release(function);
}

struct tepi_device_port tepi_function_port(struct tepi_function *function)
{
    return (struct tepi_device_port){
        .device = function,
        .read = tepi_function_read,
        .write = tepi_function_write,
        .plug = plug,
    };
}
