/* SPDX-License-Identifier: Apache-2.0 */
/* The software card: a card in this process, seen only through the slot of abi/link.h.
 *
 * The card is one chassis (memory, compute workers) with several functions, as PCIe's SR-IOV has
 * them: each is a card of its own to its host, with registers, queue pairs, programs and a fault
 * log that no other function can name. What all share is memory and the workers, which serve the
 * functions in turn. */
#ifndef TEPI_CARD_CARD_H
#define TEPI_CARD_CARD_H

#include "abi/faults.h"
#include "abi/link.h"
#include "abi/registers.h"
#include <stdint.h>

struct tepi_card;

struct tepi_card_config {
    uint64_t memory_bytes; /* card memory, for weights and scratch */
    uint32_t workers;      /* compute units, 1 to 256: so many programs run at once */
    uint32_t isa;          /* enum tepi_isa: use exactly this; TEPI_ISA_AUTO: the machine's best */
    uint32_t queues;       /* queue pairs, 2 to TEPI_QUEUES_MAX */
};

/* 0, -ENOMEM, -EINVAL (a field out of range), -ENOTSUP (this machine lacks the instruction set), or
 * the errno of starting a thread. */
int tepi_card_create(const struct tepi_card_config *config, struct tepi_card **card);
/* Closes its functions. All must be unplugged, and no thread may be inside their ports. */
void tepi_card_destroy(struct tepi_card *card);
/* What a bus plugs: the port of the card's first function. The card outlives it. */
struct tepi_device_port tepi_card_port(struct tepi_card *card);

/* What one host sees of the card. */
struct tepi_function;

/* One more; 0, -ENOMEM, or -ENOSPC where the card has no room for another. */
int tepi_function_open(struct tepi_card *card, struct tepi_function **function);
/* Unplugs it: its commands are aborted, and once none touches host memory any more its programs and
 * memory are given back. No thread may be inside its port. */
void tepi_function_close(struct tepi_function *function);
/* What a bus plugs; its device is the function. */
struct tepi_device_port tepi_function_port(struct tepi_function *function);

/* Surprise removal, for all functions: from now on reads give all ones, writes vanish, commands in
 * flight never complete. Returns when no thread of the card touches host memory any more. */
void tepi_card_detach(struct tepi_card *card);
/* Puts it back, as after a reset and with an empty fault log. */
void tepi_card_attach(struct tepi_card *card);
/* Lets a fault of severity FATAL happen: no function takes or completes anything until it is reset
 * itself. The first reset of any of them lets the card work again. */
void tepi_card_inject(struct tepi_card *card, enum tepi_fault fault, uint32_t info);

#endif
