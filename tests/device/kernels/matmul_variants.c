/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of products of two activations, and of operations along channels of several pixels. */
#include "kernels/guarded.h"
#include "kernels/scalar/scalar.h"
#include "kernels/variants.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC visibility push(default)

enum { CANARY = 0xa5 };

static int compare(const struct guarded *output, const struct guarded *expected, const char *what,
                   char *why)
{
    for (size_t i = 0; i < output->size; i++) {
        if (output->bytes[i] != expected->bytes[i]) {
            snprintf(why, TEPI_WHY_BYTES, "%s: output byte %zu of %zu is %u, the reference has %u",
                     what, i, output->size, output->bytes[i], expected->bytes[i]);
            return 1;
        }
    }
    return 0;
}

static struct guarded canaries(size_t size, bool at_end)
{
    struct guarded block = guarded_new(size, at_end);
    memset(block.bytes, CANARY, size);
    return block;
}

/* Only the ends of the range: sums as large as they get. */
static void fill(uint64_t *random, struct guarded *block, bool extreme)
{
    random_fill(random, block->bytes, block->size);
    for (size_t i = 0; extreme && i < block->size; i++)
        block->bytes[i] = block->bytes[i] & 1 ? 255 : 0;
}

static size_t extent(uint32_t rows, size_t stride, uint32_t columns)
{
    return (rows - 1) * stride + columns;
}

int tepi_check_matmul(uint32_t set, const struct tepi_matmul_case *s, uint64_t seed, char *why)
{
    const struct tepi_matmul_kernel *kernel = tepi_set(set)->matmul;
    const struct tepi_matmul_kernel *reference = tepi_set(0)->matmul;
    const bool at_end = seed & 1;
    const uint32_t b_rows = s->b_transposed ? s->columns : s->depth;
    const uint32_t b_columns = s->b_transposed ? s->depth : s->columns;
    uint8_t table[256];
    struct tepi_matmul m = {
        .a_stride = s->depth + s->a_padding,
        .b_stride = b_columns + s->b_padding,
        .out_stride = s->columns + s->out_padding,
        .rows = s->rows,
        .depth = s->depth,
        .columns = s->columns,
        .b_transposed = s->b_transposed,
        .a_zero_point = (int32_t)s->a_zero_point,
        .b_zero_point = (int32_t)s->b_zero_point,
        .multiplier = ldexpf(1.0f + (float)random_below(&seed, 1000) / 1000.0f, -12),
        .store = {.zero_point = (int32_t)random_below(&seed, 256),
                  .lo = (uint8_t)s->lo,
                  .hi = (uint8_t)s->hi,
                  .table = s->has_table ? table : NULL},
    };
    random_fill(&seed, table, sizeof(table));
    struct guarded a = guarded_new(extent(m.rows, m.a_stride, m.depth) + TEPI_KERNEL_SLACK, at_end);
    struct guarded b =
        guarded_new(extent(b_rows, m.b_stride, b_columns) + TEPI_KERNEL_SLACK, at_end);
    const size_t size = extent(m.rows, m.out_stride, m.columns);
    struct guarded output = canaries(size, at_end), expected = canaries(size, at_end);
    fill(&seed, &a, s->extreme);
    fill(&seed, &b, s->extreme);
    m.a = a.bytes;
    m.b = b.bytes;
    m.output = expected.bytes;
    reference->run(&m, 0, m.rows);
    const size_t scratch = (kernel->scratch_bytes(&m) + 63) / 64 * 64;
    m.scratch = scratch ? aligned_alloc(64, scratch) : NULL;
    m.output = output.bytes;
    const uint32_t cut = s->row_cut < m.rows ? s->row_cut : m.rows;
    if (scratch)
        memset(m.scratch, CANARY, scratch);
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

static void run_channels(const struct tepi_kernel_set *set, const struct tepi_channels_case *s,
                         const struct tepi_softmax *softmax, const struct tepi_layernorm *layernorm,
                         const uint8_t *a, uint8_t *out)
{
    if (!s->layernorm) {
        set->softmax(softmax, a, out);
        return;
    }
    for (size_t row = 0; row < softmax->rows; row++)
        set->layernorm(layernorm, a + row * softmax->a_step, out + row * softmax->out_step,
                       softmax->count);
}

int tepi_check_channels(uint32_t set, const struct tepi_channels_case *s, uint64_t seed, char *why)
{
    const bool at_end = seed & 1;
    float table[256], *factors = malloc(2 * s->count * sizeof(*factors));
    for (int i = 0; i < 256; i++)
        table[i] = expf((float)(i - 255) * 0.05f);
    for (size_t i = 0; i < 2 * (size_t)s->count; i++)
        factors[i] = ((float)random_below(&seed, 2000) - 1000.0f) / 16.0f;
    const struct tepi_softmax softmax = {
        .table = table,
        .ratio = 256.0f,
        .zero_point = (int32_t)random_below(&seed, 256),
        .count = s->count,
        .rows = s->rows,
        .a_step = s->count + s->a_padding,
        .out_step = s->count + s->out_padding,
    };
    const struct tepi_layernorm layernorm = {
        .gamma = factors,
        .beta = factors + s->count,
        .epsilon = ldexpf(1.0f, -(int)random_below(&seed, 140)),
        .zero_point = softmax.zero_point,
    };
    struct guarded a =
        guarded_new(extent(s->rows, softmax.a_step, s->count) + TEPI_KERNEL_SLACK, at_end);
    const size_t size = extent(s->rows, softmax.out_step, s->count);
    struct guarded output = canaries(size, at_end), expected = canaries(size, at_end);
    fill(&seed, &a, s->extreme);
    if (s->flat)
        memset(a.bytes, (int)random_below(&seed, 256), a.size);
    run_channels(tepi_set(0), s, &softmax, &layernorm, a.bytes, expected.bytes);
    run_channels(tepi_set(set), s, &softmax, &layernorm, a.bytes, output.bytes);
    const int verdict = compare(&output, &expected, s->layernorm ? "layernorm" : "softmax", why);
    free(factors);
    guarded_free(&a);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

#pragma GCC visibility pop
