/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzz target: the software card's front end against a host whose acts are drawn from bytes. Sound
 * if the card stays in its own memory and in what is mapped, and keeps none of either. */
#include "card/builder.h"
#include "card/hostile_host.h"
#include "seed.h"

enum { SEED_BYTES = 512 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    hostile_host(data, size);
    return 0;
}

size_t fuzz_seed(uint8_t *data, size_t room)
{
    struct chance chance = {.state = 1};
    const size_t bytes = room < SEED_BYTES ? room : SEED_BYTES;
    chance_fill(&chance, data, bytes);
    return bytes;
}
