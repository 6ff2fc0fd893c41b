/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution of any window, 16 channels at a time: two taps a step.
 *
 * Packed weights: [chunk of 16 channels][pair of taps][16 channels][2] as int16, zeros for channels
 * and taps that are not there. */
#include "kernels/avx2/depthwise.h"

/* Byte offsets of two taps from the window's first. */
struct pair {
    size_t at[2];
};

static size_t pairs_of(const struct tepi_conv *conv)
{
    return ((size_t)conv->kernel_h * conv->kernel_w + 1) / 2;
}

static bool takes(const struct tepi_conv *conv)
{
    return conv->group_in == 1 && conv->group_out == 1 && !conv->floats;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * pairs_of(conv) * TEPI_PAIR_BYTES;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const size_t taps = (size_t)conv->kernel_h * conv->kernel_w, pairs = pairs_of(conv);
    memset(packed, 0, packed_bytes(conv));
    for (size_t c = 0; c < conv->groups; c++) {
        int16_t *chunk = (int16_t *)packed + c / TEPI_CHUNK * pairs * TEPI_CHUNK * 2;
        for (size_t tap = 0; tap < taps; tap++)
            tepi_dw_put(chunk + tap / 2 * TEPI_CHUNK * 2, c % TEPI_CHUNK, tap % 2,
                        canonical[c * taps + tap]);
    }
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    return pairs_of(conv) * sizeof(struct pair);
}

/* A tap that is not there reads the first one: its weight is zero. */
static void set_offsets(const struct tepi_conv *conv, struct pair *pairs)
{
    size_t tap = 0;
    for (size_t ky = 0; ky < conv->kernel_h; ky++)
        for (size_t kx = 0; kx < conv->kernel_w; kx++, tap++)
            pairs[tap / 2].at[tap % 2] = ky * conv->dilation_h * conv->in_stride_h +
                                         kx * conv->dilation_w * conv->in_stride_w;
    if (tap % 2)
        pairs[tap / 2].at[1] = 0;
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const size_t pairs = pairs_of(conv), step = conv->stride_w * conv->in_stride_w;
    struct pair *offsets = conv->scratch;
    const struct tepi_store_vectors store =
        tepi_store_range(conv->store.zero_point, conv->store.lo, conv->store.hi);
    set_offsets(conv, offsets);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t c = 0; c < conv->groups; c += TEPI_CHUNK) {
            const struct tepi_dw_constants k = tepi_dw_constants_at(conv, c);
            for (size_t x = 0; x < conv->out_w; x++) {
                const uint8_t *window = in + x * step + c;
                const int16_t *weights = (const int16_t *)conv->weights + c * pairs * 2;
                __m256i acc[2] = {k.bias[0], k.bias[1]}, both[2];
                for (size_t p = 0; p < pairs; p++, weights += TEPI_CHUNK * 2) {
                    tepi_dw_pair(window + offsets[p].at[0], window + offsets[p].at[1], both);
                    tepi_dw_add(acc, acc, both, weights);
                }
                tepi_dw_store(out + x * conv->out_stride_w + c, acc, &k, &store, conv->groups - c);
            }
        }
        tepi_dw_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv_1x16_avx2 = {
    .name = "u8s8-dwconv-1x16-avx2",
    .isa = TEPI_KERNEL_AVX2,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
