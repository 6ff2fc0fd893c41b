/* SPDX-License-Identifier: Apache-2.0 */
/* Times the float32 kernels of the best set: each operation on a row of 1536 elements, nanoseconds
 * per element; then products of an encoder's sizes with their packing, GFLOP/s. Medians. */
#include "kernels/kernels.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROW = 1536, ROUNDS = 401, REPEATS = 20 };

static const char *const names[TEPI_F32_OPERATIONS] = {
    "add", "sub",    "mul",  "div",     "max",  "min",   "eq",   "ne",    "lt",
    "le",  "select", "neg",  "abs",     "sqrt", "floor", "ceil", "round", "exp",
    "log", "erf",    "tanh", "sigmoid", "sum",  "maxof", "minof"};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static float *floats(size_t count)
{
    float *made = aligned_alloc(64, (count * sizeof(float) + TEPI_KERNEL_SLACK + 63) / 64 * 64);
    if (!made)
        abort();
    for (size_t i = 0; i < count + TEPI_KERNEL_SLACK / sizeof(float); i++)
        made[i] = (float)(i * 2654435761u % 8192) / 1024.0f - 4.0f;
    return made;
}

static double time_operation(const struct tepi_kernel_set *set, uint32_t operation,
                             const struct tepi_vector *vector)
{
    static double taken[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        const double start = seconds();
        for (int i = 0; i < REPEATS; i++)
            set->vector->operations[operation](vector);
        taken[round] = (seconds() - start) / REPEATS;
    }
    qsort(taken, ROUNDS, sizeof(double), ascending);
    return taken[ROUNDS / 2];
}

static void time_product(const struct tepi_kernel_set *set, struct tepi_fmatmul m)
{
    static double taken[ROUNDS];
    m.a_stride = m.depth;
    m.b_stride = m.b_transposed ? m.depth : m.columns;
    m.out_stride = m.columns;
    m.scale = 0.5f;
    float *a = floats((size_t)m.rows * m.depth), *b = floats((size_t)m.depth * m.columns);
    float *scratch = floats(set->fmatmul->scratch_bytes(&m) / sizeof(float) + 1);
    m.a = a;
    m.b = b;
    m.output = floats((size_t)m.rows * m.columns);
    m.scratch = scratch;
    for (int round = 0; round < ROUNDS; round++) {
        const double start = seconds();
        set->fmatmul->pack(&m);
        set->fmatmul->run(&m, 0, m.rows);
        taken[round] = seconds() - start;
    }
    qsort(taken, ROUNDS, sizeof(double), ascending);
    printf("%-24s %4u x %4u x %4u %s %9.2f us %6.1f GFLOP/s\n", set->fmatmul->name, m.rows, m.depth,
           m.columns, m.b_transposed ? "t" : " ", taken[ROUNDS / 2] * 1e6,
           2e-9 * m.rows * m.depth * m.columns / taken[ROUNDS / 2]);
    free(a);
    free(b);
    free(scratch);
    free(m.output);
}

int main(void)
{
    const struct tepi_kernel_set *set = tepi_kernels_for(tepi_kernels_best());
    const struct tepi_vector vector = {.a = floats(ROW),
                                       .b = floats(ROW),
                                       .c = floats(ROW),
                                       .a_step = 1,
                                       .b_step = 1,
                                       .c_step = 1,
                                       .count = ROW,
                                       .out = floats(ROW)};
    for (uint32_t operation = 0; operation < TEPI_F32_OPERATIONS; operation++)
        printf("f32-vector %-12s %7.3f ns per element\n", names[operation],
               time_operation(set, operation, &vector) * 1e9 / ROW);
    time_product(
        set, (struct tepi_fmatmul){.rows = 128, .depth = 32, .columns = 128, .b_transposed = true});
    time_product(set, (struct tepi_fmatmul){.rows = 128, .depth = 128, .columns = 32});
    time_product(set, (struct tepi_fmatmul){.rows = 128, .depth = 384, .columns = 1536});
    return 0;
}
