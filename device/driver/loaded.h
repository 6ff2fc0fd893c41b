/* SPDX-License-Identifier: Apache-2.0 */
/* A program on the card as the host holds it, and runs of it.
 *
 * A run copies its inputs into DMA memory, executes, and copies the outputs back. DMA memory
 * belongs to the program and is used again by later runs, one set per concurrent caller. */
#ifndef TEPI_DRIVER_LOADED_H
#define TEPI_DRIVER_LOADED_H

#include "driver/controller.h"
#include "driver/ports.h"

struct tepi_loaded;
struct tepi_run;

/* A program image. `file`: it is a shared mapping of a file, page-aligned, which the card may then
 * read in place; its pages need not stay in memory meanwhile. */
struct tepi_program_bytes {
    const void *address;
    uint64_t bytes;
    bool file;
};

struct tepi_request {
    void *const *ports; /* each input, then each output: batch items, one after the other */
    uint32_t batch;
    uint64_t deadline_ns; /* from now; 0: none, then the controller's timeout holds */
};

/* Where the time of a run went, ns. The copy_* and compute are the card's; host_ns is all of it. */
struct tepi_timings {
    uint64_t queue_ns, copy_in_ns, compute_ns, copy_out_ns, host_ns;
};

/* Loads `image`. 0, -ENOMEM, or the errno of the card's fault. The controller must outlive it. */
int tepi_loaded_open(struct tepi_controller *controller, const struct tepi_program_bytes *image,
                     struct tepi_loaded **loaded, struct tepi_failure *failure);
/* Loads the same image again after a reset; nothing to do where it is still loaded. Runs of other
 * threads either fail with STALE_GENERATION or use the new load. */
int tepi_loaded_reload(struct tepi_loaded *loaded, const struct tepi_program_bytes *image,
                       struct tepi_failure *failure);
/* Takes the program off the card; runs in progress finish, later ones end with NO_PROGRAM. */
void tepi_loaded_unload(struct tepi_loaded *loaded);
/* Unloads and frees. No thread may be in a run. */
void tepi_loaded_close(struct tepi_loaded *loaded);

const struct tepi_ports *tepi_loaded_ports(const struct tepi_loaded *loaded);
/* The controller epoch it was loaded in; older than the controller's: it must be reloaded. */
uint32_t tepi_loaded_epoch(const struct tepi_loaded *loaded);

/* Runs and waits. 0; -ENOMEM (DMA pool), -E2BIG (a port of 4 GiB or more); -ESTALE with
 * STALE_GENERATION after a reset; else the errno of the fault. `timings` may be NULL. */
int tepi_loaded_run(struct tepi_loaded *loaded, const struct tepi_request *request,
                    struct tepi_timings *timings, struct tepi_failure *failure);
/* The same with a record for each instruction; BAD_FIELD where `count` is less than those. */
int tepi_loaded_profile(struct tepi_loaded *loaded, const struct tepi_request *request,
                        struct tepi_profile_record *records, uint32_t count,
                        struct tepi_timings *timings, struct tepi_failure *failure);

/* Starts a run for an event loop: copies the inputs at once; the output buffers must live until
 * tepi_run_end. -EAGAIN: the queue is full, try after the next completion. */
int tepi_loaded_start(struct tepi_loaded *loaded, const struct tepi_request *request,
                      struct tepi_run **run, struct tepi_failure *failure);
/* Asks the card to stop it. It must still be ended. */
void tepi_run_abort(struct tepi_run *run);
/* With the completion that tepi_controller_collect gave for this run (its owner): copies the
 * outputs unless `discard`, frees the run; returns and reports as tepi_loaded_run. */
int tepi_run_end(struct tepi_run *run, const struct tepi_completion *completion, bool discard,
                 struct tepi_timings *timings, struct tepi_failure *failure);
/* The epoch it was started in, for tepi_controller_expire. */
uint32_t tepi_run_epoch(const struct tepi_run *run);

#endif
