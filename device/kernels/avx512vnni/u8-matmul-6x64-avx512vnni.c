/* SPDX-License-Identifier: Apache-2.0 */
/* Product of two activations. b is packed at run time as convolution weights are, with 128 taken
 * off each value: panels of up to 4 blocks of [step][block][16 columns][4 bytes], zeros where the
 * shape leaves room. With b' = b - 128 the sum of (a - za) * (b - zb) over depth is
 *     sum(a * b') + (128 - zb) * sum(a) - za * (sum(b') + depth * (128 - zb)),
 * whose second term belongs to a row and whose third to a column; all modulo 2^32. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/tile_store.h"

enum { PANEL = TEPI_TILE_BLOCKS, BLOCK = TEPI_BLOCK, STEP = BLOCK * 4, TILE_MAX = 12 };

/* What stands in scratch: the bias of each column, then b. */
struct packed {
    int32_t *bias;
    int8_t *b;
    size_t blocks, steps; /* of 16 columns, of 4 rows of b */
};

static struct packed packed_at(const struct tepi_matmul *m)
{
    struct packed p = {.bias = m->scratch,
                       .blocks = ((size_t)m->columns + BLOCK - 1) / BLOCK,
                       .steps = ((size_t)m->depth + 3) / 4};
    p.b = (int8_t *)(p.bias + p.blocks * BLOCK);
    return p;
}

static size_t scratch_bytes(const struct tepi_matmul *m)
{
    const size_t blocks = ((size_t)m->columns + BLOCK - 1) / BLOCK;
    const size_t steps = ((size_t)m->depth + 3) / 4;
    return blocks * BLOCK * sizeof(int32_t) + blocks * steps * STEP;
}

/* Blocks in the panel that starts at one: 4, then 2 or 1 for what is left. */
static size_t panel_width(size_t left)
{
    return left >= PANEL ? PANEL : left >= 2 ? 2 : 1;
}

/* 16 x 16 dwords, transposed: out[i] has dword i of every row. */
TEPI_INLINE void transpose16(__m512i r[BLOCK])
{
    __m512i t[BLOCK];
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    TEPI_UNROLL
    for (int i = 0; i < 4; i++) {
        const __m512i low0 = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x44);
        const __m512i high0 = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xee);
        const __m512i low1 = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x44);
        const __m512i high1 = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xee);
        t[i] = _mm512_shuffle_i32x4(low0, low1, 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(low0, low1, 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(high0, high1, 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(high0, high1, 0xdd);
    }
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i++)
        r[i] = t[i];
}

/* One block of b^T, whose rows are columns of the product. `pitch`: from step to step. */
static void pack_transposed(const struct tepi_matmul *m, const uint8_t *b, size_t columns,
                            int8_t *out, size_t pitch)
{
    for (size_t k = 0; k < m->depth; k += STEP) {
        const size_t left = m->depth - k, steps = left < STEP ? (left + 3) / 4 : BLOCK;
        const __mmask64 mask = tepi_mask64(left);
        __m512i rows[BLOCK];
        TEPI_UNROLL
        for (size_t i = 0; i < BLOCK; i++)
            rows[i] = i < columns ? _mm512_maskz_loadu_epi8(mask, b + i * m->b_stride + k)
                                  : _mm512_setzero_si512();
        transpose16(rows);
        for (size_t i = 0; i < steps; i++)
            _mm512_storeu_si512(out + (k / 4 + i) * pitch, rows[i]);
    }
}

/* One block of b: 16 columns of each of four rows, interleaved. */
static void pack_plain(const struct tepi_matmul *m, const uint8_t *b, size_t columns, int8_t *out,
                       size_t pitch)
{
    const __mmask16 mask = tepi_mask16(columns);
    for (size_t k = 0; k < m->depth; k += 4) {
        __m128i rows[4];
        TEPI_UNROLL
        for (size_t i = 0; i < 4; i++)
            rows[i] = k + i < m->depth ? _mm_maskz_loadu_epi8(mask, b + (k + i) * m->b_stride)
                                       : _mm_setzero_si128();
        const __m128i low0 = _mm_unpacklo_epi8(rows[0], rows[1]);
        const __m128i high0 = _mm_unpackhi_epi8(rows[0], rows[1]);
        const __m128i low1 = _mm_unpacklo_epi8(rows[2], rows[3]);
        const __m128i high1 = _mm_unpackhi_epi8(rows[2], rows[3]);
        __m128i *to = (__m128i *)(void *)(out + k / 4 * pitch);
        _mm_storeu_si128(to, _mm_unpacklo_epi16(low0, low1));
        _mm_storeu_si128(to + 1, _mm_unpackhi_epi16(low0, low1));
        _mm_storeu_si128(to + 2, _mm_unpacklo_epi16(high0, high1));
        _mm_storeu_si128(to + 3, _mm_unpackhi_epi16(high0, high1));
    }
}

/* Takes 128 off a packed block (where b has values: the zeros behind the last row stay), and gives
 * the sum of each column. */
static __m512i center(const struct tepi_matmul *m, int8_t *block, size_t pitch, size_t steps)
{
    const __m512i flip = _mm512_set1_epi8((char)0x80), ones = _mm512_set1_epi8(1);
    __m512i sum = _mm512_setzero_si512();
    for (size_t i = 0; i < steps; i++) {
        const uint32_t rest = m->depth - (uint32_t)i * 4;
        const uint32_t rows = rest >= 4 ? ~0u : (1u << rest * 8) - 1;
        __m512i values = _mm512_xor_si512(_mm512_loadu_si512(block + i * pitch), flip);
        values = _mm512_and_si512(values, _mm512_set1_epi32((int32_t)rows));
        _mm512_storeu_si512(block + i * pitch, values);
        sum = tepi_dot4(sum, ones, values);
    }
    return sum;
}

static void pack(const struct tepi_matmul *m)
{
    const struct packed p = packed_at(m);
    const uint32_t shift = (uint32_t)m->depth * (uint32_t)(128 - m->b_zero_point);
    int8_t *out = p.b;
    for (size_t block = 0; block < p.blocks;) {
        const size_t width = panel_width(p.blocks - block), pitch = width * STEP;
        for (size_t v = 0; v < width; v++, block++) {
            const size_t first = block * BLOCK;
            const size_t columns = m->columns - first;
            int8_t *to = out + v * STEP;
            if (m->b_transposed)
                pack_transposed(m, m->b + first * m->b_stride, columns, to, pitch);
            else
                pack_plain(m, m->b + first, columns, to, pitch);
            const __m512i sums =
                _mm512_add_epi32(center(m, to, pitch, p.steps), _mm512_set1_epi32((int32_t)shift));
            const __m512i zero = _mm512_set1_epi32(-m->a_zero_point);
            _mm512_storeu_si512(p.bias + first, _mm512_mullo_epi32(sums, zero));
        }
        out += p.steps * pitch;
    }
}

/* (128 - zb) * sum(a) of one row. */
static int32_t row_term(const struct tepi_matmul *m, const uint8_t *a)
{
    __m512i sums = _mm512_setzero_si512();
    for (size_t k = 0; k < m->depth; k += 64) {
        const __m512i bytes = _mm512_maskz_loadu_epi8(tepi_mask64(m->depth - k), a + k);
        sums = _mm512_add_epi64(sums, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
    }
    const uint32_t sum = (uint32_t)_mm512_reduce_add_epi64(sums);
    return (int32_t)(sum * (uint32_t)(128 - m->b_zero_point));
}

/* A panel of b and its columns' constants. */
struct panel {
    const int8_t *b;
    struct tepi_channels channels;
    struct tepi_store_vectors store;
    size_t depth_bytes; /* whole steps */
};

TEPI_INLINE void tile(const struct panel *p, const uint8_t *const *in, const int32_t *terms,
                      uint8_t *const *out, const int rows, const int width)
{
    __m512i acc[24];
    TEPI_UNROLL
    for (int i = 0; i < rows; i++) {
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            acc[i * width + v] = _mm512_add_epi32(p->channels.bias[v], _mm512_set1_epi32(terms[i]));
    }
    const int8_t *b = p->b;
    for (size_t byte = 0; byte < p->depth_bytes; byte += 4, b += (size_t)width * STEP) {
        __m512i w[PANEL];
        TEPI_UNROLL
        for (int v = 0; v < width; v++)
            w[v] = _mm512_loadu_si512(b + v * STEP);
        TEPI_UNROLL
        for (int i = 0; i < rows; i++) {
            const __m512i a = tepi_broadcast4(in[i] + byte);
            TEPI_UNROLL
            for (int v = 0; v < width; v++)
                acc[i * width + v] = tepi_dot4(acc[i * width + v], a, w[v]);
        }
    }
    tepi_store_tile(&p->channels, &p->store, out, 0, acc, rows, width);
}

typedef void tile_function(const struct panel *p, const uint8_t *const *in, const int32_t *terms,
                           uint8_t *const *out);

#define TILE(rows, width)                                                                          \
    static void tile_##rows##x##width(const struct panel *p, const uint8_t *const *in,             \
                                      const int32_t *terms, uint8_t *const *out)                   \
    {                                                                                              \
        tile(p, in, terms, out, rows, width);                                                      \
    }
#define TILES_TO_6(width)                                                                          \
    TILE(1, width) TILE(2, width) TILE(3, width) TILE(4, width) TILE(5, width) TILE(6, width)
#define TILES_TO_12(width)                                                                         \
    TILES_TO_6(width)                                                                              \
    TILE(7, width) TILE(8, width) TILE(9, width) TILE(10, width) TILE(11, width) TILE(12, width)
TILES_TO_12(1)
TILES_TO_12(2)
TILES_TO_6(4)

#define TILE_NAMES_TO_6(width)                                                                     \
    tile_1x##width, tile_2x##width, tile_3x##width, tile_4x##width, tile_5x##width, tile_6x##width
#define TILE_NAMES_TO_12(width)                                                                    \
    TILE_NAMES_TO_6(width), tile_7x##width, tile_8x##width, tile_9x##width, tile_10x##width,       \
        tile_11x##width, tile_12x##width

/* [width - 1][rows - 1] */
static tile_function *const tiles[PANEL][TILE_MAX] = {
    {TILE_NAMES_TO_12(1)}, {TILE_NAMES_TO_12(2)}, {NULL}, {TILE_NAMES_TO_6(4)}};
static const uint32_t rows_max[PANEL] = {12, 12, 0, 6};

/* Rows [begin, end) against all panels; they share a's terms. */
enum { ROWS = 48 };
static void run_rows(const struct tepi_matmul *m, const struct packed *packed, uint32_t begin,
                     uint32_t count, struct panel *p)
{
    const uint8_t *in[ROWS];
    uint8_t *out[ROWS];
    int32_t terms[ROWS];
    for (uint32_t i = 0; i < count; i++) {
        in[i] = m->a + (size_t)(begin + i) * m->a_stride;
        out[i] = m->output + (size_t)(begin + i) * m->out_stride;
        terms[i] = m->b_zero_point == 128 ? 0 : row_term(m, in[i]);
    }
    p->b = packed->b;
    for (size_t block = 0; block < packed->blocks;) {
        const size_t width = panel_width(packed->blocks - block), first = block * BLOCK;
        const size_t left = m->columns - first;
        p->channels.mask = tepi_mask64(left < width * BLOCK ? left : width * BLOCK);
        for (size_t v = 0; v < width; v++)
            p->channels.bias[v] = _mm512_loadu_si512(packed->bias + first + v * BLOCK);
        const uint32_t most = rows_max[width - 1];
        for (uint32_t i = 0, rows; i < count; i += rows) {
            rows = count - i < most ? count - i : most;
            tiles[width - 1][rows - 1](p, in + i, terms + i, out + i);
        }
        for (uint32_t i = 0; i < count; i++)
            out[i] += width * BLOCK;
        p->b += packed->steps * width * STEP;
        block += width;
    }
    for (uint32_t i = 0; m->store.table && i < count; i++) {
        uint8_t *row = m->output + (size_t)(begin + i) * m->out_stride;
        tepi_u8_table_64_avx512vnni(m->store.table, row, row, m->columns);
    }
}

static void run(const struct tepi_matmul *m, uint32_t row_begin, uint32_t row_end)
{
    const struct packed packed = packed_at(m);
    struct panel p = {.store = tepi_store_vectors(&m->store), .depth_bytes = packed.steps * 4};
    for (size_t v = 0; v < PANEL; v++)
        p.channels.multiplier[v] = _mm512_set1_ps(m->multiplier);
    for (uint32_t row = row_begin; row < row_end; row += ROWS)
        run_rows(m, &packed, row, row_end - row < ROWS ? row_end - row : ROWS, &p);
}

const struct tepi_matmul_kernel tepi_u8_matmul_6x64_avx512vnni = {
    .name = "u8-matmul-6x64-avx512vnni",
    .isa = TEPI_KERNEL_AVX512VNNI,
    .scratch_bytes = scratch_bytes,
    .pack = pack,
    .run = run,
};
