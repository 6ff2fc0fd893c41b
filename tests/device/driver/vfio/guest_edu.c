/* SPDX-License-Identifier: Apache-2.0 */
/* The vfio bus on a real PCI device: QEMU's `edu`, in a guest (tests/device/driver/
 * test_vfio_qemu.py builds this and boots it). Arguments: the PCI address of the device. */
#include "check.h"
#include "driver/bus_vfio.h"
#include "driver/mmio.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* QEMU, docs/specs/edu. */
#define EDU_ID         0x00u
#define EDU_LIVENESS   0x04u
#define EDU_FACTORIAL  0x08u
#define EDU_STATUS     0x20u
#define EDU_IRQ_STATUS 0x24u
#define EDU_IRQ_ACK    0x64u
#define EDU_DMA_SOURCE 0x80u
#define EDU_DMA_TARGET 0x88u
#define EDU_DMA_COUNT  0x90u
#define EDU_DMA_CMD    0x98u
#define EDU_BUFFER     0x40000u
#define EDU_IDENTITY   0x010000edu

enum { BUSY = 1, IRQ_FACTORIAL = 0x80, START = 1, FROM_CARD = 2, IRQ_DMA = 4, IRQ_OF_DMA = 0x100 };
enum { BYTES = 2048, PAGES_BYTES = 8192, WAIT_MS = 10000 };

static const char *address;
static struct tepi_bus *bus;
static int interrupt;

static struct tepi_dma_memory memory_of(void)
{
    const int fd = memfd_create("edu", MFD_CLOEXEC);
    const int sized = ftruncate(fd, PAGES_BYTES);
    void *place = mmap(NULL, PAGES_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return (struct tepi_dma_memory){sized ? NULL : place, PAGES_BYTES, fd, false};
}

static void free_memory(const struct tepi_dma_memory *memory)
{
    munmap(memory->address, memory->bytes);
    close(memory->fd);
}

/* Waits for the eventfd, acknowledges, and returns what the device says it was; 0: nothing came. */
static uint32_t await_interrupt(void)
{
    struct pollfd file = {.fd = interrupt, .events = POLLIN};
    uint64_t count = 0;
    if (poll(&file, 1, WAIT_MS) != 1 || read(interrupt, &count, sizeof count) != sizeof count) {
        return 0;
    }
    const uint32_t status = tepi_read32(bus, EDU_IRQ_STATUS);
    tepi_write32(bus, EDU_IRQ_ACK, status);
    return status;
}

static uint32_t dma(uint64_t source, uint64_t target, uint32_t direction)
{
    atomic_thread_fence(memory_order_release);
    tepi_write64(bus, EDU_DMA_SOURCE, source);
    tepi_write64(bus, EDU_DMA_TARGET, target);
    tepi_write64(bus, EDU_DMA_COUNT, BYTES);
    tepi_write64(bus, EDU_DMA_CMD, START | direction | IRQ_DMA);
    const uint32_t status = await_interrupt();
    atomic_thread_fence(memory_order_acquire);
    return status;
}

static void write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY);
    const ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));
    if (written < 0) {
        perror(path);
    }
    if (fd >= 0) {
        close(fd);
    }
}

CHECK_CASE(refuses_what_is_not_there)
{
    struct tepi_bus_reason reason;
    CHECK_INT(tepi_bus_vfio_open("0000:00:1e.7", &bus, &reason), -ENODEV);
    printf("     %s; %s\n", reason.what, reason.remedy);
    CHECK(strstr(reason.what, "no PCI device 0000:00:1e.7"));
}

CHECK_CASE(refuses_a_device_that_is_not_bound)
{
    struct tepi_bus_reason reason;
    CHECK_INT(tepi_bus_vfio_open(address, &bus, &reason), -ENXIO);
    printf("     %s; %s\n", reason.what, reason.remedy);
    CHECK(strstr(reason.what, "not bound to vfio-pci"));
    CHECK(strstr(reason.remedy, "driverctl set-override"));
}

CHECK_CASE(opens_a_bound_device)
{
    char path[80];
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver_override", address);
    write_file(path, "vfio-pci");
    write_file("/sys/bus/pci/drivers_probe", address);
    struct tepi_bus_reason reason;
    const int result = tepi_bus_vfio_open(address, &bus, &reason);
    if (result) {
        printf("     %s; %s\n", reason.what, reason.remedy);
    }
    CHECK_INT(result, 0);
}

CHECK_CASE(a_second_owner_is_refused)
{
    struct tepi_bus *second = NULL;
    struct tepi_bus_reason reason;
    CHECK_INT(tepi_bus_vfio_open(address, &second, &reason), -EBUSY);
    printf("     %s; %s\n", reason.what, reason.remedy);
    CHECK(strstr(reason.what, "another process"));
}

CHECK_CASE(reads_and_writes_registers)
{
    CHECK_INT(tepi_read32(bus, EDU_ID), EDU_IDENTITY);
    tepi_write32(bus, EDU_LIVENESS, 0x12345678u);
    CHECK_INT(tepi_read32(bus, EDU_LIVENESS), ~0x12345678u);
    tepi_write64(bus, EDU_DMA_SOURCE, 0x11223344u);
    CHECK_INT(tepi_read64(bus, EDU_DMA_SOURCE), 0x11223344u);
    /* Past the registers of a card: through the device's file. Nothing is there. */
    CHECK_INT(tepi_read32(bus, TEPI_BAR0_BYTES), TEPI_ALL_ONES);
}

CHECK_CASE(interrupts_after_a_factorial)
{
    CHECK_INT(bus->ops->interrupt_connect(bus, 0, interrupt), 0);
    CHECK_INT(bus->ops->interrupt_connect(bus, 1, interrupt), -EINVAL); /* it has one vector */
    tepi_write32(bus, EDU_STATUS, IRQ_FACTORIAL);
    tepi_write32(bus, EDU_FACTORIAL, 10);
    CHECK_INT(await_interrupt(), 1);
    CHECK_INT(tepi_read32(bus, EDU_STATUS) & BUSY, 0);
    CHECK_INT(tepi_read32(bus, EDU_FACTORIAL), 3628800);
}

CHECK_CASE(dma_round_trip)
{
    const struct tepi_dma_memory memory = memory_of();
    uint64_t iova = 0;
    CHECK(memory.address);
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iova), 0);
    CHECK(iova != (uintptr_t)memory.address);
    unsigned char *bytes = memory.address;
    for (int i = 0; i < BYTES; i++) {
        bytes[i] = (unsigned char)(i * 7 + i / 256);
    }
    CHECK_INT(dma(iova, EDU_BUFFER, 0), IRQ_OF_DMA);
    CHECK_INT(dma(EDU_BUFFER, iova + 4096, FROM_CARD), IRQ_OF_DMA);
    CHECK_BYTES(bytes + 4096, bytes, BYTES);
    bus->ops->dma_unmap(bus, iova, memory.bytes);
    free_memory(&memory);
}

static bool kernel_tells_of_a_fault(void)
{
    static char log[1 << 18];
    const int bytes = klogctl(3 /* SYSLOG_ACTION_READ_ALL */, log, sizeof log - 1);
    log[bytes > 0 ? bytes : 0] = '\0';
    return strstr(log, "DMAR: [DMA Write") != NULL;
}

CHECK_CASE(dma_after_unmap_faults)
{
    const struct tepi_dma_memory memory = memory_of();
    unsigned char untouched[BYTES];
    uint64_t iova = 0;
    CHECK(memory.address && !kernel_tells_of_a_fault());
    memset(memory.address, 0x5a, memory.bytes);
    memset(untouched, 0x5a, sizeof untouched);
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iova), 0);
    bus->ops->dma_unmap(bus, iova, memory.bytes);
    CHECK_INT(dma(EDU_BUFFER, iova, FROM_CARD), IRQ_OF_DMA);
    CHECK_BYTES(memory.address, untouched, BYTES);
    CHECK(kernel_tells_of_a_fault());
    free_memory(&memory);
}

CHECK_CASE(reset_says_that_it_cannot)
{
    CHECK_INT(bus->ops->reset(bus), -EOPNOTSUPP); /* edu has no function-level reset */
}

/* The unbind returns only when the bus has let go, which it does by itself. */
CHECK_CASE(a_card_taken_away_reads_as_ones_and_comes_back)
{
    const struct tepi_dma_memory memory = memory_of();
    uint64_t iova = 0;
    CHECK_INT(bus->ops->dma_map(bus, &memory, &iova), 0);
    write_file("/sys/bus/pci/drivers/vfio-pci/unbind", address);
    CHECK_INT(tepi_read32(bus, EDU_ID), TEPI_ALL_ONES);
    CHECK(tepi_read64(bus, EDU_DMA_SOURCE) == ~0ull);
    tepi_write32(bus, EDU_LIVENESS, 1);
    CHECK_INT(bus->ops->reset(bus), -ENODEV);
    CHECK_INT(bus->ops->rescan(bus), -ENXIO);
    write_file("/sys/bus/pci/drivers_probe", address);
    CHECK_INT(bus->ops->rescan(bus), 0);
    CHECK_INT(tepi_read32(bus, EDU_ID), EDU_IDENTITY);
    /* At the address and with the interrupt that it had before. */
    memset(memory.address, 0x33, BYTES);
    CHECK_INT(dma(iova, EDU_BUFFER, 0), IRQ_OF_DMA);
    CHECK_INT(dma(EDU_BUFFER, iova + 4096, FROM_CARD), IRQ_OF_DMA);
    CHECK_BYTES((unsigned char *)memory.address + 4096, memory.address, BYTES);
    bus->ops->dma_unmap(bus, iova, memory.bytes);
    free_memory(&memory);
}

CHECK_CASE(closes_and_opens_again)
{
    bus->ops->close(bus);
    struct tepi_bus_reason reason;
    CHECK_INT(tepi_bus_vfio_open(address, &bus, &reason), 0);
    tepi_bus_vfio_leave(bus);
    CHECK_INT(tepi_read32(bus, EDU_ID), TEPI_ALL_ONES);
    bus->ops->close(bus);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(refuses_what_is_not_there),
    CHECK_ENTRY(refuses_a_device_that_is_not_bound),
    CHECK_ENTRY(opens_a_bound_device),
    CHECK_ENTRY(a_second_owner_is_refused),
    CHECK_ENTRY(reads_and_writes_registers),
    CHECK_ENTRY(interrupts_after_a_factorial),
    CHECK_ENTRY(dma_round_trip),
    CHECK_ENTRY(dma_after_unmap_faults),
    CHECK_ENTRY(reset_says_that_it_cannot),
    CHECK_ENTRY(a_card_taken_away_reads_as_ones_and_comes_back),
    CHECK_ENTRY(closes_and_opens_again),
};

int main(int count, char **words)
{
    if (count != 2) {
        return 2;
    }
    address = words[1];
    interrupt = eventfd(0, EFD_CLOEXEC);
    /* Each case stands on those before: the first that fails ends the run. */
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (check_run(&cases[i], 1)) {
            return 1;
        }
        fflush(stdout);
    }
    printf("guest: all %zu cases passed\n", sizeof cases / sizeof cases[0]);
    return 0;
}
