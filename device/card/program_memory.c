/* SPDX-License-Identifier: Apache-2.0 */
/* A loaded program as bytes of card memory, for faults that change them. */
#include "card/program_internal.h"

/* Steps come behind the head and ports, all else behind them. */
uint8_t *tepi_program_kept(const struct tepi_program *program, uint64_t *bytes)
{
    const uint8_t *first = (const uint8_t *)program->steps;
    const uint64_t offset = (uint64_t)(first - program->block);
    *bytes = program->block_bytes - offset;
    return program->block + offset;
}

static uint64_t weight_bytes(const struct tepi_step *step)
{
    return step->code == TEPI_OP_CONV ? step->conv.kernel->packed_bytes(&step->conv.conv) : 0;
}

/* Byte `at` of all convolutions' packed weights one behind the other. */
static _Atomic uint8_t *weight(const struct tepi_program *program, uint64_t at)
{
    const struct tepi_step *step = program->steps;
    for (; at >= weight_bytes(step); step++)
        at -= weight_bytes(step);
    const uint8_t *packed = step->conv.conv.weights;
    return (_Atomic uint8_t *)(program->block + (packed - program->block) + at);
}

void tepi_program_spoil(const struct tepi_program *program, uint32_t bits, uint64_t seed)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < program->step_count; i++)
        bytes += weight_bytes(&program->steps[i]);
    for (uint32_t i = 0; i < bits && bytes; i++) {
        uint64_t at = (seed + i * UINT64_C(0x9e3779b97f4a7c15)) % bytes;
        /* What is 0 may be padding, which reaches no result. */
        for (uint64_t tried = 0; tried < bytes && !*weight(program, at); tried++)
            at = (at + 1) % bytes;
        atomic_fetch_xor_explicit(weight(program, at), 0x80, memory_order_relaxed);
    }
}
