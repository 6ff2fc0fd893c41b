/* SPDX-License-Identifier: Apache-2.0 */
/* Dense and grouped convolution with VPMADDWD: both factors as 16 bits, so that no product and no
 * pair of them saturates (VPMADDUBSW's do: 2 * 255 * 127 is over int16). dense.h has the rest. */
#include "kernels/avx2/dense.h"

enum { DEPTH = 2 };

/* acc[i][v] += pair of pixel i * pair of each channel of block v, step by step. */
TEPI_INLINE void tile(const struct tepi_panel *p, const uint8_t *const *in, uint8_t *const *out,
                      const int rows, const int width)
{
    __m256i acc[TEPI_ROWS * 2];
    const uint8_t *at[TEPI_ROWS];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++)
        at[i] = in[i];
    TEPI_UNROLL
    for (int k = 0; k < rows * width; k++)
        acc[k] = p->bias[k % width];
    const uint8_t *weights = p->weights;
    const size_t end = (size_t)p->steps * 4;
    for (size_t byte = 0; byte < end; byte += 4, weights += width * TEPI_VECTOR) {
        __m256i w[2];
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            w[v] = tepi_load32(weights + v * TEPI_VECTOR);
        TEPI_UNROLL
        for (int i = 0; i < rows; i++) {
            const __m256i pair = tepi_broadcast4(at[i] + byte);
            TEPI_UNROLL
            for (int v = 0; v < width; v++)
                acc[i * width + v] =
                    _mm256_add_epi32(acc[i * width + v], _mm256_madd_epi16(pair, w[v]));
        }
    }
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

static tepi_tiles tiles = {
    {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
    {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
};

static bool takes(const struct tepi_conv *conv)
{
    (void)conv;
    return true;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    return tepi_dense_packed_bytes(&s);
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    tepi_dense_pack(conv, &s, canonical, packed, DEPTH);
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    const struct tepi_shape s = tepi_shape_of(conv, DEPTH);
    return tepi_dense_scratch_bytes(&s);
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    tepi_dense_run(conv, row_begin, row_end, tiles, DEPTH);
}

const struct tepi_conv_kernel tepi_u8s8_conv_6x16_avx2 = {
    .name = "u8s8-conv-6x16-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
