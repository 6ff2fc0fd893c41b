/* SPDX-License-Identifier: Apache-2.0 */
/* float32 plane to uint8, 32 elements at a time, as ONNX QuantizeLinear. Planes that turn three
 * float planes into pixels of three bytes (pictures) leave through shuffles. The float side may be
 * at any byte address. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { BLOCK = 32, PICTURE = 3 };

struct quantizer {
    __m256 scale;
    struct tepi_store_vectors store;
};

TEPI_INLINE __m256i quantize32(const struct quantizer *q, const uint8_t *floats)
{
    __m256 v[4];
    TEPI_UNROLL
    for (size_t k = 0; k < 4; k++) {
        const __m256 x = _mm256_castsi256_ps(tepi_load32(floats + k * 32));
        v[k] = _mm256_div_ps(x, q->scale);
    }
    return tepi_round32(v, &q->store);
}

/* `count` elements of row i from column j on. */
static __m256i quantize_at(const struct quantizer *q, const struct tepi_plane *plane, size_t i,
                           size_t j, size_t count)
{
    const ptrdiff_t size = sizeof(float), step = plane->in_column * size;
    const uint8_t *in =
        (const uint8_t *)plane->input + (ptrdiff_t)i * plane->in_row * size + (ptrdiff_t)j * step;
    if (plane->in_column == 1 && count == BLOCK)
        return quantize32(q, in);
    float gathered[BLOCK] = {0};
    for (size_t k = 0; k < count; k++)
        memcpy(&gathered[k], in + (ptrdiff_t)k * step, sizeof(float));
    return quantize32(q, (const uint8_t *)gathered);
}

/* Bytes k of three vectors to bytes 3k, 3k+1, 3k+2. */
static void store_picture(uint8_t *out, __m256i a, __m256i b, __m256i c)
{
    static const int8_t picks[PICTURE][PICTURE][16] = {
        {{0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
         {-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
         {-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1}},
        {{-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
         {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
         {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1}},
        {{-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1},
         {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1},
         {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15}},
    };
    for (int part = 0; part < PICTURE; part++) {
        __m256i pick[PICTURE];
        for (int p = 0; p < PICTURE; p++)
            pick[p] = _mm256_broadcastsi128_si256(tepi_load16(picks[part][p]));
        const __m256i bytes = _mm256_or_si256(
            _mm256_or_si256(_mm256_shuffle_epi8(a, pick[0]), _mm256_shuffle_epi8(b, pick[1])),
            _mm256_shuffle_epi8(c, pick[2]));
        uint8_t *to = out + part * 16;
        _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(bytes));
        _mm_storeu_si128((__m128i *)(to + 48), _mm256_extracti128_si256(bytes, 1));
    }
}

static void scatter(const struct tepi_plane *plane, size_t i, size_t j, __m256i bytes, size_t count)
{
    uint8_t *out =
        (uint8_t *)plane->output + (ptrdiff_t)i * plane->out_row + (ptrdiff_t)j * plane->out_column;
    if (plane->out_column == 1) {
        tepi_store32(out, bytes, count);
        return;
    }
    uint8_t each[BLOCK];
    _mm256_storeu_si256((__m256i *)each, bytes);
    for (size_t k = 0; k < count; k++, out += plane->out_column)
        *out = each[k];
}

void tepi_f32u8_quantize_32_avx2(const struct tepi_plane *plane,
                                 const struct tepi_quantization *quantization)
{
    const struct quantizer q = {
        .scale = _mm256_set1_ps(quantization->scale),
        .store = tepi_store_range(quantization->zero_point, quantization->lo, quantization->hi),
    };
    const bool picture =
        plane->rows == PICTURE && plane->out_column == PICTURE && plane->out_row == 1;
    /* Rows that interleave in the output advance together. */
    const size_t span = plane->out_column == 1 ? plane->columns : BLOCK;
    for (size_t first = 0; first < plane->columns; first += span) {
        const size_t left = plane->columns - first, wide = left < span ? left : span;
        if (picture && wide == BLOCK) {
            store_picture(
                (uint8_t *)plane->output + first * PICTURE, quantize_at(&q, plane, 0, first, BLOCK),
                quantize_at(&q, plane, 1, first, BLOCK), quantize_at(&q, plane, 2, first, BLOCK));
            continue;
        }
        for (size_t i = 0; i < plane->rows; i++) {
            for (size_t j = 0; j < wide; j += BLOCK) {
                const size_t count = wide - j < BLOCK ? wide - j : BLOCK;
                scatter(plane, i, first + j, quantize_at(&q, plane, i, first + j, count), count);
            }
        }
    }
}
