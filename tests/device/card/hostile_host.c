/* SPDX-License-Identifier: Apache-2.0 */
/* Acts against the software card: register writes, entries, lists, images, pokes, removal. */
#include "card/hostile_host.h"

#include "card/raw_host.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ITEM = 64, SEGMENTS_MOST = 24, HANDLES = 4, LIST_AT = 1 << 16, AREA = 1 << 16 };

/* No command may run longer: a batch of billions is legal and would never end. */
#define DEADLINE_NS 200000u
#define CARD_MEMORY (1u << 20)

struct bytes {
    const uint8_t *at;
    size_t left;
};

struct attack {
    struct raw_host raw;
    struct bytes bytes;
    uint32_t handles[HANDLES];
    uint32_t loads;
    uint16_t command_id;
};

static uint64_t take(struct bytes *bytes, unsigned count)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < count && bytes->left; i++, bytes->left--) {
        value |= (uint64_t)*bytes->at++ << 8 * i;
    }
    return value;
}

static uint64_t address(struct attack *attack)
{
    const uint64_t offset = take(&attack->bytes, 3) % (2 * RAW_BYTES);
    return take(&attack->bytes, 1) % 16 ? RAW_WINDOW + offset : offset << 40;
}

static void write_register(struct attack *attack)
{
    const uint32_t offset = (uint32_t)take(&attack->bytes, 2) % (TEPI_BAR0_BYTES + 64);
    const unsigned width = take(&attack->bytes, 1) % 2 ? 4 : 8;
    uint64_t value = take(&attack->bytes, width);
    if (offset < TEPI_REG_DOORBELL && width == 8) {
        value = address(attack) & ~(uint64_t)(value % 2 ? 4095 : 0);
    }
    attack->raw.port.write(attack->raw.port.device, offset, width, value);
    attack->raw.port.read(attack->raw.port.device, offset, width);
}

static uint32_t any_handle(struct attack *attack)
{
    const uint32_t which = (uint32_t)take(&attack->bytes, 1) % (HANDLES + 1);
    return which < HANDLES ? attack->handles[which] : (uint32_t)take(&attack->bytes, 4);
}

static void submit(struct attack *attack, struct tepi_submission *entry)
{
    if (entry->opcode == TEPI_CMD_EXECUTE) {
        entry->deadline_ns = DEADLINE_NS;
    }
    raw_submit(&attack->raw, (uint32_t)take(&attack->bytes, 1) % 2, entry);
}

static void raw_bytes_entry(struct attack *attack)
{
    struct tepi_submission entry;
    uint8_t image[sizeof entry];
    for (size_t i = 0; i < sizeof image; i++) {
        image[i] = (uint8_t)take(&attack->bytes, 1);
    }
    memcpy(&entry, image, sizeof entry);
    if (take(&attack->bytes, 1) % 4) {
        entry.generation = raw_read32(&attack->raw, TEPI_REG_GENERATION);
    }
    submit(attack, &entry);
}

/* Pieces that cover both ports of an ITEM-byte copy program: cut anywhere, interleaved, and now
 * and then spoilt. Returns how many. */
static uint32_t cover(struct attack *attack, uint32_t batch, struct tepi_segment *list)
{
    struct bytes *bytes = &attack->bytes;
    uint32_t left[2] = {ITEM * batch, ITEM * batch};
    uint32_t count = 0;
    while ((left[0] || left[1]) && count < SEGMENTS_MOST) {
        const uint32_t shape = (uint32_t)take(bytes, 1);
        const uint16_t port = left[shape & 1] ? shape & 1 : !(shape & 1);
        uint32_t some = shape & 2 ? left[port] : 1 + (uint32_t)take(bytes, 1) % left[port];
        some = count + 2 >= SEGMENTS_MOST ? left[port] : some;
        list[count++] = (struct tepi_segment){
            .iova = RAW_WINDOW + RAW_RINGS_BYTES + take(bytes, 2),
            .bytes = some,
            .port = port,
        };
        left[port] -= some;
    }
    if (count && take(bytes, 1) % 4 == 0) {
        struct tepi_segment *spoilt = &list[take(bytes, 1) % count];
        const uint64_t how = take(bytes, 1) % 4;
        spoilt->iova = how == 0 ? address(attack) : spoilt->iova;
        spoilt->bytes += how == 1 ? (uint32_t)take(bytes, 4) : 0;
        spoilt->port = how == 2 ? (uint16_t)take(bytes, 2) : spoilt->port;
        spoilt->flags = how == 3;
    }
    return count;
}

static void plausible_entry(struct attack *attack)
{
    struct bytes *bytes = &attack->bytes;
    const uint64_t kind = take(bytes, 1) % 16;
    struct tepi_submission entry =
        raw_entry(&attack->raw, kind < 6 ? (uint8_t)kind : TEPI_CMD_EXECUTE, attack->command_id++);
    struct tepi_segment list[SEGMENTS_MOST];
    entry.program = entry.opcode == TEPI_CMD_ABORT ? (uint32_t)take(bytes, 1) : any_handle(attack);
    entry.batch = take(bytes, 1) % 16 ? 1 + (uint32_t)take(bytes, 1) % 8 : (uint32_t)take(bytes, 4);
    entry.segments = cover(attack, entry.batch % 16, list);
    entry.list_iova = take(bytes, 1) % 16
                          ? raw_put(&attack->raw, LIST_AT, list, entry.segments * sizeof list[0])
                          : address(attack);
    entry.data_iova = address(attack);
    entry.data_bytes = take(bytes, 3);
    entry.flags = take(bytes, 1) % 4 == 0 ? TEPI_EXECUTE_PROFILE : 0;
    submit(attack, &entry);
}

/* Completions are not waited for, since a stopped pair gives none: the handle is taken from where
 * it lies when everything before it was completed in order. */
static void load_bytes(struct attack *attack, const uint8_t *image, size_t count)
{
    struct tepi_submission entry = raw_entry(&attack->raw, TEPI_CMD_LOAD_PROGRAM, 999);
    entry.data_iova = raw_put(&attack->raw, 2 * AREA, image, count);
    entry.data_bytes = count;
    const uint32_t place = attack->raw.tail[0];
    raw_submit(&attack->raw, 0, &entry);
    const struct tepi_completion *done = raw_completion(&attack->raw, 0, place);
    attack->handles[attack->loads++ % HANDLES] = done->result;
}

static void load(struct attack *attack)
{
    struct bytes *bytes = &attack->bytes;
    size_t count;
    uint8_t *image = raw_copy_image(ITEM, &count);
    for (uint64_t changes = take(bytes, 1) % 3; changes > 0; changes--) {
        image[take(bytes, 2) % count] ^= (uint8_t)take(bytes, 1);
    }
    if (take(bytes, 1) % 2) {
        builder_seal(image, count);
    }
    load_bytes(attack, image, count);
    free(image);
}

static void poke(struct attack *attack)
{
    const uint64_t offset = take(&attack->bytes, 3) % (RAW_BYTES - 8);
    const uint64_t value = take(&attack->bytes, 8);
    memcpy(attack->raw.memory + offset, &value, sizeof value);
}

static void give_back(struct attack *attack)
{
    const uint32_t queue = (uint32_t)take(&attack->bytes, 1) % 2;
    attack->raw.head[queue] += (uint32_t)take(&attack->bytes, 1) % 20;
    raw_write32(&attack->raw,
                TEPI_REG_DOORBELL + queue * TEPI_REG_DOORBELL_STRIDE + TEPI_DOORBELL_CQ_HEAD,
                attack->raw.head[queue]);
}

static void upheaval(struct attack *attack)
{
    switch (take(&attack->bytes, 1) % 8) {
    case 0:
        tepi_card_detach(attack->raw.card);
        break;
    case 1:
        tepi_card_inject(attack->raw.card, TEPI_FAULT_HANG, 0);
        break;
    case 2:
        raw_write32(&attack->raw, TEPI_REG_RESET, TEPI_RESET_KEY);
        break;
    default:
        tepi_card_attach(attack->raw.card);
        raw_start(&attack->raw);
        load(attack);
        break;
    }
}

static void act(struct attack *attack)
{
    static void (*const acts[])(struct attack *) = {
        write_register, plausible_entry, plausible_entry, raw_bytes_entry, load,
        poke,           give_back,       upheaval,
    };
    acts[take(&attack->bytes, 1) % (sizeof acts / sizeof acts[0])](attack);
}

void hostile_host(const uint8_t *bytes, size_t count)
{
    struct attack attack = {.bytes = {bytes, count}};
    if (!raw_open(&attack.raw, &(struct raw_options){.memory_bytes = CARD_MEMORY})) {
        abort();
    }
    load(&attack);
    while (attack.bytes.left) {
        act(&attack);
    }
    attack.raw.port.plug(attack.raw.port.device, NULL);
    tepi_card_attach(attack.raw.card);
    if (atomic_load(&attack.raw.held) != 0 ||
        raw_read64(&attack.raw, TEPI_REG_MEMORY_FREE) != CARD_MEMORY) {
        fprintf(stderr, "the card kept %d pieces of host memory, lost %llu bytes of its own\n",
                atomic_load(&attack.raw.held),
                (unsigned long long)(CARD_MEMORY - raw_read64(&attack.raw, TEPI_REG_MEMORY_FREE)));
        abort();
    }
    raw_close(&attack.raw);
}
