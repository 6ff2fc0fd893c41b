/* SPDX-License-Identifier: Apache-2.0 */
/* The fuzzer's attack with fixed seeds: the same hosts at every run. */
#include "card/hostile_host.h"

#include "card/builder.h"
#include "check.h"

enum { HOSTS = 500, BYTES_MOST = 4096 };

CHECK_CASE(hundreds_of_hostile_hosts)
{
    static uint8_t bytes[BYTES_MOST];
    for (uint64_t seed = 1; seed <= HOSTS; seed++) {
        struct chance chance = {.state = seed};
        const uint32_t count = 64 + chance_below(&chance, BYTES_MOST - 64);
        chance_fill(&chance, bytes, count);
        hostile_host(bytes, count);
    }
    CHECK(true);
}

CHECK_CASE(nothing_at_all)
{
    hostile_host(NULL, 0);
    CHECK(true);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(nothing_at_all),
    CHECK_ENTRY(hundreds_of_hostile_hosts),
};

CHECK_MAIN(cases)
