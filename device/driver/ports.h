/* SPDX-License-Identifier: Apache-2.0 */
/* What the host must know of a card program: how many bytes each input and output takes. */
#ifndef TEPI_DRIVER_PORTS_H
#define TEPI_DRIVER_PORTS_H

#include "abi/program.h"
#include "driver/failure.h"
#include <stdint.h>

struct tepi_ports {
    uint32_t inputs, outputs;
    uint64_t bytes[TEPI_PORTS_MAX]; /* of one item; inputs first, then outputs */
};

/* Reads the header and tensor table of an image. Checks only what it needs to stay inside the
 * image; the card checks the rest. 0, or the errno of a PROGRAM_* fault. */
int tepi_ports_read(const void *image, uint64_t bytes, struct tepi_ports *ports,
                    struct tepi_failure *failure);

#endif
