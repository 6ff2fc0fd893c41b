/* SPDX-License-Identifier: Apache-2.0 */
/* Every fence and register access of the driver, each with what it may not let pass.
 *
 * Ring entries live in memory that the card reads and writes by DMA: plain stores and loads, put
 * in order by the four operations below. Registers go through the bus. */
#ifndef TEPI_DRIVER_MMIO_H
#define TEPI_DRIVER_MMIO_H

#include "abi/queue.h"
#include "abi/registers.h"
#include "driver/bus.h"
#include <stdatomic.h>
#include <string.h>

static inline uint32_t tepi_read32(struct tepi_bus *bus, uint32_t offset)
{
    return bus->ops->read32(bus, offset);
}

static inline uint64_t tepi_read64(struct tepi_bus *bus, uint32_t offset)
{
    return bus->ops->read64(bus, offset);
}

static inline void tepi_write32(struct tepi_bus *bus, uint32_t offset, uint32_t value)
{
    bus->ops->write32(bus, offset, value);
}

static inline void tepi_write64(struct tepi_bus *bus, uint32_t offset, uint64_t value)
{
    bus->ops->write64(bus, offset, value);
}

/* A mapped BAR: one access of the register's width, aligned, that is neither left out nor split.
 * x86 keeps uncached accesses in order with all stores before and all loads behind them; Arm's are
 * put in order with memory by a barrier that reaches past the inner domain. */
static inline uint32_t tepi_mmio_read32(const void *place)
{
    const uint32_t value = *(const volatile uint32_t *)place;
#if defined(__aarch64__)
    __asm__ volatile("dmb oshld" ::: "memory");
#else
    atomic_signal_fence(memory_order_acquire);
#endif
    return value;
}

static inline uint64_t tepi_mmio_read64(const void *place)
{
    const uint64_t value = *(const volatile uint64_t *)place;
#if defined(__aarch64__)
    __asm__ volatile("dmb oshld" ::: "memory");
#else
    atomic_signal_fence(memory_order_acquire);
#endif
    return value;
}

static inline void tepi_mmio_write32(void *place, uint32_t value)
{
#if defined(__aarch64__)
    __asm__ volatile("dmb oshst" ::: "memory");
#else
    atomic_signal_fence(memory_order_release);
#endif
    *(volatile uint32_t *)place = value;
}

static inline void tepi_mmio_write64(void *place, uint64_t value)
{
#if defined(__aarch64__)
    __asm__ volatile("dmb oshst" ::: "memory");
#else
    atomic_signal_fence(memory_order_release);
#endif
    *(volatile uint64_t *)place = value;
}

static inline uint32_t tepi_doorbell_offset(uint32_t queue, uint32_t which)
{
    return TEPI_REG_DOORBELL + queue * TEPI_REG_DOORBELL_STRIDE + which;
}

/* Rings the submission doorbell. Release fence: the entry, the scatter list and the inputs, all
 * stored before, are in memory before the card can learn of them. */
static inline void tepi_ring_submission(struct tepi_bus *bus, uint32_t queue, uint32_t tail)
{
    atomic_thread_fence(memory_order_release);
    tepi_write32(bus, tepi_doorbell_offset(queue, TEPI_DOORBELL_SQ_TAIL), tail);
}

/* Gives completion entries back. Release fence: they have been copied out before the card may
 * write over them. */
static inline void tepi_ring_completion(struct tepi_bus *bus, uint32_t queue, uint32_t head)
{
    atomic_thread_fence(memory_order_release);
    tepi_write32(bus, tepi_doorbell_offset(queue, TEPI_DOORBELL_CQ_HEAD), head);
}

/* The entry's tag. Acquire: neither the entry's other fields nor the outputs are read before the
 * phase bit that announces them. */
static inline uint32_t tepi_completion_tag(const struct tepi_completion *entry)
{
    const _Atomic uint32_t *tag = (const _Atomic uint32_t *)(const void *)&entry->tag;
    return atomic_load_explicit(tag, memory_order_acquire);
}

static inline void tepi_cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
