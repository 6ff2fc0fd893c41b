/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax of the channels of each pixel. The sum runs element by element, since its order counts,
 * so several pixels take turns while each waits for its last addition. Pixels of few channels keep
 * their exponentials for the division. In those of many there are fewer different elements than
 * channels: the quotient is made once for each and looked up. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vector.h"

enum { ROWS = 4, KEPT = 256 };

/* Pixels that take turns. */
struct turn {
    const uint8_t *a[ROWS];
    const float *exponentials[ROWS]; /* [a[c]] */
    size_t largest[ROWS];
    float sums[ROWS];
    _Alignas(32) float kept[ROWS][KEPT];
};

static uint8_t largest_of(const uint8_t *a, size_t count)
{
    __m256i largest = _mm256_setzero_si256();
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        largest = _mm256_max_epu8(largest, tepi_load32(a + i));
    if (i < count)
        largest = _mm256_max_epu8(largest, tepi_first32(a + i, count - i));
    const __m128i least = _mm_xor_si128(
        _mm_max_epu8(_mm256_castsi256_si128(largest), _mm256_extracti128_si256(largest, 1)),
        _mm_set1_epi8(-1));
    const __m128i words = _mm_min_epu8(least, _mm_srli_epi16(least, 8));
    return (uint8_t)(255 - _mm_cvtsi128_si32(_mm_minpos_epu16(words)));
}

TEPI_INLINE void add_up(struct turn *t, size_t count, const int rows, const bool keep)
{
    const uint8_t *a[ROWS];
    const float *exponentials[ROWS];
    float sums[ROWS];
    TEPI_UNROLL
    for (int r = 0; r < rows; r++) {
        a[r] = t->a[r];
        exponentials[r] = t->exponentials[r];
        sums[r] = 0.0f;
    }
    for (size_t i = 0; i < count; i++) {
        TEPI_UNROLL
        for (int r = 0; r < rows; r++) {
            const float e = exponentials[r][a[r][i]];
            sums[r] += e;
            if (keep)
                t->kept[r][i] = e;
        }
    }
    TEPI_UNROLL
    for (int r = 0; r < rows; r++)
        t->sums[r] = sums[r];
}

/* What makes 32 quotients of as many exponentials. */
struct quotient {
    __m256 ratio;
    __m256i zero_point;
    struct tepi_store_vectors store;
};

TEPI_INLINE __m256i quotients32(const struct quotient *q, __m256 sum, const __m256 e[4])
{
    __m256 four[4];
    TEPI_UNROLL
    for (int v = 0; v < 4; v++)
        four[v] = _mm256_div_ps(_mm256_mul_ps(e[v], q->ratio), sum);
    return _mm256_adds_epu8(tepi_round32(four, &q->store), q->zero_point);
}

static void divide(const struct quotient *q, const float *kept, float sum, uint8_t *out,
                   size_t count)
{
    const __m256 sums = _mm256_set1_ps(sum);
    for (size_t i = 0; i < count; i += 32) {
        const __m256 e[4] = {_mm256_load_ps(kept + i), _mm256_load_ps(kept + i + 8),
                             _mm256_load_ps(kept + i + 16), _mm256_load_ps(kept + i + 24)};
        tepi_store32(out + i, quotients32(q, sums, e), count - i);
    }
}

static void look_up(const struct quotient *q, const struct turn *t, int row, uint8_t *out,
                    size_t count)
{
    const __m256 sum = _mm256_set1_ps(t->sums[row]);
    const size_t largest = t->largest[row];
    uint8_t quotients[256];
    for (size_t i = 0; i <= largest; i += 32) {
        __m256 e[4];
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++) {
            const size_t first = i + v * 8;
            const __m256i mask = tepi_mask8(first > largest ? 0 : largest + 1 - first);
            e[v] = _mm256_maskload_ps(t->exponentials[row] + first, mask);
        }
        _mm256_storeu_si256((__m256i *)(quotients + i), quotients32(q, sum, e));
    }
    tepi_u8_table_32_avx2(quotients, t->a[row], out, count);
}

TEPI_INLINE void run_rows(const struct tepi_softmax *op, const struct quotient *q, struct turn *t,
                          const uint8_t *a, uint8_t *out, const int rows)
{
    for (int r = 0; r < rows; r++, a += op->a_step) {
        t->a[r] = a;
        t->largest[r] = largest_of(a, op->count);
        t->exponentials[r] = op->table + (255 - t->largest[r]);
    }
    if (op->count > KEPT)
        add_up(t, op->count, rows, false);
    else
        add_up(t, op->count, rows, true);
    for (int r = 0; r < rows; r++, out += op->out_step) {
        if (op->count > KEPT)
            look_up(q, t, r, out, op->count);
        else
            divide(q, t->kept[r], t->sums[r], out, op->count);
    }
}

void tepi_u8_softmax_32_avx2(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out)
{
    const struct quotient q = {
        .ratio = _mm256_set1_ps(op->ratio),
        .zero_point = _mm256_set1_epi8((char)op->zero_point),
        .store = tepi_store_range(0, 0, 255),
    };
    struct turn turn;
    size_t row = 0;
    for (; row + ROWS <= op->rows; row += ROWS)
        run_rows(op, &q, &turn, a + row * op->a_step, out + row * op->out_step, ROWS);
    for (; row < op->rows; row++)
        run_rows(op, &q, &turn, a + row * op->a_step, out + row * op->out_step, 1);
}
