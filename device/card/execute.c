/* SPDX-License-Identifier: Apache-2.0 */
/* EXECUTE: scatter list to ports, item by item.
 *
 * The list is copied once and checked whole before anything runs. Where one piece of host memory
 * holds a whole item the program works on it in place; where an item is cut across pieces it goes
 * through staging in card memory. */
#include "card/state.h"

#include <stdlib.h>
#include <string.h>

enum { FEW_SEGMENTS = 16, PORT_ALIGN = 4 /* of float32 */ };

#define NO_SEGMENT UINT32_MAX

struct piece {
    unsigned char *address;
    uint64_t iova;
    uint32_t bytes;
    uint32_t port;
    uint32_t next; /* the port's next piece, or NO_SEGMENT */
};

struct port_cursor {
    uint64_t item_bytes;
    uint32_t piece, last;
    uint64_t offset; /* in the piece */
    uint64_t total;  /* bytes of all pieces */
    unsigned char *staging;
};

struct execution {
    struct tepi_card *card;
    struct tepi_function *function;
    struct tepi_card_command *command;
    struct tepi_program *program;
    uint32_t inputs, ports;
    uint32_t count, acquired; /* pieces */
    struct piece *pieces;
    struct piece few[FEW_SEGMENTS];
    struct port_cursor cursors[TEPI_PORTS_MAX];
    uint64_t copy_in_ns, compute_ns, copy_out_ns;
    struct tepi_card_profile profile;
    struct tepi_team *team;
};

static struct tepi_verdict fault(uint16_t code, uint32_t info)
{
    return (struct tepi_verdict){code, info};
}

/* One copy of the host's list: what is checked is what is used. */
static struct tepi_verdict read_list(struct execution *run)
{
    struct tepi_host_port *host = &run->function->host;
    const struct tepi_submission *entry = &run->command->entry;
    const uint64_t bytes = (uint64_t)run->count * sizeof(struct tepi_segment);
    const struct tepi_segment *list = tepi_function_acquire(run->function, entry->list_iova, bytes);
    if (!list) {
        return fault(TEPI_FAULT_DMA, TEPI_NONE);
    }
    for (uint32_t i = 0; i < run->count; i++) {
        struct tepi_segment segment;
        memcpy(&segment, &list[i], sizeof segment);
        run->pieces[i] = (struct piece){
            .iova = segment.iova,
            .bytes = segment.flags ? 0 : segment.bytes, /* 0 is refused below */
            .port = segment.port,
            .next = NO_SEGMENT,
        };
    }
    host->dma_release(host->host, entry->list_iova, bytes);
    return fault(TEPI_FAULT_OK, 0);
}

/* Every port's pieces together hold exactly `batch` items. */
static struct tepi_verdict check_list(struct execution *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const struct piece *piece = &run->pieces[i];
        if (piece->port >= run->ports || piece->bytes == 0) {
            return fault(TEPI_FAULT_SCATTER_LIST, piece->port);
        }
        struct port_cursor *cursor = &run->cursors[piece->port];
        if (cursor->last == NO_SEGMENT) {
            cursor->piece = i;
        } else {
            run->pieces[cursor->last].next = i;
        }
        cursor->last = i;
        cursor->total += piece->bytes;
    }
    for (uint32_t port = 0; port < run->ports; port++) {
        uint64_t wanted;
        const struct port_cursor *cursor = &run->cursors[port];
        if (__builtin_mul_overflow(cursor->item_bytes, (uint64_t)run->command->entry.batch,
                                   &wanted) ||
            wanted != cursor->total) {
            return fault(TEPI_FAULT_SCATTER_LIST, port);
        }
    }
    return fault(TEPI_FAULT_OK, 0);
}

static struct tepi_verdict acquire_pieces(struct execution *run)
{
    for (; run->acquired < run->count; run->acquired++) {
        struct piece *piece = &run->pieces[run->acquired];
        piece->address = tepi_function_acquire(run->function, piece->iova, piece->bytes);
        if (!piece->address) {
            return fault(TEPI_FAULT_DMA, run->acquired);
        }
    }
    return fault(TEPI_FAULT_OK, 0);
}

static void step(const struct execution *run, struct port_cursor *cursor, uint64_t bytes)
{
    cursor->offset += bytes;
    if (cursor->offset == run->pieces[cursor->piece].bytes) {
        cursor->piece = run->pieces[cursor->piece].next;
        cursor->offset = 0;
    }
}

/* Copies one item between the port's pieces and its staging, and moves the cursor past it. */
static void move_item(const struct execution *run, struct port_cursor *cursor, bool to_host)
{
    uint64_t done = 0;
    while (done < cursor->item_bytes) {
        const struct piece *piece = &run->pieces[cursor->piece];
        uint64_t some = piece->bytes - cursor->offset;
        some = some < cursor->item_bytes - done ? some : cursor->item_bytes - done;
        if (to_host) {
            memcpy(piece->address + cursor->offset, cursor->staging + done, some);
        } else {
            memcpy(cursor->staging + done, piece->address + cursor->offset, some);
        }
        done += some;
        step(run, cursor, some);
    }
}

/* The item at the cursor where it lies in one piece, aligned for float32; else NULL. */
static unsigned char *in_place(const struct execution *run, const struct port_cursor *cursor)
{
    const struct piece *piece = &run->pieces[cursor->piece];
    unsigned char *address = piece->address + cursor->offset;
    const bool whole = piece->bytes - cursor->offset >= cursor->item_bytes;
    return whole && (uintptr_t)address % PORT_ALIGN == 0 ? address : NULL;
}

static bool stage(struct execution *run, struct port_cursor *cursor)
{
    if (!cursor->staging) {
        cursor->staging = tepi_memory_take(&run->card->memory, cursor->item_bytes);
    }
    return cursor->staging != NULL;
}

static struct tepi_verdict run_item(struct execution *run, void *scratch)
{
    void *addresses[TEPI_PORTS_MAX];
    bool staged[TEPI_PORTS_MAX];
    const struct tepi_run_control control = {
        .abort = &run->command->abort,
        .deadline_ns = run->command->deadline_ns,
        .elapsed_ns = run->profile.elapsed_ns,
        .team = run->team,
    };
    const uint64_t start = tepi_card_clock_ns();
    bool any_staged = false;
    for (uint32_t port = 0; port < run->ports; port++) {
        struct port_cursor *cursor = &run->cursors[port];
        addresses[port] = in_place(run, cursor);
        staged[port] = !addresses[port];
        if (!staged[port]) {
            step(run, cursor, cursor->item_bytes);
            continue;
        }
        any_staged = true;
        if (!stage(run, cursor)) {
            return fault(TEPI_FAULT_NO_MEMORY, (uint32_t)(cursor->item_bytes >> 10) + 1);
        }
        addresses[port] = cursor->staging;
        if (port < run->inputs) {
            move_item(run, cursor, false);
        }
    }
    const uint64_t ready = any_staged ? tepi_card_clock_ns() : start;
    struct tepi_verdict verdict = tepi_program_run(run->program, addresses, scratch, &control);
    const uint64_t computed = tepi_card_clock_ns();
    run->copy_in_ns += ready - start;
    run->compute_ns += computed - ready;
    if (any_staged && verdict.fault == TEPI_FAULT_OK) {
        for (uint32_t port = run->inputs; port < run->ports; port++) {
            if (staged[port]) {
                move_item(run, &run->cursors[port], true);
            }
        }
        run->copy_out_ns += tepi_card_clock_ns() - computed;
    }
    return verdict;
}

static void learn(struct tepi_card_program *program, uint64_t item_ns)
{
    uint64_t before = atomic_load_explicit(&program->item_ns, memory_order_relaxed);
    uint64_t after = before ? (3 * before + item_ns) / 4 : item_ns;
    atomic_store_explicit(&program->item_ns, after ? after : 1, memory_order_relaxed);
}

static struct tepi_verdict run_batch(struct execution *run, void *scratch)
{
    struct tepi_verdict verdict = {TEPI_FAULT_OK, 0};
    const uint32_t batch = run->command->entry.batch;
    for (uint32_t item = 0; item < batch && verdict.fault == TEPI_FAULT_OK; item++) {
        /* A program without instructions would look at neither. */
        if (atomic_load_explicit(&run->command->abort, memory_order_relaxed)) {
            return fault(TEPI_FAULT_ABORTED, 0);
        }
        verdict = run_item(run, scratch);
    }
    if (verdict.fault == TEPI_FAULT_OK) {
        learn(run->command->program, run->compute_ns / batch);
    }
    return verdict;
}

static uint32_t saturate32(uint64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static void release(struct execution *run)
{
    struct tepi_host_port *host = &run->function->host;
    for (uint32_t i = 0; i < run->acquired; i++) {
        host->dma_release(host->host, run->pieces[i].iova, run->pieces[i].bytes);
    }
    for (uint32_t port = 0; port < run->ports; port++) {
        struct port_cursor *cursor = &run->cursors[port];
        if (cursor->staging) {
            tepi_memory_give(&run->card->memory, cursor->staging, cursor->item_bytes);
        }
    }
    if (run->pieces != run->few) {
        free(run->pieces);
    }
}

struct tepi_verdict tepi_card_execute(struct tepi_card_command *command,
                                      struct tepi_card_unit *unit)
{
    struct execution run;
    run.function = command->queue->function;
    run.card = run.function->card;
    run.command = command;
    run.program = command->program->program;
    run.inputs = tepi_program_inputs(run.program);
    run.ports = run.inputs + tepi_program_outputs(run.program);
    run.count = command->entry.segments;
    run.acquired = 0;
    run.copy_in_ns = run.compute_ns = run.copy_out_ns = 0;
    run.pieces = run.few;
    run.team = NULL;
    run.profile = (struct tepi_card_profile){0};
    for (uint32_t port = 0; port < run.ports; port++) {
        run.cursors[port] = (struct port_cursor){
            .item_bytes = tepi_program_port_bytes(run.program, port),
            .piece = NO_SEGMENT,
            .last = NO_SEGMENT,
        };
    }
    if (run.count > FEW_SEGMENTS) {
        run.pieces = malloc(run.count * sizeof *run.pieces);
        if (!run.pieces) {
            return fault(TEPI_FAULT_NO_MEMORY, 1);
        }
    }
    struct tepi_verdict verdict = read_list(&run);
    if (verdict.fault == TEPI_FAULT_OK) {
        verdict = check_list(&run);
    }
    if (verdict.fault == TEPI_FAULT_OK) {
        verdict = acquire_pieces(&run);
    }
    if (verdict.fault == TEPI_FAULT_OK && command->entry.flags & TEPI_EXECUTE_PROFILE) {
        verdict = tepi_card_profile_begin(command, &run.profile);
    }
    if (verdict.fault == TEPI_FAULT_OK) {
        run.team = tepi_card_team_open(run.card, unit, run.program);
        verdict = run_batch(&run, unit->scratch);
    }
    if (run.team) {
        tepi_card_team_close(run.card, unit);
    }
    if (run.profile.elapsed_ns) {
        tepi_card_profile_end(command, &run.profile, verdict.fault == TEPI_FAULT_OK);
    }
    release(&run);
    tepi_card_add(&unit->busy_ns, run.copy_in_ns + run.compute_ns + run.copy_out_ns);
    tepi_card_add(&unit->executed, 1);
    command->completion.copy_in_ns = saturate32(run.copy_in_ns);
    command->completion.compute_ns = saturate32(run.compute_ns);
    command->completion.copy_out_ns = saturate32(run.copy_out_ns);
    return verdict;
}
