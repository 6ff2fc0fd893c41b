/* SPDX-License-Identifier: Apache-2.0 */
/* Dense and grouped convolution with VPDPBUSD on machines that have it for 256-bit vectors
 * (AVX-VNNI). dense.h has the rest. */
#include "kernels/avx2/dense.h"

enum { DEPTH = 4 };

/* acc[i][v] += 4 bytes of pixel i * 4 of each channel of block v. */
TEPI_INLINE void add_step(__m256i *acc, const uint8_t *const *in, size_t byte,
                          const uint8_t *weights, const int rows, const int width)
{
    __m256i w[2];
    TEPI_UNROLL
    for (int v = 0; v < width; v++)
        w[v] = tepi_load32(weights + v * TEPI_VECTOR);
    TEPI_UNROLL
    for (int i = 0; i < rows; i++) {
        const __m256i four = tepi_broadcast4(in[i] + byte);
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            acc[i * width + v] = tepi_dot4(acc[i * width + v], four, w[v]);
    }
}

/* Where a tile has too few accumulators to hide the latency of the multiply (4 cycles, 2 in each),
 * steps sum apart in turn. */
TEPI_INLINE void tile(const struct tepi_panel *p, const uint8_t *const *in, uint8_t *const *out,
                      const int rows, const int width)
{
    const int n = rows * width, chains = n <= 3 ? 4 : n <= 6 ? 2 : 1;
    __m256i acc[TEPI_ROWS * 2];
    const uint8_t *at[TEPI_ROWS];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++)
        at[i] = in[i];
    TEPI_UNROLL
    for (int k = 0; k < n * chains; k++)
        acc[k] = k < n ? p->bias[k % width] : _mm256_setzero_si256();
    const uint8_t *weights = p->weights;
    size_t step = 0;
    for (; step + (size_t)chains <= p->steps; step += (size_t)chains) {
        TEPI_UNROLL
        for (int c = 0; c < chains; c++, weights += width * TEPI_VECTOR)
            add_step(acc + c * n, at, (step + (size_t)c) * 4, weights, rows, width);
    }
    for (; chains > 1 && step < p->steps; step++, weights += width * TEPI_VECTOR)
        add_step(acc, at, step * 4, weights, rows, width);
    TEPI_UNROLL
    for (int k = n; k < n * chains; k++)
        acc[k % n] = _mm256_add_epi32(acc[k % n], acc[k]);
    tepi_store_tile(p, out, acc, rows, width);
}

#define TILE(rows, width)                                                                          \
    static void tile_##rows##x##width(const struct tepi_panel *p, const uint8_t *const *in,        \
                                      uint8_t *const *out)                                         \
    {                                                                                              \
        tile(p, in, out, rows, width);                                                             \
    }
#define TILES(width)                                                                               \
    TILE(1, width) TILE(2, width) TILE(3, width) TILE(4, width) TILE(5, width) TILE(6, width)
TILES(1)
TILES(2)

static void run_panel(const struct tepi_panel *p, const struct tepi_pixels *at, uint32_t count,
                      uint32_t width, uint8_t *scratch)
{
    static void (*const tiles[2][TEPI_ROWS])(const struct tepi_panel *, const uint8_t *const *,
                                             uint8_t *const *) = {
        {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
        {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
    };
    (void)scratch;
    for (uint32_t begin = 0, rows; begin < count; begin += rows) {
        rows = tepi_tile_rows(count - begin);
        tiles[width - 1][rows - 1](p, at->windows + begin, at->out + begin);
    }
}

static bool takes(const struct tepi_conv *conv)
{
    (void)conv;
    return true;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    return tepi_dense_packed_bytes(&s, DEPTH);
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    tepi_dense_pack(conv, &s, canonical, packed, DEPTH);
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    return tepi_windows_bytes(&s);
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    tepi_dense_run(conv, row_begin, row_end, run_panel, DEPTH);
}

const struct tepi_conv_kernel tepi_u8s8_conv_6x16_avxvnni = {
    .name = "u8s8-conv-6x16-avxvnni",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
