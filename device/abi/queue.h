/* SPDX-License-Identifier: Apache-2.0 */
/* Submission and completion entries, and the scatter lists of EXECUTE. Little-endian.
 *
 * The host writes entries into the submission ring in host memory and rings the doorbell; the card
 * fetches each entry once, by copy. The card writes a completion whose phase bit flips every time
 * the ring wraps (the first pass writes 1) and raises the queue's interrupt. The field `tag`, with
 * the phase, is written last. Commands of one queue may complete out of order. */
#ifndef TEPI_ABI_QUEUE_H
#define TEPI_ABI_QUEUE_H

#include <stdint.h>

enum tepi_opcode {
    TEPI_CMD_NOP = 0,
    TEPI_CMD_LOAD_PROGRAM = 1, /* data_iova, data_bytes: program image; completion.result: handle */
    TEPI_CMD_UNLOAD = 2,       /* program; waits for no one: running commands keep it alive */
    TEPI_CMD_EXECUTE = 3,      /* program, batch, list_iova, segments, deadline_ns */
    TEPI_CMD_ABORT = 4,        /* program field holds the command id to abort on this queue */
};

struct tepi_submission {
    uint8_t opcode; /* enum tepi_opcode */
    uint8_t flags;  /* TEPI_EXECUTE_* for EXECUTE; all else must be 0 */
    uint16_t command_id;
    uint32_t generation;  /* of the card when the host wrote the entry; stale entries are refused */
    uint32_t program;     /* handle, or a command id for ABORT */
    uint32_t batch;       /* items; each runs the program once. At least 1 */
    uint64_t list_iova;   /* array of struct tepi_segment */
    uint32_t segments;    /* entries of that array */
    uint32_t reserved0;   /* must be 0 */
    uint64_t deadline_ns; /* from the doorbell; 0: none */
    uint64_t data_iova;
    uint64_t data_bytes;
    uint64_t reserved1; /* must be 0 */
};

/* One piece of one input or output. Pieces of a port follow each other in the list in order and
 * together hold batch * (bytes of the port's tensor). */
struct tepi_segment {
    uint64_t iova;
    uint32_t bytes;
    uint16_t port;  /* inputs 0..inputs-1, then outputs inputs..inputs+outputs-1 */
    uint16_t flags; /* must be 0 */
};

/* EXECUTE also times each instruction. Where it ends well, one record for each instruction of the
 * program has been written, in running order, to data_iova; data_bytes must hold them all
 * (BAD_FIELD, its info the offset of data_bytes, where it does not). */
#define TEPI_EXECUTE_PROFILE 0x1u

struct tepi_profile_record {
    uint32_t instruction;   /* index in the program */
    uint32_t node;          /* struct tepi_instruction */
    uint64_t elapsed_ns;    /* all items of the command together */
    uint64_t macs;          /* multiply-accumulates of one item */
    uint64_t bytes_read;    /* one item: operands without halo, weights, tables */
    uint64_t bytes_written; /* one item */
    uint32_t code;          /* enum tepi_instruction_code */
    uint32_t reserved;      /* 0 */
    char kernel[48];        /* what computed it, for reports; ends with 0 */
};

struct tepi_completion {
    uint32_t result;     /* LOAD_PROGRAM: handle; EXECUTE: records of a profile */
    uint32_t info;       /* detail of the fault in `status` */
    uint32_t generation; /* of the card when it took the entry */
    uint32_t queue_ns;   /* doorbell to start, saturating */
    uint32_t copy_in_ns;
    uint32_t compute_ns;
    uint32_t copy_out_ns;
    uint32_t tag; /* command_id << 16 | status << 1 | phase, status an enum tepi_fault < 32768 */
};

#define TEPI_TAG(command_id, status, phase)                                                        \
    ((uint32_t)(command_id) << 16 | (uint32_t)(status) << 1 | (uint32_t)(phase))
#define TEPI_TAG_COMMAND_ID(tag) ((uint16_t)((tag) >> 16))
#define TEPI_TAG_STATUS(tag)     ((uint16_t)((tag) >> 1 & 0x7fffu))
#define TEPI_TAG_PHASE(tag)      ((tag) & 1u)

#define TEPI_SEGMENTS_MAX      4096u
#define TEPI_PROGRAM_BYTES_MAX (1ull << 32)

_Static_assert(sizeof(struct tepi_submission) == 64, "a submission entry is 64 bytes");
_Static_assert(sizeof(struct tepi_segment) == 16, "a segment is 16 bytes");
_Static_assert(sizeof(struct tepi_profile_record) == 96, "a profile record is 96 bytes");
_Static_assert(sizeof(struct tepi_completion) == 32, "a completion entry is 32 bytes");

#endif
