/* SPDX-License-Identifier: Apache-2.0 */
/* Registers of a type 0 header (PCI Local Bus Specification 3.0, 6.1) and an MSI-X capability
 * (6.8.2). */
#include "endpoint/config_space.h"

#include <linux/pci_regs.h>
#include <string.h>

enum { MSIX_AT = 0x40, MSIX_ENTRY_BYTES = 16 };

static void put(uint8_t *at, uint32_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++) {
        at[i] = (uint8_t)(value >> 8 * i);
    }
}

void tepi_config_init(struct tepi_config_space *config)
{
    uint8_t *at = config->bytes;
    uint8_t *writable = config->writable;
    memset(config, 0, sizeof *config);
    put(at + PCI_VENDOR_ID, TEPI_PCI_VENDOR, 2);
    put(at + PCI_DEVICE_ID, TEPI_PCI_DEVICE, 2);
    put(at + PCI_STATUS, PCI_STATUS_CAP_LIST, 2);
    put(at + PCI_CLASS_REVISION, TEPI_PCI_CLASS << 8 | 1, 4);
    put(at + PCI_SUBSYSTEM_VENDOR_ID, TEPI_PCI_VENDOR, 2);
    put(at + PCI_SUBSYSTEM_ID, TEPI_PCI_DEVICE, 2);
    put(at + PCI_BASE_ADDRESS_0, PCI_BASE_ADDRESS_MEM_TYPE_64, 4);
    at[PCI_CAPABILITY_LIST] = MSIX_AT;
    at[MSIX_AT + PCI_CAP_LIST_ID] = PCI_CAP_ID_MSIX;
    put(at + MSIX_AT + PCI_MSIX_FLAGS, TEPI_QUEUES_MAX - 1, 2);
    put(at + MSIX_AT + PCI_MSIX_TABLE, 4, 4); /* BAR 4 */
    put(at + MSIX_AT + PCI_MSIX_PBA, 4 | TEPI_MSIX_PENDING, 4);

    put(writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE,
        2);
    writable[PCI_CACHE_LINE_SIZE] = 0xff;
    writable[PCI_INTERRUPT_LINE] = 0xff;
    /* 6.2.5.1: all ones written to a BAR read back as its size. */
    put(writable + PCI_BASE_ADDRESS_0, ~(TEPI_BAR0_BYTES - 1), 4);
    put(writable + PCI_BASE_ADDRESS_1, UINT32_MAX, 4); /* its upper half */
    put(writable + PCI_BASE_ADDRESS_4, ~(TEPI_MSIX_BYTES - 1), 4);
    put(writable + MSIX_AT + PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
}

void tepi_config_write(struct tepi_config_space *config, uint32_t offset, const uint8_t *data,
                       uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t mask = config->writable[offset + i];
        config->bytes[offset + i] =
            (uint8_t)((config->bytes[offset + i] & ~mask) | (data[i] & mask));
    }
}

void tepi_msix_write(struct tepi_config_space *config, uint32_t offset, const uint8_t *data,
                     uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (offset + i < TEPI_QUEUES_MAX * MSIX_ENTRY_BYTES) {
            config->msix[offset + i] = data[i];
        }
    }
}
