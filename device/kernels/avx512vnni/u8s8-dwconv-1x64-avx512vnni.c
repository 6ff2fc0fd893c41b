/* SPDX-License-Identifier: Apache-2.0 */
/* Depthwise convolution with any window: taps in fours, one output pixel and 64 channels at a time.
 *
 * Packed weights: [chunk of 64 channels][four taps][4 vectors][64 bytes] (depthwise.h), zeros for
 * the taps and channels that are not there. */
#include "kernels/avx512vnni/depthwise.h"

/* Byte offsets of four taps from the window's first. */
struct quad {
    size_t at[4];
};

static size_t quads_of(const struct tepi_conv *conv)
{
    return ((size_t)conv->kernel_h * conv->kernel_w + 3) / 4;
}

static bool takes(const struct tepi_conv *conv)
{
    return !conv->floats && conv->group_in == 1 && conv->group_out == 1;
}

static size_t packed_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * quads_of(conv) * 4 * TEPI_CHUNK;
}

static void pack(const struct tepi_conv *conv, const int8_t *canonical, void *packed)
{
    const size_t taps = (size_t)conv->kernel_h * conv->kernel_w, quads = quads_of(conv);
    memset(packed, 0, packed_bytes(conv));
    for (size_t c = 0; c < conv->groups; c++) {
        int8_t *chunk = (int8_t *)packed + c / TEPI_CHUNK * quads * 4 * TEPI_CHUNK;
        for (size_t tap = 0; tap < taps; tap++)
            chunk[tap / 4 * 4 * TEPI_CHUNK + tepi_dw_place(c % TEPI_CHUNK, tap % 4)] =
                canonical[c * taps + tap];
    }
}

static size_t scratch_bytes(const struct tepi_conv *conv)
{
    return tepi_dw_chunks(conv) * sizeof(struct tepi_dw_constants) +
           quads_of(conv) * sizeof(struct quad);
}

/* A tap that is not there reads the first one: its weight is zero. */
static void set_offsets(const struct tepi_conv *conv, struct quad *quads)
{
    size_t tap = 0;
    for (size_t ky = 0; ky < conv->kernel_h; ky++)
        for (size_t kx = 0; kx < conv->kernel_w; kx++, tap++)
            quads[tap / 4].at[tap % 4] = ky * conv->dilation_h * conv->in_stride_h +
                                         kx * conv->dilation_w * conv->in_stride_w;
    for (; tap % 4; tap++)
        quads[tap / 4].at[tap % 4] = 0;
}

TEPI_INLINE __m512i window(const uint8_t *in, const struct quad *quads, size_t count,
                           const int8_t *weights, const struct tepi_dw_constants *k,
                           const struct tepi_store_vectors *store)
{
    __m512i acc[4] = {k->bias[0], k->bias[1], k->bias[2], k->bias[3]};
    for (size_t q = 0; q < count; q++, weights += 4 * TEPI_CHUNK) {
        const size_t *at = quads[q].at;
        __m512i four[4];
        tepi_interleave4(_mm512_loadu_si512(in + at[0]), _mm512_loadu_si512(in + at[1]),
                         _mm512_loadu_si512(in + at[2]), _mm512_loadu_si512(in + at[3]), four);
        TEPI_UNROLL
        for (size_t v = 0; v < 4; v++)
            acc[v] = tepi_dot4(acc[v], four[v], _mm512_load_si512(weights + v * 64));
    }
    return tepi_dw_finish(acc, k, store);
}

static void run(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end)
{
    const size_t quads = quads_of(conv), step = conv->stride_w * conv->in_stride_w;
    struct tepi_dw_constants *constants = conv->scratch;
    struct quad *offsets = (struct quad *)(constants + tepi_dw_chunks(conv));
    const struct tepi_store_vectors store = tepi_store_vectors(&conv->store);
    tepi_dw_prepare(conv, constants);
    set_offsets(conv, offsets);
    for (uint32_t row = row_begin; row < row_end; row++) {
        const size_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *in =
            conv->input + n * conv->in_stride_n + y * conv->stride_h * conv->in_stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        for (size_t c = 0; c < conv->groups; c += TEPI_CHUNK) {
            const size_t chunk = c / TEPI_CHUNK;
            const int8_t *weights = (const int8_t *)conv->weights + chunk * quads * 4 * TEPI_CHUNK;
            const __mmask64 mask = tepi_mask64(conv->groups - c);
            for (size_t x = 0; x < conv->out_w; x++)
                _mm512_mask_storeu_epi8(
                    out + x * conv->out_stride_w + c, mask,
                    window(in + x * step + c, offsets, quads, weights, constants + chunk, &store));
        }
        tepi_store_table(conv, out);
    }
}

const struct tepi_conv_kernel tepi_u8s8_dwconv_1x64_avx512vnni = {
    .name = "u8s8-dwconv-1x64-avx512vnni",
    .isa = TEPI_KERNEL_AVX512VNNI,
    .takes = takes,
    .packed_bytes = packed_bytes,
    .pack = pack,
    .scratch_bytes = scratch_bytes,
    .run = run,
};
