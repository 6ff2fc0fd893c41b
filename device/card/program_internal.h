/* SPDX-License-Identifier: Apache-2.0 */
/* The loaded program, shared by the loader that fills it and the executor that reads it. */
#ifndef TEPI_CARD_PROGRAM_INTERNAL_H
#define TEPI_CARD_PROGRAM_INTERNAL_H

#include "card/exec.h"

/* Lies at the start of its own block of card memory, ahead of its steps and constants. */
struct tepi_program {
    const struct tepi_kernel_set *kernels;
    struct tepi_memory *memory;
    uint8_t *block;
    uint64_t block_bytes;
    uint64_t arena_bytes; /* rounded up, with slack: where the kernels' scratch begins */
    uint64_t scratch_bytes;
    uint64_t macs, shared_ns;
    uint32_t inputs, outputs;
    const uint64_t *port_bytes; /* inputs, then outputs */
    const struct tepi_step *steps;
    uint32_t step_count;
};

/* Of an instruction that the checks have passed. */
struct tepi_cost tepi_program_cost(const struct tepi_image *image,
                                   const struct tepi_instruction *instruction);

#endif
