/* SPDX-License-Identifier: Apache-2.0 */
/* The mindless card of the driver's tests. */
#include "driver/fake_card.h"

#include "driver/bus_inproc.h"
#include <errno.h>
#include <stdlib.h>

static uint32_t queue_register(uint32_t queue, uint32_t which)
{
    return TEPI_REG_QUEUE + queue * TEPI_REG_QUEUE_STRIDE + which;
}

static uint64_t fake_read(void *device, uint32_t offset, unsigned width)
{
    struct fake_card *fake = device;
    if (atomic_load(&fake->gone)) {
        return width == 8 ? UINT64_MAX : UINT32_MAX;
    }
    switch (offset) {
    case TEPI_REG_MAGIC:
        return atomic_load(&fake->magic);
    case TEPI_REG_ABI_MIN:
        return 1;
    case TEPI_REG_ABI_MAX:
        return atomic_load(&fake->abi_max);
    case TEPI_REG_STATUS:
        return atomic_load(&fake->status);
    case TEPI_REG_GENERATION:
        return atomic_load(&fake->generation);
    case TEPI_REG_FAULT_CODE:
        return atomic_load(&fake->fault_code);
    case TEPI_REG_CAP_QUEUE_ENTRIES:
        return 4096;
    default:
        return offset < TEPI_BAR0_BYTES ? fake->registers[offset / 4] : 0;
    }
}

static void fake_write_register(void *device, uint32_t offset, unsigned width, uint64_t value)
{
    struct fake_card *fake = device;
    (void)width;
    if (atomic_load(&fake->gone) || offset >= TEPI_BAR0_BYTES) {
        return;
    }
    if (offset == TEPI_REG_RESET && value == TEPI_RESET_KEY) {
        atomic_fetch_add(&fake->resets, 1);
        if (fake->ignores_reset) {
            atomic_store(&fake->status, TEPI_STATUS_RESETTING);
        } else {
            atomic_fetch_add(&fake->generation, 1);
            atomic_store(&fake->status, TEPI_STATUS_READY);
        }
    } else if (offset >= TEPI_REG_DOORBELL) {
        const uint32_t queue = (offset - TEPI_REG_DOORBELL) / TEPI_REG_DOORBELL_STRIDE;
        if ((offset - TEPI_REG_DOORBELL) % TEPI_REG_DOORBELL_STRIDE == TEPI_DOORBELL_SQ_TAIL) {
            atomic_store(&fake->tails[queue], (uint32_t)value);
            if (fake->on_doorbell) {
                fake->on_doorbell(fake, queue, (uint32_t)value);
            }
        } else {
            fake->registers[offset / 4] = value;
        }
    } else {
        const uint32_t at = (offset - TEPI_REG_QUEUE) % TEPI_REG_QUEUE_STRIDE;
        if (offset >= TEPI_REG_QUEUE && at == TEPI_QUEUE_ENABLE) {
            const uint32_t queue = (offset - TEPI_REG_QUEUE) / TEPI_REG_QUEUE_STRIDE;
            fake->posted[queue] = fake->fetched[queue] = 0;
            value = fake->refuses_queues ? 0 : value;
        }
        fake->registers[offset / 4] = value;
    }
}

static int fake_plug(void *device, const struct tepi_host_port *host)
{
    struct fake_card *fake = device;
    if (host && fake->plugged) {
        return -EBUSY;
    }
    fake->plugged = host != NULL;
    if (host) {
        fake->host = *host;
        atomic_fetch_add(&fake->plugs, 1);
        atomic_fetch_add(&fake->generation, 1);
        atomic_store(&fake->status, TEPI_STATUS_READY);
    }
    return 0;
}

void fake_init(struct fake_card *fake)
{
    *fake = (struct fake_card){
        .magic = TEPI_MAGIC,
        .abi_max = TEPI_ABI_VERSION,
        .status = TEPI_STATUS_READY,
        .generation = 40,
    };
    fake->port = (struct tepi_device_port){fake, fake_read, fake_write_register, fake_plug};
}

struct tepi_bus *fake_bus(struct fake_card *fake)
{
    struct tepi_bus *bus = NULL;
    return tepi_bus_inproc_open(&fake->port, &bus) ? NULL : bus;
}

struct tepi_submission fake_entry(struct fake_card *fake, uint32_t queue, uint32_t index)
{
    const uint64_t base = fake->registers[queue_register(queue, TEPI_QUEUE_SQ_BASE) / 4];
    const uint32_t entries =
        (uint32_t)fake->registers[queue_register(queue, TEPI_QUEUE_ENTRIES) / 4];
    const uint64_t iova = base + (index & (entries - 1)) * sizeof(struct tepi_submission);
    struct tepi_submission *entry =
        fake->host.dma_acquire(fake->host.host, iova, sizeof(struct tepi_submission));
    const struct tepi_submission copy = *entry;
    fake->host.dma_release(fake->host.host, iova, sizeof(struct tepi_submission));
    return copy;
}

void fake_write(struct fake_card *fake, uint32_t queue, uint32_t place, uint32_t generation,
                uint32_t tag)
{
    const uint64_t base = fake->registers[queue_register(queue, TEPI_QUEUE_CQ_BASE) / 4];
    const uint32_t entries =
        (uint32_t)fake->registers[queue_register(queue, TEPI_QUEUE_ENTRIES) / 4];
    const uint64_t iova = base + (place & (entries - 1)) * sizeof(struct tepi_completion);
    struct tepi_completion *entry =
        fake->host.dma_acquire(fake->host.host, iova, sizeof(struct tepi_completion));
    entry->generation = generation;
    entry->result = TEPI_TAG_COMMAND_ID(tag) + 1000u;
    atomic_store((_Atomic uint32_t *)(void *)&entry->tag, tag);
    fake->host.dma_release(fake->host.host, iova, sizeof(struct tepi_completion));
}

void fake_complete(struct fake_card *fake, uint32_t queue, uint16_t command_id, uint16_t status)
{
    const uint32_t place = fake->posted[queue]++;
    const uint32_t entries =
        (uint32_t)fake->registers[queue_register(queue, TEPI_QUEUE_ENTRIES) / 4];
    fake_write(fake, queue, place, atomic_load(&fake->generation),
               TEPI_TAG(command_id, status, (place & entries) ? 0 : 1));
    fake->host.interrupt(fake->host.host, queue);
}

void fake_obey(struct fake_card *fake, uint32_t queue, uint32_t tail)
{
    while (fake->fetched[queue] != tail) {
        const struct tepi_submission entry = fake_entry(fake, queue, fake->fetched[queue]++);
        fake_complete(fake, queue, entry.command_id, 0);
    }
}
