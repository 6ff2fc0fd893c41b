/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of the channels of many pixels. There are only 256 different elements: the quotient is
 * made once for each and looked up. A sum runs element by element, since its order counts, so that
 * the sums of several pixels run side by side, for one alone waits on the adder. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/avx512vnni/vector.h"
#include "kernels/scalar/scalar.h"
#include <math.h>

enum { WORTH_A_TABLE = 48, TOGETHER = 8, CHUNK = 512 };

static uint8_t largest_of(const uint8_t *a, size_t count)
{
    __m512i largest = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i += 64)
        largest = _mm512_max_epu8(largest, _mm512_maskz_loadu_epi8(tepi_mask64(count - i), a + i));
    __m256i half =
        _mm256_max_epu8(_mm512_castsi512_si256(largest), _mm512_extracti64x4_epi64(largest, 1));
    __m128i part = _mm_max_epu8(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    /* The smallest of inverted words, of which each is the larger byte of two. */
    part = _mm_max_epu8(part, _mm_srli_epi16(part, 8));
    part = _mm_xor_si128(_mm_and_si128(part, _mm_set1_epi16(0xff)), _mm_set1_epi16(0xff));
    return (uint8_t)(255 - _mm_extract_epi16(_mm_minpos_epu16(part), 0));
}

/* Which elements of the table the channels name, so that all pixels look into the same one. */
static void shift(const uint8_t *a, size_t count, uint8_t largest, uint8_t *indices)
{
    const __m512i up = _mm512_set1_epi8((char)(255 - largest));
    for (size_t i = 0; i < count; i += 64) {
        const __m512i x = _mm512_maskz_loadu_epi8(tepi_mask64(count - i), a + i);
        _mm512_storeu_si512(indices + i, _mm512_add_epi8(x, up));
    }
}

/* Goes on with the sums of TOGETHER pixels, each in order of its channels. */
static void add_up(const float *table, uint8_t indices[TOGETHER][CHUNK], size_t count, float *sums)
{
    float sum[TOGETHER];
    TEPI_UNROLL
    for (int i = 0; i < TOGETHER; i++)
        sum[i] = sums[i];
    for (size_t c = 0; c < count; c++) {
        TEPI_UNROLL
        for (int i = 0; i < TOGETHER; i++) {
            sum[i] += table[indices[i][c]];
            /* Or GCC assembles vectors of them, one insertion at a time. */
            __asm__("" : "+x"(sum[i]));
        }
    }
    TEPI_UNROLL
    for (int i = 0; i < TOGETHER; i++)
        sums[i] = sum[i];
}

static void divide(const struct tepi_softmax *op, const float *exponentials, size_t largest,
                   float sum, uint8_t quotients[256])
{
    const struct tepi_store_vectors store = tepi_store_range(0, 0, 255);
    const __m512i zero_points = _mm512_set1_epi8((char)op->zero_point);
    const __m512 ratios = _mm512_set1_ps(op->ratio), sums = _mm512_set1_ps(sum);
    /* Well below half a step, or above everything where that is no number. */
    const __m512 least = _mm512_set1_ps(sum > 0 ? 0.4375f * sum : -INFINITY);
    for (size_t i = 0; i <= largest; i += 64) {
        __m512 four[4];
        __mmask16 some = 0;
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const size_t first = i + v * 16;
            const __mmask16 mask = first > largest ? 0 : tepi_mask16(largest + 1 - first);
            const __m512 e = _mm512_maskz_loadu_ps(mask, exponentials + first);
            four[v] = _mm512_mul_ps(e, ratios);
            some |= _mm512_cmp_ps_mask(four[v], least, _CMP_NLT_UQ);
        }
        if (some == 0) { /* all round to 0 */
            _mm512_storeu_si512(quotients + i, zero_points);
            continue;
        }
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++)
            four[v] = _mm512_div_ps(four[v], sums);
        const __m512i bytes = tepi_in_order(tepi_round64(four, &store));
        _mm512_storeu_si512(quotients + i, _mm512_adds_epu8(bytes, zero_points));
    }
}

/* At most TOGETHER pixels; sums of pixels that are not there are made and left. */
static void pixels(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out, size_t n)
{
    uint8_t indices[TOGETHER][CHUNK], largest[TOGETHER];
    float sums[TOGETHER] = {0};
    if (n < TOGETHER)
        memset(indices, 0, sizeof(indices));
    for (size_t i = 0; i < n; i++)
        largest[i] = largest_of(a + i * op->a_step, op->count);
    for (size_t begin = 0; begin < op->count; begin += CHUNK) {
        const size_t left = op->count - begin, count = left < CHUNK ? left : CHUNK;
        for (size_t i = 0; i < n; i++)
            shift(a + i * op->a_step + begin, count, largest[i], indices[i]);
        add_up(op->table, indices, count, sums);
    }
    for (size_t i = 0; i < n; i++) {
        uint8_t quotients[256];
        divide(op, op->table + (255 - largest[i]), largest[i], sums[i], quotients);
        tepi_u8_table_64_avx512vnni(quotients, a + i * op->a_step, out + i * op->out_step,
                                    op->count);
    }
}

void tepi_u8_softmax_64_avx512vnni(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    if (op->count < WORTH_A_TABLE) {
        tepi_u8_softmax_scalar(op, a, out);
        return;
    }
    for (size_t row = 0; row < op->rows; row += TOGETHER) {
        const size_t left = op->rows - row;
        pixels(op, a + row * op->a_step, out + row * op->out_step,
               left < TOGETHER ? left : TOGETHER);
    }
}
