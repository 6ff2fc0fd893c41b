/* SPDX-License-Identifier: Apache-2.0 */
/* An EXECUTE that brings back a record for each instruction, through DMA memory of its own. */
#include "driver/controller.h"

#include <string.h>

int tepi_controller_profile(struct tepi_controller *controller, struct tepi_submission *entry,
                            struct tepi_profile_record *records, uint32_t count,
                            struct tepi_completion *completion, struct tepi_failure *failure)
{
    struct tepi_pool *pool = tepi_controller_pool(controller);
    const uint64_t bytes = (uint64_t)count * sizeof *records;
    struct tepi_block block;
    int result = tepi_pool_take(pool, bytes, TEPI_POOL_ALIGN, &block);
    if (result) {
        return result;
    }
    entry->flags = TEPI_EXECUTE_PROFILE;
    entry->data_iova = block.iova;
    entry->data_bytes = bytes;
    result = tepi_controller_command(controller, entry, completion, failure);
    if (result == 0) {
        memcpy(records, block.address, bytes);
    }
    tepi_pool_give(pool, &block);
    return result;
}
