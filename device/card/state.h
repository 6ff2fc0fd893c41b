/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of the software card, shared by its front end's files: the chassis that there is once,
 * and the functions, one for each host.
 *
 * Lock order: a card's control, a function's control, resize_lock, functions_lock, a queue's lock,
 * programs_lock, work_lock. Whoever holds a control lock may wait for commands, so that no command
 * takes one. Registers that a host polls are atomics: they answer while a reset waits. */
#ifndef TEPI_CARD_STATE_H
#define TEPI_CARD_STATE_H

#include "abi/program.h"
#include "abi/queue.h"
#include "card/card.h"
#include "card/faults.h"
#include "card/memory.h"
#include "card/program.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum {
    TEPI_CARD_ENTRIES_MAX = 4096,
    TEPI_CARD_PROGRAMS_MAX = 1024,
    TEPI_CARD_WORKERS_MAX = 256,
    TEPI_CARD_FUNCTIONS_MAX = 64,
};

/* A program in the handle table; `refs` counts the table's own and one per command that uses it. */
struct tepi_card_program {
    uint32_t handle; /* never 0 */
    uint32_t refs;
    bool unloaded; /* its handle is no longer valid; running commands keep it alive */
    struct tepi_program *program;
    struct tepi_card_flip *flips; /* bits changed by plan that ECC has not looked at yet */
    bool poisoned;                /* ECC has found that it cannot correct them */
    uint32_t ecc_waiting;         /* commands that wait for those who run it, to look */
    _Atomic uint64_t item_ns;     /* running average of one item's compute time; 0: not run yet */
};

/* A command between its fetch and its completion. */
struct tepi_card_command {
    struct tepi_card_command *next; /* in the free list, or in the work list */
    struct tepi_card_queue *queue;
    struct tepi_card_program *program; /* of EXECUTE, referenced */
    struct tepi_submission entry;      /* the card's own copy */
    uint64_t arrived_ns;
    uint64_t deadline_ns; /* on the card's clock; 0: none */
    atomic_bool abort;
    bool in_flight;
    bool slow; /* by plan */
    struct tepi_completion completion;
};

struct tepi_card_queue {
    struct tepi_function *function;
    uint32_t id;
    pthread_mutex_t lock;
    pthread_cond_t idle; /* outstanding reached 0 */
    /* As the host programmed them; they take effect with ENABLE. */
    uint64_t sq_base, cq_base;
    uint32_t entries_register, vector_register;

    bool enabled;
    bool lend;
    uint32_t entries, vector;
    uint64_t sq_iova, cq_iova;
    const struct tepi_submission *submissions;
    struct tepi_completion *completions;
    uint32_t tail, fetched, posted, cq_head; /* free-running */
    uint32_t outstanding;                    /* commands fetched and not completed */
    struct tepi_card_command *commands, *free_commands;
};

/* Threads that share a command: see team.c. Atomics are read without work_lock. */
struct tepi_card_team {
    struct tepi_team face; /* first: what the executor knows */
    struct tepi_card *card;
    struct tepi_card_team *next; /* among the open ones */
    _Atomic bool open;
    _Atomic uint32_t helpers; /* workers that have joined; the leader is not counted */
    _Atomic(const struct tepi_job *) job;
    uint64_t alone_until_ns; /* the leader's own: no helpers are called before, 0: any time */
    _Atomic int cpu;         /* where the leader ran last, below 0: not known */
    _Atomic uint64_t scratch_bytes; /* that a part of the job needs */
    _Alignas(64) _Atomic uint64_t turn;
    _Alignas(64) _Atomic uint32_t ended; /* parts of the job */
    _Atomic bool asleep;                 /* the leader waits for part_ended */
    pthread_mutex_t lock;
    pthread_cond_t part_ended;
};

/* A compute unit: scratch for one item in flight. */
struct tepi_card_unit {
    struct tepi_card_team team;
    struct tepi_card_unit *next;    /* in the list of idle units */
    struct tepi_function *function; /* whose work it does; NULL: idle */
    bool resized;
    void *scratch, *next_scratch; /* next_*: to take when it falls idle, where `resized` */
    uint64_t scratch_bytes, next_bytes;
    _Atomic uint64_t busy_ns, executed; /* added to by whoever holds the unit */
};

/* What one host sees of the card: registers, queue pairs, programs, fault log. */
struct tepi_function {
    struct tepi_card *card;
    struct tepi_function *next; /* among the card's */

    pthread_mutex_t control; /* of plugging, reset and queue set-up */
    struct tepi_host_port host;
    bool plugged;
    _Atomic uint32_t control_register, status, generation;

    pthread_mutex_t log_lock;
    struct tepi_fault_entry log[TEPI_FAULT_LOG_ENTRIES];
    _Atomic uint32_t fault_code, fault_info, fault_count;

    struct tepi_card_queue queues[TEPI_QUEUES_MAX];

    pthread_mutex_t programs_lock;
    struct tepi_card_program *programs[TEPI_CARD_PROGRAMS_MAX];
    uint32_t handles; /* ever given */

    /* With the card's work_lock. */
    struct tepi_card_command *work_first, *work_last;
    struct tepi_function *waiting_next; /* in the card's turn, while it has work */
    uint32_t units;                     /* that do its work, those of helpers too */
    struct tepi_card_command *parked;   /* begun while the card hangs */
    bool quiescing;                     /* no more are parked */
};

/* The plan, with `lock`, and what of it is in effect. */
struct tepi_card_faults {
    pthread_mutex_t lock;
    struct tepi_planned_fault plan[TEPI_PLANNED_MOST];
    uint64_t due[TEPI_PLANNED_MOST], left[TEPI_PLANNED_MOST];
    uint32_t count;
    uint64_t seen[TEPI_PLANNED_TRIGGERS];
    _Atomic bool active; /* there is a plan: all else need not be looked at without one */
    _Atomic bool hung;   /* written with work_lock */
    _Atomic uint32_t slow, slow_factor, wrong_generation, corrupt, dma_errors, failing_resets;
    _Atomic uint32_t throttle; /* factor; 0: none */
    uint32_t flip_number;      /* of bit flips, from the plan on */
    _Atomic uint32_t flips;    /* that ECC has not looked at yet, of all programs */
    _Atomic bool overheated;
    _Atomic uint64_t slow_ns;
};

/* Removal by plan. Detaching waits for commands, so that a thread of its own does it. */
struct tepi_card_remover {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool started, stop;
    bool wanted;      /* from when it leaves until it is to return */
    bool leaving;     /* of these, until it is detached */
    uint64_t away_ns; /* 0: until it is attached */
};

struct tepi_card {
    struct tepi_card_config config;
    const struct tepi_kernel_set *kernels;
    struct tepi_memory memory;

    pthread_mutex_t control; /* of removal and return; of functions that come and go */
    _Atomic bool present;
    _Atomic uint64_t heartbeat_stopped; /* its last value while a fatal fault stands, else 0 */

    pthread_mutex_t functions_lock; /* nobody waits under it; changes take `control` too */
    struct tepi_function *functions;
    struct tepi_function *first; /* opened with the card, closed with it */
    struct tepi_card_faults faults;
    struct tepi_card_remover remover;
    bool fatal; /* a fault stands that the next reset of any function ends */
    _Atomic uint32_t ecc_corrected;

    pthread_mutex_t meter_lock;
    uint64_t metered_ns, metered_busy_ns; /* when power was last worked out */
    uint32_t power_mw;

    pthread_mutex_t resize_lock;
    uint64_t unit_bytes;

    pthread_mutex_t work_lock;
    pthread_cond_t work_wanted, units_idle;
    struct tepi_function *waiting_first, *waiting_last; /* with work, in the order of their turn */
    struct tepi_card_unit *idle_units;
    struct tepi_card_team *teams; /* open ones */
    uint32_t called;              /* resting workers that were woken and have not come yet */
    /* Hints for those who do not hold work_lock; written with it. */
    _Atomic uint32_t work_count, team_count, idle_count, resting;
    _Atomic bool stop;
    struct tepi_card_unit units[TEPI_CARD_WORKERS_MAX];
    pthread_t threads[TEPI_CARD_WORKERS_MAX];
    uint32_t thread_count;
};

static inline void tepi_card_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline uint64_t tepi_card_clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* registers.c: BAR0 and the fault log. */
uint64_t tepi_function_read(void *function, uint32_t offset, unsigned width);
void tepi_function_write(void *function, uint32_t offset, unsigned width, uint64_t value);
void tepi_function_log(struct tepi_function *function, uint32_t fault, uint32_t info,
                       uint32_t queue, uint16_t command_id);
uint64_t tepi_card_heartbeat(struct tepi_card *card);

/* card.c */
/* A fault of the whole card: it stands in every function until that one is reset. */
void tepi_card_raise(struct tepi_card *card, uint32_t fault, uint32_t info);

/* meter.c */
uint64_t tepi_card_busy_ns(struct tepi_card *card, uint32_t worker);
uint64_t tepi_card_executed(struct tepi_card *card);
uint32_t tepi_card_power_mw(struct tepi_card *card);
uint32_t tepi_card_temperature_mc(struct tepi_card *card);
static inline void tepi_card_add(_Atomic uint64_t *count, uint64_t some)
{
    /* Nobody else writes it meanwhile. */
    atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + some,
                          memory_order_relaxed);
}

/* faults.c */
/* Counts a command, of a card with a plan; faults that are due with it happen. */
void tepi_card_faults_arrive(struct tepi_card_command *command);
/* Keeps a command that a hung card would begin with; false where it does not hang. */
bool tepi_card_faults_park(struct tepi_card_command *command);
/* Ends, as aborted, what was kept of the function's; while `quiescing` nothing more is kept. */
void tepi_card_faults_unpark(struct tepi_function *function, bool quiescing);
/* Waits for as long as the command, which took `taken_ns`, is to be slower than that. */
struct tepi_verdict tepi_card_faults_stall(struct tepi_card_command *command, uint64_t taken_ns);
bool tepi_card_faults_reset_fails(struct tepi_card *card);
/* Of a completion about to be written; with the queue's lock. */
void tepi_card_faults_corrupt(const struct tepi_card_command *command, uint16_t *command_id,
                              uint32_t *generation);
/* dma_acquire of a command's memory. */
void *tepi_function_acquire(struct tepi_function *function, uint64_t iova, uint64_t bytes);

/* ecc.c: bits of programs that change, and what notices. */
/* Changes `bits` of one line in the program that `command` is to execute, else the oldest; NULL: no
 * command. Where and which follows from `number` alone. */
void tepi_card_ecc_flip(struct tepi_card *card, const struct tepi_card_command *command,
                        uint32_t bits, uint32_t number);
/* The same for weights, past ECC. */
void tepi_card_ecc_flip_undetected(struct tepi_card *card, const struct tepi_card_command *command,
                                   uint32_t bits, uint32_t number);
/* Before an EXECUTE computes: corrects the lines of its program that changed, or raises the fault
 * of those that cannot be corrected. */
struct tepi_verdict tepi_card_ecc_check(struct tepi_card_command *command);
/* Forgets what changed in a program that goes. */
void tepi_card_ecc_forget(struct tepi_card *card, struct tepi_card_program *program);

/* remove.c */
void tepi_card_remover_init(struct tepi_card *card);
void tepi_card_remover_destroy(struct tepi_card *card);
/* Ends the thread; a card that is away stays away. */
void tepi_card_remover_stop(struct tepi_card *card);
/* Makes the thread, once; 0 or negative errno. */
int tepi_card_remover_start(struct tepi_card *card);
/* From now on the card is gone; nothing where it is already. */
void tepi_card_remove(struct tepi_card *card, uint64_t away_ns);
/* Waits until a card that has begun to leave has left. */
void tepi_card_remover_settle(struct tepi_card *card);

/* function.c */
/* With its `control` held: drops its queues and programs, waiting for its own commands only. */
void tepi_function_quiesce(struct tepi_function *function);
/* The same and a new generation, as the card begins again for this host. */
void tepi_function_reset_locked(struct tepi_function *function);
/* Wakes whoever waits on the host's side, so that it looks at STATUS. */
void tepi_function_interrupt_all(struct tepi_function *function);

/* queue.c */
uint64_t tepi_card_queue_read(struct tepi_card_queue *queue, uint32_t which, unsigned width);
void tepi_card_queue_write(struct tepi_card_queue *queue, uint32_t which, unsigned width,
                           uint64_t value);
void tepi_card_queue_doorbell(struct tepi_card_queue *queue, uint32_t which, uint32_t value);
/* Takes the pair from the host; returns when none of its commands touches host memory. */
void tepi_card_queue_disable(struct tepi_card_queue *queue);
/* Ends a command: writes the completion and interrupts, unless the pair or the card is down. */
void tepi_card_queue_complete(struct tepi_card_command *command, struct tepi_verdict verdict);
/* Flags the command with that id to stop; false where none is in flight. */
bool tepi_card_queue_abort(struct tepi_card_queue *queue, uint32_t command_id);

/* command.c: looks at a fetched command and does it, here or on a worker. */
void tepi_card_dispatch(struct tepi_card_command *command);
/* Does LOAD_PROGRAM or EXECUTE on this thread, returns the unit and completes the command. `unit`
 * may be NULL for a load, and for a command that was aborted. */
void tepi_card_perform(struct tepi_card_command *command, struct tepi_card_unit *unit);

/* Ends a command, not begun, as aborted. */
void tepi_card_perform_aborted(struct tepi_card_command *command);

/* profile.c: times of one EXECUTE, and where in host memory they go. */
struct tepi_card_profile {
    uint64_t *elapsed_ns; /* one per instruction; NULL: no profile */
    void *records;
};
struct tepi_verdict tepi_card_profile_begin(struct tepi_card_command *command,
                                            struct tepi_card_profile *profile);
/* Writes the records where `whole`, and gives everything back. */
void tepi_card_profile_end(struct tepi_card_command *command, struct tepi_card_profile *profile,
                           bool whole);

/* execute.c */
struct tepi_verdict tepi_card_execute(struct tepi_card_command *command,
                                      struct tepi_card_unit *unit);

/* programs.c */
struct tepi_verdict tepi_card_load(struct tepi_function *function,
                                   const struct tepi_submission *entry, uint32_t *handle);
struct tepi_verdict tepi_card_unload(struct tepi_function *function, uint32_t handle);
struct tepi_card_program *tepi_card_program_get(struct tepi_function *function, uint32_t handle);
void tepi_card_program_put(struct tepi_function *function, struct tepi_card_program *program);
/* Drops the function's programs; none of its commands may be in flight. */
void tepi_card_programs_clear(struct tepi_function *function);

/* worker.c */
int tepi_card_workers_start(struct tepi_card *card);
void tepi_card_workers_stop(struct tepi_card *card);
void tepi_card_work_queue(struct tepi_card_command *command);
/* Takes a command back that no worker has begun; false where one has. */
bool tepi_card_work_withdraw(struct tepi_card_command *command);
/* A unit for the calling thread if one is idle and no work waits, else NULL. */
struct tepi_card_unit *tepi_card_unit_borrow(struct tepi_function *function);
void tepi_card_unit_return(struct tepi_card *card, struct tepi_card_unit *unit);
/* Wakes a resting worker for each idle unit. */
void tepi_card_call_helpers(struct tepi_card *card);
/* Waits until no unit works for the function; none of its commands may be in flight. */
void tepi_card_units_settle(struct tepi_function *function);
/* Gives every unit scratch of `bytes`, now or when it falls idle; false: card memory is full. */
bool tepi_card_units_resize(struct tepi_card *card, uint64_t bytes);

/* team.c */
void tepi_card_team_init(struct tepi_card_team *team, struct tepi_card *card);
void tepi_card_team_destroy(struct tepi_card_team *team);
/* Lets idle workers help the thread that runs `program` on `unit`, until closed. NULL, and nothing
 * to close, where the program is too short for that. */
struct tepi_team *tepi_card_team_open(struct tepi_card *card, struct tepi_card_unit *unit,
                                      const struct tepi_program *program);
void tepi_card_team_close(struct tepi_card *card, struct tepi_card_unit *unit);
static inline struct tepi_function *tepi_card_team_function(const struct tepi_card_team *team)
{
    /* A team is the first thing in its unit. */
    return ((const struct tepi_card_unit *)(const void *)team)->function;
}
/* The open team with the fewest helpers, or NULL; with work_lock held. */
struct tepi_card_team *tepi_card_team_neediest(const struct tepi_card *card);
/* Helps until there is something else to do (true), or nothing was to be done for a while. */
bool tepi_card_help(struct tepi_card_team *team, struct tepi_card_unit *unit);

#endif
