/* SPDX-License-Identifier: Apache-2.0 */
/* Bits of card memory that change by plan, and the ECC that notices: lines of 64 bytes, of which
 * one changed bit is corrected and two are found. A line is looked at when its program runs next.
 *
 * Lines change, and are corrected, only while nobody runs the program. Of those who have a
 * reference to it, as many run it as neither wait for a worker nor, here, for the others. */
#include "card/state.h"

#include <stdlib.h>
#include <string.h>

#define LINE      64u
#define WAIT_STEP 100000 /* ns, between two looks at those who run the program */

/* Of one line, with programs_lock. */
struct tepi_card_flip {
    struct tepi_card_flip *next;
    uint8_t *line;
    uint64_t offset; /* in what the program keeps */
    uint32_t bits[2], count;
    bool done;            /* else it waits for those who run the program */
    uint8_t before[LINE]; /* what check bits would tell of */
};

/* Numbers that follow one another, far apart (splitmix64). */
static uint64_t scatter(uint64_t number)
{
    uint64_t mixed = (number + 1) * UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ mixed >> 31;
}

static uint32_t count_in(const struct tepi_card_command *list,
                         const struct tepi_card_program *program)
{
    uint32_t count = 0;
    for (; list; list = list->next) {
        count += list->program == program;
    }
    return count;
}

/* With programs_lock. */
static bool running(struct tepi_function *function, const struct tepi_card_program *program)
{
    struct tepi_card *card = function->card;
    pthread_mutex_lock(&card->work_lock);
    const uint32_t resting = count_in(function->work_first, program) +
                             count_in(function->parked, program) + program->ecc_waiting +
                             !program->unloaded;
    pthread_mutex_unlock(&card->work_lock);
    return program->refs > resting;
}

static void change(struct tepi_card_flip *flip)
{
    memcpy(flip->before, flip->line, LINE);
    for (uint32_t i = 0; i < flip->count; i++) {
        flip->line[flip->bits[i] / 8] ^= (uint8_t)(1u << flip->bits[i] % 8);
    }
    flip->done = true;
}

static bool has_line(const struct tepi_card_program *program, uint64_t offset)
{
    const struct tepi_card_flip *at = program->flips;
    while (at && at->offset != offset) {
        at = at->next;
    }
    return at != NULL;
}

/* Nothing where every line of the program has changed already, or the host is out of memory. */
static void flip_line(struct tepi_function *function, struct tepi_card_program *program,
                      uint32_t bits, uint64_t number)
{
    uint64_t bytes, tried = 0;
    uint8_t *kept = tepi_program_kept(program->program, &bytes);
    const uint64_t lines = bytes / LINE, first = scatter(number);
    while (tried < lines && has_line(program, (first + tried) % lines * LINE)) {
        tried++;
    }
    struct tepi_card_flip *flip = tried < lines ? calloc(1, sizeof *flip) : NULL;
    if (!flip) {
        return;
    }
    const uint64_t chosen = scatter(first);
    flip->offset = (first + tried) % lines * LINE;
    flip->line = kept + flip->offset;
    flip->count = bits;
    flip->bits[0] = (uint32_t)(chosen % (LINE * 8));
    flip->bits[1] = (uint32_t)((flip->bits[0] + 1 + (chosen >> 32) % (LINE * 8 - 1)) % (LINE * 8));
    flip->next = program->flips;
    program->flips = flip;
    atomic_fetch_add(&function->card->faults.flips, 1);
    if (!running(function, program)) {
        change(flip);
    }
}

/* With programs_lock. */
static struct tepi_card_program *oldest(const struct tepi_function *function)
{
    struct tepi_card_program *found = NULL;
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX; i++) {
        struct tepi_card_program *program = function->programs[i];
        /* Serials in front of slots, see programs.c. */
        if (program && !program->unloaded && (!found || program->handle < found->handle)) {
            found = program;
        }
    }
    return found;
}

static void spoil(struct tepi_function *function, struct tepi_card_program *program, uint32_t bits,
                  uint64_t number)
{
    (void)function;
    tepi_program_spoil(program->program, bits, scatter(number));
}

typedef void affect(struct tepi_function *function, struct tepi_card_program *program,
                    uint32_t bits, uint64_t number);

static void affect_one(struct tepi_card *card, const struct tepi_card_command *command,
                       affect *what, uint32_t bits, uint32_t number)
{
    bool found = false;
    if (command && command->entry.opcode == TEPI_CMD_EXECUTE) {
        struct tepi_function *function = command->queue->function;
        const uint32_t handle = command->entry.program;
        pthread_mutex_lock(&function->programs_lock);
        struct tepi_card_program *program = function->programs[handle % TEPI_CARD_PROGRAMS_MAX];
        found = program && program->handle == handle && !program->unloaded;
        if (found) {
            what(function, program, bits, number);
        }
        pthread_mutex_unlock(&function->programs_lock);
    }
    pthread_mutex_lock(&card->functions_lock);
    for (struct tepi_function *at = card->functions; at && !found; at = at->next) {
        pthread_mutex_lock(&at->programs_lock);
        struct tepi_card_program *program = oldest(at);
        found = program != NULL;
        if (found) {
            what(at, program, bits, number);
        }
        pthread_mutex_unlock(&at->programs_lock);
    }
    pthread_mutex_unlock(&card->functions_lock);
}

void tepi_card_ecc_flip(struct tepi_card *card, const struct tepi_card_command *command,
                        uint32_t bits, uint32_t number)
{
    affect_one(card, command, flip_line, bits, number);
}

void tepi_card_ecc_flip_undetected(struct tepi_card *card, const struct tepi_card_command *command,
                                   uint32_t bits, uint32_t number)
{
    affect_one(card, command, spoil, bits, number);
}

static uint32_t bits_changed(const struct tepi_card_flip *flip)
{
    uint32_t changed = 0;
    for (uint32_t i = 0; i < LINE; i++) {
        changed += (uint32_t)__builtin_popcount((unsigned)(flip->line[i] ^ flip->before[i]));
    }
    return changed;
}

/* With programs_lock, while nobody runs the program; false where a line cannot be corrected, which
 * then stays as it is. */
static bool correct(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    struct tepi_card_flip **link = &command->program->flips;
    while (*link) {
        struct tepi_card_flip *flip = *link;
        if (!flip->done) {
            change(flip);
        }
        const uint32_t changed = bits_changed(flip);
        if (changed > 1) {
            link = &flip->next;
            continue;
        }
        if (changed == 1) {
            memcpy(flip->line, flip->before, LINE);
            atomic_fetch_add(&card->ecc_corrected, 1);
            tepi_function_log(function, TEPI_FAULT_MEMORY_ECC_CORRECTED, (uint32_t)flip->offset,
                              command->queue->id, command->entry.command_id);
        }
        *link = flip->next;
        free(flip);
        atomic_fetch_sub(&card->faults.flips, 1);
    }
    return command->program->flips == NULL;
}

struct tepi_verdict tepi_card_ecc_check(struct tepi_card_command *command)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card_program *program = command->program;
    const struct timespec step = {.tv_nsec = WAIT_STEP};
    uint16_t fault = TEPI_FAULT_OK;
    bool fatal = false;
    pthread_mutex_lock(&function->programs_lock);
    program->ecc_waiting++;
    while (program->flips && !fault && running(function, program)) {
        pthread_mutex_unlock(&function->programs_lock);
        nanosleep(&step, NULL);
        if (atomic_load_explicit(&command->abort, memory_order_relaxed)) {
            fault = TEPI_FAULT_ABORTED;
        } else if (command->deadline_ns && tepi_card_clock_ns() >= command->deadline_ns) {
            fault = TEPI_FAULT_DEADLINE;
        }
        pthread_mutex_lock(&function->programs_lock);
    }
    if (program->flips && !fault && !correct(command)) {
        fatal = !program->poisoned;
        program->poisoned = true;
        /* Nobody hears of it, and the log has it from the card. */
        fault = TEPI_FAULT_ABORTED;
    }
    program->ecc_waiting--;
    pthread_mutex_unlock(&function->programs_lock);
    if (fatal) {
        tepi_card_raise(function->card, TEPI_FAULT_MEMORY_ECC, 0);
    }
    return (struct tepi_verdict){fault, 0};
}

void tepi_card_ecc_forget(struct tepi_card *card, struct tepi_card_program *program)
{
    while (program->flips) {
        struct tepi_card_flip *flip = program->flips;
        program->flips = flip->next;
        free(flip);
        atomic_fetch_sub(&card->faults.flips, 1);
    }
}
