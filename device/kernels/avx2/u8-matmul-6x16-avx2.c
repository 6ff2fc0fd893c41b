/* SPDX-License-Identifier: Apache-2.0 */
/* Product of two activations with VPMADDWD: both as 16 bits with their zero points taken off, so
 * that every product is exact and a pair adds up in 32 bits. b is packed at run time as convolution
 * weights are: panels of 2 blocks, the last maybe of 1, of [pair][block][8 columns][2], the second
 * of an odd depth's last pair being 0. Rows of a are widened some at a time, and all columns then
 * read that copy. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum {
    ROWS = 6,
    BLOCK = 8,
    PANEL = 16,
    VECTOR = 32,
    /* Widened rows: they share the second-level cache with a panel of b. */
    ROWS_BYTES = 128 << 10,
};

/* How scratch is laid out: b, then some rows of a. */
struct layout {
    size_t pairs;  /* of depth */
    size_t blocks; /* of columns */
    size_t pitch;  /* bytes of a widened row: odd vectors, so that rows do not share cache sets */
    uint32_t rows; /* widened at a time */
};

static struct layout layout_of(const struct tepi_matmul *m)
{
    struct layout l = {
        .pairs = ((size_t)m->depth + 1) / 2,
        .blocks = ((size_t)m->columns + BLOCK - 1) / BLOCK,
        .pitch = (((size_t)m->depth + 15) / 16 | 1) * VECTOR,
    };
    const size_t fit = ROWS_BYTES / l.pitch / ROWS * ROWS;
    const size_t rows = fit > ROWS ? fit : ROWS;
    l.rows = m->rows < rows ? m->rows : (uint32_t)rows;
    return l;
}

static size_t packed_bytes(const struct layout *l)
{
    return l->blocks * l->pairs * VECTOR;
}

static size_t scratch_bytes(const struct tepi_matmul *m)
{
    const struct layout l = layout_of(m);
    return packed_bytes(&l) + l.rows * l.pitch;
}

/* 8 x 8 words, transposed: out[i] has word i of every row. */
TEPI_INLINE void transpose8(__m128i r[BLOCK])
{
    __m128i t[BLOCK];
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 2) {
        t[i] = _mm_unpacklo_epi16(r[i], r[i + 1]);
        t[i + 1] = _mm_unpackhi_epi16(r[i], r[i + 1]);
    }
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 4) {
        r[i] = _mm_unpacklo_epi32(t[i], t[i + 2]);
        r[i + 1] = _mm_unpackhi_epi32(t[i], t[i + 2]);
        r[i + 2] = _mm_unpacklo_epi32(t[i + 1], t[i + 3]);
        r[i + 3] = _mm_unpackhi_epi32(t[i + 1], t[i + 3]);
    }
    TEPI_UNROLL
    for (int i = 0; i < 4; i++) {
        t[i * 2] = _mm_unpacklo_epi64(r[i], r[i + 4]);
        t[i * 2 + 1] = _mm_unpackhi_epi64(r[i], r[i + 4]);
    }
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i++)
        r[i] = t[i];
}

TEPI_INLINE __m256i widen(__m128i bytes, __m256i zero_point)
{
    return _mm256_sub_epi16(_mm256_cvtepu8_epi16(bytes), zero_point);
}

/* One block of b^T, whose rows are columns of the product. `pitch`: from pair to pair. Where the
 * block has less than 8 columns the last one stands in for the others. */
static void pack_transposed(const struct tepi_matmul *m, const uint8_t *b, size_t columns,
                            uint8_t *out, size_t pitch)
{
    const __m256i zero_point = _mm256_set1_epi16((int16_t)m->b_zero_point);
    const __m128i zeros = _mm_set1_epi8((char)m->b_zero_point);
    const __m128i places = _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (size_t k = 0; k < m->depth; k += 16) {
        const size_t left = m->depth - k < 16 ? m->depth - k : 16, pairs = (left + 1) / 2;
        const __m128i inside = _mm_cmpgt_epi8(_mm_set1_epi8((char)left), places);
        __m128i rows[BLOCK];
        TEPI_UNROLL
        for (size_t i = 0; i < BLOCK; i++) {
            const uint8_t *row = b + (i < columns ? i : columns - 1) * m->b_stride;
            rows[i] = _mm_blendv_epi8(zeros, tepi_load16(row + k), inside);
        }
        transpose8(rows);
        for (size_t i = 0; i < pairs; i++)
            _mm256_storeu_si256((__m256i *)(out + (k / 2 + i) * pitch), widen(rows[i], zero_point));
    }
}

/* One panel of b, of `width` blocks: two rows, interleaved. */
static void pack_plain(const struct tepi_matmul *m, const uint8_t *b, size_t width, uint8_t *out)
{
    const __m256i zero_point = _mm256_set1_epi16((int16_t)m->b_zero_point);
    for (size_t k = 0; k < m->depth; k += 2, out += width * VECTOR) {
        const __m128i first = tepi_load16(b + k * m->b_stride);
        const __m128i second = k + 1 < m->depth ? tepi_load16(b + (k + 1) * m->b_stride)
                                                : _mm_set1_epi8((char)m->b_zero_point);
        _mm256_storeu_si256((__m256i *)out, widen(_mm_unpacklo_epi8(first, second), zero_point));
        if (width > 1)
            _mm256_storeu_si256((__m256i *)(out + VECTOR),
                                widen(_mm_unpackhi_epi8(first, second), zero_point));
    }
}

static void pack(const struct tepi_matmul *m)
{
    const struct layout l = layout_of(m);
    uint8_t *out = m->scratch;
    for (size_t column = 0; column < m->columns; column += PANEL) {
        const size_t left = m->columns - column, width = left > BLOCK ? 2 : 1;
        if (m->b_transposed) {
            for (size_t v = 0; v < width; v++)
                pack_transposed(m, m->b + (column + v * BLOCK) * m->b_stride, left - v * BLOCK,
                                out + v * VECTOR, width * VECTOR);
        } else {
            pack_plain(m, m->b + column, width, out);
        }
        out += width * l.pairs * VECTOR;
    }
}

/* What the vectors of a row hold past depth meets the zero of b, or nothing. */
static void widen_rows(const struct tepi_matmul *m, uint32_t begin, uint32_t count, uint8_t *out,
                       size_t pitch)
{
    const __m256i zero_point = _mm256_set1_epi16((int16_t)m->a_zero_point);
    const uint8_t *a = m->a + (size_t)begin * m->a_stride;
    for (uint32_t i = 0; i < count; i++, a += m->a_stride, out += pitch)
        for (size_t k = 0; k < m->depth; k += 16)
            _mm256_storeu_si256((__m256i *)(out + k * 2), widen(tepi_load16(a + k), zero_point));
}

/* A panel of b, and how its sums are stored. */
struct panel {
    const uint8_t *b;
    size_t pairs, columns; /* columns: 16 at most */
    size_t pitch, out_stride;
    __m256 multiplier;
    struct tepi_store_vectors store;
};

TEPI_INLINE void store(const struct panel *p, uint8_t *out, const __m256i *acc, const int rows,
                       const int width)
{
    TEPI_UNROLL
    for (int i = 0; i < rows; i += 2) {
        __m256i four[4];
        TEPI_UNROLL
        for (int k = 0; k < 4; k++) {
            const int row = i + k / 2, v = k % 2;
            four[k] = v < width && row < rows
                          ? tepi_scale(acc[row * width + v], p->multiplier, p->store.highest)
                          : _mm256_setzero_si256();
        }
        const __m256i bytes = tepi_saturate4(four[0], four[1], four[2], four[3], &p->store);
        tepi_store16(out, _mm256_castsi256_si128(bytes), p->columns);
        out += p->out_stride;
        if (i + 1 < rows)
            tepi_store16(out, _mm256_extracti128_si256(bytes, 1), p->columns);
        out += p->out_stride;
    }
}

/* acc += the sum of two products of 16 bits in each lane. As instructions that work in place: from
 * the intrinsics GCC 12 keeps accumulators in memory. */
TEPI_INLINE __m256i add_products(__m256i acc, __m256i a, __m256i b)
{
    __m256i sums;
    __asm__("vpmaddwd %2, %3, %1\n\tvpaddd %1, %0, %0" : "+x"(acc), "=&x"(sums) : "x"(a), "x"(b));
    return acc;
}

/* acc[i][v] += pair of row i * pair of each column of block v, pair by pair. */
TEPI_INLINE void tile(const struct panel *p, const uint8_t *in, uint8_t *out, const int rows,
                      const int width)
{
    __m256i acc[ROWS * 2];
    const uint8_t *at[ROWS];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++)
        at[i] = in + (size_t)i * p->pitch;
    TEPI_UNROLL
    for (int k = 0; k < rows * width; k++)
        acc[k] = _mm256_setzero_si256();
    const uint8_t *b = p->b;
    const size_t end = p->pairs * 4;
#pragma GCC unroll 2
    for (size_t byte = 0; byte < end; byte += 4, b += width * VECTOR) {
        __m256i w[2];
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            w[v] = tepi_load32(b + v * VECTOR);
        TEPI_UNROLL
        for (int i = 0; i < rows; i++) {
            const __m256i pair = tepi_broadcast4(at[i] + byte);
            TEPI_UNROLL
            for (int v = 0; v < width; v++)
                acc[i * width + v] = add_products(acc[i * width + v], pair, w[v]);
        }
    }
    store(p, out, acc, rows, width);
}

typedef void tile_function(const struct panel *p, const uint8_t *in, uint8_t *out);

#define TILE(rows, width)                                                                          \
    static void tile_##rows##x##width(const struct panel *p, const uint8_t *in, uint8_t *out)      \
    {                                                                                              \
        tile(p, in, out, rows, width);                                                             \
    }
#define TILES(width)                                                                               \
    TILE(1, width) TILE(2, width) TILE(3, width) TILE(4, width) TILE(5, width) TILE(6, width)
TILES(1)
TILES(2)

/* [blocks of the panel - 1][rows - 1] */
static tile_function *const tiles[2][ROWS] = {
    {tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1},
    {tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2},
};

/* Full tiles, but the last two share what is left. */
static void run_panel(const struct panel *p, const uint8_t *in, uint8_t *out, uint32_t count)
{
    tile_function *const *of_width = tiles[p->columns > BLOCK ? 1 : 0];
    for (uint32_t left = count, rows; left; left -= rows) {
        rows = left >= 2 * ROWS ? ROWS : left > ROWS ? (left + 1) / 2 : left;
        of_width[rows - 1](p, in, out);
        in += rows * p->pitch;
        out += rows * p->out_stride;
    }
}

static void run(const struct tepi_matmul *m, uint32_t row_begin, uint32_t row_end)
{
    const struct layout l = layout_of(m);
    uint8_t *const packed = m->scratch, *const widened = packed + packed_bytes(&l);
    struct panel p = {
        .pairs = l.pairs,
        .pitch = l.pitch,
        .out_stride = m->out_stride,
        .multiplier = _mm256_set1_ps(m->multiplier),
        .store = tepi_store_range(m->store.zero_point, m->store.lo, m->store.hi),
    };
    for (uint32_t row = row_begin, count; row < row_end; row += count) {
        count = row_end - row < l.rows ? row_end - row : l.rows;
        uint8_t *out = m->output + (size_t)row * m->out_stride;
        widen_rows(m, row, count, widened, l.pitch);
        p.b = packed;
        for (size_t column = 0; column < m->columns; column += PANEL) {
            const size_t left = m->columns - column;
            p.columns = left < PANEL ? left : PANEL;
            run_panel(&p, widened, out + column, count);
            p.b += (left > BLOCK ? 2 : 1) * l.pairs * VECTOR;
        }
        for (uint32_t i = 0; m->store.table && i < count; i++, out += m->out_stride)
            tepi_u8_table_32_avx2(m->store.table, out, out, m->columns);
    }
}

const struct tepi_matmul_kernel tepi_u8_matmul_6x16_avx2 = {
    .name = "u8-matmul-6x16-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .scratch_bytes = scratch_bytes,
    .pack = pack,
    .run = run,
};
