/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of the float32 kernels. */
#include "kernels/vector_variants.h"
#include "kernels/guarded.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default)

enum { CANARY = 0xa5, SIZE = sizeof(float) };

/* Any bits at times, else numbers about 1 and values that operations treat apart. */
static void fill(uint64_t *random, struct guarded *block)
{
    static const float special[] = {INFINITY, -INFINITY, NAN,      0.0f,   -0.0f,  1e-45f,
                                    -1e-38f,  3.4e38f,   -3.4e38f, 88.73f, 104.0f, 0.55f,
                                    1.0f,     -1.0f,     0.5f,     1.5f};
    for (size_t i = 0; i + SIZE <= block->size; i += SIZE) {
        float x = ((float)random_below(random, 1 << 20) - 524288.0f) / 65536.0f;
        if (random_below(random, 8) == 0)
            x = special[random_below(random, 16)];
        const uint32_t bits = (uint32_t)random_next(random);
        if (random_below(random, 8) == 0)
            memcpy(&x, &bits, SIZE);
        memcpy(block->bytes + i, &x, SIZE);
    }
}

static struct guarded row_of(size_t count, bool at_end, uint64_t *random)
{
    struct guarded block = guarded_new(count * SIZE + TEPI_KERNEL_SLACK, at_end);
    fill(random, &block);
    return block;
}

static bool alike(float a, float b)
{
    return memcmp(&a, &b, SIZE) == 0 || (isnan(a) && isnan(b));
}

int tepi_check_vector(uint32_t set, uint32_t operation, uint32_t count, uint32_t steps,
                      uint64_t seed, char *why)
{
    const bool at_end = seed & 1, reduces = operation >= TEPI_F32_SUM;
    const size_t room = (count + TEPI_VECTOR_LANES - 1) / TEPI_VECTOR_LANES * TEPI_VECTOR_LANES;
    struct guarded operands[3];
    for (uint32_t k = 0; k < 3; k++)
        operands[k] = row_of(steps >> k & 1 ? count : 1, at_end, &seed);
    struct guarded output = guarded_new(room * SIZE, at_end);
    struct guarded expected = guarded_new(room * SIZE, at_end);
    struct tepi_vector v = {
        .a = (const float *)operands[0].bytes,
        .b = (const float *)operands[1].bytes,
        .c = (const float *)operands[2].bytes,
        .a_step = steps & 1,
        .b_step = steps >> 1 & 1,
        .c_step = steps >> 2 & 1,
        .count = count,
        .out = (float *)expected.bytes,
    };
    tepi_set(0)->vector->operations[operation](&v);
    v.out = (float *)output.bytes;
    tepi_set(set)->vector->operations[operation](&v);
    int verdict = 0;
    for (size_t i = 0; i < (reduces ? 1 : count) && !verdict; i++) {
        const float found = ((const float *)output.bytes)[i];
        const float wanted = ((const float *)expected.bytes)[i];
        if (alike(found, wanted))
            continue;
        snprintf(why, TEPI_WHY_BYTES, "operation %u, element %zu of %u is %a, the reference has %a",
                 operation, i, count, (double)found, (double)wanted);
        verdict = 1;
    }
    for (uint32_t k = 0; k < 3; k++)
        guarded_free(&operands[k]);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

static int compare(const struct guarded *output, const struct guarded *expected, const char *what,
                   char *why)
{
    for (size_t i = 0; i < output->size; i++) {
        if (output->bytes[i] == expected->bytes[i])
            continue;
        snprintf(why, TEPI_WHY_BYTES, "%s: output byte %zu of %zu is %u, the reference has %u",
                 what, i, output->size, output->bytes[i], expected->bytes[i]);
        return 1;
    }
    return 0;
}

static struct guarded canaries(size_t size, bool at_end)
{
    struct guarded block = guarded_new(size, at_end);
    memset(block.bytes, CANARY, size);
    return block;
}

int tepi_check_stored(uint32_t set, uint32_t count, uint32_t step, uint64_t seed, char *why)
{
    const bool at_end = seed & 1;
    struct guarded a = row_of(count, at_end, &seed);
    struct guarded output = canaries(count * SIZE, at_end);
    struct guarded expected = canaries(count * SIZE, at_end);
    const float *row = (const float *)a.bytes;
    tepi_set(0)->vector->store(row, step, (float *)expected.bytes, count);
    tepi_set(set)->vector->store(row, step, (float *)output.bytes, count);
    int verdict = compare(&output, &expected, "store", why);
    float range[2][2] = {{0, 0}, {0, 0}};
    tepi_set(0)->vector->range(row, count, &range[0][0], &range[0][1]);
    tepi_set(set)->vector->range(row, count, &range[1][0], &range[1][1]);
    if (!verdict && (range[0][0] != range[1][0] || range[0][1] != range[1][1])) {
        snprintf(why, TEPI_WHY_BYTES, "range of %u", count);
        verdict = 1;
    }
    guarded_free(&a);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

static size_t extent(uint32_t rows, size_t stride, uint32_t columns)
{
    return (rows - 1) * stride + columns;
}

int tepi_check_fmatmul(uint32_t set, const struct tepi_fmatmul_case *s, uint64_t seed, char *why)
{
    const struct tepi_fmatmul_kernel *kernel = tepi_set(set)->fmatmul;
    const bool at_end = seed & 1;
    const uint32_t b_rows = s->b_transposed ? s->columns : s->depth;
    const uint32_t b_columns = s->b_transposed ? s->depth : s->columns;
    struct tepi_fmatmul m = {
        .a_stride = s->depth + s->a_padding,
        .b_stride = b_columns + s->b_padding,
        .out_stride = s->columns + s->out_padding,
        .rows = s->rows,
        .depth = s->depth,
        .columns = s->columns,
        .b_transposed = s->b_transposed,
        .scale = random_below(&seed, 2) ? 1.0f : 0.3f,
    };
    struct guarded a = row_of(extent(m.rows, m.a_stride, m.depth), at_end, &seed);
    struct guarded b = row_of(extent(b_rows, m.b_stride, b_columns), at_end, &seed);
    const size_t size = extent(m.rows, m.out_stride, m.columns) * SIZE;
    struct guarded output = canaries(size, at_end), expected = canaries(size, at_end);
    m.a = (const float *)a.bytes;
    m.b = (const float *)b.bytes;
    m.output = (float *)expected.bytes;
    tepi_set(0)->fmatmul->run(&m, 0, m.rows);
    const size_t scratch = (kernel->scratch_bytes(&m) + 63) / 64 * 64;
    m.scratch = scratch ? aligned_alloc(64, scratch) : NULL;
    m.output = (float *)output.bytes;
    const uint32_t cut = s->row_cut < m.rows ? s->row_cut : m.rows;
    kernel->pack(&m);
    kernel->run(&m, 0, cut);
    kernel->run(&m, cut, m.rows);
    const int verdict = compare(&output, &expected, kernel->name, why);
    free(m.scratch);
    guarded_free(&a);
    guarded_free(&b);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

#pragma GCC visibility pop
