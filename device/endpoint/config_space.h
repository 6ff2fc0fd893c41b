/* SPDX-License-Identifier: Apache-2.0 */
/* PCI configuration space of one client's card, and the MSI-X table that it points at. */
#ifndef TEPI_ENDPOINT_CONFIG_SPACE_H
#define TEPI_ENDPOINT_CONFIG_SPACE_H

#include "abi/vfio_user.h"

struct tepi_config_space {
    uint8_t bytes[TEPI_CONFIG_BYTES];
    uint8_t writable[TEPI_CONFIG_BYTES]; /* bits that a write changes */
    uint8_t msix[TEPI_MSIX_BYTES];
};

void tepi_config_init(struct tepi_config_space *config);
/* Bounds are the caller's to check. */
void tepi_config_write(struct tepi_config_space *config, uint32_t offset, const uint8_t *data,
                       uint32_t count);
/* The table keeps what is written; interrupts go by SET_IRQS. Pending bits read as 0. */
void tepi_msix_write(struct tepi_config_space *config, uint32_t offset, const uint8_t *data,
                     uint32_t count);

#endif
