/* SPDX-License-Identifier: Apache-2.0 */
/* The Winograd kernel where its sums end: the largest ones that its arithmetic holds, and weights
 * beyond them, which it must leave to the direct kernel. */
#include "check.h"
#if defined(TEPI_HAVE_AVX2)
#include "kernels/avx2/avx2.h"
#endif
#include "kernels/guarded.h"
#include "kernels/kernels.h"
#include "kernels/scalar/scalar.h"
#include <stdlib.h>
#include <string.h>

enum {
    SIDE = 6,
    IN_CHANNELS = 128,
    OUT_CHANNELS = 150, /* three groups, the last of them not whole */
    FILTER = 9 * IN_CHANNELS,
    SUM_MAX = 131586, /* of weights of one sign: 255 times it is below 2^25 */
};

/* Named, as the set of a machine with AVX-VNNI does without it; NULL where there is no AVX2. */
static const struct tepi_conv_kernel *winograd(void)
{
#if defined(TEPI_HAVE_AVX2)
    return tepi_kernels_for(TEPI_KERNEL_AVX2) ? &tepi_u8s8_wino3x3_4x4_avx2 : NULL;
#else
    return NULL;
#endif
}

/* A filter whose weights, all of one sign, sum to `sum`. */
static void set_filter(int8_t *filter, int32_t sum)
{
    for (int32_t i = 0; i < FILTER; i++) {
        const int32_t even = sum / (FILTER - i);
        filter[i] = (int8_t)even;
        sum -= even;
    }
}

static void *zeroed(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + 2 * TEPI_KERNEL_SLACK) / 64 * 64);
    if (!memory)
        abort();
    return memset(memory, 0, bytes);
}

/* Whether the kernel's results are the reference's where all bytes of the input are `input`. */
static bool agrees(const struct tepi_conv_kernel *kernel, const int8_t *canonical, uint8_t input)
{
    enum { IN = (SIDE + 2) * (SIDE + 2) * IN_CHANNELS, OUT = SIDE * SIDE * OUT_CHANNELS };
    int32_t *bias = zeroed(OUT_CHANNELS * sizeof(*bias));
    float *multiplier = zeroed(OUT_CHANNELS * sizeof(*multiplier));
    uint8_t *image = zeroed(IN), *output = zeroed(OUT), *expected = zeroed(OUT);
    memset(image, input, IN);
    struct tepi_conv conv = {
        .input = image,
        .in_stride_n = IN,
        .in_stride_h = (SIDE + 2) * IN_CHANNELS,
        .in_stride_w = IN_CHANNELS,
        .out_stride_n = OUT,
        .out_stride_h = SIDE * OUT_CHANNELS,
        .out_stride_w = OUT_CHANNELS,
        .n = 1,
        .out_h = SIDE,
        .out_w = SIDE,
        .kernel_h = 3,
        .kernel_w = 3,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = 1,
        .group_in = IN_CHANNELS,
        .group_out = OUT_CHANNELS,
        .bias = bias,
        .multiplier = multiplier,
        .store = {.zero_point = 128, .hi = 255},
    };
    bool equal = kernel->takes(&conv);
    void *packed = zeroed(kernel->packed_bytes(&conv));
    kernel->pack(&conv, canonical, packed);
    conv.scratch = zeroed(kernel->scratch_bytes(&conv));
    for (int32_t round = 0; round < 2; round++) {
        /* First the whole sum in steps of 2^19; then its distance from the largest one. */
        for (int32_t o = 0; o < OUT_CHANNELS; o++) {
            const int32_t sign = canonical[(size_t)o * FILTER] < 0 ? -1 : 1;
            bias[o] = round ? -sign * 255 * SUM_MAX : 0;
            multiplier[o] = round ? 1.0f / 256 : 1.0f / (1 << 19);
        }
        conv.weights = packed;
        conv.output = output;
        kernel->run(&conv, 0, SIDE);
        conv.weights = canonical;
        conv.output = expected;
        tepi_u8s8_conv_1x1_scalar.run(&conv, 0, SIDE);
        equal = equal && memcmp(output, expected, OUT) == 0;
    }
    void *const all[] = {bias, multiplier, image, output, expected, packed, conv.scratch};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    return equal;
}

/* Channels 70 to 79 have weights that sum to +-`sum`, those of the other groups are small. */
static bool sums_are_exact(const struct tepi_conv_kernel *kernel, int32_t sum)
{
    int8_t *canonical = zeroed((size_t)OUT_CHANNELS * FILTER);
    uint64_t random = 11;
    for (int32_t o = 0; o < OUT_CHANNELS; o++)
        set_filter(canonical + (size_t)o * FILTER, (int32_t)random_below(&random, 2000) - 1000);
    for (int32_t o = 70; o < 80; o++)
        set_filter(canonical + (size_t)o * FILTER, o % 2 ? sum : -sum);
    const bool exact = agrees(kernel, canonical, 255) && agrees(kernel, canonical, 254);
    free(canonical);
    return exact;
}

/* Without AVX2 there is nothing to check. */
CHECK_CASE(the_largest_sums_are_exact)
{
    const struct tepi_conv_kernel *kernel = winograd();
    CHECK(!kernel || sums_are_exact(kernel, SUM_MAX));
}

CHECK_CASE(weights_beyond_the_largest_sums_go_to_the_direct_kernel)
{
    const struct tepi_conv_kernel *kernel = winograd();
    CHECK(!kernel || sums_are_exact(kernel, SUM_MAX + 1));
    CHECK(!kernel || sums_are_exact(kernel, FILTER * 127));
}

static const struct check_case cases[] = {
    CHECK_ENTRY(the_largest_sums_are_exact),
    CHECK_ENTRY(weights_beyond_the_largest_sums_go_to_the_direct_kernel),
};

CHECK_MAIN(cases)
