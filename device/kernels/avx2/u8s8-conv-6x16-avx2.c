/* SPDX-License-Identifier: Apache-2.0 */
/* Dense and grouped convolution with VPMADDWD (madd.h). dense.h has the rest.
 *
 * Weights stay bytes in memory and are widened for all tiles of a block of pixels at once, so many
 * steps at a time that they stay in the first-level cache; sums wait in between. */
#include "kernels/avx2/dense.h"
#include "kernels/avx2/madd.h"

enum { DEPTH = 2, STEPS = 256, WEIGHTS_BYTES = STEPS * 2 * TEPI_VECTOR, PIXEL_SUMS = 64 };

/* A part of the steps of a panel: whose weights, and where sums wait. */
struct part {
    const uint8_t *weights;
    uint8_t *sums; /* of the tile */
    size_t offset; /* of its first step in a window */
    size_t steps;
    bool first, last;
};

TEPI_INLINE void tile(const struct tepi_panel *p, const struct part *part,
                      const uint8_t *const *windows, uint8_t *const *out, const int rows,
                      const int width, const bool narrow)
{
    __m256i acc[TEPI_ROWS * 2];
    __m256i *sums = (__m256i *)part->sums;
    const uint8_t *in[TEPI_ROWS];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++)
        in[i] = windows[i] + part->offset;
    TEPI_UNROLL
    for (int k = 0; k < rows * width; k++)
        acc[k] = part->first ? p->bias[k % width] : _mm256_load_si256(sums + k);
    tepi_madd(acc, in, part->weights, part->steps, rows, width, narrow);
    if (part->last) {
        tepi_store_tile(p, out, acc, rows, width);
        return;
    }
    TEPI_UNROLL
    for (int k = 0; k < rows * width; k++)
        _mm256_store_si256(sums + k, acc[k]);
}

typedef void tile_function(const struct tepi_panel *p, const struct part *part,
                           const uint8_t *const *windows, uint8_t *const *out);

#define TILE(name, rows, width, narrow)                                                            \
    static void name##rows##x##width(const struct tepi_panel *p, const struct part *part,          \
                                     const uint8_t *const *windows, uint8_t *const *out)           \
    {                                                                                              \
        tile(p, part, windows, out, rows, width, narrow);                                          \
    }
#define TILES(name, width, narrow)                                                                 \
    TILE(name, 1, width, narrow)                                                                   \
    TILE(name, 2, width, narrow)                                                                   \
    TILE(name, 3, width, narrow)                                                                   \
    TILE(name, 4, width, narrow)                                                                   \
    TILE(name, 5, width, narrow)                                                                   \
    TILE(name, 6, width, narrow)
TILES(wide_, 1, false)
TILES(wide_, 2, false)
TILES(narrow_, 1, true)
TILES(narrow_, 2, true)

static tile_function *const wide[2][TEPI_ROWS] = {
    {wide_1x1, wide_2x1, wide_3x1, wide_4x1, wide_5x1, wide_6x1},
    {wide_1x2, wide_2x2, wide_3x2, wide_4x2, wide_5x2, wide_6x2},
};
static tile_function *const narrow[2][TEPI_ROWS] = {
    {narrow_1x1, narrow_2x1, narrow_3x1, narrow_4x1, narrow_5x1, narrow_6x1},
    {narrow_1x2, narrow_2x2, narrow_3x2, narrow_4x2, narrow_5x2, narrow_6x2},
};

static void run_panel(const struct tepi_panel *p, const struct tepi_pixels *at, uint32_t count,
                      uint32_t width, uint8_t *scratch)
{
    if (count <= TEPI_ROWS) {
        const struct part all = {
            .weights = p->weights, .steps = p->steps, .first = true, .last = true};
        narrow[width - 1][count - 1](p, &all, at->windows, at->out);
        return;
    }
    const size_t parts = (p->steps + STEPS - 1) / STEPS, most = (p->steps + parts - 1) / parts;
    const size_t bytes = width * TEPI_BLOCK * DEPTH; /* of packed weights in a step */
    const size_t lines = most * bytes / 64 * TEPI_ROWS / count + 1;
    for (size_t step = 0, steps; step < p->steps; step += steps) {
        steps = p->steps - step < most ? p->steps - step : most;
        struct part part = {.weights = scratch,
                            .sums = scratch + WEIGHTS_BYTES,
                            .offset = step * 4,
                            .steps = steps,
                            .first = step == 0,
                            .last = step + steps == p->steps};
        tepi_widen_weights(scratch, p->weights + step * bytes, steps * bytes);
        const uint8_t *next = p->weights + (step + steps) * bytes;
        for (uint32_t begin = 0, rows; begin < count; begin += rows) {
            rows = tepi_tile_rows(count - begin);
            next = tepi_prefetch(next, lines);
            wide[width - 1][rows - 1](p, &part, at->windows + begin, at->out + begin);
            part.sums += rows * PIXEL_SUMS;
        }
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
    return tepi_windows_bytes(&s) + WEIGHTS_BYTES + s.pixels * PIXEL_SUMS;
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    tepi_dense_run(conv, row_begin, row_end, run_panel, DEPTH);
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
