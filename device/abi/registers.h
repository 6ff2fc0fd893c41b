/* SPDX-License-Identifier: Apache-2.0 */
/* BAR0: identification, capabilities, control, fault log, queue set-up and doorbells.
 *
 * All registers are little-endian. 64-bit registers take one aligned 64-bit access. A card that is
 * gone from the bus reads as all ones, at every offset and width. */
#ifndef TEPI_ABI_REGISTERS_H
#define TEPI_ABI_REGISTERS_H

#define TEPI_BAR0_BYTES 0x4000u

/* Identification and capabilities, read-only. */
#define TEPI_REG_MAGIC             0x000u /* u32: TEPI_MAGIC */
#define TEPI_REG_ABI_MIN           0x004u /* u32: oldest program and queue ABI the card takes */
#define TEPI_REG_ABI_MAX           0x008u /* u32: newest */
#define TEPI_REG_ISA               0x00cu /* u32: enum tepi_isa, the instruction set in use */
#define TEPI_REG_CAP_OPCODES       0x010u /* u64: bit n set: program opcode n runs */
#define TEPI_REG_CAP_MEMORY        0x018u /* u64: bytes of card memory */
#define TEPI_REG_CAP_QUEUES        0x020u /* u32: queue pairs */
#define TEPI_REG_CAP_QUEUE_ENTRIES 0x024u /* u32: most entries in a queue, a power of two */
#define TEPI_REG_MEMORY_FREE       0x028u /* u64: bytes not taken by programs and scratch */
#define TEPI_REG_CAP_WORKERS       0x030u /* u32: compute workers */

/* Control and state. */
#define TEPI_REG_CONTROL     0x034u /* u32, read-write: TEPI_CONTROL_* */
#define TEPI_REG_STATUS      0x038u /* u32: TEPI_STATUS_* */
#define TEPI_REG_RESET       0x03cu /* u32, write TEPI_RESET_KEY: drop queues and programs */
#define TEPI_REG_GENERATION  0x040u /* u32: counts resets, starts at 1, never 0 */
#define TEPI_REG_FAULT_CODE  0x044u /* u32: newest enum tepi_fault, 0 after reset */
#define TEPI_REG_FAULT_INFO  0x048u /* u32: meaning depends on the code */
#define TEPI_REG_FAULT_COUNT 0x04cu /* u32: entries ever written to the fault log */
#define TEPI_REG_HEARTBEAT   0x050u /* u64: grows while the card's firmware runs */
#define TEPI_REG_CLOCK       0x058u /* u64: card time in nanoseconds, stamps of the fault log */

/* Health and work of the whole card; only ever for people to look at. */
#define TEPI_REG_TEMPERATURE   0x060u /* u32: millidegrees Celsius */
#define TEPI_REG_POWER         0x064u /* u32: milliwatts */
#define TEPI_REG_EXECUTED      0x068u /* u64: EXECUTEs begun by a worker, of all functions */
#define TEPI_REG_ECC_CORRECTED 0x070u /* u32: bits of card memory corrected since power on */

/* Busy time of worker w, u64 nanoseconds: TEPI_REG_BUSY + w * 8. A page of its own, behind the
 * doorbells, so that a bus may map these. */
#define TEPI_REG_BUSY 0x2000u

/* Queue pair q: TEPI_REG_QUEUE + q * TEPI_REG_QUEUE_STRIDE. Base addresses are IOVAs and must be
 * page-aligned. Writing 1 to ENABLE attaches the pair with both indices at 0, 0 detaches it. */
#define TEPI_QUEUES_MAX       16u
#define TEPI_REG_QUEUE        0x100u
#define TEPI_REG_QUEUE_STRIDE 0x020u
#define TEPI_QUEUE_SQ_BASE    0x00u /* u64 */
#define TEPI_QUEUE_CQ_BASE    0x08u /* u64 */
#define TEPI_QUEUE_ENTRIES    0x10u /* u32: both rings, a power of two, at least 2 */
#define TEPI_QUEUE_VECTOR     0x14u /* u32: interrupt vector */
#define TEPI_QUEUE_ENABLE     0x18u /* u32: 1, with TEPI_QUEUE_ENABLE_LEND if wanted; or 0 */

/* A hint: the thread that rings this pair's doorbell waits for the completion and has nothing else
 * to do. A card that computes on the host's own cores may then work inside the doorbell write, for
 * as long as it takes; other cards ignore it. */
#define TEPI_QUEUE_ENABLE_LEND 2u

/* Fault log page: entry n of a ring at TEPI_REG_FAULT_LOG + (n % ENTRIES) * 32, see faults.h. */
#define TEPI_REG_FAULT_LOG     0x800u
#define TEPI_FAULT_LOG_ENTRIES 64u

/* Doorbells, write-only u32, of pair q: free-running tail of the submission ring and free-running
 * head of the completion ring (taken modulo the ring's entries). A value behind the newest, by up
 * to half their range, is ignored: doorbells of two threads may overtake each other. A command is
 * fetched only while its completion has a place in the completion ring. */
#define TEPI_REG_DOORBELL        0x1000u
#define TEPI_REG_DOORBELL_STRIDE 8u
#define TEPI_DOORBELL_SQ_TAIL    0u
#define TEPI_DOORBELL_CQ_HEAD    4u

#define TEPI_MAGIC       0x49504554u /* "TEPI" */
#define TEPI_ABI_VERSION 1u
#define TEPI_RESET_KEY   0x54455352u /* "RSET" */
#define TEPI_ALL_ONES    0xffffffffu /* what a card that is gone reads as */

#define TEPI_CONTROL_ENABLE 0x1u

#define TEPI_STATUS_READY     0x1u /* commands are taken */
#define TEPI_STATUS_FAULT     0x2u /* a fault of severity FATAL stands; reset is needed */
#define TEPI_STATUS_RESETTING 0x4u /* READY returns when the reset is done */
#define TEPI_STATUS_THROTTLED 0x8u /* too hot: the card computes slower than it could */

/* Instruction set of the compute workers, TEPI_REG_ISA; a higher one includes the lower. */
enum tepi_isa {
    TEPI_ISA_AUTO = 0, /* in a configuration: the best that the machine has */
    TEPI_ISA_SCALAR = 1,
    TEPI_ISA_AVX2 = 2, /* with FMA; AVX-VNNI is used where the machine has it */
    TEPI_ISA_AVX512VNNI = 3,
    TEPI_ISA_AMXINT8 = 4,
};

#endif
