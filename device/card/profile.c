/* SPDX-License-Identifier: Apache-2.0 */
/* EXECUTE with TEPI_EXECUTE_PROFILE: times are kept in card memory while the program runs, and go
 * to the host as records once it is done. */
#include "card/state.h"

#include <stddef.h>
#include <string.h>

struct tepi_verdict tepi_card_profile_begin(struct tepi_card_command *command,
                                            struct tepi_card_profile *profile)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    const struct tepi_submission *entry = &command->entry;
    const uint64_t count = tepi_program_instructions(command->program->program);
    if (entry->data_bytes < count * sizeof(struct tepi_profile_record)) {
        return (struct tepi_verdict){TEPI_FAULT_BAD_FIELD,
                                     offsetof(struct tepi_submission, data_bytes)};
    }
    const uint64_t bytes = count * sizeof *profile->elapsed_ns;
    uint64_t *elapsed_ns = tepi_memory_take(&card->memory, bytes);
    if (!elapsed_ns) {
        return (struct tepi_verdict){TEPI_FAULT_NO_MEMORY, (uint32_t)(bytes >> 10) + 1};
    }
    profile->records = tepi_function_acquire(function, entry->data_iova,
                                             count * sizeof(struct tepi_profile_record));
    if (!profile->records) {
        tepi_memory_give(&card->memory, elapsed_ns, bytes);
        return (struct tepi_verdict){TEPI_FAULT_DMA, TEPI_NONE};
    }
    profile->elapsed_ns = elapsed_ns;
    return (struct tepi_verdict){TEPI_FAULT_OK, 0};
}

void tepi_card_profile_end(struct tepi_card_command *command, struct tepi_card_profile *profile,
                           bool whole)
{
    struct tepi_function *function = command->queue->function;
    struct tepi_card *card = function->card;
    struct tepi_host_port *host = &function->host;
    const struct tepi_program *program = command->program->program;
    const uint32_t count = tepi_program_instructions(program);
    unsigned char *to = profile->records;
    for (uint32_t i = 0; i < count && whole; i++) {
        struct tepi_profile_record record = tepi_program_describe(program, i);
        record.elapsed_ns = profile->elapsed_ns[i];
        memcpy(to + (size_t)i * sizeof record, &record, sizeof record);
    }
    command->completion.result = whole ? count : 0;
    host->dma_release(host->host, command->entry.data_iova,
                      (uint64_t)count * sizeof(struct tepi_profile_record));
    tepi_memory_give(&card->memory, profile->elapsed_ns, count * sizeof *profile->elapsed_ns);
}
