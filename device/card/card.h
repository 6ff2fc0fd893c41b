/* SPDX-License-Identifier: Apache-2.0 */
/* The software card: a card in this process, seen only through the slot of abi/link.h. */
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
/* The card must be unplugged, and no thread may be inside its port. */
void tepi_card_destroy(struct tepi_card *card);
/* What a bus plugs. The card outlives it. */
struct tepi_device_port tepi_card_port(struct tepi_card *card);

/* Surprise removal: from now on reads give all ones, writes vanish, commands in flight never
 * complete. Returns when no thread of the card touches host memory any more. */
void tepi_card_detach(struct tepi_card *card);
/* Puts it back, as after a reset and with an empty fault log. */
void tepi_card_attach(struct tepi_card *card);
/* Lets a fault of severity FATAL happen: the card takes and completes nothing until it is reset. */
void tepi_card_inject(struct tepi_card *card, enum tepi_fault fault, uint32_t info);

#endif
