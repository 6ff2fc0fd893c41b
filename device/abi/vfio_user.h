/* SPDX-License-Identifier: Apache-2.0 */
/* vfio-user as the card in another process speaks it: messages on a UNIX stream socket, and the
 * page of doorbells that both processes map.
 *
 * The wire format is version 0.1 of "vfio-user Protocol Specification" (QEMU, docs/interop/
 * vfio-user.rst); section names in comments are that document's. All fields are in the host's byte
 * order. Constants named VFIO_* are those of <linux/vfio.h>, which the specification re-uses; its
 * structures have grown since, so that the ones on the wire are declared here. */
#ifndef TEPI_ABI_VFIO_USER_H
#define TEPI_ABI_VFIO_USER_H

#include "abi/registers.h"
#include <linux/vfio.h>
#include <stdint.h>

#define TEPI_VFIO_USER_MAJOR 0u
#define TEPI_VFIO_USER_MINOR 1u

/* "Commands" */
enum tepi_vfio_user_command {
    TEPI_VFIO_USER_VERSION = 1,
    TEPI_VFIO_USER_DMA_MAP = 2,
    TEPI_VFIO_USER_DMA_UNMAP = 3,
    TEPI_VFIO_USER_DEVICE_GET_INFO = 4,
    TEPI_VFIO_USER_DEVICE_GET_REGION_INFO = 5,
    TEPI_VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
    TEPI_VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
    TEPI_VFIO_USER_DEVICE_SET_IRQS = 8,
    TEPI_VFIO_USER_REGION_READ = 9,
    TEPI_VFIO_USER_REGION_WRITE = 10,
    TEPI_VFIO_USER_DEVICE_RESET = 13,
};

/* "Header" */
struct tepi_vfio_user_header {
    uint16_t id;
    uint16_t command;
    uint32_t size; /* of the whole message */
    uint32_t flags;
    uint32_t error; /* errno, in a reply with the Error flag */
};

#define TEPI_VFIO_USER_TYPE     0xfu
#define TEPI_VFIO_USER_REPLY    0x1u
#define TEPI_VFIO_USER_NO_REPLY 0x10u
#define TEPI_VFIO_USER_ERROR    0x20u

/* "VFIO_USER_VERSION"; JSON that ends with 0 may follow. */
struct tepi_vfio_user_version {
    uint16_t major, minor;
};

/* "VFIO_USER_DMA_MAP" */
struct tepi_vfio_user_dma_map {
    uint32_t argsz, flags;
    uint64_t offset; /* in the file that comes with the message */
    uint64_t address;
    uint64_t size;
};
#define TEPI_VFIO_USER_DMA_READABLE  0x1u
#define TEPI_VFIO_USER_DMA_WRITEABLE 0x2u

/* "VFIO_USER_DMA_UNMAP" */
struct tepi_vfio_user_dma_unmap {
    uint32_t argsz, flags;
    uint64_t address;
    uint64_t size;
};

/* "VFIO_USER_DEVICE_GET_INFO" */
struct tepi_vfio_user_device_info {
    uint32_t argsz, flags, regions, irqs;
};

/* "VFIO_USER_DEVICE_GET_REGION_INFO" */
struct tepi_vfio_user_region_info {
    uint32_t argsz, flags, index, cap_offset;
    uint64_t size, offset;
};

/* "VFIO region capabilities": a sparse mmap capability of one area. */
struct tepi_vfio_user_sparse {
    uint16_t id, version;
    uint32_t next;
    uint32_t areas, reserved;
    uint64_t offset, size;
};

/* "VFIO_USER_DEVICE_GET_REGION_IO_FDS" */
struct tepi_vfio_user_io_fds {
    uint32_t argsz, flags, index, count;
};
#define TEPI_VFIO_USER_IOEVENTFD 0u

struct tepi_vfio_user_io_fd {
    uint64_t offset, size;
    uint32_t fd_index, type, flags, padding;
    uint64_t datamatch;
};

/* "VFIO_USER_DEVICE_GET_IRQ_INFO" */
struct tepi_vfio_user_irq_info {
    uint32_t argsz, flags, index, count;
};

/* "VFIO_USER_DEVICE_SET_IRQS"; count bytes may follow. */
struct tepi_vfio_user_irq_set {
    uint32_t argsz, flags, index, start, count;
};

/* "VFIO_USER_REGION_READ", "VFIO_USER_REGION_WRITE"; count bytes follow. */
struct tepi_vfio_user_access {
    uint64_t offset;
    uint32_t region, count;
};

/* The card's own bounds, which it names in its VERSION reply. */
#define TEPI_VFIO_USER_DATA_MAX 4096u /* max_data_xfer_size */
#define TEPI_VFIO_USER_MAPS_MAX 256u  /* max_dma_maps */
#define TEPI_VFIO_USER_FDS_MAX  16u   /* max_msg_fds */
#define TEPI_VFIO_USER_PAGE     4096u
#define TEPI_VFIO_USER_BYTES_MAX                                                                   \
    (sizeof(struct tepi_vfio_user_header) + sizeof(struct tepi_vfio_user_access) +                 \
     TEPI_VFIO_USER_DATA_MAX)

/* The doorbell page, BAR0 from TEPI_REG_DOORBELL on, lies in memory that the client maps. The
 * client stores doorbells there instead of sending them, and never moves one back: a thread that
 * comes late leaves a newer value in its place (compare and exchange). ENABLE of a pair clears the
 * pair's doorbells before it is answered.
 *
 * The card looks at the page while there is work, and sleeps when there is none. TEPI_REG_WAKE + 4
 * q is not 0 while it sleeps on pair q, and then whoever has rung writes to the pair's ioeventfd.
 * Order, both sequentially consistent: the card sets the word, then looks at the doorbells once
 * more; the client stores the doorbell, then looks at the word. So one of them sees the other.
 *
 * TEPI_REG_INTERRUPT + 4 v is the state of interrupt vector v. The card adds PENDING when it
 * interrupts, and signals the eventfd only where ARMED was set. The client that polls swaps 0 in,
 * and ARMED before it sleeps; where it gets PENDING back it looks at the ring again. SET_IRQS
 * leaves the vector ARMED, so that a client that knows nothing of this hears every interrupt. */
#define TEPI_REG_WAKE          0x1800u
#define TEPI_REG_INTERRUPT     0x1c00u
#define TEPI_INTERRUPT_ARMED   0x1u
#define TEPI_INTERRUPT_PENDING 0x2u
#define TEPI_DOORBELL_PAGE     (TEPI_REG_BUSY - TEPI_REG_DOORBELL)

/* Regions beside BAR0. */
#define TEPI_CONFIG_BYTES 256u
#define TEPI_MSIX_BYTES   4096u /* BAR4: the table at 0, the pending bits at TEPI_MSIX_PENDING */
#define TEPI_MSIX_PENDING 2048u

/* Configuration space. No number of the PCI-SIG's is assigned to the card; these stand in. */
#define TEPI_PCI_VENDOR 0x5450u
#define TEPI_PCI_DEVICE 0x0001u
#define TEPI_PCI_CLASS  0x120000u /* processing accelerator */

_Static_assert(sizeof(struct tepi_vfio_user_header) == 16, "a header is 16 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_dma_map) == 32, "DMA_MAP is 32 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_dma_unmap) == 24, "DMA_UNMAP is 24 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_region_info) == 32, "a region info is 32 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_sparse) == 32, "one sparse area is 32 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_io_fd) == 40, "a sub-region is 40 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_irq_set) == 20, "SET_IRQS is 20 bytes");
_Static_assert(sizeof(struct tepi_vfio_user_access) == 16, "an access is 16 bytes");
_Static_assert(TEPI_DOORBELL_PAGE == TEPI_VFIO_USER_PAGE, "the doorbells are one page");

#endif
