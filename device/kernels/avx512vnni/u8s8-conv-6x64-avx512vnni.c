/* SPDX-License-Identifier: Apache-2.0 */
/* Dense and grouped convolution, direct: no copy of the input. 24 accumulators hold a tile of 6
 * pixels x 64 channels, or 8 x 48, 12 x 32, 16 x 16 where there are fewer channels; each step
 * broadcasts 4 input bytes per pixel against 4 weights of each channel.
 *
 * Packed weights: [group][panel of up to 4 blocks][run][step][block][16 channels][4 bytes], zeros
 * where the shape leaves room. A run is a stretch of input that lies in one piece: a whole kernel
 * row where pixels adjoin, else one tap; a step is 4 bytes of it. Small groups are merged until
 * they fill a block, with zero weights between them. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/tile_store.h"

enum { PANEL = TEPI_TILE_BLOCKS, BLOCK = TEPI_BLOCK, PIXELS = 256, TILE_MAX = 16, LINE = 64 };
/* Weights and inputs that are not in the second-level cache when a run of a model comes to them. */
enum { STREAMED_WEIGHTS = 32 << 10, STREAMED_INPUT = 512 << 10 };

/* The convolution as this kernel sees it; the same at packing and at run time. */
struct shape {
    uint32_t groups, group_in, group_out; /* after merging */
    uint32_t merged;                      /* canonical groups in one of ours */
    uint32_t runs_h, runs_w, taps_w;      /* runs per kernel row; taps in a run */
    uint32_t steps;                       /* of a run */
    uint32_t blocks, panels;              /* of a group */
};

/* Part of a group's channels: `width` blocks, all pixels. */
struct panel {
    const int8_t *weights;
    struct tepi_channels channels;
    struct tepi_store_vectors store;
    size_t in_offset, out_offset, step_h, step_w; /* bytes */
    uint32_t runs_h, runs_w, steps;
    /* Weights to have in the second-level cache soon, and bytes of them per LINE of input here. */
    const int8_t *ahead, *ahead_end;
    size_t ahead_bytes;
    /* Of each pixel to come: input that no earlier pixel has read, in bytes after its first tap. */
    size_t fresh, fresh_bytes;
    uint32_t fresh_rows; /* at `fresh` and up to here before it, step_h apart */
};

struct pixels {
    const uint8_t *in[PIXELS];
    uint8_t *out[PIXELS];
};

static uint32_t merged_groups(const struct tepi_conv *conv)
{
    uint32_t best = 1;
    for (uint32_t m = 2; m <= BLOCK && m * conv->group_out <= BLOCK; m++)
        if (conv->groups % m == 0)
            best = m;
    return best;
}

static struct shape shape_of(const struct tepi_conv *conv)
{
    const uint32_t m = merged_groups(conv);
    struct shape s = {.groups = conv->groups / m,
                      .group_in = conv->group_in * m,
                      .group_out = conv->group_out * m,
                      .merged = m,
                      .runs_h = conv->kernel_h};
    /* A kernel row in one piece costs steps for the bytes between the taps. */
    const size_t row = (conv->kernel_w - 1) * conv->in_stride_w + s.group_in;
    const size_t whole = (row + 3) / 4, apart = conv->kernel_w * (((size_t)s.group_in + 3) / 4);
    const bool in_one =
        (conv->dilation_w == 1 || conv->kernel_w == 1) && whole <= apart + apart / 8;
    s.runs_w = in_one ? 1 : conv->kernel_w;
    s.taps_w = in_one ? conv->kernel_w : 1;
    s.steps = (uint32_t)(in_one ? whole : apart / conv->kernel_w);
    s.blocks = (s.group_out + BLOCK - 1) / BLOCK;
    s.panels = (s.blocks + PANEL - 1) / PANEL;
    return s;
}

/* First block of a panel: all are full but the last. */
static uint32_t panel_begin(const struct shape *s, uint32_t panel)
{
    return panel * PANEL < s->blocks ? panel * PANEL : s->blocks;
}

static size_t block_bytes(const struct shape *s)
{
    return (size_t)s->runs_h * s->runs_w * s->steps * BLOCK * 4;
}

static bool takes(const struct tepi_conv *conv)
{
    return !conv->floats;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    return s.groups * s.blocks * block_bytes(&s);
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    (void)conv;
    return 0;
}

/* One filter into its lane. `packed` is the first weight of the filter's channel in its panel,
 * `pitch` the bytes from one step to the next. */
static void pack_filter(const struct tepi_conv *conv, const struct shape *s, const int8_t *filter,
                        size_t channel_in, int8_t *packed, size_t pitch)
{
    for (size_t tap = 0; tap < (size_t)conv->kernel_h * conv->kernel_w; tap++) {
        const size_t run = tap / s->taps_w, in_run = tap % s->taps_w;
        const size_t first = in_run * conv->in_stride_w + channel_in;
        for (size_t c = 0; c < conv->group_in; c++) {
            const size_t byte = first + c;
            packed[(run * s->steps + byte / 4) * pitch + byte % 4] =
                filter[tap * conv->group_in + c];
        }
    }
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const struct shape s = shape_of(conv);
    const size_t filter = (size_t)conv->kernel_h * conv->kernel_w * conv->group_in;
    memset(packed, 0, packed_bytes(conv));
    int8_t *out = packed;
    for (uint32_t g = 0; g < s.groups; g++) {
        for (uint32_t p = 0; p < s.panels; p++) {
            const uint32_t begin = panel_begin(&s, p), end = panel_begin(&s, p + 1);
            const uint32_t last = end * BLOCK < s.group_out ? end * BLOCK : s.group_out;
            for (uint32_t o = begin * BLOCK; o < last; o++) {
                const size_t lane = o - begin * BLOCK;
                pack_filter(conv, &s, canonical + ((size_t)g * s.group_out + o) * filter,
                            (size_t)(o / conv->group_out) * conv->group_in, out + lane * 4,
                            (size_t)(end - begin) * BLOCK * 4);
            }
            out += (end - begin) * block_bytes(&s);
        }
    }
}

/* One step: 4 bytes of every pixel against 4 weights of every channel. */
TEPI_INLINE void step(__m512i *acc, const uint8_t *const *in, size_t byte, const int8_t *weights,
                      const int rows, const int width)
{
    __m512i w[PANEL];
    TEPI_UNROLL
    for (int v = 0; v < width; v++)
        w[v] = _mm512_loadu_si512(weights + v * BLOCK * 4);
    TEPI_UNROLL
    for (int i = 0; i < rows; i++) {
        const __m512i a = tepi_broadcast4(in[i] + byte);
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            acc[i * width + v] = tepi_dot4(acc[i * width + v], a, w[v]);
    }
}

/* Some of the next panel's weights. Inlined, since GCC takes a function that only prefetches for
 * one without effect; not in the innermost loop, where it keeps the hardware from fetching. */
TEPI_INLINE void fetch_weights(struct panel *p)
{
    const int8_t *stop = p->ahead + p->ahead_bytes;
    for (; p->ahead < stop && p->ahead < p->ahead_end; p->ahead += LINE)
        _mm_prefetch(p->ahead, _MM_HINT_T1);
}

/* A tile of rows x width accumulators. Where that is too few to hide the latency of the multiply
 * (4 cycles, 2 in each), odd steps sum apart. */
TEPI_INLINE void tile(struct panel *p, const uint8_t *const *in, uint8_t *const *out,
                      const int rows, const int width)
{
    const int n = rows * width, chains = n <= 4 ? 4 : n <= 8 ? 2 : 1;
    const bool fetches = rows > 2 && width > 2;
    const size_t pitch = (size_t)width * BLOCK * 4;
    __m512i acc[4 * 6];
    TEPI_UNROLL
    for (int k = 0; k < n * chains; k++)
        acc[k] = k < n ? p->channels.bias[k % width] : _mm512_setzero_si512();
    const int8_t *weights = p->weights;
    size_t row_offset = p->in_offset;
    for (uint32_t y = 0; y < p->runs_h; y++, row_offset += p->step_h) {
        size_t offset = row_offset;
        for (uint32_t x = 0; x < p->runs_w; x++, offset += p->step_w) {
            const uint8_t *at[TILE_MAX];
            TEPI_UNROLL
            for (int i = 0; i < rows; i++)
                at[i] = in[i] + offset;
            const size_t end = (size_t)p->steps * 4;
            for (size_t byte = 0, stop; byte < end; byte = stop) {
                stop = end;
                if (fetches && end - byte > LINE)
                    stop = byte + LINE;
                if (fetches)
                    fetch_weights(p);
                for (; byte + (size_t)chains * 4 <= stop; byte += (size_t)chains * 4) {
                    TEPI_UNROLL
                    for (int c = 0; c < chains; c++, weights += pitch)
                        step(acc + c * n, at, byte + (size_t)c * 4, weights, rows, width);
                }
                for (; chains > 1 && byte < stop; byte += 4, weights += pitch)
                    step(acc, at, byte, weights, rows, width);
            }
        }
    }
    TEPI_UNROLL
    for (int k = n; k < n * chains; k++)
        acc[k % n] = _mm512_add_epi32(acc[k % n], acc[k]);
    tepi_store_tile(&p->channels, &p->store, out, p->out_offset, acc, rows, width);
}

#define TILE(rows, width)                                                                          \
    static void tile_##rows##x##width(struct panel *p, const uint8_t *const *in,                   \
                                      uint8_t *const *out)                                         \
    {                                                                                              \
        tile(p, in, out, rows, width);                                                             \
    }
#define TILES_TO_6(width)                                                                          \
    TILE(1, width) TILE(2, width) TILE(3, width) TILE(4, width) TILE(5, width) TILE(6, width)
#define TILES_TO_8(width) TILES_TO_6(width) TILE(7, width) TILE(8, width)
#define TILES_TO_12(width)                                                                         \
    TILES_TO_8(width) TILE(9, width) TILE(10, width) TILE(11, width) TILE(12, width)
TILES_TO_12(1)
TILE(13, 1)
TILE(14, 1)
TILE(15, 1)
TILE(16, 1)
TILES_TO_12(2)
TILES_TO_8(3)
TILES_TO_6(4)

typedef void tile_function(struct panel *p, const uint8_t *const *in, uint8_t *const *out);

/* [width - 1][rows - 1] */
static tile_function *const tiles[PANEL][TILE_MAX] = {
    {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1, tile_9x1,
     tile_10x1, tile_11x1, tile_12x1, tile_13x1, tile_14x1, tile_15x1, tile_16x1},
    {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2, tile_7x2, tile_8x2, tile_9x2,
     tile_10x2, tile_11x2, tile_12x2},
    {tile_1x3, tile_2x3, tile_3x3, tile_4x3, tile_5x3, tile_6x3, tile_7x3, tile_8x3},
    {tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4},
};
static const uint32_t rows_max[PANEL] = {16, 12, 8, 6};

/* Asked for a tile ahead: the hardware's own guess fails on inputs of several short streams.
 * Inlined, since GCC takes a function that only prefetches for one without effect. */
TEPI_INLINE void fetch_pixels(const struct panel *p, const struct pixels *at, uint32_t begin,
                              uint32_t end)
{
    for (uint32_t i = begin; p->fresh_rows && i < end; i++) {
        const uint8_t *row = at->in[i] + p->fresh;
        for (uint32_t y = 0; y < p->fresh_rows; y++, row -= p->step_h)
            for (size_t byte = 0; byte < p->fresh_bytes; byte += LINE)
                _mm_prefetch(row + byte, _MM_HINT_T0);
    }
}

/* `count` pixels against one panel in full tiles; the last two share what is left, since a tile of
 * one pixel would read all weights for a sixth of the work. */
static void run_panel(struct panel *p, const struct pixels *at, uint32_t count, uint32_t width)
{
    const uint32_t most = rows_max[width - 1], parts = (count + most - 1) / most;
    p->ahead_bytes = ((size_t)width * BLOCK * LINE + parts - 1) / parts;
    for (uint32_t i = 0, begin = 0; i < parts; i++) {
        const uint32_t left = count - begin;
        const uint32_t rows =
            left >= 2 * most || left <= most ? (left < most ? left : most) : (left + 1) / 2;
        fetch_pixels(p, at, begin + rows, begin + 2 * rows < count ? begin + 2 * rows : count);
        tiles[width - 1][rows - 1](p, at->in + begin, at->out + begin);
        begin += rows;
    }
}

static void run_groups(const struct tepi_conv *conv, const struct shape *s, struct panel *p,
                       const struct pixels *at, uint32_t count)
{
    p->weights = conv->weights;
    const int8_t *end = p->weights + packed_bytes(conv);
    const bool streamed = packed_bytes(conv) >= STREAMED_WEIGHTS;
    const uint32_t fresh_rows = p->fresh_rows;
    for (uint32_t g = 0; g < s->groups; g++) {
        p->in_offset = (size_t)g * s->group_in;
        for (uint32_t i = 0; i < s->panels; i++) {
            const uint32_t begin = panel_begin(s, i), width = panel_begin(s, i + 1) - begin;
            const uint32_t left = s->group_out - begin * BLOCK;
            p->out_offset = (size_t)g * s->group_out + begin * BLOCK;
            p->channels =
                tepi_channels_at(conv, p->out_offset, left < width * BLOCK ? left : width * BLOCK);
            const int8_t *next = p->weights + width * block_bytes(s);
            p->ahead = next;
            p->ahead_end = streamed ? end : next;
            p->fresh_rows = g == 0 && i == 0 ? fresh_rows : 0;
            run_panel(p, at, count, width);
            p->weights = next;
        }
    }
    p->fresh_rows = fresh_rows;
    const size_t channels = (size_t)s->groups * s->group_out;
    for (uint32_t i = 0; conv->store.table && i < count; i++)
        tepi_u8_table_64_avx512vnni(conv->store.table, at->out[i], at->out[i], channels);
}

/* Neighbouring pixels share all but the last stride_w columns and stride_h rows of their windows.
 */
static void set_fresh(struct panel *p, const struct tepi_conv *conv)
{
    const size_t run = (size_t)p->steps * 4, step = conv->stride_w * conv->in_stride_w;
    p->fresh_bytes = step < run ? step : run;
    p->fresh = (conv->kernel_h - 1) * p->step_h + run - p->fresh_bytes;
    p->fresh_rows = conv->stride_h < conv->kernel_h ? conv->stride_h : conv->kernel_h;
    const size_t input = conv->out_h * conv->stride_h * conv->in_stride_h;
    if (step < LINE || (input < STREAMED_INPUT && packed_bytes(conv) < STREAMED_WEIGHTS))
        p->fresh_rows = 0;
}

/* Rows of pixels are flattened, so that a tile may span two of them. */
static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const struct shape s = shape_of(conv);
    struct panel p = {.runs_h = s.runs_h,
                      .runs_w = s.runs_w,
                      .steps = s.steps,
                      .step_h = conv->dilation_h * conv->in_stride_h,
                      .step_w = conv->dilation_w * conv->in_stride_w,
                      .store = tepi_store_vectors(&conv->store)};
    const size_t in_step = conv->stride_w * conv->in_stride_w;
    set_fresh(&p, conv);
    /* Blocks of equal size, for the same reason as tiles in run_panel. */
    const uint64_t pixels = (uint64_t)(row_end - row_begin) * conv->out_w;
    const uint64_t blocks = (pixels + PIXELS - 1) / PIXELS;
    const uint32_t block = blocks ? (uint32_t)((pixels + blocks - 1) / blocks) : 0;
    struct pixels at;
    uint32_t count = 0;
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (uint32_t x = 0; x < conv->out_w; x++) {
            at.in[count] = in;
            at.out[count] = out;
            in += in_step;
            out += conv->out_stride_w;
            if (++count == block) {
                run_groups(conv, &s, &p, &at, count);
                count = 0;
            }
        }
    }
    if (count)
        run_groups(conv, &s, &p, &at, count);
}

const struct tepi_conv_kernel tepi_u8s8_conv_6x64_avx512vnni = {
    .name = "u8s8-conv-6x64-avx512vnni",
    .isa = TEPI_KERNEL_AVX512VNNI,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
