/* SPDX-License-Identifier: Apache-2.0 */
/* Faults by plan: what the software card is to suffer, and when, so that a host's recovery can be
 * tried. The same plan and the same commands in the same order give the same faults. */
#ifndef TEPI_CARD_FAULTS_H
#define TEPI_CARD_FAULTS_H

#include "card/card.h"
#include <stdint.h>

enum tepi_planned_kind {
    TEPI_PLANNED_HANG = 1,               /* nothing is begun or completed, the heartbeat stops */
    TEPI_PLANNED_SLOW = 2,               /* `count` EXECUTEs take `factor` times as long and `ns` */
    TEPI_PLANNED_WRONG_GENERATION = 3,   /* `count` completions name the generation before */
    TEPI_PLANNED_CORRUPT_COMPLETION = 4, /* `count` completions name a command not in flight */
    TEPI_PLANNED_DMA_ERROR = 5,          /* the next `count` transfers of commands fail */
    TEPI_PLANNED_THERMAL_THROTTLE = 6,   /* until a reset, EXECUTEs take `factor` times as long */
    TEPI_PLANNED_THERMAL_SHUTDOWN = 7,
    TEPI_PLANNED_RESET_FAILS = 8,     /* the next `count` resets leave RESETTING; 0: all of them */
    TEPI_PLANNED_FIRMWARE_ASSERT = 9, /* `count` is the fault's info word */
    TEPI_PLANNED_BIT_FLIP = 10, /* 1 bit of a program, corrected before it runs next; 2: fatal */
    TEPI_PLANNED_BIT_FLIP_UNDETECTED = 11, /* `count` bits of weights, until unload or reset */
    TEPI_PLANNED_REMOVAL = 12, /* leaves the bus of all functions; back after `ns`, 0: attached */
};

/* What is counted: commands as the card begins with them, from the plan on. */
enum tepi_planned_trigger {
    TEPI_PLANNED_ON_COMMAND = 0,
    TEPI_PLANNED_ON_EXECUTE = 1,
    TEPI_PLANNED_ON_LOAD = 2,
    TEPI_PLANNED_TRIGGERS,
};

struct tepi_planned_fault {
    uint32_t kind;    /* enum tepi_planned_kind */
    uint32_t trigger; /* enum tepi_planned_trigger */
    uint64_t after;   /* happens with the command of this number, from 1; 0: at once */
    uint32_t count;
    uint32_t factor; /* 1 to 1000 */
    uint64_t ns;
    uint32_t repeat; /* so many times more, each `after` commands later */
};

enum { TEPI_PLANNED_MOST = 64 };

/* Takes the place of the plan before, what is left of its effects with it; but a card that has left
 * returns when it was to. 0, -EINVAL (a field out of range), -E2BIG, or the errno of starting a
 * thread. */
int tepi_card_plan_faults(struct tepi_card *card, const struct tepi_planned_fault *faults,
                          uint32_t count);

#endif
