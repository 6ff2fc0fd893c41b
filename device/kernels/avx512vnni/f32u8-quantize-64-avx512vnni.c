/* SPDX-License-Identifier: Apache-2.0 */
/* float32 plane to uint8, 64 elements at a time, as ONNX QuantizeLinear. Planes that turn three
 * float planes into pixels of three bytes (pictures) leave through shuffles. The float side may be
 * at any byte address. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"

enum { BLOCK = 64, PICTURE = 3 };

struct quantizer {
    __m512 scale;
    struct tepi_store_vectors store;
};

/* Elements of one row from column j on; fewer than 64 at its end. */
static const uint8_t *at(const struct tepi_plane *plane, size_t i, size_t j)
{
    const ptrdiff_t element = (ptrdiff_t)i * plane->in_row + (ptrdiff_t)j * plane->in_column;
    return (const uint8_t *)plane->input + element * (ptrdiff_t)sizeof(float);
}

TEPI_INLINE __m512i quantize64(const struct quantizer *q, const void *floats, size_t count)
{
    __m512 v[4];
    TEPI_UNROLL
    for (size_t k = 0; k < 4; k++) {
        const __mmask16 mask = (__mmask16)(tepi_mask64(count) >> k * 16);
        const __m512 x = _mm512_maskz_loadu_ps(mask, (const uint8_t *)floats + k * 64);
        v[k] = _mm512_div_ps(x, q->scale);
    }
    return tepi_in_order(tepi_round64(v, &q->store));
}

static __m512i quantize_at(const struct quantizer *q, const struct tepi_plane *plane, size_t i,
                           size_t j, size_t count)
{
    const uint8_t *in = at(plane, i, j);
    if (plane->in_column == 1)
        return quantize64(q, in, count);
    float gathered[BLOCK];
    for (size_t k = 0; k < count; k++)
        memcpy(&gathered[k], in + (ptrdiff_t)k * plane->in_column * (ptrdiff_t)sizeof(float),
               sizeof(float));
    return quantize64(q, gathered, count);
}

/* Bytes k of three vectors to bytes 3k, 3k+1, 3k+2. */
static void store_picture(uint8_t *out, __m512i a, __m512i b, __m512i c)
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
        __m512i pick[PICTURE];
        for (int p = 0; p < PICTURE; p++)
            pick[p] = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)picks[part][p]));
        const __m512i bytes = _mm512_or_si512(
            _mm512_or_si512(_mm512_shuffle_epi8(a, pick[0]), _mm512_shuffle_epi8(b, pick[1])),
            _mm512_shuffle_epi8(c, pick[2]));
        uint8_t *to = out + part * 16;
        _mm_storeu_si128((__m128i *)to, _mm512_castsi512_si128(bytes));
        _mm_storeu_si128((__m128i *)(to + 48), _mm512_extracti32x4_epi32(bytes, 1));
        _mm_storeu_si128((__m128i *)(to + 96), _mm512_extracti32x4_epi32(bytes, 2));
        _mm_storeu_si128((__m128i *)(to + 144), _mm512_extracti32x4_epi32(bytes, 3));
    }
}

static void scatter(const struct tepi_plane *plane, size_t i, size_t j, __m512i bytes, size_t count)
{
    uint8_t *out =
        (uint8_t *)plane->output + (ptrdiff_t)i * plane->out_row + (ptrdiff_t)j * plane->out_column;
    if (plane->out_column == 1) {
        _mm512_mask_storeu_epi8(out, tepi_mask64(count), bytes);
        return;
    }
    uint8_t each[BLOCK];
    _mm512_storeu_si512(each, bytes);
    for (size_t k = 0; k < count; k++, out += plane->out_column)
        *out = each[k];
}

void tepi_f32u8_quantize_64_avx512vnni(const struct tepi_plane *plane,
                                       const struct tepi_quantization *quantization)
{
    const struct quantizer q = {
        .scale = _mm512_set1_ps(quantization->scale),
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
