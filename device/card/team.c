/* SPDX-License-Identifier: Apache-2.0 */
/* Teams: idle workers help a running command, instruction by instruction.
 *
 * Every unit owns a team, whose leader is the thread that runs a command on that unit. A worker
 * joins with an idle unit of its own, of which it uses the scratch, and leaves when the team
 * closes, when a command waits, or when it was not needed for a while. Parts are taken one by one;
 * the leader waits only for parts that were taken, so it never waits for a worker that has not
 * come, and when its last job has ended no worker touches the program, its arena or host memory. */
#include "card/state.h"

#include <sched.h>

#define SPIN_NS       50000u /* before a helper rests, and before a leader sleeps */
#define SHARE_NS      80000u /* of a program: with less to share it runs alone */
/* A leader that waited longer, and for long beside its own parts, lost a helper's processor to
 * somebody else: it works alone for so many times as long as it waited. */
#define LOST_NS       200000u
#define ALONE_TIMES   20u
#define ALONE_MOST_NS 100000000u

enum { SPINS_PER_CLOCK = 64, JOB_SHIFT = 32, PARTS_SHIFT = 16 };

/* The turn: number of the job, its parts, and how many of these are taken. One word, so that taking
 * a part of a job that is over cannot succeed. */
static uint32_t parts_of(uint64_t turn)
{
    return (uint32_t)(turn >> PARTS_SHIFT) & TEPI_JOB_PARTS_MAX;
}

static uint32_t taken_of(uint64_t turn)
{
    return (uint32_t)turn & TEPI_JOB_PARTS_MAX;
}

static void end_part(struct tepi_card_team *team)
{
    /* Releases what the part wrote to the leader. In one order with `asleep`: either the leader
     * sees this part, or its sleep is seen here. */
    atomic_fetch_add(&team->ended, 1);
    if (atomic_load(&team->asleep)) {
        pthread_mutex_lock(&team->lock);
        pthread_cond_signal(&team->part_ended);
        pthread_mutex_unlock(&team->lock);
    }
}

/* Takes one part and runs it; false where none is left or `bytes` of scratch do not suffice. */
static bool take_part(struct tepi_card_team *team, void *scratch, uint64_t bytes)
{
    /* Acquires what the leader wrote before it began the job. */
    uint64_t turn = atomic_load_explicit(&team->turn, memory_order_acquire);
    do {
        if (taken_of(turn) >= parts_of(turn) ||
            bytes < atomic_load_explicit(&team->scratch_bytes, memory_order_relaxed)) {
            return false;
        }
    } while (!atomic_compare_exchange_weak_explicit(&team->turn, &turn, turn + 1,
                                                    memory_order_acquire, memory_order_acquire));
    /* From here on the job cannot end before this part does. */
    const struct tepi_job *job = atomic_load_explicit(&team->job, memory_order_relaxed);
    job->part(job, taken_of(turn), scratch);
    return true;
}

static void await_parts(struct tepi_card_team *team, uint32_t parts)
{
    uint64_t until = 0;
    while (atomic_load_explicit(&team->ended, memory_order_acquire) != parts) {
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            if (atomic_load_explicit(&team->ended, memory_order_acquire) == parts) {
                return;
            }
            tepi_card_relax();
        }
        const uint64_t now = tepi_card_clock_ns();
        until = until ? until : now + SPIN_NS;
        if (now < until) {
            continue;
        }
        pthread_mutex_lock(&team->lock);
        atomic_store(&team->asleep, true);
        while (atomic_load(&team->ended) != parts) {
            pthread_cond_wait(&team->part_ended, &team->lock);
        }
        atomic_store(&team->asleep, false);
        pthread_mutex_unlock(&team->lock);
    }
}

/* A scheduler likes to wake a thread where its waker runs; on a busy machine leader and helper may
 * then share one processor for many milliseconds, each spinning while the other should run. The
 * helper moves on at once, and may be moved anywhere afterwards. */
static void step_aside(const struct tepi_card_team *team)
{
    const int cpu = atomic_load_explicit(&team->cpu, memory_order_relaxed);
    cpu_set_t allowed, others;
    if (cpu < 0 || cpu >= CPU_SETSIZE || sched_getcpu() != cpu ||
        sched_getaffinity(0, sizeof allowed, &allowed)) {
        return;
    }
    others = allowed;
    CPU_CLR((size_t)cpu, &others);
    if (CPU_COUNT(&others) && sched_setaffinity(0, sizeof others, &others) == 0) {
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
    }
}

static uint32_t size(struct tepi_team *face)
{
    struct tepi_card_team *team = (struct tepi_card_team *)(void *)face;
    if (team->alone_until_ns && tepi_card_clock_ns() < team->alone_until_ns) {
        return 1;
    }
    team->alone_until_ns = 0;
    atomic_store_explicit(&team->cpu, sched_getcpu(), memory_order_relaxed);
    tepi_card_call_helpers(team->card);
    /* Those that are called now find parts when they come: without them the instruction would be
     * over in one piece before, and each of its followers likewise. */
    return 1 + atomic_load_explicit(&team->helpers, memory_order_relaxed) +
           atomic_load_explicit(&team->card->idle_count, memory_order_relaxed);
}

static void run(struct tepi_team *face, const struct tepi_job *job)
{
    struct tepi_card_team *team = (struct tepi_card_team *)(void *)face;
    const uint64_t before = atomic_load_explicit(&team->turn, memory_order_relaxed);
    const uint64_t number = (before >> JOB_SHIFT) + 1;
    const uint64_t begun = tepi_card_clock_ns();
    atomic_store_explicit(&team->job, job, memory_order_relaxed);
    atomic_store_explicit(&team->scratch_bytes, job->scratch_bytes, memory_order_relaxed);
    atomic_store_explicit(&team->ended, 0, memory_order_relaxed);
    /* Last: whoever sees the parts sees the job, and all that earlier instructions wrote. */
    atomic_store_explicit(&team->turn, number << JOB_SHIFT | (uint64_t)job->parts << PARTS_SHIFT,
                          memory_order_release);
    uint32_t own = 0;
    while (take_part(team, job->scratch, UINT64_MAX)) {
        own++;
    }
    const uint64_t done = tepi_card_clock_ns();
    atomic_fetch_add(&team->ended, own);
    await_parts(team, job->parts);
    const uint64_t now = tepi_card_clock_ns();
    if (now - done > LOST_NS && now - done > (done - begun) / 4) {
        const uint64_t alone = (now - done) * ALONE_TIMES;
        team->alone_until_ns = now + (alone < ALONE_MOST_NS ? alone : ALONE_MOST_NS);
    }
}

bool tepi_card_help(struct tepi_card_team *team, struct tepi_card_unit *unit)
{
    struct tepi_card *card = team->card;
    uint64_t last = tepi_card_clock_ns();
    uint64_t until = last + SPIN_NS;
    while (atomic_load_explicit(&team->open, memory_order_relaxed) &&
           !atomic_load_explicit(&card->work_count, memory_order_relaxed)) {
        bool took = false;
        step_aside(team);
        while (take_part(team, unit->scratch, unit->scratch_bytes)) {
            end_part(team);
            took = true;
        }
        for (int i = 0; i < SPINS_PER_CLOCK; i++) {
            const uint64_t turn = atomic_load_explicit(&team->turn, memory_order_relaxed);
            if (taken_of(turn) < parts_of(turn)) {
                break;
            }
            tepi_card_relax();
        }
        const uint64_t now = tepi_card_clock_ns();
        if (took) {
            until = now + SPIN_NS;
            tepi_card_add(&unit->busy_ns, now - last);
        } else if (now >= until) {
            return false;
        }
        last = now;
    }
    return true;
}

struct tepi_team *tepi_card_team_open(struct tepi_card *card, struct tepi_card_unit *unit,
                                      const struct tepi_program *program)
{
    struct tepi_card_team *team = &unit->team;
    if (card->config.workers == 1 || tepi_program_shared_ns(program) < SHARE_NS) {
        return NULL;
    }
    pthread_mutex_lock(&card->work_lock);
    atomic_store_explicit(&team->open, true, memory_order_relaxed);
    team->next = card->teams;
    card->teams = team;
    atomic_fetch_add_explicit(&card->team_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&card->work_lock);
    return &team->face;
}

void tepi_card_team_close(struct tepi_card *card, struct tepi_card_unit *unit)
{
    pthread_mutex_lock(&card->work_lock);
    struct tepi_card_team **link = &card->teams;
    while (*link != &unit->team) {
        link = &(*link)->next;
    }
    *link = unit->team.next;
    atomic_store_explicit(&unit->team.open, false, memory_order_relaxed);
    atomic_fetch_sub_explicit(&card->team_count, 1, memory_order_relaxed);
    pthread_mutex_unlock(&card->work_lock);
}

struct tepi_card_team *tepi_card_team_neediest(const struct tepi_card *card)
{
    struct tepi_card_team *best = card->teams;
    for (struct tepi_card_team *team = best; team; team = team->next) {
        if (atomic_load_explicit(&team->helpers, memory_order_relaxed) <
            atomic_load_explicit(&best->helpers, memory_order_relaxed)) {
            best = team;
        }
    }
    return best;
}

void tepi_card_team_init(struct tepi_card_team *team, struct tepi_card *card)
{
    team->face = (struct tepi_team){.size = size, .run = run};
    team->card = card;
    pthread_mutex_init(&team->lock, NULL);
    pthread_cond_init(&team->part_ended, NULL);
}

void tepi_card_team_destroy(struct tepi_card_team *team)
{
    pthread_cond_destroy(&team->part_ended);
    pthread_mutex_destroy(&team->lock);
}
