/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: any bytes as a card program, from one that works on float32. A fresh checksum lets
 * them past the CRC; what loads is run once. Sound if no byte outside image, arena and ports is
 * touched and nothing runs for long.
 */
#include "card/float_specimen.h"
#include "seed.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    (void)specimen_try(data, size, tepi_kernels_for(tepi_kernels_best()));
    return 0;
}

size_t fuzz_seed(uint8_t *data, size_t room)
{
    struct specimen specimen;
    float_specimen_make(&specimen);
    const size_t bytes = specimen.bytes < room ? specimen.bytes : 0;
    memcpy(data, specimen.image, bytes);
    specimen_free(&specimen);
    return bytes;
}
