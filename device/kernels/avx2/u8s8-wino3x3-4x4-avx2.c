/* SPDX-License-Identifier: Apache-2.0 */
/* Dense 3x3 convolution that moves by one pixel, by Winograd's F(4x4, 3x3): 36 products for 16
 * output pixels where the direct sum takes 144, in integers and exactly.
 *
 * A tile is 6x6 pixels of input and 4x4 of output. With the matrices of Lavin and Gray, "Fast
 * Algorithms for Convolutional Neural Networks", section 4.3, output = A' [(G w G') . (B' d B)] A.
 *   - B' d B is within +-25500 for bytes: 16 bits hold it.
 *   - Rows of G times 24, -6, -6, 24, 24 and 6 are integers, and so is A' with the factors that
 * this leaves to it: 16 bits hold G w G', which is within +-6272.
 *   - A' then yields output rows, and columns, that are 24, 12, 6 and 6 times too large. Sums are
 *     modulo 2^32, where 3 * 3 has an inverse; after it only a power of two, 2^6 at most, is left,
 *     which an arithmetic shift takes off exactly where the sum itself is within +-2^25.
 * So it is for any input as long as neither the positive nor the negative weights of a channel sum
 * to more than 2^25 / 255. Channels are packed in groups of TEPI_KERNEL_PANEL; one with a channel
 * beyond that is left to the direct kernel.
 *
 * Weights stay bytes in memory, where 36 places of 16 bits would be eight times as much to stream,
 * and are transformed for all tiles of a block of them at once, two rows of places at a time.
 *
 * Packed weights: [group of channels]: a struct header, then [panel of 16][pair of input channels]
 * [tap][16 channels][2] as int8, or what the direct kernel packs. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/madd.h"

enum {
    OUT = 4,          /* pixels along one side of a tile */
    IN = OUT + 2,     /* likewise of its input */
    PLACES = IN * IN, /* products of a tile */
    CHUNK = 16,       /* input channels transformed at a time */
    PANEL = 16,       /* output channels multiplied at a time */
    TILES = 48,       /* at most at a time */
    TILES_LEAST = 4,
    IN_BYTES = 288 << 10, /* transformed input of these: more than half of the second-level cache */
    LINE = 64,
    TAPS = 9,
    TAP = PANEL * 2, /* bytes of a pair of input channels */
    WIDE = TAP * 2,  /* transformed */
    SUM_MAX = ((1 << 25) - 1) / 255,
    INVERSE_9 = 954437177, /* modulo 2^32 */
};

/* Rows of a tile's places, or places of a row, whose weights are made together. */
static const uint8_t pairs[3][2] = {{0, 5}, {1, 2}, {3, 4}};

struct header {
    uint32_t direct;
    uint8_t padding[LINE - sizeof(uint32_t)];
};

struct shape {
    size_t steps, pitch; /* pairs of input channels; bytes of one tile's at one place */
    size_t tiles;        /* at a time */
    size_t in_place, sum_place, wide_place; /* bytes from one place to the next */
    size_t panel;                           /* bytes of packed weights */
};

struct tile {
    const uint8_t *in;
    uint8_t *out;
    uint32_t rows, columns; /* of output, 1 to OUT; what lies past them is not read */
};

struct constants {
    __m256i bias[2];
    __m256 multiplier[2];
    struct tepi_store_vectors store;
};

static struct shape shape_of(const struct tepi_conv *conv)
{
    struct shape s = {.steps = ((size_t)conv->group_in + 1) / 2,
                      .pitch = ((size_t)conv->group_in + CHUNK - 1) / CHUNK * CHUNK * 2};
    const size_t fit = IN_BYTES / (PLACES * s.pitch);
    s.tiles = fit < TILES_LEAST ? TILES_LEAST : fit < TILES ? fit : TILES;
    /* An odd number of lines, or the places of a tile would share few sets of the cache. */
    s.in_place = (s.tiles * s.pitch / LINE | 1) * LINE + (s.tiles * s.pitch % LINE ? 2 * LINE : 0);
    s.sum_place = (s.tiles * PANEL * 4 / LINE | 1) * LINE;
    s.wide_place = (s.steps * WIDE / LINE | 1) * LINE;
    s.panel = s.steps * TAPS * TAP;
    return s;
}

/* What both ways cost, measured, in half products of a pixel: the transforms of a tile with its 36
 * places, those of the weights, and 9 products of each pixel. */
static bool pays(const struct tepi_conv *conv)
{
    const uint64_t down = (conv->out_h + OUT - 1) / OUT, across = (conv->out_w + OUT - 1) / OUT;
    const uint64_t pixels = (uint64_t)conv->n * conv->out_h * conv->out_w;
    return conv->group_in >= 16 && conv->group_out >= 16 &&
           64 * down * across * conv->n + 200 < 18 * pixels;
}

static bool takes(const struct tepi_conv *conv)
{
    return conv->groups == 1 && conv->kernel_h == 3 && conv->kernel_w == 3 && conv->stride_h == 1 &&
           conv->stride_w == 1 && conv->dilation_h == 1 && conv->dilation_w == 1 && !conv->floats &&
           pays(conv);
}

/* Whatever the weights turn out to need. */
static size_t group_bytes(const struct tepi_conv *conv, const struct shape *s, uint32_t channels)
{
    struct tepi_conv group = *conv;
    group.group_out = channels;
    const size_t direct = tepi_u8s8_conv_6x16_avx2.packed_bytes(&group);
    const size_t bytes = (channels + PANEL - 1) / PANEL * s->panel;
    return sizeof(struct header) + ((direct > bytes ? direct : bytes) + LINE - 1) / LINE * LINE;
}

/* Channels of the group that begins at `first`. */
static uint32_t group_channels(const struct tepi_conv *conv, uint32_t first)
{
    const uint32_t left = conv->group_out - first;
    return left < TEPI_KERNEL_PANEL ? left : TEPI_KERNEL_PANEL;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    size_t bytes = 0;
    for (uint32_t o = 0; o < conv->group_out; o += TEPI_KERNEL_PANEL)
        bytes += group_bytes(conv, &s, group_channels(conv, o));
    return bytes;
}

static size_t tiles_bytes(const struct shape *s)
{
    return PLACES * (s->in_place + s->sum_place) + 2 * IN * s->wide_place;
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    const size_t direct = tepi_u8s8_conv_6x16_avx2.scratch_bytes(conv);
    return direct > tiles_bytes(&s) ? direct : tiles_bytes(&s);
}

/* One group of channels as a convolution of its own. */
static struct tepi_conv group_of(const struct tepi_conv *conv, uint32_t first,
                                 const struct header *header)
{
    struct tepi_conv group = *conv;
    group.group_out = group_channels(conv, first);
    group.weights = header + 1;
    group.bias += first;
    group.multiplier += first;
    group.output += first;
    return group;
}

/* Sums of the weights of either sign, 32 at a time: SAD adds eight bytes at once. */
static bool sums_fit(const int8_t *canonical, size_t channels, size_t filter)
{
    const __m256i zero = _mm256_setzero_si256();
    for (size_t o = 0; o < channels; o++, canonical += filter) {
        __m256i sums[2] = {zero, zero};
        for (size_t i = 0; i < filter; i += 32) {
            const size_t left = filter - i < 32 ? filter - i : 32;
            uint8_t rest[32] = {0};
            const uint8_t *at = (const uint8_t *)canonical + i;
            if (left < 32)
                at = memcpy(rest, at, left);
            const __m256i w = _mm256_loadu_si256((const __m256i *)at);
            const __m256i positive = _mm256_max_epi8(w, zero);
            const __m256i negative = _mm256_abs_epi8(_mm256_min_epi8(w, zero));
            sums[0] = _mm256_add_epi64(sums[0], _mm256_sad_epu8(positive, zero));
            sums[1] = _mm256_add_epi64(sums[1], _mm256_sad_epu8(negative, zero));
        }
        for (int sign = 0; sign < 2; sign++) {
            uint64_t parts[4];
            _mm256_storeu_si256((__m256i *)parts, sums[sign]);
            if (parts[0] + parts[1] + parts[2] + parts[3] > SUM_MAX)
                return false;
        }
    }
    return true;
}

/* One filter to its lane, pairs of input channels together. */
static void pack_filter(const int8_t *filter, size_t channels, uint8_t *lane)
{
    for (size_t tap = 0; tap < TAPS; tap++, lane += TAP) {
        size_t c = 0;
        for (; c + 1 < channels; c += 2, filter += 2)
            memcpy(lane + c / 2 * TAPS * TAP, filter, 2);
        if (c < channels)
            lane[c / 2 * TAPS * TAP] = (uint8_t)*filter++;
    }
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const struct shape s = shape_of(conv);
    const size_t filter = (size_t)TAPS * conv->group_in;
    uint8_t *to = packed;
    for (uint32_t first = 0; first < conv->group_out; first += TEPI_KERNEL_PANEL) {
        struct header *header = (struct header *)to;
        const struct tepi_conv group = group_of(conv, first, header);
        const int8_t *from = canonical + first * filter;
        memset(to, 0, group_bytes(conv, &s, group.group_out));
        header->direct = !sums_fit(from, group.group_out, filter);
        if (header->direct)
            tepi_u8s8_conv_6x16_avx2.pack(&group, from, header + 1);
        for (size_t o = 0; !header->direct && o < group.group_out; o++)
            pack_filter(from + o * filter, conv->group_in,
                        (uint8_t *)(header + 1) + o / PANEL * s.panel + o % PANEL * 2);
        to += group_bytes(conv, &s, group.group_out);
    }
}

/* G along one side: its rows 0 and 5, 1 and 2, or 3 and 4. */
TEPI_INLINE void transform_weights(const __m256i w[3], const int pair, __m256i out[2])
{
    if (pair == 0) {
        const __m256i six = _mm256_set1_epi16(6);
        out[0] = _mm256_mullo_epi16(w[0], six);
        out[1] = _mm256_mullo_epi16(w[2], six);
        return;
    }
    const __m256i outer = _mm256_add_epi16(w[0], pair == 1 ? w[2] : _mm256_slli_epi16(w[2], 2));
    const __m256i inner = pair == 1 ? w[1] : _mm256_add_epi16(w[1], w[1]);
    out[0] = _mm256_add_epi16(outer, inner);
    out[1] = _mm256_sub_epi16(outer, inner);
}

/* The places of a pair of rows: [row][place of the row][pair of input channels][16 channels][2]. */
TEPI_INLINE void weights_of_rows(const struct shape *s, const uint8_t *weights, const int rows,
                                 uint8_t *wide)
{
    const size_t place = s->wide_place;
    for (size_t half = 0; half < s->steps * 2; half++, wide += 32) {
        const uint8_t *taps = weights + half / 2 * TAPS * TAP + half % 2 * 16;
        __m256i columns[2][3];
        TEPI_UNROLL
        for (int kx = 0; kx < 3; kx++) {
            __m256i w[3], both[2];
            TEPI_UNROLL
            for (int ky = 0; ky < 3; ky++)
                w[ky] = _mm256_cvtepi8_epi16(tepi_load16(taps + (ky * 3 + kx) * TAP));
            transform_weights(w, rows, both);
            columns[0][kx] = both[0];
            columns[1][kx] = both[1];
        }
        TEPI_UNROLL
        for (int i = 0; i < 6; i++) {
            __m256i both[2];
            transform_weights(columns[i / 3], i % 3, both);
            uint8_t *row = wide + (size_t)(i / 3) * IN * place;
            _mm256_store_si256((__m256i *)(row + pairs[i % 3][0] * place), both[0]);
            _mm256_store_si256((__m256i *)(row + pairs[i % 3][1] * place), both[1]);
        }
    }
}

/* B' along one side. */
TEPI_INLINE void transform_in(__m256i d[IN])
{
    const __m256i even = _mm256_sub_epi16(d[4], _mm256_slli_epi16(d[2], 2));
    const __m256i odd = _mm256_sub_epi16(d[3], _mm256_slli_epi16(d[1], 2));
    const __m256i near = _mm256_sub_epi16(d[4], d[2]);
    const __m256i half = _mm256_sub_epi16(d[3], d[1]), far = _mm256_add_epi16(half, half);
    d[0] = _mm256_add_epi16(_mm256_slli_epi16(_mm256_sub_epi16(d[0], d[2]), 2), near);
    d[5] = _mm256_sub_epi16(_mm256_sub_epi16(d[5], d[3]), _mm256_add_epi16(far, far));
    d[1] = _mm256_add_epi16(even, odd);
    d[2] = _mm256_sub_epi16(even, odd);
    d[3] = _mm256_add_epi16(near, far);
    d[4] = _mm256_sub_epi16(near, far);
}

/* B' d B of one tile to its 36 places. Pixels that no output needs repeat the last. */
static void tile_in(const struct tepi_conv *conv, const struct shape *s, const struct tile *tile,
                    uint8_t *to)
{
    const uint8_t *pixels[IN];
    size_t rows[IN];
    for (uint32_t i = 0; i < IN; i++) {
        rows[i] = (i < tile->rows + 2 ? i : tile->rows + 1) * conv->in_stride_h;
        pixels[i] = tile->in + (i < tile->columns + 2 ? i : tile->columns + 1) * conv->in_stride_w;
    }
    for (size_t c = 0; c < conv->group_in; c += CHUNK) {
        __m256i part[IN][IN];
        for (size_t x = 0; x < IN; x++) {
            __m256i d[IN];
            TEPI_UNROLL
            for (int y = 0; y < IN; y++)
                d[y] = _mm256_cvtepu8_epi16(tepi_load16(pixels[x] + rows[y] + c));
            transform_in(d);
            TEPI_UNROLL
            for (int y = 0; y < IN; y++)
                part[y][x] = d[y];
        }
        uint8_t *place = to + c * 2;
        for (size_t y = 0; y < IN; y++) {
            transform_in(part[y]);
            TEPI_UNROLL
            for (int x = 0; x < IN; x++, place += s->in_place)
                _mm256_store_si256((__m256i *)place, part[y][x]);
        }
    }
}

/* A' along one side: its rows times 24, 12, 6 and 6. */
TEPI_INLINE void transform_out(const __m256i m[IN], __m256i out[OUT])
{
    const __m256i a = _mm256_add_epi32(m[1], m[2]), b = _mm256_sub_epi32(m[1], m[2]);
    const __m256i c = _mm256_add_epi32(m[3], m[4]), d = _mm256_sub_epi32(m[3], m[4]);
    out[0] = _mm256_sub_epi32(_mm256_add_epi32(m[0], c), _mm256_slli_epi32(a, 2));
    out[1] = _mm256_sub_epi32(d, _mm256_add_epi32(b, b));
    out[2] = _mm256_sub_epi32(c, a);
    out[3] = _mm256_add_epi32(_mm256_sub_epi32(m[5], b), _mm256_add_epi32(d, d));
}

/* Rounded results of 8 channels of a tile from its 36 sums. */
TEPI_INLINE void tile_out(const uint8_t *sums, size_t place, const struct constants *k, const int v,
                          __m256i out[OUT * OUT][2])
{
    static const int shift[OUT] = {3, 2, 1, 1};
    const __m256i inverse = _mm256_set1_epi32(INVERSE_9);
    __m256i part[OUT][IN];
    for (size_t x = 0; x < IN; x++) {
        __m256i m[IN], column[OUT];
        TEPI_UNROLL
        for (int y = 0; y < IN; y++)
            m[y] = tepi_load32(sums + (y * IN + x) * place);
        transform_out(m, column);
        TEPI_UNROLL
        for (int y = 0; y < OUT; y++)
            part[y][x] = column[y];
    }
    TEPI_UNROLL
    for (int y = 0; y < OUT; y++) {
        __m256i row[OUT];
        transform_out(part[y], row);
        TEPI_UNROLL
        for (int x = 0; x < OUT; x++) {
            const __m256i sum =
                _mm256_srai_epi32(_mm256_mullo_epi32(row[x], inverse), shift[y] + shift[x]);
            out[y * OUT + x][v] =
                tepi_scale(_mm256_add_epi32(sum, k->bias[v]), k->multiplier[v], k->store.highest);
        }
    }
}

static void store_tile(const struct tepi_conv *conv, const struct tile *tile,
                       __m256i results[OUT * OUT][2], const struct constants *k, uint32_t first,
                       size_t channels)
{
    const uint8_t *table = conv->store.table;
    for (size_t y = 0; y < tile->rows; y++) {
        uint8_t *out = tile->out + y * conv->out_stride_h + first;
        for (size_t x = 0; x < tile->columns; x += 2, out += 2 * conv->out_stride_w) {
            __m256i(*pixel)[2] = results + y * OUT + x;
            const __m256i both =
                tepi_saturate4(pixel[0][0], pixel[0][1], pixel[1][0], pixel[1][1], &k->store);
            tepi_store16(out, _mm256_castsi256_si128(both), channels);
            if (x + 1 < tile->columns)
                tepi_store16(out + conv->out_stride_w, _mm256_extracti128_si256(both, 1), channels);
        }
        out = tile->out + y * conv->out_stride_h + first;
        for (size_t x = 0; table && x < tile->columns; x++, out += conv->out_stride_w)
            tepi_u8_table_32_avx2(table, out, out, channels);
    }
}

#define PRODUCT(rows)                                                                              \
    static void product_##rows(const uint8_t *in, size_t pitch, const uint8_t *weights,            \
                               size_t steps, uint8_t *sums)                                        \
    {                                                                                              \
        __m256i acc[rows * 2];                                                                     \
        const uint8_t *at[rows];                                                                   \
        TEPI_UNROLL                                                                                \
        for (int i = 0; i < rows; i++)                                                             \
            at[i] = in + i * pitch;                                                                \
        TEPI_UNROLL                                                                                \
        for (int i = 0; i < rows * 2; i++)                                                         \
            acc[i] = _mm256_setzero_si256();                                                       \
        tepi_madd(acc, at, weights, steps, rows, 2, false);                                        \
        TEPI_UNROLL                                                                                \
        for (int i = 0; i < rows * 2; i++)                                                         \
            _mm256_store_si256((__m256i *)sums + i, acc[i]);                                       \
    }
PRODUCT(1)
PRODUCT(2)
PRODUCT(3)
PRODUCT(4)
PRODUCT(5)
PRODUCT(6)

/* The sums of one row of places of some tiles for one panel; `next`: weights to come, `lines` of
 * them to prefetch at a time. */
static const uint8_t *multiply(const struct shape *s, const uint8_t *in, size_t count,
                               const uint8_t *weights, uint8_t *sums, const uint8_t *next,
                               size_t lines)
{
    static void (*const products[])(const uint8_t *, size_t, const uint8_t *, size_t, uint8_t *) = {
        product_1, product_2, product_3, product_4, product_5, product_6};
    for (size_t place = 0; place < IN; place++) {
        size_t rows;
        for (size_t begin = 0; begin < count; begin += rows) {
            const size_t left = count - begin;
            rows = left >= 2 * TEPI_MADD_ROWS ? TEPI_MADD_ROWS
                   : left > TEPI_MADD_ROWS    ? (left + 1) / 2
                                              : left;
            next = tepi_prefetch(next, lines);
            products[rows - 1](in + begin * s->pitch, s->pitch, weights, s->steps,
                               sums + begin * PANEL * 4);
        }
        in += s->in_place;
        sums += s->sum_place;
        weights += s->wide_place;
    }
    return next;
}

/* All places of some tiles for one panel. */
static void multiply_places(const struct shape *s, uint8_t *scratch, size_t count,
                            const uint8_t *weights)
{
    uint8_t *sums = scratch + PLACES * s->in_place, *wide = sums + PLACES * s->sum_place;
    const size_t calls = PLACES * ((count + TEPI_MADD_ROWS - 1) / TEPI_MADD_ROWS);
    const size_t lines = s->panel / LINE / calls + 1;
    const uint8_t *next = weights + s->panel;
    for (size_t pair = 0; pair < 3; pair++) {
        if (pair == 0)
            weights_of_rows(s, weights, 0, wide);
        else if (pair == 1)
            weights_of_rows(s, weights, 1, wide);
        else
            weights_of_rows(s, weights, 2, wide);
        for (size_t i = 0; i < 2; i++)
            next = multiply(s, scratch + pairs[pair][i] * IN * s->in_place, count,
                            wide + i * IN * s->wide_place,
                            sums + pairs[pair][i] * IN * s->sum_place, next, lines);
    }
}

static void run_panel(const struct tepi_conv *conv, const struct shape *s, const struct tile *tiles,
                      size_t count, const uint8_t *weights, uint32_t first, struct constants *k)
{
    const size_t left = conv->group_out - first, channels = left < PANEL ? left : PANEL;
    const uint8_t *sums = (uint8_t *)conv->scratch + PLACES * s->in_place;
    for (size_t v = 0; v < 2; v++) {
        const __m256i mask = tepi_mask8(channels > v * 8 ? channels - v * 8 : 0);
        k->bias[v] = _mm256_maskload_epi32(conv->bias + first + v * 8, mask);
        k->multiplier[v] = _mm256_maskload_ps(conv->multiplier + first + v * 8, mask);
    }
    multiply_places(s, conv->scratch, count, weights);
    for (size_t t = 0; t < count; t++, sums += PANEL * 4) {
        __m256i results[OUT * OUT][2];
        tile_out(sums, s->sum_place, k, 0, results);
        tile_out(sums + 32, s->sum_place, k, 1, results);
        store_tile(conv, tiles + t, results, k, first, channels);
    }
}

static void run_tiles(const struct tepi_conv *conv, const struct shape *s, const struct tile *tiles,
                      size_t count)
{
    struct constants k = {
        .store = tepi_store_range(conv->store.zero_point, conv->store.lo, conv->store.hi)};
    for (size_t t = 0; t < count; t++)
        tile_in(conv, s, tiles + t, (uint8_t *)conv->scratch + t * s->pitch);
    const uint8_t *weights = conv->weights;
    for (uint32_t group = 0; group < conv->group_out; group += TEPI_KERNEL_PANEL) {
        const uint32_t channels = group_channels(conv, group);
        const struct header *header = (const struct header *)weights;
        for (uint32_t o = 0; !header->direct && o < channels; o += PANEL)
            run_panel(conv, s, tiles, count, weights + sizeof(*header) + o / PANEL * s->panel,
                      group + o, &k);
        weights += group_bytes(conv, s, channels);
    }
}

/* Rows [begin, end) of the one image that holds them; returns how many tiles are left over. */
static size_t run_rows(const struct tepi_conv *conv, const struct shape *s, struct tile *tiles,
                       size_t count, uint32_t begin, uint32_t end)
{
    const uint32_t n = begin / conv->out_h;
    const uint8_t *in = conv->input + n * conv->in_stride_n;
    uint8_t *out = conv->output + n * conv->out_stride_n;
    for (uint32_t row = begin; row < end; row += OUT) {
        const uint32_t y = row % conv->out_h;
        for (uint32_t x = 0; x < conv->out_w; x += OUT) {
            tiles[count++] = (struct tile){
                .in = in + y * conv->in_stride_h + x * conv->in_stride_w,
                .out = out + y * conv->out_stride_h + x * conv->out_stride_w,
                .rows = end - row < OUT ? end - row : OUT,
                .columns = conv->out_w - x < OUT ? conv->out_w - x : OUT,
            };
            if (count == s->tiles) {
                run_tiles(conv, s, tiles, count);
                count = 0;
            }
        }
    }
    return count;
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const struct shape s = shape_of(conv);
    struct tile tiles[TILES];
    size_t count = 0;
    for (uint32_t begin = row_begin, end; begin < row_end; begin = end) {
        end = (begin / conv->out_h + 1) * conv->out_h;
        end = end < row_end ? end : row_end;
        count = run_rows(conv, &s, tiles, count, begin, end);
    }
    if (count)
        run_tiles(conv, &s, tiles, count);
    const uint8_t *weights = conv->weights;
    for (uint32_t o = 0; o < conv->group_out; o += TEPI_KERNEL_PANEL) {
        const struct header *header = (const struct header *)weights;
        const struct tepi_conv group = group_of(conv, o, header);
        if (header->direct)
            tepi_u8s8_conv_6x16_avx2.run(&group, row_begin, row_end);
        weights += group_bytes(conv, &s, group.group_out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_wino3x3_4x4_avx2 = {
    .name = "u8s8-wino3x3-4x4-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
    .rows = OUT,
};
