/* SPDX-License-Identifier: Apache-2.0 */
/* A card with registers and rings but no mind: tests write its completions, right or wrong. */
#ifndef TEPI_TESTS_DRIVER_FAKE_CARD_H
#define TEPI_TESTS_DRIVER_FAKE_CARD_H

#include "abi/link.h"
#include "abi/queue.h"
#include "abi/registers.h"
#include "driver/bus.h"
#include <stdatomic.h>
#include <stdbool.h>

struct fake_card {
    struct tepi_device_port port;
    struct tepi_host_port host;
    bool plugged;
    _Atomic bool gone;
    _Atomic uint32_t magic, abi_max, status, generation, fault_code;
    _Atomic uint32_t resets, plugs;
    bool ignores_reset; /* RESET leaves it RESETTING; only plugging anew brings READY back */
    bool refuses_queues;
    uint64_t registers[TEPI_BAR0_BYTES / 4]; /* what the host wrote, by offset / 4 */
    _Atomic uint32_t tails[TEPI_QUEUES_MAX];
    uint32_t posted[TEPI_QUEUES_MAX];
    /* Called at every submission doorbell, on the host's thread. NULL: nothing is ever done. */
    void (*on_doorbell)(struct fake_card *fake, uint32_t queue, uint32_t tail);
    uint32_t fetched[TEPI_QUEUES_MAX]; /* for on_doorbell's use */
};

void fake_init(struct fake_card *fake);
/* Plugs it into a new in-process bus. */
struct tepi_bus *fake_bus(struct fake_card *fake);

struct tepi_submission fake_entry(struct fake_card *fake, uint32_t queue, uint32_t index);
/* Writes a completion at the next place, with the phase that is due, and interrupts. */
void fake_complete(struct fake_card *fake, uint32_t queue, uint16_t command_id, uint16_t status);
/* The same with any generation and phase; `place` is free-running, nothing is counted. */
void fake_write(struct fake_card *fake, uint32_t queue, uint32_t place, uint32_t generation,
                uint32_t tag);

/* For on_doorbell: completes everything at once. */
void fake_obey(struct fake_card *fake, uint32_t queue, uint32_t tail);

#endif
