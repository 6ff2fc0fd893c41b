/* SPDX-License-Identifier: Apache-2.0 */
/* Cutting one instruction for several threads.
 *
 * Each thread's fair share shrinks to three quarters; the last quarter goes in small pieces to
 * whoever is free, so that a thread which lost its processor for a while costs little. Which
 * thread computes which units changes no result. */
#include "card/exec.h"
#include <stdatomic.h>

/* Handing work over and waiting for it costs about a microsecond between threads that are awake. */
#define WORTH_NS 4000u
#define PIECE_NS 1500u

/* Units of work in a nanosecond, roughly: multiply-accumulates, elements. */
static const uint32_t paces[][TEPI_KERNEL_AMXINT8 + 1] = {
    [TEPI_PACE_DENSE] = {1, 1, 60, 150, 500}, [TEPI_PACE_WINDOW] = {1, 1, 15, 40, 40},
    [TEPI_PACE_ELEMENT] = {1, 1, 8, 16, 16},  [TEPI_PACE_PRODUCT] = {1, 1, 40, 40, 40},
    [TEPI_PACE_FLOAT] = {1, 1, 8, 8, 8},
};

static uint16_t run_whole(const struct tepi_step *step, const struct tepi_run *run)
{
    return step->cut.run(step, run, (struct tepi_range){0, step->cut.units}, run->scratch);
}

void tepi_cut_step(struct tepi_prepare *prepare, struct tepi_step *step, tepi_run_range *run,
                   uint64_t units, uint64_t work, enum tepi_pace pace)
{
    const uint64_t ns = work / paces[pace][prepare->kernels->isa];
    step->run = run_whole;
    step->cut = (struct tepi_cut){
        .run = run,
        .units = (uint32_t)units,
        .at_least = ns ? (uint32_t)(units * PIECE_NS / ns) : (uint32_t)units,
        .worth = units > 1 && ns >= WORTH_NS,
    };
    if (step->cut.worth)
        prepare->shared_ns += ns;
}

struct share {
    const struct tepi_step *step;
    const struct tepi_run *run;
    uint32_t threads, large, small; /* first one large piece for each thread, then small ones */
    _Atomic uint16_t *fault;
};

static void run_piece(const struct tepi_job *job, uint32_t piece, void *scratch)
{
    const struct share *s = job->context;
    const uint32_t units = s->step->cut.units;
    const bool large = piece < s->threads;
    const uint32_t begin =
        large ? piece * s->large : s->threads * s->large + (piece - s->threads) * s->small;
    const uint32_t size = large ? s->large : s->small;
    const uint32_t end = size < units - begin ? begin + size : units;
    uint16_t fault = tepi_run_interrupted(s->run->control);
    if (fault == TEPI_FAULT_OK && begin < end)
        fault = s->step->cut.run(s->step, s->run, (struct tepi_range){begin, end}, scratch);
    if (fault != TEPI_FAULT_OK)
        atomic_store_explicit(s->fault, fault, memory_order_relaxed);
}

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

uint16_t tepi_run_step(const struct tepi_step *step, const struct tepi_run *run)
{
    const struct tepi_cut *cut = &step->cut;
    struct tepi_team *team = cut->worth && run->control ? run->control->team : NULL;
    const uint32_t threads = team ? team->size(team) : 1;
    if (threads == 1)
        return step->run(step, run);
    _Atomic uint16_t fault = TEPI_FAULT_OK;
    struct share share = {.step = step, .run = run, .threads = threads, .fault = &fault};
    share.large = (uint32_t)((uint64_t)cut->units * 3 / 4 / threads);
    share.small = larger(larger(cut->units / threads / 8, cut->at_least), 1);
    const uint32_t left = cut->units - share.large * threads;
    const struct tepi_job job = {
        .part = run_piece,
        .context = &share,
        .parts = threads + left / share.small + (left % share.small != 0),
        .scratch_bytes = run->scratch_bytes,
        .scratch = run->scratch,
    };
    team->run(team, &job);
    return atomic_load_explicit(&fault, memory_order_relaxed);
}
