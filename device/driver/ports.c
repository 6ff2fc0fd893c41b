/* SPDX-License-Identifier: Apache-2.0 */
/* Port sizes from a program image. */
#include "driver/ports.h"

#include "abi/faults.h"
#include <stddef.h>
#include <string.h>

int tepi_ports_read(const void *image, uint64_t bytes, struct tepi_ports *ports,
                    struct tepi_failure *failure)
{
    struct tepi_program_header header;
    if (bytes < sizeof header) {
        return tepi_fail(failure, TEPI_FAULT_PROGRAM_TRUNCATED, (uint32_t)bytes);
    }
    memcpy(&header, image, sizeof header);
    if (header.magic != TEPI_PROGRAM_MAGIC) {
        return tepi_fail(failure, TEPI_FAULT_PROGRAM_MAGIC, header.magic);
    }
    if ((uint32_t)header.inputs + header.outputs > TEPI_PORTS_MAX) {
        return tepi_fail(failure, TEPI_FAULT_PROGRAM_HEADER,
                         offsetof(struct tepi_program_header, inputs));
    }
    if (header.tensors > TEPI_TENSORS_MAX || header.tensors_offset > bytes ||
        header.tensors * sizeof(struct tepi_tensor) > bytes - header.tensors_offset) {
        return tepi_fail(failure, TEPI_FAULT_PROGRAM_TRUNCATED, (uint32_t)bytes);
    }
    *ports = (struct tepi_ports){.inputs = header.inputs, .outputs = header.outputs};
    const unsigned char *table = (const unsigned char *)image + header.tensors_offset;
    for (uint32_t i = 0; i < header.tensors; i++) {
        struct tepi_tensor tensor;
        memcpy(&tensor, table + i * sizeof tensor, sizeof tensor);
        const uint64_t size = (uint64_t)tensor.c * TEPI_TYPE_BYTES(tensor.type);
        if (tensor.place == TEPI_PLACE_INPUT && tensor.port < ports->inputs) {
            ports->bytes[tensor.port] = size;
        } else if (tensor.place == TEPI_PLACE_OUTPUT && tensor.port < ports->outputs) {
            ports->bytes[ports->inputs + tensor.port] = size;
        }
    }
    for (uint32_t port = 0; port < ports->inputs + ports->outputs; port++) {
        if (ports->bytes[port] == 0) {
            return tepi_fail(failure, TEPI_FAULT_PROGRAM_TENSOR, port);
        }
    }
    return 0;
}
