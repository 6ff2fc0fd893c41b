/* SPDX-License-Identifier: Apache-2.0 */
/* float32 product in tiles of 6 rows x 16 columns: twelve accumulators, each of which meets its
 * products in order of depth. b is packed in panels of 16 columns, [depth][16], zeros behind the
 * last column. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { TILE_ROWS = 6, PANEL = 16, BLOCK = 8 };

static size_t panels(const struct tepi_fmatmul *m)
{
    return ((size_t)m->columns + PANEL - 1) / PANEL;
}

static size_t scratch_bytes(const struct tepi_fmatmul *m)
{
    return panels(m) * m->depth * PANEL * sizeof(float);
}

static void pack_rows(const struct tepi_fmatmul *m, size_t first, float *panel)
{
    const size_t left = m->columns - first, count = left < PANEL ? left : PANEL;
    const float *b = m->b + first;
    for (size_t k = 0; k < m->depth; k++, b += m->b_stride, panel += PANEL) {
        if (count == PANEL) {
            _mm256_store_ps(panel, _mm256_loadu_ps(b));
            _mm256_store_ps(panel + BLOCK, _mm256_loadu_ps(b + BLOCK));
            continue;
        }
        for (size_t j = 0; j < PANEL; j++)
            panel[j] = j < count ? b[j] : 0.0f;
    }
}

/* Eight rows of eight to eight columns. */
TEPI_INLINE void transpose8(__m256 v[BLOCK])
{
    __m256 pairs[BLOCK], fours[BLOCK];
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 2) {
        pairs[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
        pairs[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
    TEPI_UNROLL
    for (int i = 0; i < BLOCK; i += 4) {
        TEPI_UNROLL
        for (int j = 0; j < 2; j++) {
            const __m256 a = pairs[i + j], b = pairs[i + j + 2];
            fours[i + 2 * j] = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(1, 0, 1, 0));
            fours[i + 2 * j + 1] = _mm256_shuffle_ps(a, b, _MM_SHUFFLE(3, 2, 3, 2));
        }
    }
    TEPI_UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
        v[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
    }
}

static void pack_columns(const struct tepi_fmatmul *m, size_t first, float *panel)
{
    for (size_t half = 0; half < PANEL; half += BLOCK) {
        const size_t begin = first + half;
        const size_t count = begin < m->columns ? m->columns - begin : 0;
        const float *b = m->b + begin * m->b_stride;
        size_t k = 0;
        for (; count >= BLOCK && k + BLOCK <= m->depth; k += BLOCK) {
            __m256 v[BLOCK];
            TEPI_UNROLL
            for (size_t j = 0; j < BLOCK; j++)
                v[j] = _mm256_loadu_ps(b + j * m->b_stride + k);
            transpose8(v);
            TEPI_UNROLL
            for (size_t j = 0; j < BLOCK; j++)
                _mm256_store_ps(panel + (k + j) * PANEL + half, v[j]);
        }
        for (; k < m->depth; k++)
            for (size_t j = 0; j < BLOCK; j++)
                panel[k * PANEL + half + j] = j < count ? b[j * m->b_stride + k] : 0.0f;
    }
}

static void pack(const struct tepi_fmatmul *m)
{
    float *panel = m->scratch;
    for (size_t first = 0; first < m->columns; first += PANEL, panel += PANEL * m->depth) {
        if (m->b_transposed)
            pack_columns(m, first, panel);
        else
            pack_rows(m, first, panel);
    }
}

/* Times scale; all NaNs are one. */
TEPI_INLINE __m256 finish(__m256 acc, __m256 scale)
{
    const __m256 value = _mm256_mul_ps(acc, scale);
    const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return _mm256_blendv_ps(value, nan, _mm256_cmp_ps(value, value, _CMP_UNORD_Q));
}

TEPI_INLINE void store_row(float *out, __m256 low, __m256 high, size_t count)
{
    if (count >= PANEL) {
        _mm256_storeu_ps(out, low);
        _mm256_storeu_ps(out + BLOCK, high);
        return;
    }
    _mm256_maskstore_ps(out, tepi_mask8(count), low);
    if (count > BLOCK)
        _mm256_maskstore_ps(out + BLOCK, tepi_mask8(count - BLOCK), high);
}

TEPI_INLINE void tile(const struct tepi_fmatmul *m, const float *a, const float *panel, float *out,
                      size_t count, const size_t rows)
{
    __m256 low[TILE_ROWS], high[TILE_ROWS];
    const float *at[TILE_ROWS];
    TEPI_UNROLL
    for (size_t i = 0; i < rows; i++) {
        low[i] = high[i] = _mm256_setzero_ps();
        at[i] = a + i * m->a_stride;
    }
    for (size_t k = 0; k < m->depth; k++, panel += PANEL) {
        const __m256 b_low = _mm256_load_ps(panel), b_high = _mm256_load_ps(panel + BLOCK);
        TEPI_UNROLL
        for (size_t i = 0; i < rows; i++) {
            const __m256 x = _mm256_broadcast_ss(at[i] + k);
            low[i] = _mm256_fmadd_ps(x, b_low, low[i]);
            high[i] = _mm256_fmadd_ps(x, b_high, high[i]);
        }
    }
    const __m256 scale = _mm256_set1_ps(m->scale);
    TEPI_UNROLL
    for (size_t i = 0; i < rows; i++)
        store_row(out + i * m->out_stride, finish(low[i], scale), finish(high[i], scale), count);
}

static void some_rows(const struct tepi_fmatmul *m, const float *a, const float *panel, float *out,
                      size_t count, size_t rows)
{
    switch (rows) {
    case 1:
        tile(m, a, panel, out, count, 1);
        break;
    case 2:
        tile(m, a, panel, out, count, 2);
        break;
    case 3:
        tile(m, a, panel, out, count, 3);
        break;
    case 4:
        tile(m, a, panel, out, count, 4);
        break;
    case 5:
        tile(m, a, panel, out, count, 5);
        break;
    default:
        tile(m, a, panel, out, count, TILE_ROWS);
    }
}

static void run(const struct tepi_fmatmul *m, uint32_t row_begin, uint32_t row_end)
{
    const float *panel = m->scratch;
    for (size_t first = 0; first < m->columns; first += PANEL, panel += PANEL * m->depth) {
        for (size_t row = row_begin; row < row_end; row += TILE_ROWS) {
            const size_t rows = row_end - row < TILE_ROWS ? row_end - row : TILE_ROWS;
            some_rows(m, m->a + row * m->a_stride, panel, m->output + row * m->out_stride + first,
                      m->columns - first, rows);
        }
    }
}

const struct tepi_fmatmul_kernel tepi_f32_matmul_6x16_avx2 = {
    .name = "f32-matmul-6x16-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .scratch_bytes = scratch_bytes,
    .pack = pack,
    .run = run,
};
