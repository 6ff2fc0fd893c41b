/* SPDX-License-Identifier: Apache-2.0 */
/* Convolution in AMX tiles: two tiles of up to 16 pixels x two tiles of 16 channels, 64 input bytes
 * a step. A tile of neighbouring pixels is loaded from the image itself, its pitch being that of
 * the pixels; where a row is too short to fill one, the pixels of several rows are gathered first.
 *
 * Packed weights: [group][pair of 16-channel blocks][run][piece of 64 bytes][block][16 rows of 4
 * input bytes][16 channels x 4 bytes], zeros where the shape leaves room. Runs are stretches of
 * input in one piece, as in u8s8-conv-6x64-avx512vnni. */
#include "kernels/amxint8/amxint8.h"
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

enum { ROWS = TEPI_TILE_ROWS, PIECE = TEPI_TILE_BYTES, BLOCK = 16, TILE = ROWS * PIECE };
enum { BATCH = 16, GATHERED_BYTES = 512 << 10 };

struct shape {
    uint32_t runs_h, runs_w, taps_w, pieces; /* runs per kernel row; pieces of a run */
    size_t run_bytes;
    uint32_t blocks; /* of a group */
};

/* How output pixels are laid in tiles. A line is a stretch of pixels at equal distances. */
struct lines {
    uint32_t count, pixels; /* lines of pixels each */
    uint32_t tiles, height; /* tiles of a line; the last overlaps the one before */
    bool gathers;           /* one line of all pixels, tiles copied together */
    uint32_t batch;         /* tiles under way at a time */
};

/* First taps and results of a tile's pixels. */
struct tile {
    const uint8_t *in[ROWS];
    uint8_t *out[ROWS];
};

struct job {
    const struct tepi_conv *conv;
    struct shape shape;
    struct lines lines;
    size_t in_pitch, step_h, step_w; /* of tile loads, runs */
    struct tepi_store_vectors store;
    struct tepi_tiles tiles;
    struct tile batch[BATCH];
    const uint8_t *base[BATCH]; /* where a tile is loaded from: the image, or what was gathered */
};

/* The pair of channel blocks at work. */
struct channels {
    const int8_t *weights;
    size_t out_offset;
    __mmask32 mask;
    __m512i bias[2];
    __m512 multiplier[2];
};

static struct shape shape_of(const struct tepi_conv *conv)
{
    const size_t row = (conv->kernel_w - 1) * conv->in_stride_w + conv->group_in;
    const size_t whole = (row + PIECE - 1) / PIECE;
    const size_t tap = ((size_t)conv->group_in + PIECE - 1) / PIECE, apart = tap * conv->kernel_w;
    const bool in_one = (conv->dilation_w == 1 || conv->kernel_w == 1) && whole <= apart;
    return (struct shape){
        .runs_h = conv->kernel_h,
        .runs_w = in_one ? 1 : conv->kernel_w,
        .taps_w = in_one ? conv->kernel_w : 1,
        .pieces = (uint32_t)(in_one ? whole : tap),
        .run_bytes = in_one ? row : conv->group_in,
        .blocks = (conv->group_out + BLOCK - 1) / BLOCK,
    };
}

static size_t steps_of(const struct shape *s)
{
    return (size_t)s->runs_h * s->runs_w * s->pieces;
}

/* Rows of an image, and images, join into longer lines where their pixels are equally far apart on
 * both sides. */
static struct lines lines_of(const struct tepi_conv *conv, const struct shape *s, uint32_t rows)
{
    struct lines l = {.count = rows, .pixels = conv->out_w};
    const size_t pitch = conv->stride_w * conv->in_stride_w;
    const bool rows_join = conv->stride_h * conv->in_stride_h == conv->out_w * pitch &&
                           conv->out_stride_h == conv->out_w * conv->out_stride_w;
    const bool images_join =
        conv->n == 1 || (conv->in_stride_n == conv->out_h * conv->out_w * pitch &&
                         conv->out_stride_n == conv->out_h * conv->out_stride_h);
    if (rows_join && images_join)
        l = (struct lines){.count = 1, .pixels = rows * conv->out_w};
    l.tiles = (l.pixels + ROWS - 1) / ROWS;
    l.height = (l.pixels + l.tiles - 1) / l.tiles;
    l.batch = BATCH;
    if (l.count > 1 && l.height < ROWS * 3 / 4) {
        const size_t fit = GATHERED_BYTES / (steps_of(s) * TILE);
        l = (struct lines){.count = 1, .pixels = rows * conv->out_w, .gathers = true};
        l.tiles = (l.pixels + ROWS - 1) / ROWS;
        l.height = (l.pixels + l.tiles - 1) / l.tiles;
        l.batch = fit < 2 ? 2 : fit < BATCH ? (uint32_t)fit : BATCH;
    }
    return l;
}

/* Worth the tiles where at least a quarter of their work is real and there is enough of it. */
static bool takes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    const uint64_t pixels = (uint64_t)conv->n * conv->out_h * conv->out_w;
    const uint64_t real =
        (uint64_t)conv->kernel_h * conv->kernel_w * conv->group_in * conv->group_out;
    const uint64_t padded = steps_of(&s) * PIECE * s.blocks * BLOCK;
    return !conv->floats && pixels >= ROWS / 2 && conv->group_out >= BLOCK && real * 4 >= padded &&
           real * pixels >= 32 * TILE;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    return conv->groups * steps_of(&s) * s.blocks * TILE;
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    const struct shape s = shape_of(conv);
    const struct lines l = lines_of(conv, &s, conv->n * conv->out_h);
    return l.gathers ? l.batch * steps_of(&s) * TILE : 0;
}

static void pack_filter(const struct tepi_conv *conv, const struct shape *s, const int8_t *filter,
                        int8_t *packed, size_t pitch)
{
    for (size_t tap = 0; tap < (size_t)conv->kernel_h * conv->kernel_w; tap++) {
        const size_t run = tap / s->taps_w, first = tap % s->taps_w * conv->in_stride_w;
        for (size_t c = 0; c < conv->group_in; c++) {
            const size_t byte = first + c;
            packed[(run * s->pieces + byte / PIECE) * pitch + byte % PIECE / 4 * PIECE + byte % 4] =
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
    for (uint32_t g = 0; g < conv->groups; g++) {
        for (uint32_t b = 0; b < s.blocks; b += 2) {
            const size_t width = s.blocks - b < 2 ? 1 : 2;
            for (uint32_t o = b * BLOCK; o < (b + 2) * BLOCK && o < conv->group_out; o++)
                pack_filter(conv, &s, canonical + ((size_t)g * conv->group_out + o) * filter,
                            out + (o / BLOCK - b) * TILE + o % BLOCK * 4, width * TILE);
            out += steps_of(&s) * width * TILE;
        }
    }
}

/* Adds the bias, requantizes and stores `height` pixels of one tile row; two pixels leave together
 * since each has two vectors. */
TEPI_INLINE void store_tile(const struct job *job, const struct channels *c,
                            uint8_t *const out[ROWS], const int32_t sums[ROWS][2][BLOCK],
                            const int wide)
{
    for (uint32_t i = 0; i < job->lines.height; i += 2) {
        __m512i four[4];
        TEPI_UNROLL
        for (int k = 0; k < 4; k++) {
            const int v = k % 2;
            const __m512i sum =
                v < wide ? _mm512_load_si512(sums[i + (uint32_t)k / 2][v]) : _mm512_setzero_si512();
            four[k] =
                tepi_scale(_mm512_add_epi32(sum, c->bias[v]), c->multiplier[v], job->store.highest);
        }
        const __m512i bytes =
            tepi_in_order(tepi_saturate4(four[0], four[1], four[2], four[3], &job->store));
        _mm256_mask_storeu_epi8(out[i] + c->out_offset, c->mask, _mm512_castsi512_si256(bytes));
        if (i + 1 < job->lines.height)
            _mm256_mask_storeu_epi8(out[i + 1] + c->out_offset, c->mask,
                                    _mm512_extracti64x4_epi64(bytes, 1));
    }
}

/* Sums of `high` tiles of pixels x `wide` blocks of channels in tiles 0..3, by pixels then
 * channels; input in 4 and 5, weights in 6 and 7. */
TEPI_INLINE void multiply(struct job *job, const struct channels *c, const uint8_t *const *in,
                          const int high, const int wide)
{
    struct tepi_tiles *t = &job->tiles;
    const struct shape *s = &job->shape;
    const int8_t *weights = c->weights;
    TEPI_TILE_MEMORY();
    tepi_tile_zero(t, 0);
    tepi_tile_zero(t, 1);
    tepi_tile_zero(t, 2);
    tepi_tile_zero(t, 3);
    for (uint32_t y = 0; y < s->runs_h; y++) {
        for (uint32_t x = 0; x < s->runs_w; x++) {
            const size_t run = y * job->step_h + x * job->step_w;
            for (uint32_t piece = 0; piece < s->pieces; piece++, weights += wide * TILE) {
                const size_t at = run + (size_t)piece * PIECE;
                tepi_tile_load(t, 4, in[0] + at, job->in_pitch);
                tepi_tile_load(t, 6, weights, PIECE);
                tepi_tile_dot_u8s8(t, 0, 4, 6);
                if (wide > 1) {
                    tepi_tile_load(t, 7, weights + TILE, PIECE);
                    tepi_tile_dot_u8s8(t, 1, 4, 7);
                }
                if (high > 1) {
                    tepi_tile_load(t, 5, in[1] + at, job->in_pitch);
                    tepi_tile_dot_u8s8(t, 2, 5, 6);
                }
                if (high > 1 && wide > 1)
                    tepi_tile_dot_u8s8(t, 3, 5, 7);
            }
        }
    }
}

TEPI_INLINE void run_pair(struct job *job, const struct channels *c, uint32_t tile, const int high,
                          const int wide)
{
    _Alignas(64) int32_t sums[2][ROWS][2][BLOCK];
    const size_t pitch = sizeof(sums[0][0]);
    struct tepi_tiles *t = &job->tiles;
    multiply(job, c, job->base + tile, high, wide);
    tepi_tile_store(t, 0, sums[0][0][0], pitch);
    if (wide > 1)
        tepi_tile_store(t, 1, sums[0][0][1], pitch);
    if (high > 1)
        tepi_tile_store(t, 2, sums[1][0][0], pitch);
    if (high > 1 && wide > 1)
        tepi_tile_store(t, 3, sums[1][0][1], pitch);
    store_tile(job, c, job->batch[tile].out, sums[0], wide);
    if (high > 1)
        store_tile(job, c, job->batch[tile + 1].out, sums[1], wide);
}

static void run_channels(struct job *job, const struct channels *c, uint32_t tiles, bool wide)
{
    uint32_t i = 0;
    for (; i + 2 <= tiles; i += 2) {
        if (wide)
            run_pair(job, c, i, 2, 2);
        else
            run_pair(job, c, i, 2, 1);
    }
    if (i < tiles && wide)
        run_pair(job, c, i, 1, 2);
    else if (i < tiles)
        run_pair(job, c, i, 1, 1);
}

static void set_channels(struct channels *c, const struct tepi_conv *conv, uint32_t count)
{
    c->mask = (__mmask32)tepi_mask64(count < 2 * BLOCK ? count : 2 * BLOCK);
    for (int v = 0; v < 2; v++) {
        const __mmask16 mask = (__mmask16)(c->mask >> v * BLOCK);
        const size_t first = c->out_offset + (size_t)v * BLOCK;
        c->bias[v] = _mm512_maskz_loadu_epi32(mask, conv->bias + first);
        c->multiplier[v] = _mm512_maskz_loadu_ps(mask, conv->multiplier + first);
    }
}

/* Copies the runs of every pixel of the batch, piece by piece; what is left of a last piece meets
 * zero weights. */
static void gather(struct job *job, uint32_t tiles, size_t in_offset)
{
    const struct tepi_conv *conv = job->conv;
    const struct shape *s = &job->shape;
    uint8_t *out = conv->scratch;
    for (uint32_t i = 0; i < tiles; i++) {
        job->base[i] = out;
        for (uint32_t row = 0; row < job->lines.height; row++) {
            for (uint32_t y = 0; y < s->runs_h; y++) {
                const uint8_t *in =
                    job->batch[i].in[row] + in_offset + y * conv->dilation_h * conv->in_stride_h;
                for (uint32_t x = 0; x < s->runs_w; x++) {
                    memcpy(out, in, s->run_bytes);
                    in += conv->dilation_w * conv->in_stride_w;
                    out += (size_t)s->pieces * PIECE;
                }
            }
        }
    }
}

static void run_batch(struct job *job, uint32_t tiles)
{
    const struct tepi_conv *conv = job->conv;
    const struct shape *s = &job->shape;
    struct channels c = {.weights = conv->weights};
    for (uint32_t g = 0; g < conv->groups; g++) {
        const size_t in_offset = (size_t)g * conv->group_in;
        for (uint32_t i = 0; i < tiles; i++)
            job->base[i] = job->batch[i].in[0] + in_offset;
        if (job->lines.gathers)
            gather(job, tiles, in_offset);
        for (uint32_t b = 0; b < s->blocks; b += 2) {
            const bool wide = s->blocks - b > 1;
            c.out_offset = (size_t)g * conv->group_out + (size_t)b * BLOCK;
            set_channels(&c, conv, conv->group_out - b * BLOCK);
            run_channels(job, &c, tiles, wide);
            c.weights += steps_of(s) * (wide ? 2 : 1) * TILE;
        }
    }
}

/* Tile `t` of the line that starts at pixel `first` of the rows from row_begin on. */
static void set_tile(const struct job *job, struct tile *tile, uint32_t row_begin, uint32_t first,
                     uint32_t t)
{
    const struct tepi_conv *conv = job->conv;
    const struct lines *l = &job->lines;
    first += t + 1 < l->tiles ? t * l->height : l->pixels - l->height;
    for (uint32_t i = 0; i < l->height; i++) {
        const uint32_t row = row_begin + (first + i) / conv->out_w, x = (first + i) % conv->out_w;
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        tile->in[i] = conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h +
                      x * conv->stride_w * conv->in_stride_w;
        tile->out[i] =
            conv->output + n * conv->out_stride_n + y * conv->out_stride_h + x * conv->out_stride_w;
    }
}

static struct tepi_tile_config config_of(const struct lines *lines)
{
    struct tepi_tile_config config = {.palette = 1};
    for (int n = 0; n < TEPI_TILES; n++) {
        config.row_bytes[n] = PIECE;
        config.rows[n] = n < 6 ? (uint8_t)lines->height : ROWS;
    }
    return config;
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    if (row_begin == row_end)
        return;
    struct job job = {
        .conv = conv, .shape = shape_of(conv), .store = tepi_store_vectors(&conv->store)};
    const size_t run = (size_t)job.shape.pieces * PIECE;
    job.lines = lines_of(conv, &job.shape, row_end - row_begin);
    const bool gathers = job.lines.gathers;
    job.in_pitch = gathers ? steps_of(&job.shape) * PIECE : conv->stride_w * conv->in_stride_w;
    job.step_h = gathers ? job.shape.runs_w * run : conv->dilation_h * conv->in_stride_h;
    job.step_w = gathers ? run : conv->dilation_w * conv->in_stride_w;
    const struct tepi_tile_config config = config_of(&job.lines);
    tepi_tile_configure(&job.tiles, &config);
    uint32_t waiting = 0;
    for (uint32_t line = 0; line < job.lines.count; line++) {
        for (uint32_t t = 0; t < job.lines.tiles; t++) {
            set_tile(&job, &job.batch[waiting], row_begin, line * job.lines.pixels, t);
            if (++waiting == job.lines.batch) {
                run_batch(&job, waiting);
                waiting = 0;
            }
        }
    }
    if (waiting)
        run_batch(&job, waiting);
    tepi_tile_release(&job.tiles);
    for (uint32_t row = row_begin; conv->store.table && row < row_end; row++)
        tepi_store_table(conv, conv->output + row / conv->out_h * conv->out_stride_n +
                                   row % conv->out_h * conv->out_stride_h);
}

const struct tepi_conv_kernel TEPI_AMX(tepi_u8s8_conv_32x32_amxint8) = {
    .name = TEPI_AMX_NAME("u8s8-conv-32x32-amxint8"),
    .isa = TEPI_KERNEL_AMXINT8,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
