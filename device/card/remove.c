/* SPDX-License-Identifier: Apache-2.0 */
/* Removal by plan, and return: a thread that waits for its time and detaches and attaches. */
#include "card/state.h"

#define SECOND UINT64_C(1000000000)

/* Until `time_ns` of the card's clock, or the thread is to end; with the remover's lock. */
static void wait_until(struct tepi_card_remover *remover, uint64_t time_ns)
{
    const struct timespec until = {.tv_sec = (time_t)(time_ns / SECOND),
                                   .tv_nsec = (long)(time_ns % SECOND)};
    while (!remover->stop && tepi_card_clock_ns() < time_ns) {
        (void)pthread_cond_timedwait(&remover->changed, &remover->lock, &until);
    }
}

static void *work(void *context)
{
    struct tepi_card *card = context;
    struct tepi_card_remover *remover = &card->remover;
    pthread_mutex_lock(&remover->lock);
    while (!remover->stop) {
        if (!remover->wanted) {
            pthread_cond_wait(&remover->changed, &remover->lock);
            continue;
        }
        const uint64_t away_ns = remover->away_ns, left_ns = tepi_card_clock_ns();
        pthread_mutex_unlock(&remover->lock);
        tepi_card_detach(card);
        pthread_mutex_lock(&remover->lock);
        remover->leaving = false;
        pthread_cond_broadcast(&remover->changed);
        const uint64_t back_ns = left_ns + away_ns < left_ns ? UINT64_MAX : left_ns + away_ns;
        if (away_ns) {
            wait_until(remover, back_ns);
        }
        remover->wanted = false;
        if (away_ns && !remover->stop) {
            pthread_mutex_unlock(&remover->lock);
            tepi_card_attach(card);
            pthread_mutex_lock(&remover->lock);
        }
    }
    pthread_mutex_unlock(&remover->lock);
    return NULL;
}

void tepi_card_remover_init(struct tepi_card *card)
{
    struct tepi_card_remover *remover = &card->remover;
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&remover->lock, NULL);
    pthread_cond_init(&remover->changed, &clock);
    pthread_condattr_destroy(&clock);
}

void tepi_card_remover_destroy(struct tepi_card *card)
{
    pthread_cond_destroy(&card->remover.changed);
    pthread_mutex_destroy(&card->remover.lock);
}

int tepi_card_remover_start(struct tepi_card *card)
{
    struct tepi_card_remover *remover = &card->remover;
    pthread_mutex_lock(&remover->lock);
    const int result = remover->started ? 0 : pthread_create(&remover->thread, NULL, work, card);
    remover->started |= result == 0;
    pthread_mutex_unlock(&remover->lock);
    return -result;
}

void tepi_card_remover_stop(struct tepi_card *card)
{
    struct tepi_card_remover *remover = &card->remover;
    pthread_mutex_lock(&remover->lock);
    remover->stop = true;
    pthread_cond_broadcast(&remover->changed);
    pthread_mutex_unlock(&remover->lock);
    if (remover->started) {
        pthread_join(remover->thread, NULL);
    }
}

void tepi_card_remove(struct tepi_card *card, uint64_t away_ns)
{
    struct tepi_card_remover *remover = &card->remover;
    pthread_mutex_lock(&remover->lock);
    if (!remover->wanted && atomic_load(&card->present)) {
        remover->wanted = remover->leaving = true;
        remover->away_ns = away_ns;
        /* At once, so that the command with which it leaves does not complete. */
        atomic_store(&card->present, false);
        pthread_cond_broadcast(&remover->changed);
    }
    pthread_mutex_unlock(&remover->lock);
}

void tepi_card_remover_settle(struct tepi_card *card)
{
    struct tepi_card_remover *remover = &card->remover;
    pthread_mutex_lock(&remover->lock);
    while (remover->leaving && !remover->stop) {
        pthread_cond_wait(&remover->changed, &remover->lock);
    }
    pthread_mutex_unlock(&remover->lock);
}
