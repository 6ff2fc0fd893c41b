/* SPDX-License-Identifier: Apache-2.0 */
/* Reference product of two activations, one output byte at a time; reads b where it lies. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"

static size_t scratch_bytes(const struct tepi_matmul *matmul)
{
    (void)matmul;
    return 0;
}

static void pack(const struct tepi_matmul *matmul)
{
    (void)matmul;
}

static uint32_t dot(const struct tepi_matmul *m, const uint8_t *a, const uint8_t *b, size_t step)
{
    uint32_t sum = 0;
    for (size_t k = 0; k < m->depth; k++)
        sum += (uint32_t)((a[k] - m->a_zero_point) * (b[k * step] - m->b_zero_point));
    return sum;
}

static void run(const struct tepi_matmul *m, uint32_t row_begin, uint32_t row_end)
{
    const size_t column_step = m->b_transposed ? m->b_stride : 1;
    const size_t depth_step = m->b_transposed ? 1 : m->b_stride;
    for (size_t row = row_begin; row < row_end; row++) {
        const uint8_t *a = m->a + row * m->a_stride;
        uint8_t *out = m->output + row * m->out_stride;
        for (size_t column = 0; column < m->columns; column++)
            out[column] = tepi_requantize_u8(dot(m, a, m->b + column * column_step, depth_step),
                                             m->multiplier, &m->store);
    }
}

const struct tepi_matmul_kernel tepi_u8_matmul_1x1_scalar = {
    .name = "u8-matmul-1x1-scalar",
    .isa = TEPI_KERNEL_SCALAR,
    .scratch_bytes = scratch_bytes,
    .pack = pack,
    .run = run,
};
