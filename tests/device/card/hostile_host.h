/* SPDX-License-Identifier: Apache-2.0 */
/* A host whose every act is drawn from bytes: what the fuzzer and its deterministic smoke run. */
#ifndef TEPI_TESTS_CARD_HOSTILE_HOST_H
#define TEPI_TESTS_CARD_HOSTILE_HOST_H

#include <stddef.h>
#include <stdint.h>

/* Makes a card, does to it what `bytes` say, and takes it down. Aborts where the card keeps host
 * memory or loses card memory. */
void hostile_host(const uint8_t *bytes, size_t count);

#endif
