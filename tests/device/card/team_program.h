/* SPDX-License-Identifier: Apache-2.0 */
/* Random programs with work enough to be shared by several threads. */
#ifndef TEPI_TESTS_CARD_TEAM_PROGRAM_H
#define TEPI_TESTS_CARD_TEAM_PROGRAM_H

#include "card/builder.h"

/* An image of one input and one output of uint8, for free(): convolutions of all kinds, pools and
 * elementwise operations in a chain. *items: bytes of the input, then of the output. */
uint8_t *team_program(struct chance *chance, size_t *bytes, uint32_t items[2]);

#endif
