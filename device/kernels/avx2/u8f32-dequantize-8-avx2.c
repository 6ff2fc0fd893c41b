/* SPDX-License-Identifier: Apache-2.0 */
/* uint8 plane to float32, 8 elements at a time, as ONNX DequantizeLinear. The float side may be at
 * any byte address. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { BLOCK = 64 };

static void load(const struct tepi_plane *plane, size_t i, size_t j, uint8_t bytes[BLOCK],
                 size_t count)
{
    const uint8_t *in = (const uint8_t *)plane->input + (ptrdiff_t)i * plane->in_row +
                        (ptrdiff_t)j * plane->in_column;
    if (plane->in_column == 1) {
        memcpy(bytes, in, count);
        return;
    }
    for (size_t k = 0; k < count; k++, in += plane->in_column)
        bytes[k] = *in;
}

static void store(const struct tepi_plane *plane, size_t i, size_t j, const float values[BLOCK],
                  size_t count)
{
    const ptrdiff_t size = sizeof(float);
    uint8_t *out = (uint8_t *)plane->output +
                   ((ptrdiff_t)i * plane->out_row + (ptrdiff_t)j * plane->out_column) * size;
    if (plane->out_column == 1) {
        memcpy(out, values, count * sizeof(float));
        return;
    }
    for (size_t k = 0; k < count; k++, out += plane->out_column * size)
        memcpy(out, &values[k], sizeof(float));
}

void tepi_u8f32_dequantize_8_avx2(const struct tepi_plane *plane, const struct tepi_quantization *q)
{
    const __m256i zero_point = _mm256_set1_epi32(q->zero_point);
    const __m256 scale = _mm256_set1_ps(q->scale);
    /* Rows that interleave on one side advance together. */
    const bool apart = plane->in_column == 1 && plane->out_column == 1;
    const size_t span = apart ? plane->columns : BLOCK;
    for (size_t first = 0; first < plane->columns; first += span) {
        const size_t left = plane->columns - first, wide = left < span ? left : span;
        for (size_t i = 0; i < plane->rows; i++) {
            for (size_t j = 0; j < wide; j += BLOCK) {
                const size_t count = wide - j < BLOCK ? wide - j : BLOCK;
                uint8_t bytes[BLOCK] = {0};
                float values[BLOCK];
                load(plane, i, first + j, bytes, count);
                for (size_t k = 0; k < count; k += 8) {
                    const __m256i wider =
                        _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(bytes + k)));
                    const __m256 value = _mm256_cvtepi32_ps(_mm256_sub_epi32(wider, zero_point));
                    _mm256_storeu_ps(values + k, _mm256_mul_ps(value, scale));
                }
                store(plane, i, first + j, values, count);
            }
        }
    }
}
