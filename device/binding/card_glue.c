/* SPDX-License-Identifier: Apache-2.0 */
/* A card and its bus as one counted object, and programs that hold it. */
#include "binding/card_glue.h"

#include "card/card.h"
#include "driver/bus_inproc.h"
#include "driver/bus_vfio.h"
#include "driver/bus_vfio_user.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { QUEUES = 4, COLLECT_MOST = 64 };

#define FAULT_ROW(code, name, severity, grpc, meaning, remedy)                                     \
    {(code), #name, #severity, #grpc, meaning, remedy},
const struct tepi_fault_row tepi_fault_rows[] = {TEPI_FAULTS(FAULT_ROW)};
#undef FAULT_ROW
const uint32_t tepi_fault_row_count = sizeof tepi_fault_rows / sizeof tepi_fault_rows[0];

struct tepi_slot_card {
    _Atomic uint32_t refs;
    struct tepi_card *card; /* the software card in this process; NULL: the card is elsewhere */
    struct tepi_bus *bus;   /* the controller's */
    void (*leave)(struct tepi_bus *bus); /* of a card that is elsewhere */
    struct tepi_controller *controller;
};

struct tepi_held_program {
    struct tepi_slot_card *card;
    struct tepi_loaded *loaded;
};

int tepi_slot_open(uint32_t workers, uint64_t memory_bytes, uint32_t isa,
                   struct tepi_slot_card **out, struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    struct tepi_slot_card *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    atomic_store(&self->refs, 1);
    const struct tepi_card_config config = {
        .memory_bytes = memory_bytes, .workers = workers, .isa = isa, .queues = QUEUES};
    int result = tepi_card_create(&config, &self->card);
    if (result) {
        goto free_self;
    }
    const struct tepi_device_port port = tepi_card_port(self->card);
    result = tepi_bus_inproc_open(&port, &self->bus);
    if (result) {
        goto destroy_card;
    }
    result = tepi_controller_open(self->bus, NULL, &self->controller, failure);
    if (result) {
        goto destroy_card;
    }
    *out = self;
    return 0;
destroy_card:
    tepi_card_destroy(self->card);
free_self:
    free(self);
    return result;
}

/* A card that is elsewhere, behind a bus that was opened with `result`; takes the bus over. */
static int take_bus(struct tepi_bus *bus, int result, void (*leave)(struct tepi_bus *),
                    struct tepi_slot_card **out, struct tepi_failure *failure)
{
    if (result) {
        return result;
    }
    struct tepi_slot_card *self = calloc(1, sizeof *self);
    if (!self) {
        bus->ops->close(bus);
        return -ENOMEM;
    }
    atomic_store(&self->refs, 1);
    self->bus = bus;
    self->leave = leave;
    result = tepi_controller_open(bus, NULL, &self->controller, failure);
    if (result) {
        free(self);
        return result;
    }
    *out = self;
    return 0;
}

int tepi_slot_connect(const char *path, struct tepi_slot_card **out, struct tepi_failure *failure)
{
    struct tepi_bus *bus = NULL;
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    const int result = tepi_bus_vfio_user_open(path, &bus);
    return take_bus(bus, result, tepi_bus_vfio_user_leave, out, failure);
}

int tepi_slot_vfio(const char *address, struct tepi_slot_card **out, struct tepi_bus_reason *reason,
                   struct tepi_failure *failure)
{
    struct tepi_bus *bus = NULL;
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    const int result = tepi_bus_vfio_open(address, &bus, reason);
    return take_bus(bus, result, tepi_bus_vfio_leave, out, failure);
}

void tepi_slot_shut(struct tepi_slot_card *card)
{
    tepi_controller_shut(card->controller);
}

void tepi_slot_release(struct tepi_slot_card *card)
{
    if (atomic_fetch_sub(&card->refs, 1) == 1) {
        tepi_controller_close(card->controller);
        if (card->card) {
            tepi_card_destroy(card->card);
        }
        free(card);
    }
}

void tepi_slot_detach(struct tepi_slot_card *card)
{
    if (card->card) {
        tepi_card_detach(card->card);
    } else {
        card->leave(card->bus);
    }
}

int tepi_slot_attach(struct tepi_slot_card *card, struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    if (card->card) {
        tepi_card_attach(card->card);
    }
    return tepi_controller_alive(card->controller)
               ? 0
               : tepi_controller_reset(card->controller, failure);
}

int tepi_slot_reset(struct tepi_slot_card *card, struct tepi_failure *failure)
{
    tepi_fail(failure, TEPI_FAULT_OK, 0);
    return tepi_controller_reset(card->controller, failure);
}

int tepi_slot_inject(struct tepi_slot_card *card, uint32_t fault, uint32_t info)
{
    if (!card->card) {
        return -EOPNOTSUPP;
    }
    tepi_card_inject(card->card, (enum tepi_fault)fault, info);
    return 0;
}

int tepi_slot_plan_faults(struct tepi_slot_card *card, const struct tepi_planned_fault *faults,
                          uint32_t count)
{
    return card->card ? tepi_card_plan_faults(card->card, faults, count) : -EOPNOTSUPP;
}

uint32_t tepi_slot_busy(struct tepi_slot_card *card, uint64_t *busy_ns, uint32_t most)
{
    return tepi_controller_busy(card->controller, busy_ns, most);
}

bool tepi_slot_alive(struct tepi_slot_card *card)
{
    return tepi_controller_alive(card->controller);
}

uint32_t tepi_slot_epoch(struct tepi_slot_card *card)
{
    return tepi_controller_epoch(card->controller);
}

int tepi_slot_info(struct tepi_slot_card *card, struct tepi_controller_info *info)
{
    return tepi_controller_info(card->controller, info);
}

uint32_t tepi_slot_faults(struct tepi_slot_card *card, struct tepi_fault_entry *log, uint32_t most)
{
    return tepi_controller_faults(card->controller, log, most);
}

int tepi_slot_nop(struct tepi_slot_card *card, struct tepi_failure *failure)
{
    const struct tepi_submission entry = {.opcode = TEPI_CMD_NOP, .batch = 1};
    struct tepi_completion completion;
    return tepi_controller_command(card->controller, &entry, &completion, failure);
}

int tepi_slot_eventfd(struct tepi_slot_card *card)
{
    return tepi_controller_eventfd(card->controller);
}

uint32_t tepi_slot_collect(struct tepi_slot_card *card, struct tepi_ended *ended, uint32_t most)
{
    struct tepi_done done[COLLECT_MOST];
    most = most < COLLECT_MOST ? most : COLLECT_MOST;
    const uint32_t taken = tepi_controller_collect(card->controller, done, most);
    for (uint32_t i = 0; i < taken; i++) {
        ended[i] = (struct tepi_ended){done[i].owner, done[i].completion};
    }
    return taken;
}

void tepi_give_back(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

int tepi_held_open(struct tepi_slot_card *card, const void *image, uint64_t bytes, bool file,
                   struct tepi_held_program **out, struct tepi_failure *failure)
{
    struct tepi_held_program *self = calloc(1, sizeof *self);
    if (!self) {
        return -ENOMEM;
    }
    const struct tepi_program_bytes source = {image, bytes, file};
    int result = tepi_loaded_open(card->controller, &source, &self->loaded, failure);
    if (result) {
        free(self);
        return result;
    }
    atomic_fetch_add(&card->refs, 1);
    self->card = card;
    *out = self;
    return 0;
}

int tepi_held_reload(struct tepi_held_program *program, const void *image, uint64_t bytes,
                     bool file, struct tepi_failure *failure)
{
    const struct tepi_program_bytes source = {image, bytes, file};
    return tepi_loaded_reload(program->loaded, &source, failure);
}

void tepi_held_unload(struct tepi_held_program *program)
{
    tepi_loaded_unload(program->loaded);
}

void tepi_held_release(struct tepi_held_program *program)
{
    tepi_loaded_close(program->loaded);
    tepi_slot_release(program->card);
    free(program);
}

uint32_t tepi_held_epoch(struct tepi_held_program *program)
{
    return tepi_loaded_epoch(program->loaded);
}

uint32_t tepi_held_inputs(struct tepi_held_program *program)
{
    return tepi_loaded_ports(program->loaded)->inputs;
}

uint32_t tepi_held_outputs(struct tepi_held_program *program)
{
    return tepi_loaded_ports(program->loaded)->outputs;
}

uint64_t tepi_held_port_bytes(struct tepi_held_program *program, uint32_t port)
{
    return port < TEPI_PORTS_MAX ? tepi_loaded_ports(program->loaded)->bytes[port] : 0;
}

int tepi_held_run(struct tepi_held_program *program, void **ports, uint32_t batch,
                  uint64_t deadline_ns, struct tepi_timings *timings, struct tepi_failure *failure)
{
    const struct tepi_request request = {ports, batch, deadline_ns};
    return tepi_loaded_run(program->loaded, &request, timings, failure);
}

int tepi_held_profile(struct tepi_held_program *program, void **ports, uint32_t batch,
                      struct tepi_profile_record *records, uint32_t count,
                      struct tepi_timings *timings, struct tepi_failure *failure)
{
    const struct tepi_request request = {ports, batch, 0};
    return tepi_loaded_profile(program->loaded, &request, records, count, timings, failure);
}

int tepi_held_start(struct tepi_held_program *program, void **ports, uint32_t batch,
                    uint64_t deadline_ns, struct tepi_run **run, struct tepi_failure *failure)
{
    const struct tepi_request request = {ports, batch, deadline_ns};
    return tepi_loaded_start(program->loaded, &request, run, failure);
}

void tepi_held_abort(struct tepi_run *run)
{
    tepi_run_abort(run);
}

void tepi_held_expire(struct tepi_held_program *program, struct tepi_run *run)
{
    tepi_controller_expire(program->card->controller, tepi_run_epoch(run));
}

int tepi_held_end(struct tepi_ended *ended, bool discard, struct tepi_timings *timings,
                  struct tepi_failure *failure)
{
    return tepi_run_end(ended->run, &ended->completion, discard, timings, failure);
}
