/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target without libFuzzer: a fixed number of mutations of its seed, the same every
 * time, so that ctest covers the target with any compiler. Arguments: rounds, first round; or one
 * file, a finding to replay. A finding is replayed by its round: `fuzz_program 1 ROUND`. */
#include "seed.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROOM = 1 << 16, ROUNDS = 20000 };

static uint64_t next(uint64_t *state)
{
    /* splitmix64 */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* A value that a careless check lets through: ends of ranges, small numbers, neighbours. */
static uint64_t edge(uint64_t *state, uint64_t old)
{
    static const uint64_t ends[] = {
        0,          1,           2,           0x7f,        0x80,       0xff,
        0x100,      0x7fff,      0xffff,      0x10000,     0xffffff,   0x1000000,
        0x7fffffff, 0x80000000u, 0xfffffffeu, 0xffffffffu, UINT64_MAX, UINT64_C(1) << 63};
    switch (next(state) % 6) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return old ^ UINT64_C(1) << next(state) % 64;
    case 3:
        return next(state) % 16;
    case 4:
        return old * 2;
    default:
        return ends[next(state) % (sizeof(ends) / sizeof(ends[0]))];
    }
}

/* Most bytes of a seed are bulk data; the first ones are where formats keep their fields. */
static void mutate(uint8_t *data, size_t bytes, uint64_t *state)
{
    const size_t width = (size_t)1 << next(state) % 4;
    const size_t span = next(state) % 8 ? (bytes < 3072 ? bytes : 3072) : bytes;
    const size_t at = (size_t)(next(state) % span) / width * width;
    uint64_t value = 0;
    if (at + width > bytes)
        return;
    memcpy(&value, data + at, width);
    value = edge(state, value);
    memcpy(data + at, &value, width);
}

static int replay(const char *path)
{
    uint8_t *data = malloc(ROOM);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        free(data);
        return 1;
    }
    const size_t bytes = fread(data, 1, ROOM, file);
    fclose(file);
    LLVMFuzzerTestOneInput(data, bytes);
    free(data);
    return 0;
}

int main(int count, char **arguments)
{
    if (count == 2 && strtoul(arguments[1], NULL, 10) == 0)
        return replay(arguments[1]);
    const unsigned long rounds = count > 1 ? strtoul(arguments[1], NULL, 10) : ROUNDS;
    const unsigned long first = count > 2 ? strtoul(arguments[2], NULL, 10) : 0;
    uint8_t *seed = malloc(ROOM), *data = malloc(ROOM);
    const size_t bytes = fuzz_seed(seed, ROOM);
    for (unsigned long round = first; bytes && round < first + rounds; round++) {
        uint64_t state = round;
        size_t kept = bytes;
        memcpy(data, seed, bytes);
        for (uint64_t mutations = 1 + next(&state) % 4; mutations > 0; mutations--)
            mutate(data, bytes, &state);
        if (next(&state) % 32 == 0)
            kept = (size_t)(next(&state) % (bytes + 1));
        LLVMFuzzerTestOneInput(data, kept);
    }
    printf("%lu rounds from %lu, seed of %zu bytes\n", rounds, first, bytes);
    free(seed);
    free(data);
    return bytes ? 0 : 1;
}
