/* SPDX-License-Identifier: Apache-2.0 */
/* Faults as errno. */
#include "driver/failure.h"

#include "abi/faults.h"
#include <errno.h>

static int fault_errno(uint32_t fault)
{
    switch (fault) {
    case TEPI_FAULT_OK:
        return 0;
    case TEPI_FAULT_BAD_OPCODE:
        return -EOPNOTSUPP;
    case TEPI_FAULT_BAD_FIELD:
    case TEPI_FAULT_SCATTER_LIST:
        return -EINVAL;
    case TEPI_FAULT_STALE_GENERATION:
    case TEPI_FAULT_NO_PROGRAM:
        return -ESTALE;
    case TEPI_FAULT_DMA:
        return -EFAULT;
    case TEPI_FAULT_DEADLINE:
    case TEPI_FAULT_TIMEOUT:
        return -ETIMEDOUT;
    case TEPI_FAULT_ABORTED:
        return -ECANCELED;
    case TEPI_FAULT_NO_MEMORY:
        return -ENOSPC;
    case TEPI_FAULT_PROGRAM_TRUNCATED:
    case TEPI_FAULT_PROGRAM_MAGIC:
    case TEPI_FAULT_PROGRAM_ABI:
    case TEPI_FAULT_PROGRAM_CRC:
    case TEPI_FAULT_PROGRAM_HEADER:
    case TEPI_FAULT_PROGRAM_TENSOR:
    case TEPI_FAULT_PROGRAM_INSTRUCTION:
    case TEPI_FAULT_PROGRAM_CONSTANT:
        return -ENOEXEC;
    case TEPI_FAULT_GONE:
        return -ENODEV;
    case TEPI_FAULT_NOT_A_CARD:
        return -ENXIO;
    default:
        return -EIO;
    }
}

int tepi_fail(struct tepi_failure *failure, uint32_t fault, uint32_t info)
{
    if (failure) {
        *failure = (struct tepi_failure){.fault = fault, .info = info};
    }
    return fault_errno(fault);
}
