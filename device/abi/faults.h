/* SPDX-License-Identifier: Apache-2.0 */
/* Numbered faults: stable codes that are never reused, the card's counterpart to NVIDIA's XID.
 *
 * TEPI_FAULTS(X) lists X(code, NAME, severity, gRPC status, meaning, remedy). A severity of
 * REQUEST concerns one command only, QUEUE stops the pair, FATAL needs a reset, GONE a card;
 * WARNING concerns nobody yet. */
#ifndef TEPI_ABI_FAULTS_H
#define TEPI_ABI_FAULTS_H

#include <stdint.h>

/* clang-format off */
#define TEPI_FAULTS(X) \
    X(0, OK, NONE, OK, \
      "no fault", \
      "nothing to do") \
    X(1, BAD_OPCODE, REQUEST, INTERNAL, \
      "the command's opcode is unknown", \
      "update the host software or the card's firmware so that their ABI ranges meet") \
    X(2, BAD_FIELD, REQUEST, INTERNAL, \
      "a field of the command is out of range; info: byte offset of the field", \
      "report it: the driver wrote a malformed entry") \
    X(3, STALE_GENERATION, REQUEST, UNAVAILABLE, \
      "the command was written before the card's last reset", \
      "submit it again; the driver does so after it has loaded the programs again") \
    X(4, NO_PROGRAM, REQUEST, UNAVAILABLE, \
      "the program handle is not loaded", \
      "load the program again") \
    X(5, DMA, REQUEST, UNAVAILABLE, \
      "an address of the command is not mapped for the card; info: segment index", \
      "retry; if it persists reset the card") \
    X(6, SCATTER_LIST, REQUEST, INTERNAL, \
      "the scatter list does not cover the program's inputs and outputs; info: port", \
      "report it: the caller's buffers do not fit the program") \
    X(7, DEADLINE, REQUEST, UNAVAILABLE, \
      "the command's deadline passed before it was done", \
      "retry with a longer deadline or less load") \
    X(8, ABORTED, REQUEST, CANCELLED, \
      "the command was aborted by the host", \
      "nothing to do") \
    X(9, NO_MEMORY, REQUEST, RESOURCE_EXHAUSTED, \
      "card memory is full; info: KiB missing", \
      "unload a model, or use a card with more memory") \
    X(10, INDEX, REQUEST, INVALID_ARGUMENT, \
      "an index of the input lies outside the table that it chooses from; info: instruction " \
      "index", \
      "send indices within the model's vocabulary") \
    X(16, PROGRAM_TRUNCATED, REQUEST, INVALID_ARGUMENT, \
      "the program is shorter than its header says", \
      "compile the model again") \
    X(17, PROGRAM_MAGIC, REQUEST, INVALID_ARGUMENT, \
      "this is not a card program", \
      "compile the model again") \
    X(18, PROGRAM_ABI, REQUEST, FAILED_PRECONDITION, \
      "the program's ABI is outside the card's range; info: its ABI", \
      "compile the model for this card, or update the card's firmware") \
    X(19, PROGRAM_CRC, REQUEST, DATA_LOSS, \
      "the program's bytes do not match its checksum", \
      "fetch or compile the model again; check the disk and the link") \
    X(20, PROGRAM_HEADER, REQUEST, INVALID_ARGUMENT, \
      "a field of the program's header is out of range; info: byte offset", \
      "compile the model again") \
    X(21, PROGRAM_TENSOR, REQUEST, INVALID_ARGUMENT, \
      "an entry of the tensor table is invalid; info: tensor index", \
      "compile the model again") \
    X(22, PROGRAM_INSTRUCTION, REQUEST, INVALID_ARGUMENT, \
      "an instruction is invalid or reaches outside its tensors; info: instruction " \
      "index", \
      "compile the model again") \
    X(23, PROGRAM_CONSTANT, REQUEST, INVALID_ARGUMENT, \
      "a constant lies outside the constant section; info: instruction index", \
      "compile the model again") \
    X(32, QUEUE_SETUP, QUEUE, INTERNAL, \
      "a queue pair was enabled with an invalid base, size or vector; info: queue", \
      "report it: the driver set the pair up wrongly") \
    X(33, QUEUE_OVERRUN, QUEUE, UNAVAILABLE, \
      "a doorbell moved past the ring; info: queue", \
      "the driver resets the queue; if it persists reset the card") \
    X(40, THERMAL_THROTTLE, WARNING, OK, \
      "the card is too hot and computes slower; info: how many times", \
      "look after the airflow; a reset starts it at full speed") \
    X(42, SLOW, WARNING, OK, \
      "a compute worker was slower than it should be; info: microseconds", \
      "nothing to do; replace the card if it goes on") \
    X(43, MEMORY_ECC_CORRECTED, WARNING, OK, \
      "a bit of card memory had changed and was corrected; info: byte offset in its program", \
      "nothing to do; replace the card if it goes on") \
    X(48, HANG, FATAL, UNAVAILABLE, \
      "a worker stopped making progress; info: worker", \
      "reset the card") \
    X(49, MEMORY_ECC, FATAL, UNAVAILABLE, \
      "an uncorrectable bit error in card memory", \
      "reset the card; replace it if it happens again") \
    X(50, FIRMWARE_ASSERT, FATAL, UNAVAILABLE, \
      "the card's firmware stopped; info: assertion", \
      "reset the card and report the dump") \
    X(51, THERMAL_SHUTDOWN, FATAL, UNAVAILABLE, \
      "the card was about to overheat and stopped", \
      "look after the airflow, then reset the card") \
    X(52, RESET_FAILED, FATAL, UNAVAILABLE, \
      "a reset did not bring the card to rest", \
      "reset it again; if it persists cut its power or replace it") \
    X(64, GONE, GONE, UNAVAILABLE, \
      "the card does not answer on its bus (removed, or lost power)", \
      "check the card's seat and power; the host takes it back by itself when it " \
      "returns") \
    X(65, TIMEOUT, FATAL, UNAVAILABLE, \
      "the card did not complete the command in time (found by the host)", \
      "the host resets the card; if it persists replace it") \
    X(66, CORRUPT_COMPLETION, FATAL, UNAVAILABLE, \
      "a completion names a command that is not in flight (found by the host)", \
      "the host resets the card; if it persists replace it") \
    X(67, NOT_A_CARD, GONE, FAILED_PRECONDITION, \
      "the device's magic or ABI range is not one that this driver knows", \
      "check the address, or update the host software or the card's firmware") \
    X(68, WRONG_GENERATION, FATAL, UNAVAILABLE, \
      "a completion names a generation before the last reset (found by the host); info: which", \
      "the host resets the card; if it persists replace it")
/* clang-format on */

#define TEPI_FAULT_ENUM(code, name, severity, grpc, meaning, remedy) TEPI_FAULT_##name = (code),
enum tepi_fault { TEPI_FAULTS(TEPI_FAULT_ENUM) };
#undef TEPI_FAULT_ENUM

/* Entry of the fault log page. */
struct tepi_fault_entry {
    uint64_t time_ns; /* TEPI_REG_CLOCK when the fault was seen */
    uint32_t code;    /* enum tepi_fault */
    uint32_t info;
    uint32_t generation;
    uint16_t queue;
    uint16_t command_id;
    uint32_t sequence; /* counts from 1 */
    uint32_t reserved;
};

_Static_assert(sizeof(struct tepi_fault_entry) == 32, "a fault log entry is 32 bytes");

#endif
