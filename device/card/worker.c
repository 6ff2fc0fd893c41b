/* SPDX-License-Identifier: Apache-2.0 */
/* Compute units and the worker threads that use them.
 *
 * There are as many units as workers, and a program runs only with one: so a thread that rings a
 * doorbell and computes itself takes the place of a worker, never adds to them. Work that waits
 * comes first, of each function in turn; nobody borrows a unit past it, and workers that help
 * another's command leave it. */
#include "card/state.h"

#include <errno.h>

#define SPIN_NS      20000u
/* After helping: a caller that runs one inference after another is back within this time. */
#define HELP_SPIN_NS 150000u

enum { SPINS_PER_CLOCK = 64 };

/* With work_lock held. */
static struct tepi_card_unit *take_unit(struct tepi_card *card, struct tepi_function *function)
{
    struct tepi_card_unit *unit = card->idle_units;
    if (unit) {
        card->idle_units = unit->next;
        unit->function = function;
        function->units++;
        atomic_fetch_sub_explicit(&card->idle_count, 1, memory_order_relaxed);
    }
    return unit;
}

/* Wakes one more of the resting workers, with work_lock held; false where all are awake. */
static bool call_worker(struct tepi_card *card)
{
    if (!atomic_load_explicit(&card->resting, memory_order_relaxed)) {
        return false;
    }
    atomic_fetch_sub_explicit(&card->resting, 1, memory_order_relaxed);
    card->called++;
    pthread_cond_signal(&card->work_wanted);
    return true;
}

static void rest(struct tepi_card *card)
{
    atomic_fetch_add_explicit(&card->resting, 1, memory_order_relaxed);
    pthread_cond_wait(&card->work_wanted, &card->work_lock);
    /* Woken without a call, it takes that of another, who then finds none. */
    if (card->called) {
        card->called--;
    } else if (atomic_load_explicit(&card->resting, memory_order_relaxed)) {
        atomic_fetch_sub_explicit(&card->resting, 1, memory_order_relaxed);
    }
}

/* Looks for work without sleeping, for as long as a wake-up would about cost. */
static void spin(struct tepi_card *card, uint64_t ns)
{
    const uint64_t until = tepi_card_clock_ns() + ns;
    do {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&card->work_count, memory_order_relaxed) ||
                atomic_load_explicit(&card->team_count, memory_order_relaxed)) {
                return;
            }
            tepi_card_relax();
        }
    } while (tepi_card_clock_ns() < until);
}

/* With work_lock held. */
static void await_turn(struct tepi_card *card, struct tepi_function *function)
{
    function->waiting_next = NULL;
    if (card->waiting_first) {
        card->waiting_last->waiting_next = function;
    } else {
        card->waiting_first = function;
    }
    card->waiting_last = function;
}

/* The first command of the function whose turn it is, with work_lock held. A function with more to
 * do goes to the end: however much one has queued, another waits for one command of each. */
static struct tepi_card_command *take_command(struct tepi_card *card)
{
    struct tepi_function *function = card->waiting_first;
    struct tepi_card_command *command = function->work_first;
    card->waiting_first = function->waiting_next;
    function->work_first = command->next;
    if (function->work_first) {
        await_turn(card, function);
    }
    command->next = NULL;
    atomic_fetch_sub(&card->work_count, 1);
    return command;
}

static void *work(void *argument)
{
    struct tepi_card *card = argument;
    bool tired = false; /* of helping in vain: rests until it is called */
    pthread_mutex_lock(&card->work_lock);
    while (!atomic_load(&card->stop)) {
        struct tepi_card_team *team = tired ? NULL : tepi_card_team_neediest(card);
        if (!card->idle_units || (!card->waiting_first && !team)) {
            rest(card);
            tired = false;
            continue;
        }
        if (card->waiting_first) {
            struct tepi_card_command *command = take_command(card);
            struct tepi_card_unit *unit = take_unit(card, command->queue->function);
            pthread_mutex_unlock(&card->work_lock);
            tepi_card_perform(command, unit);
            spin(card, SPIN_NS);
            tired = false;
        } else {
            struct tepi_card_unit *unit = take_unit(card, tepi_card_team_function(team));
            atomic_fetch_add_explicit(&team->helpers, 1, memory_order_relaxed);
            pthread_mutex_unlock(&card->work_lock);
            tired = !tepi_card_help(team, unit);
            atomic_fetch_sub_explicit(&team->helpers, 1, memory_order_relaxed);
            tepi_card_unit_return(card, unit);
            if (!tired) {
                spin(card, HELP_SPIN_NS);
            }
        }
        pthread_mutex_lock(&card->work_lock);
    }
    pthread_mutex_unlock(&card->work_lock);
    return NULL;
}

int tepi_card_workers_start(struct tepi_card *card)
{
    for (uint32_t i = 0; i < card->config.workers; i++) {
        tepi_card_team_init(&card->units[i].team, card);
        card->units[i].next = card->idle_units;
        card->idle_units = &card->units[i];
    }
    atomic_store(&card->idle_count, card->config.workers);
    for (uint32_t i = 0; i < card->config.workers; i++) {
        int error = pthread_create(&card->threads[i], NULL, work, card);
        if (error) {
            return -error;
        }
        pthread_setname_np(card->threads[i], "tepi-card");
        card->thread_count++;
    }
    return 0;
}

void tepi_card_workers_stop(struct tepi_card *card)
{
    pthread_mutex_lock(&card->work_lock);
    atomic_store(&card->stop, true);
    pthread_cond_broadcast(&card->work_wanted);
    pthread_mutex_unlock(&card->work_lock);
    for (uint32_t i = 0; i < card->thread_count; i++) {
        pthread_join(card->threads[i], NULL);
    }
    card->thread_count = 0;
    for (uint32_t i = 0; i < card->config.workers; i++) {
        tepi_card_team_destroy(&card->units[i].team);
    }
}

void tepi_card_work_queue(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    command->next = NULL;
    pthread_mutex_lock(&card->work_lock);
    if (function->work_first) {
        function->work_last->next = command;
    } else {
        function->work_first = command;
        await_turn(card, function);
    }
    function->work_last = command;
    atomic_fetch_add(&card->work_count, 1);
    call_worker(card);
    pthread_mutex_unlock(&card->work_lock);
}

/* Of a function without work, with work_lock held. */
static void give_turn_up(struct tepi_card *card, struct tepi_function *function)
{
    struct tepi_function *before = NULL;
    struct tepi_function **link = &card->waiting_first;
    while (*link != function) {
        before = *link;
        link = &before->waiting_next;
    }
    *link = function->waiting_next;
    if (card->waiting_last == function) {
        card->waiting_last = before;
    }
}

bool tepi_card_work_withdraw(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    bool found = false;
    pthread_mutex_lock(&card->work_lock);
    struct tepi_card_command *before = NULL;
    for (struct tepi_card_command *at = function->work_first; at; before = at, at = at->next) {
        if (at != command) {
            continue;
        }
        if (before) {
            before->next = at->next;
        } else {
            function->work_first = at->next;
        }
        if (function->work_last == at) {
            function->work_last = before;
        }
        if (!function->work_first) {
            give_turn_up(card, function);
        }
        atomic_fetch_sub(&card->work_count, 1);
        found = true;
        break;
    }
    pthread_mutex_unlock(&card->work_lock);
    return found;
}

struct tepi_card_unit *tepi_card_unit_borrow(struct tepi_function *function)
{
    struct tepi_card *card = function->card;
    struct tepi_card_unit *unit = NULL;
    pthread_mutex_lock(&card->work_lock);
    if (!card->waiting_first) {
        unit = take_unit(card, function);
    }
    pthread_mutex_unlock(&card->work_lock);
    return unit;
}

void tepi_card_unit_return(struct tepi_card *card, struct tepi_card_unit *unit)
{
    void *old = NULL;
    uint64_t old_bytes = 0;
    pthread_mutex_lock(&card->work_lock);
    if (unit->resized) {
        old = unit->scratch;
        old_bytes = unit->scratch_bytes;
        unit->scratch = unit->next_scratch;
        unit->scratch_bytes = unit->next_bytes;
        unit->resized = false;
    }
    if (--unit->function->units == 0) {
        pthread_cond_broadcast(&card->units_idle);
    }
    unit->function = NULL;
    unit->next = card->idle_units;
    card->idle_units = unit;
    atomic_fetch_add(&card->idle_count, 1);
    if (card->waiting_first) {
        call_worker(card);
    }
    pthread_mutex_unlock(&card->work_lock);
    if (old) {
        tepi_memory_give(&card->memory, old, old_bytes);
    }
}

void tepi_card_call_helpers(struct tepi_card *card)
{
    if (!atomic_load_explicit(&card->resting, memory_order_relaxed) ||
        !atomic_load_explicit(&card->idle_count, memory_order_relaxed)) {
        return;
    }
    pthread_mutex_lock(&card->work_lock);
    uint32_t idle = atomic_load_explicit(&card->idle_count, memory_order_relaxed);
    /* Those called before will take a unit each. */
    for (idle -= idle < card->called ? idle : card->called; idle && call_worker(card); idle--) {
    }
    pthread_mutex_unlock(&card->work_lock);
}

void tepi_card_units_settle(struct tepi_function *function)
{
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->work_lock);
    while (function->units) {
        pthread_cond_wait(&card->units_idle, &card->work_lock);
    }
    pthread_mutex_unlock(&card->work_lock);
}

/* Swaps `*block` in; *block and *bytes become what is to be given back. */
static void swap_scratch(struct tepi_card_unit *unit, void **block, uint64_t *bytes)
{
    void **place = unit->function ? &unit->next_scratch : &unit->scratch;
    uint64_t *place_bytes = unit->function ? &unit->next_bytes : &unit->scratch_bytes;
    const bool holds = !unit->function || unit->resized;
    void *old = holds ? *place : NULL;
    const uint64_t old_bytes = holds ? *place_bytes : 0;
    *place = *block;
    *place_bytes = *bytes;
    unit->resized = unit->function != NULL;
    *block = old;
    *bytes = old_bytes;
}

bool tepi_card_units_resize(struct tepi_card *card, uint64_t bytes)
{
    void *blocks[TEPI_CARD_WORKERS_MAX] = {0};
    uint64_t sizes[TEPI_CARD_WORKERS_MAX];
    const uint32_t count = card->config.workers;
    bool whole = true;
    for (uint32_t i = 0; i < count; i++) {
        sizes[i] = bytes;
        if (bytes && whole) {
            blocks[i] = tepi_memory_take(&card->memory, bytes);
            whole = blocks[i] != NULL;
        }
    }
    pthread_mutex_lock(&card->work_lock);
    for (uint32_t i = 0; i < count && whole; i++) {
        swap_scratch(&card->units[i], &blocks[i], &sizes[i]);
    }
    pthread_mutex_unlock(&card->work_lock);
    for (uint32_t i = 0; i < count; i++) {
        if (blocks[i]) {
            tepi_memory_give(&card->memory, blocks[i], sizes[i]);
        }
    }
    return whole;
}
