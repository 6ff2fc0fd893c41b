/* SPDX-License-Identifier: Apache-2.0 */
/* Dense and grouped convolution over tiles of 6 pixels x 16 channels, for the two ways that AVX2
 * machines multiply: VPMADDWD takes two 16-bit products a lane (depth 2), VPDPBUSD of AVX-VNNI four
 * of bytes (depth 4). The windows of a block of pixels are first copied, and for depth 2 widened,
 * so that each is one run of elements; all channels then read that copy. Windows that already are
 * such runs (depth 4, one tap) stay where they are.
 *
 * Packed weights: [group][panel of 2 blocks, the last maybe of 1][step][block][8 channels][depth]
 * bytes, zeros where the shape leaves room. Small groups are merged until they fill a
 * panel, with zero weights between them. */
#ifndef TEPI_KERNELS_AVX2_DENSE_H
#define TEPI_KERNELS_AVX2_DENSE_H

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum {
    TEPI_ROWS = 6,
    TEPI_BLOCK = 8,
    TEPI_PANEL = 16,
    TEPI_PIXELS = 240,
    TEPI_VECTOR = 32,
    TEPI_LINE = 64,
    TEPI_LONG_WINDOW = 512,
    /* Windows of one block of pixels: they share the second-level cache with a panel's weights. */
    TEPI_WINDOWS_BYTES = 160 << 10,
    TEPI_WIDE_WINDOWS_BYTES = 200 << 10, /* of depth 2 */
};

/* The convolution as these kernels see it; the same at packing and at run time. */
struct tepi_shape {
    uint32_t groups, group_in, group_out; /* after merging */
    uint32_t runs_w, taps_w;              /* runs of input per kernel row; taps in one */
    uint32_t run;                         /* elements of a run */
    uint32_t steps, blocks;               /* of a group */
    size_t window;                        /* bytes of one window's copy */
    uint32_t pixels;                      /* of a block */
};

struct tepi_panel {
    const uint8_t *weights;
    __m256i bias[2];
    __m256 multiplier[2], addend[2];
    struct tepi_store_vectors store;
    size_t out_offset, channels; /* bytes; channels that are stored */
    uint32_t steps;
    bool floats;
};

struct tepi_pixels {
    const uint8_t *in[TEPI_PIXELS];
    const uint8_t *windows[TEPI_PIXELS];
    uint8_t *out[TEPI_PIXELS];
};

/* One panel of `width` blocks over `count` pixels; `scratch` is what the windows leave. */
typedef void tepi_run_panel(const struct tepi_panel *p, const struct tepi_pixels *at,
                            uint32_t count, uint32_t width, uint8_t *scratch);

static inline uint32_t tepi_merged_groups(const struct tepi_conv *conv)
{
    uint32_t best = 1;
    for (uint32_t m = 2; m <= TEPI_PANEL && m * conv->group_out <= TEPI_PANEL; m++)
        if (conv->groups % m == 0)
            best = m;
    return best;
}

static inline struct tepi_shape tepi_shape_of(const struct tepi_conv *conv, const uint32_t depth)
{
    const uint32_t m = tepi_merged_groups(conv);
    struct tepi_shape s = {.groups = conv->groups / m,
                           .group_in = conv->group_in * m,
                           .group_out = conv->group_out * m};
    /* A kernel row in one piece costs steps for the bytes between the taps. */
    const size_t row = (conv->kernel_w - 1) * conv->in_stride_w + s.group_in;
    const size_t apart = (size_t)conv->kernel_w * s.group_in;
    const bool in_one = (conv->dilation_w == 1 || conv->kernel_w == 1) && row <= apart + apart / 8;
    s.runs_w = in_one ? 1 : conv->kernel_w;
    s.taps_w = in_one ? conv->kernel_w : 1;
    s.run = (uint32_t)(in_one ? row : s.group_in);
    s.steps = (uint32_t)(((size_t)conv->kernel_h * s.runs_w * s.run + depth - 1) / depth);
    s.blocks = (s.group_out + TEPI_BLOCK - 1) / TEPI_BLOCK;
    s.window = (size_t)s.steps * 4;
    /* An odd number of lines, or windows of some sizes would share few sets of the cache. */
    if (depth == 2 && s.window >= TEPI_LONG_WINDOW)
        s.window =
            (s.window / TEPI_LINE | 1) * TEPI_LINE + (s.window % TEPI_LINE ? 2 * TEPI_LINE : 0);
    const size_t bytes = depth == 2 ? TEPI_WIDE_WINDOWS_BYTES : TEPI_WINDOWS_BYTES;
    const size_t fit = bytes / s.window / TEPI_ROWS * TEPI_ROWS;
    s.pixels = (uint32_t)(fit < TEPI_ROWS ? TEPI_ROWS : fit < TEPI_PIXELS ? fit : TEPI_PIXELS);
    return s;
}

static inline size_t tepi_block_bytes(const struct tepi_shape *s, const uint32_t depth)
{
    return (size_t)s->steps * TEPI_BLOCK * depth;
}

static inline size_t tepi_dense_packed_bytes(const struct tepi_shape *s, const uint32_t depth)
{
    return s->groups * s->blocks * tepi_block_bytes(s, depth);
}

/* The last run is copied in whole vectors. */
static inline size_t tepi_windows_bytes(const struct tepi_shape *s)
{
    return (s->pixels * s->window + 2 * TEPI_VECTOR - 1) / TEPI_VECTOR * TEPI_VECTOR + TEPI_VECTOR;
}

/* One filter into its lane. `packed` is the channel's first weight in its panel, `pitch` the bytes
 * from one step to the next, `channel_in` where the canonical group begins in the merged one. */
static inline void tepi_pack_filter(const struct tepi_conv *conv, const struct tepi_shape *s,
                                    const int8_t *filter, size_t channel_in, uint8_t *packed,
                                    size_t pitch, const uint32_t depth)
{
    for (size_t tap = 0; tap < (size_t)conv->kernel_h * conv->kernel_w; tap++) {
        size_t element =
            tap / s->taps_w * s->run + tap % s->taps_w * conv->in_stride_w + channel_in;
        const size_t end = element + conv->group_in;
        for (; element % depth && element < end; element++)
            packed[element / depth * pitch + element % depth] = (uint8_t)*filter++;
        for (; element + depth <= end; element += depth, filter += depth)
            memcpy(packed + element / depth * pitch, filter, depth);
        for (; element < end; element++)
            packed[element / depth * pitch + element % depth] = (uint8_t)*filter++;
    }
}

static inline void tepi_dense_pack(const struct tepi_conv *conv, const struct tepi_shape *s,
                                   const int8_t *canonical, uint8_t *packed, const uint32_t depth)
{
    const size_t filter = (size_t)conv->kernel_h * conv->kernel_w * conv->group_in;
    memset(packed, 0, tepi_dense_packed_bytes(s, depth));
    for (uint32_t g = 0; g < s->groups; g++) {
        for (uint32_t o = 0; o < s->group_out; o++) {
            const uint32_t panel = o / TEPI_PANEL, lane = o % TEPI_PANEL;
            const uint32_t width = s->blocks - panel * 2 > 1 ? 2 : 1;
            tepi_pack_filter(conv, s, canonical + ((size_t)g * s->group_out + o) * filter,
                             (size_t)(o / conv->group_out) * conv->group_in,
                             packed +
                                 ((size_t)g * s->blocks + panel * 2) * tepi_block_bytes(s, depth) +
                                 (size_t)lane * depth,
                             (size_t)width * TEPI_BLOCK * depth, depth);
        }
    }
}

/* `count` bytes as elements; writes, and reads, up to 15 more. */
TEPI_INLINE uint8_t *tepi_copy_run(uint8_t *out, const uint8_t *in, size_t count,
                                   const uint32_t depth)
{
    for (size_t i = 0; i < count; i += 16) {
        const __m128i bytes = tepi_load16(in + i);
        if (depth == 2)
            _mm256_storeu_si256((__m256i *)(out + i * 2), _mm256_cvtepu8_epi16(bytes));
        else
            _mm_storeu_si128((__m128i *)(out + i), bytes);
    }
    return out + count * (4 / depth);
}

/* What a run writes too much, the next one of this or a later pixel overwrites, or a zero weight
 * meets. */
TEPI_INLINE void tepi_copy_windows(const struct tepi_conv *conv, const struct tepi_shape *s,
                                   struct tepi_pixels *at, uint32_t count, size_t in_offset,
                                   const uint32_t depth)
{
    const size_t step_h = conv->dilation_h * conv->in_stride_h;
    const size_t step_w = conv->dilation_w * conv->in_stride_w;
    uint8_t *window = conv->scratch;
    for (uint32_t i = 0; i < count; i++, window += s->window) {
        const uint8_t *row = at->in[i] + in_offset;
        uint8_t *out = window;
        for (uint32_t y = 0; y < conv->kernel_h; y++, row += step_h)
            for (uint32_t x = 0; x < s->runs_w; x++)
                out = tepi_copy_run(out, row + x * step_w, s->run, depth);
        at->windows[i] = window;
    }
}

/* float32 results of one row of a tile. */
TEPI_INLINE void tepi_store_floats(const struct tepi_panel *p, uint8_t *out, const __m256i *acc,
                                   const int width)
{
    TEPI_UNROLL
    for (int v = 0; v < width; v++) {
        const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(acc[v]), p->multiplier[v]);
        const __m256 sum = _mm256_add_ps(scaled, p->addend[v]);
        float *to = (float *)(void *)(out + p->out_offset) + v * TEPI_BLOCK;
        if (p->channels >= (size_t)(v + 1) * TEPI_BLOCK)
            _mm256_storeu_ps(to, sum);
        else
            _mm256_maskstore_ps(to, tepi_mask8(p->channels - (size_t)v * TEPI_BLOCK), sum);
    }
}

/* Requantizes and stores rows x width accumulators. */
TEPI_INLINE void tepi_store_tile(const struct tepi_panel *p, uint8_t *const *out,
                                 const __m256i *acc, const int rows, const int width)
{
    if (p->floats) {
        TEPI_UNROLL
        for (int i = 0; i < rows; i++)
            tepi_store_floats(p, out[i], acc + i * width, width);
        return;
    }
    /* Copies: stores of bytes may alias the panel. */
    const struct tepi_store_vectors store = p->store;
    const __m256 multiplier[2] = {p->multiplier[0], p->multiplier[1]};
    const size_t channels = p->channels, offset = p->out_offset;
    const bool whole = channels == TEPI_PANEL;
    TEPI_UNROLL
    for (int i = 0; i < rows; i += 2) {
        __m256i four[4];
        TEPI_UNROLL
        for (int k = 0; k < 4; k++) {
            const int row = i + k / 2, v = k % 2;
            four[k] = v < width && row < rows
                          ? tepi_scale(acc[row * width + v], multiplier[v], store.highest)
                          : _mm256_setzero_si256();
        }
        const __m256i bytes = tepi_saturate4(four[0], four[1], four[2], four[3], &store);
        tepi_store16(out[i] + offset, _mm256_castsi256_si128(bytes), whole ? 16 : channels);
        if (i + 1 < rows)
            tepi_store16(out[i + 1] + offset, _mm256_extracti128_si256(bytes, 1),
                         whole ? 16 : channels);
    }
}

/* Of the next tile where `left` pixels are left: full tiles, but the last two share the rest. */
static inline uint32_t tepi_tile_rows(uint32_t left)
{
    return left >= 2 * TEPI_ROWS ? TEPI_ROWS : left > TEPI_ROWS ? (left + 1) / 2 : left;
}

/* Adding -0.0 changes no float32, not even -0.0. */
static inline void tepi_panel_constants(struct tepi_panel *p, const struct tepi_conv *conv,
                                        size_t first, uint32_t width)
{
    p->out_offset = conv->floats ? first * sizeof(float) : first;
    for (uint32_t v = 0; v < width; v++, first += TEPI_BLOCK) {
        const __m256i mask = tepi_mask8(p->channels - v * TEPI_BLOCK);
        p->bias[v] = _mm256_maskload_epi32(conv->bias + first, mask);
        p->multiplier[v] = _mm256_maskload_ps(conv->multiplier + first, mask);
        p->addend[v] = conv->floats && conv->addend ? _mm256_maskload_ps(conv->addend + first, mask)
                                                    : _mm256_set1_ps(-0.0f);
    }
}

TEPI_INLINE void tepi_run_block(const struct tepi_conv *conv, const struct tepi_shape *s,
                                struct tepi_panel *p, struct tepi_pixels *at, uint32_t count,
                                tepi_run_panel *run_panel, const uint32_t depth)
{
    const bool in_place = depth == 4 && conv->kernel_h * s->runs_w == 1;
    uint8_t *scratch = (uint8_t *)conv->scratch + tepi_windows_bytes(s);
    p->weights = conv->weights;
    for (uint32_t g = 0; g < s->groups; g++) {
        const size_t in_offset = (size_t)g * s->group_in;
        if (!in_place)
            tepi_copy_windows(conv, s, at, count, in_offset, depth);
        for (uint32_t i = 0; in_place && i < count; i++)
            at->windows[i] = at->in[i] + in_offset;
        for (uint32_t o = 0; o < s->group_out; o += TEPI_PANEL) {
            const size_t left = s->group_out - o;
            const uint32_t width = left > TEPI_BLOCK ? 2 : 1;
            p->channels = left < TEPI_PANEL ? left : TEPI_PANEL;
            tepi_panel_constants(p, conv, (size_t)g * s->group_out + o, width);
            run_panel(p, at, count, width, scratch);
            p->weights += width * tepi_block_bytes(s, depth);
        }
    }
    const size_t channels = (size_t)s->groups * s->group_out;
    for (uint32_t i = 0; !conv->floats && conv->store.table && i < count; i++)
        tepi_u8_table_32_avx2(conv->store.table, at->out[i], at->out[i], channels);
}

/* Rows of pixels are flattened, so that a tile may span two of them. Blocks are of equal size, in
 * full tiles. */
TEPI_INLINE void tepi_dense_run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end,
                                tepi_run_panel *run_panel, const uint32_t depth)
{
    const struct tepi_shape s = tepi_shape_of(conv, depth);
    struct tepi_panel p = {
        .store = tepi_store_range(conv->store.zero_point, conv->store.lo, conv->store.hi),
        .steps = s.steps,
        .floats = conv->floats,
    };
    const uint64_t pixels = (uint64_t)(row_end - row_begin) * conv->out_w;
    const uint64_t blocks = (pixels + s.pixels - 1) / s.pixels;
    const uint32_t even = blocks ? (uint32_t)((pixels + blocks - 1) / blocks) : 0;
    const uint32_t block = (even + TEPI_ROWS - 1) / TEPI_ROWS * TEPI_ROWS;
    struct tepi_pixels at;
    uint32_t count = 0;
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (uint32_t x = 0; x < conv->out_w; x++) {
            at.in[count] = in;
            at.out[count] = out;
            in += conv->stride_w * conv->in_stride_w;
            out += conv->out_stride_w;
            if (++count == block) {
                tepi_run_block(conv, &s, &p, &at, count, run_panel, depth);
                count = 0;
            }
        }
    }
    if (count)
        tepi_run_block(conv, &s, &p, &at, count, run_panel, depth);
}

#endif
