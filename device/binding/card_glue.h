/* SPDX-License-Identifier: Apache-2.0 */
/* What the binding adds to the driver: a card put together with its bus, and lifetimes that suit a
 * language with finalizers. Also the one header that the generated module includes. */
#ifndef TEPI_BINDING_CARD_GLUE_H
#define TEPI_BINDING_CARD_GLUE_H

#include "abi/faults.h"
#include "abi/program.h"
#include "abi/queue.h"
#include "abi/registers.h"
#include "driver/controller.h"
#include "driver/loaded.h"

/* The fault table of abi/faults.h, as data. */
struct tepi_fault_row {
    uint32_t code;
    const char *name, *severity, *grpc, *meaning, *remedy;
};
extern const struct tepi_fault_row tepi_fault_rows[];
extern const uint32_t tepi_fault_row_count;

/* A card in its slot. Counted: by whoever opened it and by each program held. */
struct tepi_slot_card;
/* A program; keeps its card's memory, not its life, so that it may be released after the card. */
struct tepi_held_program;

/* A run for an event loop that the card has ended. */
struct tepi_ended {
    struct tepi_run *run;
    struct tepi_completion completion;
};

/* Makes a software card and opens it. Errno as tepi_card_create and tepi_controller_open. */
int tepi_slot_open(uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                   struct tepi_slot_card **card, struct tepi_failure *failure);
/* Opens the card behind the vfio-user socket at `path`. Errno as tepi_bus_vfio_user_open and
 * tepi_controller_open. */
int tepi_slot_connect(const char *path, struct tepi_slot_card **card, struct tepi_failure *failure);
/* Ends all work with GONE; later calls fail, but the memory stays until released. */
void tepi_slot_shut(struct tepi_slot_card *card);
void tepi_slot_release(struct tepi_slot_card *card);
/* Takes the card off its bus; one in another process is left instead, and lives on. */
void tepi_slot_detach(struct tepi_slot_card *card);
/* Puts the card back if it is out, and resets it unless it is in working order. */
int tepi_slot_attach(struct tepi_slot_card *card, struct tepi_failure *failure);
int tepi_slot_reset(struct tepi_slot_card *card, struct tepi_failure *failure);
/* 0, or -ENOTSUP for a card in another process. */
int tepi_slot_inject(struct tepi_slot_card *card, uint32_t fault, uint32_t info);
bool tepi_slot_alive(struct tepi_slot_card *card);
uint32_t tepi_slot_epoch(struct tepi_slot_card *card);
int tepi_slot_info(struct tepi_slot_card *card, struct tepi_controller_info *info);
uint32_t tepi_slot_faults(struct tepi_slot_card *card, struct tepi_fault_entry *log, uint32_t most);
int tepi_slot_nop(struct tepi_slot_card *card, struct tepi_failure *failure);
int tepi_slot_eventfd(struct tepi_slot_card *card);
uint32_t tepi_slot_collect(struct tepi_slot_card *card, struct tepi_ended *ended, uint32_t most);

/* A software card behind a vfio-user socket: each client gets a function of it. Errno as
 * tepi_card_create and tepi_endpoint_open. */
struct tepi_card_server;
int tepi_server_open(const char *path, uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                     struct tepi_card_server **server);
void tepi_server_close(struct tepi_card_server *server);
uint32_t tepi_server_clients(struct tepi_card_server *server);

/* Gives memory that the process freed back to the operating system. */
void tepi_give_back(void);
int tepi_held_open(struct tepi_slot_card *card, const void *image, uint64_t bytes, bool file,
                   struct tepi_held_program **program, struct tepi_failure *failure);
int tepi_held_reload(struct tepi_held_program *program, const void *image, uint64_t bytes,
                     bool file, struct tepi_failure *failure);
void tepi_held_unload(struct tepi_held_program *program);
void tepi_held_release(struct tepi_held_program *program);
uint32_t tepi_held_epoch(struct tepi_held_program *program);
uint32_t tepi_held_inputs(struct tepi_held_program *program);
uint32_t tepi_held_outputs(struct tepi_held_program *program);
uint64_t tepi_held_port_bytes(struct tepi_held_program *program, uint32_t port);
int tepi_held_run(struct tepi_held_program *program, void **ports, uint32_t batch,
                  uint64_t deadline_ns, struct tepi_timings *timings, struct tepi_failure *failure);
/* Runs and brings back `count` records, one for each instruction of the program. */
int tepi_held_profile(struct tepi_held_program *program, void **ports, uint32_t batch,
                      struct tepi_profile_record *records, uint32_t count,
                      struct tepi_timings *timings, struct tepi_failure *failure);
int tepi_held_start(struct tepi_held_program *program, void **ports, uint32_t batch,
                    uint64_t deadline_ns, struct tepi_run **run, struct tepi_failure *failure);
void tepi_held_abort(struct tepi_run *run);
/* Declares the run lost: the card did not end it, nor obey its abort. */
void tepi_held_expire(struct tepi_held_program *program, struct tepi_run *run);
int tepi_held_end(struct tepi_ended *ended, bool discard, struct tepi_timings *timings,
                  struct tepi_failure *failure);

#endif
