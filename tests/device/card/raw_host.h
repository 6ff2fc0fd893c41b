/* SPDX-License-Identifier: Apache-2.0 */
/* A host without a driver: writes any bytes into rings and registers, and watches what the card
 * does with them. One window of memory is mapped; everything else faults. */
#ifndef TEPI_TESTS_CARD_RAW_HOST_H
#define TEPI_TESTS_CARD_RAW_HOST_H

#include "abi/queue.h"
#include "card/builder.h"
#include "card/card.h"
#include <stdatomic.h>
#include <stdbool.h>

#define RAW_WINDOW 0x100000000ull /* IOVA of the mapped memory */
#define RAW_BYTES  (8u << 20)
#define RAW_ITEM   64u

enum { RAW_QUEUES = 4, RAW_RINGS_BYTES = 1 << 19 /* of the window, taken by the rings */ };

struct raw_host {
    struct tepi_card *card;
    struct tepi_function *function; /* NULL: the card's first, and the card is this host's own */
    struct tepi_device_port port;
    struct tepi_host_port host;
    unsigned char *memory;
    _Atomic int held; /* DMA acquisitions not released */
    _Atomic bool unmapped;
    _Atomic unsigned interrupts[TEPI_QUEUES_MAX];
    uint32_t entries[RAW_QUEUES], tail[RAW_QUEUES], head[RAW_QUEUES];
};

struct raw_options {
    uint64_t memory_bytes; /* 0: 64 MiB */
    uint32_t workers;      /* 0: 1 */
    bool plugged_only;     /* no queues, not enabled */
};

/* A plugged, enabled card with queues 0 (lends) and 1 (does not), 16 entries each. */
bool raw_open(struct raw_host *raw, const struct raw_options *options);
/* The same for a function of its own on the card of another host, which closes last. */
bool raw_join(struct raw_host *raw, struct tepi_card *card);
void raw_close(struct raw_host *raw);

uint32_t raw_read32(struct raw_host *raw, uint32_t offset);
uint64_t raw_read64(struct raw_host *raw, uint32_t offset);
void raw_write32(struct raw_host *raw, uint32_t offset, uint32_t value);
void raw_write64(struct raw_host *raw, uint32_t offset, uint64_t value);

/* Sets the pair up in its place of the window; the ENABLE register afterwards. */
uint32_t raw_queue(struct raw_host *raw, uint32_t queue, uint32_t entries, uint32_t enable);
/* Enables the card and queues 0 and 1, as after a reset. */
void raw_start(struct raw_host *raw);
struct tepi_submission *raw_slot(struct raw_host *raw, uint32_t queue, uint32_t index);
struct tepi_completion *raw_completion(struct raw_host *raw, uint32_t queue, uint32_t index);

/* Entry with the current generation; submit writes it and rings. */
struct tepi_submission raw_entry(struct raw_host *raw, uint8_t opcode, uint16_t command_id);
void raw_submit(struct raw_host *raw, uint32_t queue, const struct tepi_submission *entry);
/* Waits for the next completion of the pair, at most 20 s; false: none came. */
bool raw_wait(struct raw_host *raw, uint32_t queue, struct tepi_completion *completion);
/* Submits and waits; the fault, or UINT32_MAX where nothing came or it was not this command. */
uint32_t raw_do(struct raw_host *raw, uint32_t queue, const struct tepi_submission *entry,
                struct tepi_completion *completion);

/* Puts bytes into the window at `offset`, counted from behind the rings; their IOVA. */
uint64_t raw_put(struct raw_host *raw, uint32_t offset, const void *bytes, size_t count);
/* Image of a program that copies `elements` bytes; for free(). */
uint8_t *raw_copy_image(uint32_t elements, size_t *bytes);
/* Loads the image by queue 0; the fault. */
uint32_t raw_load(struct raw_host *raw, const void *image, size_t bytes, uint32_t *handle);
/* Loads a copy program. */
uint32_t raw_load_copy(struct raw_host *raw, uint32_t elements);

/* An EXECUTE of a copy program of RAW_ITEM elements. */
struct tepi_submission raw_copy_entry(struct raw_host *raw, uint32_t program, uint16_t command_id);
/* One by queue 1; whether the card has copied an item of `value`. */
bool raw_copies(struct raw_host *raw, uint32_t program, uint8_t value);

/* An EXECUTE of a copy program of 64 elements that runs for minutes: its 4096 pieces are all the
 * same `bytes` of memory. The first output byte changes from 0 when it has begun. */
struct tepi_submission raw_endless(struct raw_host *raw, uint32_t handle, uint16_t command_id);
bool raw_has_begun(struct raw_host *raw);

#endif
