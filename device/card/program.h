/* SPDX-License-Identifier: Apache-2.0 */
/* A loaded program: checked once, repacked for the kernels in use, then run any number of times.
 *
 * Hostile bytes end in a fault code, never in an access outside their own image, and a program that
 * passed the checks cannot reach outside its arena, constants, inputs and outputs. */
#ifndef TEPI_CARD_PROGRAM_H
#define TEPI_CARD_PROGRAM_H

#include "abi/queue.h"
#include "card/memory.h"
#include "card/team.h"
#include "kernels/kernels.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct tepi_program;

/* Outcome of a load or run: an enum tepi_fault (0: fine) and its info word. */
struct tepi_verdict {
    uint16_t fault;
    uint32_t info;
};

/* Checks `image` and builds the program from a copy of what it needs (the caller may reuse the
 * bytes at once). On success *program is set and holds `memory` for weights and tables. */
struct tepi_verdict tepi_program_load(const void *image, uint64_t bytes,
                                      const struct tepi_kernel_set *kernels,
                                      struct tepi_memory *memory, struct tepi_program **program);
/* As tepi_program_load; `consumed`, unless NULL, is told of each piece of the image once it has
 * been read. Some are read again: all for the checksum first, and constants that instructions
 * share. */
struct tepi_program_source {
    const void *image;
    uint64_t bytes;
    void (*consumed)(void *context, uint64_t offset, uint64_t bytes);
    void *context;
};
struct tepi_verdict tepi_program_load_from(const struct tepi_program_source *source,
                                           const struct tepi_kernel_set *kernels,
                                           struct tepi_memory *memory,
                                           struct tepi_program **program);
void tepi_program_free(struct tepi_program *program);

uint32_t tepi_program_inputs(const struct tepi_program *program);
uint32_t tepi_program_outputs(const struct tepi_program *program);
/* Bytes of one item at a port: inputs first, then outputs. */
uint64_t tepi_program_port_bytes(const struct tepi_program *program, uint32_t port);
uint32_t tepi_program_instructions(const struct tepi_program *program);
/* All of an instruction's record but its time. */
struct tepi_profile_record tepi_program_describe(const struct tepi_program *program,
                                                 uint32_t instruction);
uint64_t tepi_program_macs(const struct tepi_program *program);
/* Arena and kernel scratch for one item in flight; charged to the memory by whoever allocates. */
uint64_t tepi_program_scratch_bytes(const struct tepi_program *program);
/* What the program keeps in card memory behind its head: steps, packed weights, tables. Begins and
 * ends with a line of 64 bytes. To be written only while nobody runs the program. */
uint8_t *tepi_program_kept(const struct tepi_program *program, uint64_t *bytes);
/* Changes the highest bit of `bits` bytes of convolutions' weights, chosen by `seed`, whoever runs
 * the program meanwhile. */
void tepi_program_spoil(const struct tepi_program *program, uint32_t bits, uint64_t seed);
/* About how long one thread takes for those instructions that several can share. */
uint64_t tepi_program_shared_ns(const struct tepi_program *program);

/* Asked between instructions, and between the parts of a long one. */
struct tepi_run_control {
    const atomic_bool *abort; /* set: stop with TEPI_FAULT_ABORTED */
    uint64_t deadline_ns;     /* CLOCK_MONOTONIC; past it: TEPI_FAULT_DEADLINE. 0: none */
    uint64_t *elapsed_ns;     /* one per instruction, the time it took is added; NULL: none */
    struct tepi_team *team;   /* to share long instructions with; NULL: this thread alone */
};

/* Runs one item. ports: base of each input, then each output, one item each; they end where the
 * item ends (no TEPI_KERNEL_SLACK behind them). scratch: tepi_program_scratch_bytes, 64-byte
 * aligned. Safe from several threads at once with different scratch. */
struct tepi_verdict tepi_program_run(const struct tepi_program *program, void *const *ports,
                                     void *scratch, const struct tepi_run_control *control);

#endif
