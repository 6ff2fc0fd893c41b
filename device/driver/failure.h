/* SPDX-License-Identifier: Apache-2.0 */
/* Which numbered fault lies behind a negative errno. */
#ifndef TEPI_DRIVER_FAILURE_H
#define TEPI_DRIVER_FAILURE_H

#include <stdint.h>

struct tepi_failure {
    uint32_t fault; /* enum tepi_fault; TEPI_FAULT_OK where the errno says it all */
    uint32_t info;
};

/* Fills `failure` (may be NULL) and returns the fault's errno, negative; 0 for TEPI_FAULT_OK. */
int tepi_fail(struct tepi_failure *failure, uint32_t fault, uint32_t info);

#endif
