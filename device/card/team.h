/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that share one run, as the executor sees them: it cuts an instruction into parts and
 * hands them over; who computes them, and on which thread, is the team's affair. */
#ifndef TEPI_CARD_TEAM_H
#define TEPI_CARD_TEAM_H

#include <stdint.h>

enum { TEPI_JOB_PARTS_MAX = 0xffff };

/* Parts of one instruction, in any order, none twice. */
struct tepi_job {
    void (*part)(const struct tepi_job *job, uint32_t part, void *scratch);
    const void *context;
    uint32_t parts;         /* at most TEPI_JOB_PARTS_MAX */
    uint64_t scratch_bytes; /* that a part needs, 64-byte aligned, for its own thread alone */
    void *scratch;          /* of the thread that begins the job */
};

struct tepi_team {
    /* Threads that would share a job begun now, the caller with them; never 0. */
    uint32_t (*size)(struct tepi_team *team);
    /* Runs all parts, some of them on this thread; returns when the last has ended, and what the
     * parts wrote is then visible here and to the parts of the next job. */
    void (*run)(struct tepi_team *team, const struct tepi_job *job);
};

#endif
