/* SPDX-License-Identifier: Apache-2.0 */
/* The card's table of loaded programs, by handle, with reference counts.
 *
 * A handle is serial * TABLE + slot, so that one of an unloaded program is never taken for that of
 * its slot's next tenant (until 4 million loads later). */
#include "card/state.h"

#include <stdlib.h>
#include <string.h>

#define SERIALS_MAX (UINT32_MAX / TEPI_CARD_PROGRAMS_MAX)

/* The verdict where taking `bytes` of card memory failed; info counts the KiB that are missing. */
static struct tepi_verdict memory_full(struct tepi_card *card, uint64_t bytes)
{
    const uint64_t have = tepi_memory_free(&card->memory);
    const uint64_t missing = bytes > have ? (bytes - have + 1023) / 1024 : 1;
    return (struct tepi_verdict){TEPI_FAULT_NO_MEMORY,
                                 missing > UINT32_MAX ? UINT32_MAX : (uint32_t)missing};
}

/* Scratch that the largest program in the table needs; under programs_lock. */
static uint64_t largest_scratch(const struct tepi_card *card)
{
    uint64_t largest = 0;
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX; i++) {
        if (card->programs[i]) {
            const uint64_t bytes = tepi_program_scratch_bytes(card->programs[i]->program);
            largest = bytes > largest ? bytes : largest;
        }
    }
    return largest;
}

/* Makes the units' scratch fit the table; false where card memory is too full for that. */
static bool fit_units(struct tepi_card *card)
{
    pthread_mutex_lock(&card->resize_lock);
    pthread_mutex_lock(&card->programs_lock);
    const uint64_t bytes = largest_scratch(card);
    pthread_mutex_unlock(&card->programs_lock);
    bool fits = true;
    if (bytes != card->unit_bytes && tepi_card_units_resize(card, bytes)) {
        card->unit_bytes = bytes;
    } else {
        /* Scratch that could not be made smaller still fits. */
        fits = bytes <= card->unit_bytes;
    }
    pthread_mutex_unlock(&card->resize_lock);
    return fits;
}

/* Gives the program a slot and a handle, which is not valid yet. */
static bool insert(struct tepi_card *card, struct tepi_card_program *program)
{
    bool inserted = false;
    pthread_mutex_lock(&card->programs_lock);
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX && !inserted; i++) {
        const uint32_t serial = card->handles % (SERIALS_MAX - 1) + 1;
        if (!card->programs[i]) {
            card->handles++;
            program->unloaded = true;
            program->handle = serial * TEPI_CARD_PROGRAMS_MAX + i;
            card->programs[i] = program;
            inserted = true;
        }
    }
    pthread_mutex_unlock(&card->programs_lock);
    return inserted;
}

struct image {
    struct tepi_host_port *host;
    uint64_t iova;
};

static void consumed(void *context, uint64_t offset, uint64_t bytes)
{
    const struct image *image = context;
    if (image->host->dma_consumed) {
        image->host->dma_consumed(image->host->host, image->iova + offset, bytes);
    }
}

/* The image is read where it lies in host memory. The host may write to it meanwhile: what is
 * checked is copied first, see struct tepi_image. */
static struct tepi_verdict load_image(struct tepi_card *card, const struct tepi_submission *entry,
                                      struct tepi_program **program)
{
    struct tepi_host_port *host = &card->host;
    struct image image = {.host = host, .iova = entry->data_iova};
    if (entry->data_bytes > tepi_memory_free(&card->memory)) {
        return memory_full(card, entry->data_bytes);
    }
    const struct tepi_program_source source = {
        .image = host->dma_acquire(host->host, entry->data_iova, entry->data_bytes),
        .bytes = entry->data_bytes,
        .consumed = consumed,
        .context = &image,
    };
    if (!source.image) {
        return (struct tepi_verdict){TEPI_FAULT_DMA, 0};
    }
    const struct tepi_verdict verdict =
        tepi_program_load_from(&source, card->kernels, &card->memory, program);
    host->dma_release(host->host, entry->data_iova, entry->data_bytes);
    return verdict;
}

struct tepi_verdict tepi_card_load(struct tepi_card *card, const struct tepi_submission *entry,
                                   uint32_t *handle)
{
    struct tepi_card_program *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        return memory_full(card, sizeof *loaded);
    }
    loaded->refs = 1;
    struct tepi_verdict verdict = load_image(card, entry, &loaded->program);
    if (verdict.fault != TEPI_FAULT_OK) {
        free(loaded);
        return verdict;
    }
    if (!insert(card, loaded)) {
        tepi_program_free(loaded->program);
        free(loaded);
        return memory_full(card, 0);
    }
    if (!fit_units(card)) {
        verdict =
            memory_full(card, tepi_program_scratch_bytes(loaded->program) * card->config.workers);
        tepi_card_program_put(card, loaded);
        return verdict;
    }
    pthread_mutex_lock(&card->programs_lock);
    loaded->unloaded = false;
    pthread_mutex_unlock(&card->programs_lock);
    *handle = loaded->handle;
    return verdict;
}

struct tepi_card_program *tepi_card_program_get(struct tepi_card *card, uint32_t handle)
{
    pthread_mutex_lock(&card->programs_lock);
    struct tepi_card_program *program = card->programs[handle % TEPI_CARD_PROGRAMS_MAX];
    if (!program || program->handle != handle || program->unloaded) {
        program = NULL;
    } else {
        program->refs++;
    }
    pthread_mutex_unlock(&card->programs_lock);
    return program;
}

void tepi_card_program_put(struct tepi_card *card, struct tepi_card_program *program)
{
    pthread_mutex_lock(&card->programs_lock);
    const bool last = --program->refs == 0;
    if (last) {
        card->programs[program->handle % TEPI_CARD_PROGRAMS_MAX] = NULL;
    }
    pthread_mutex_unlock(&card->programs_lock);
    if (last) {
        tepi_program_free(program->program);
        free(program);
        fit_units(card);
    }
}

struct tepi_verdict tepi_card_unload(struct tepi_card *card, uint32_t handle)
{
    struct tepi_card_program *program = tepi_card_program_get(card, handle);
    if (!program) {
        return (struct tepi_verdict){TEPI_FAULT_NO_PROGRAM, handle};
    }
    pthread_mutex_lock(&card->programs_lock);
    const bool ours = !program->unloaded;
    program->unloaded = true;
    pthread_mutex_unlock(&card->programs_lock);
    if (ours) {
        tepi_card_program_put(card, program);
    }
    tepi_card_program_put(card, program);
    return (struct tepi_verdict){ours ? TEPI_FAULT_OK : TEPI_FAULT_NO_PROGRAM, 0};
}

void tepi_card_programs_clear(struct tepi_card *card)
{
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX; i++) {
        if (card->programs[i]) {
            tepi_program_free(card->programs[i]->program);
            free(card->programs[i]);
            card->programs[i] = NULL;
        }
    }
    fit_units(card);
}
