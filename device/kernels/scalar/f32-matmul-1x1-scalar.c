/* SPDX-License-Identifier: Apache-2.0 */
/* Reference float32 product, one result at a time; reads b where it lies. */
#include "kernels/scalar/float_store.h"
#include "kernels/scalar/scalar.h"

static size_t scratch_bytes(const struct tepi_fmatmul *m)
{
    (void)m;
    return 0;
}

static void pack(const struct tepi_fmatmul *m)
{
    (void)m;
}

static float dot(const float *a, const float *b, size_t step, size_t depth)
{
    float acc = 0;
    for (size_t k = 0; k < depth; k++)
        acc = fmaf(a[k], b[k * step], acc);
    return acc;
}

static void run(const struct tepi_fmatmul *m, uint32_t row_begin, uint32_t row_end)
{
    const size_t column_step = m->b_transposed ? m->b_stride : 1;
    const size_t depth_step = m->b_transposed ? 1 : m->b_stride;
    for (size_t row = row_begin; row < row_end; row++) {
        const float *a = m->a + row * m->a_stride;
        float *out = m->output + row * m->out_stride;
        for (size_t column = 0; column < m->columns; column++)
            out[column] = tepi_stored_f32(
                dot(a, m->b + column * column_step, depth_step, m->depth) * m->scale);
    }
}

const struct tepi_fmatmul_kernel tepi_f32_matmul_1x1_scalar = {
    .name = "f32-matmul-1x1-scalar",
    .isa = TEPI_KERNEL_SCALAR,
    .scratch_bytes = scratch_bytes,
    .pack = pack,
    .run = run,
};
