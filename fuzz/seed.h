/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target defines: libFuzzer's entry point, and a valid input to start from. */
#ifndef TEPI_FUZZ_SEED_H
#define TEPI_FUZZ_SEED_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Writes the seed; 0 if it does not fit. */
size_t fuzz_seed(uint8_t *data, size_t room);

#endif
