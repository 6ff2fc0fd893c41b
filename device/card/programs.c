/* SPDX-License-Identifier: Apache-2.0 */
/* A function's table of loaded programs, by handle, with reference counts.
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

/* Scratch that the largest program in the function's table needs. */
static uint64_t largest_scratch(struct tepi_function *function)
{
    uint64_t largest = 0;
    pthread_mutex_lock(&function->programs_lock);
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX; i++) {
        if (function->programs[i]) {
            const uint64_t bytes = tepi_program_scratch_bytes(function->programs[i]->program);
            largest = bytes > largest ? bytes : largest;
        }
    }
    pthread_mutex_unlock(&function->programs_lock);
    return largest;
}

/* Makes the units' scratch fit all functions' programs; false where card memory is too full. */
static bool fit_units(struct tepi_card *card)
{
    pthread_mutex_lock(&card->resize_lock);
    uint64_t bytes = 0;
    pthread_mutex_lock(&card->functions_lock);
    for (struct tepi_function *at = card->functions; at; at = at->next) {
        const uint64_t wanted = largest_scratch(at);
        bytes = wanted > bytes ? wanted : bytes;
    }
    pthread_mutex_unlock(&card->functions_lock);
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
static bool insert(struct tepi_function *function, struct tepi_card_program *program)
{
    bool inserted = false;
    pthread_mutex_lock(&function->programs_lock);
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX && !inserted; i++) {
        const uint32_t serial = function->handles % (SERIALS_MAX - 1) + 1;
        if (!function->programs[i]) {
            function->handles++;
            program->unloaded = true;
            program->handle = serial * TEPI_CARD_PROGRAMS_MAX + i;
            function->programs[i] = program;
            inserted = true;
        }
    }
    pthread_mutex_unlock(&function->programs_lock);
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
static struct tepi_verdict load_image(struct tepi_function *function,
                                      const struct tepi_submission *entry,
                                      struct tepi_program **program)
{
    struct tepi_host_port *host = &function->host;
    struct image image = {.host = host, .iova = entry->data_iova};
    if (entry->data_bytes > tepi_memory_free(&function->card->memory)) {
        return memory_full(function->card, entry->data_bytes);
    }
    const struct tepi_program_source source = {
        .image = tepi_function_acquire(function, entry->data_iova, entry->data_bytes),
        .bytes = entry->data_bytes,
        .consumed = consumed,
        .context = &image,
    };
    if (!source.image) {
        return (struct tepi_verdict){TEPI_FAULT_DMA, 0};
    }
    const struct tepi_verdict verdict =
        tepi_program_load_from(&source, function->card->kernels, &function->card->memory, program);
    host->dma_release(host->host, entry->data_iova, entry->data_bytes);
    return verdict;
}

struct tepi_verdict tepi_card_load(struct tepi_function *function,
                                   const struct tepi_submission *entry, uint32_t *handle)
{
    struct tepi_card_program *loaded = calloc(1, sizeof *loaded);
    if (!loaded) {
        return memory_full(function->card, sizeof *loaded);
    }
    loaded->refs = 1;
    struct tepi_verdict verdict = load_image(function, entry, &loaded->program);
    if (verdict.fault != TEPI_FAULT_OK) {
        free(loaded);
        return verdict;
    }
    if (!insert(function, loaded)) {
        tepi_program_free(loaded->program);
        free(loaded);
        return memory_full(function->card, 0);
    }
    if (!fit_units(function->card)) {
        verdict = memory_full(function->card, tepi_program_scratch_bytes(loaded->program) *
                                                  function->card->config.workers);
        tepi_card_program_put(function, loaded);
        return verdict;
    }
    pthread_mutex_lock(&function->programs_lock);
    loaded->unloaded = false;
    pthread_mutex_unlock(&function->programs_lock);
    *handle = loaded->handle;
    return verdict;
}

struct tepi_card_program *tepi_card_program_get(struct tepi_function *function, uint32_t handle)
{
    pthread_mutex_lock(&function->programs_lock);
    struct tepi_card_program *program = function->programs[handle % TEPI_CARD_PROGRAMS_MAX];
    if (!program || program->handle != handle || program->unloaded) {
        program = NULL;
    } else {
        program->refs++;
    }
    pthread_mutex_unlock(&function->programs_lock);
    return program;
}

void tepi_card_program_put(struct tepi_function *function, struct tepi_card_program *program)
{
    pthread_mutex_lock(&function->programs_lock);
    const bool last = --program->refs == 0;
    if (last) {
        function->programs[program->handle % TEPI_CARD_PROGRAMS_MAX] = NULL;
    }
    pthread_mutex_unlock(&function->programs_lock);
    if (last) {
        tepi_card_ecc_forget(function->card, program);
        tepi_program_free(program->program);
        free(program);
        fit_units(function->card);
    }
}

struct tepi_verdict tepi_card_unload(struct tepi_function *function, uint32_t handle)
{
    struct tepi_card_program *program = tepi_card_program_get(function, handle);
    if (!program) {
        return (struct tepi_verdict){TEPI_FAULT_NO_PROGRAM, handle};
    }
    pthread_mutex_lock(&function->programs_lock);
    const bool ours = !program->unloaded;
    program->unloaded = true;
    pthread_mutex_unlock(&function->programs_lock);
    if (ours) {
        tepi_card_program_put(function, program);
    }
    tepi_card_program_put(function, program);
    return (struct tepi_verdict){ours ? TEPI_FAULT_OK : TEPI_FAULT_NO_PROGRAM, 0};
}

void tepi_card_programs_clear(struct tepi_function *function)
{
    for (uint32_t i = 0; i < TEPI_CARD_PROGRAMS_MAX; i++) {
        /* Another function's load may be looking for the largest. */
        pthread_mutex_lock(&function->programs_lock);
        struct tepi_card_program *program = function->programs[i];
        function->programs[i] = NULL;
        pthread_mutex_unlock(&function->programs_lock);
        if (program) {
            tepi_card_ecc_forget(function->card, program);
            tepi_program_free(program->program);
            free(program);
        }
    }
    fit_units(function->card);
}
