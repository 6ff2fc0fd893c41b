/* SPDX-License-Identifier: Apache-2.0 */
/* The reference kernels against values worked out by hand or in wider arithmetic: what all other
 * variants are held against must itself be right. */
#include "check.h"
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include "kernels/scalar/window.h"
#include "kernels/sets.h"

static const struct tepi_store plain = {.lo = 0, .hi = 255};

CHECK_CASE(rounding_is_half_to_even_and_saturates)
{
    CHECK_INT(tepi_round_u8(0.5f, 0), 0);
    CHECK_INT(tepi_round_u8(1.5f, 0), 2);
    CHECK_INT(tepi_round_u8(2.5f, 0), 2);
    CHECK_INT(tepi_round_u8(-0.5f, 10), 10);
    CHECK_INT(tepi_round_u8(-1.5f, 10), 8);
    CHECK_INT(tepi_round_u8(254.5f, 0), 254);
    CHECK_INT(tepi_round_u8(255.5f, 0), 255);
    CHECK_INT(tepi_round_u8(-10.6f, 10), 0);
    CHECK_INT(tepi_round_u8(1e30f, 200), 255);
    CHECK_INT(tepi_round_u8(-INFINITY, 200), 0);
    CHECK_INT(tepi_round_u8(INFINITY, 0), 255);
    CHECK_INT(tepi_round_u8(NAN, 7), 0);
}

CHECK_CASE(the_store_clamps_before_the_table)
{
    uint8_t table[256];
    for (int i = 0; i < 256; i++)
        table[i] = (uint8_t)(255 - i);
    const struct tepi_store store = {.zero_point = 3, .lo = 50, .hi = 60, .table = table};
    CHECK_INT(tepi_requantize_u8(0, 1.0f, &store), 205);
    CHECK_INT(tepi_requantize_u8(52, 1.0f, &store), 200);
    CHECK_INT(tepi_requantize_u8(1000, 1.0f, &store), 195);
    CHECK_INT(tepi_requantize_u8((uint32_t)-1000, -0.055f, &store), 197);
}

/* The int32 accumulator is rounded to float32 before it is multiplied: 2^24 + 1 becomes 2^24. */
CHECK_CASE(accumulators_are_rounded_to_float_first)
{
    CHECK_INT(tepi_requantize_u8(16777217, 1.0f / 33554432.0f, &plain), 0);
    CHECK_INT(tepi_requantize_u8(16777219, 1.0f / 33554432.0f, &plain), 1);
}

/* Sums of float32 products in long double are exact, so the casts are the only two roundings. */
CHECK_CASE(add_rounds_each_fused_step_once)
{
    const float ratios[][3] = {{0.7f, 1.3f, -31.7f},
                               {0.123456f, 0.98765f, 100.1f},
                               {1e-3f, 3.0f, -200.0f},
                               {1.0f / 3, 2.0f / 3, -0.5f}};
    for (size_t k = 0; k < sizeof(ratios) / sizeof(ratios[0]); k++) {
        const struct tepi_add op = {.ratio_a = ratios[k][0],
                                    .ratio_b = ratios[k][1],
                                    .fixed = ratios[k][2],
                                    .a_offset = 128,
                                    .b_offset = 3,
                                    .out_offset = 128,
                                    .store = plain};
        for (int b = 0; b < 256; b++) {
            const float inner =
                (float)((long double)(b - 3) * (long double)op.ratio_b + (long double)op.fixed);
            for (int a = 0; a < 256; a++) {
                const float sum =
                    (float)((long double)(a - 128) * (long double)op.ratio_a + (long double)inner);
                const uint8_t first = (uint8_t)a, second = (uint8_t)b;
                uint8_t out;
                tepi_u8_add_scalar(&op, &first, &second, 1, &out, 1);
                CHECK_INT(out, tepi_round_u8(sum, 128));
            }
        }
    }
}

/* 3 * (1 + 2^-23) needs 25 bits and is rounded up by 2^-23; a fused kernel keeps them, ends below
 * the tie at 1.5 and gives 1. */
CHECK_CASE(mul_rounds_product_and_sum_apart)
{
    const float ratio = 0x1.000002p0f;
    struct tepi_mul op = {.ratio = ratio, .zero = 1.5f - 3.0f * ratio, .store = plain};
    uint8_t a = 3, b = 1, out;
    CHECK(fmaf(3.0f, ratio, op.zero) < 1.5f);
    tepi_u8_mul_scalar(&op, &a, &b, 1, &out, 1);
    CHECK_INT(out, 2);
    op = (struct tepi_mul){
        .ratio = 0.5f, .a_zero_point = 10, .b_zero_point = 200, .out_offset = 128, .store = plain};
    a = 7, b = 197;
    tepi_u8_mul_scalar(&op, &a, &b, 1, &out, 1);
    CHECK_INT(out, 132); /* -3 * -3 * 0.5 = 4.5 */
}

CHECK_CASE(a_step_of_zero_repeats_the_second_operand)
{
    const struct tepi_add op = {.ratio_a = 1, .ratio_b = 1, .store = plain};
    const uint8_t a[3] = {1, 2, 3}, b[3] = {10, 20, 30};
    uint8_t out[3];
    tepi_u8_add_scalar(&op, a, b, 0, out, 3);
    CHECK_BYTES(out, ((const uint8_t[]){11, 12, 13}), 3);
    tepi_u8_add_scalar(&op, a, b, 1, out, 3);
    CHECK_BYTES(out, ((const uint8_t[]){11, 22, 33}), 3);
}

/* 2 x 2 window over 3 x 3 pixels of one channel, both variants. */
CHECK_CASE(convolution_by_hand)
{
    const uint8_t image[9] = {1, 2, 3, 4, 5, 6, 7, 8, 255};
    const int8_t weights[4] = {1, -2, 3, -128};
    const int32_t bias[1] = {1000};
    const float multiplier[1] = {0.5f};
    uint8_t out[4];
    struct tepi_conv conv = {.input = image,
                             .output = out,
                             .in_stride_n = 9,
                             .in_stride_h = 3,
                             .in_stride_w = 1,
                             .out_stride_n = 4,
                             .out_stride_h = 2,
                             .out_stride_w = 1,
                             .n = 1,
                             .out_h = 2,
                             .out_w = 2,
                             .kernel_h = 2,
                             .kernel_w = 2,
                             .stride_h = 1,
                             .stride_w = 1,
                             .dilation_h = 1,
                             .dilation_w = 1,
                             .groups = 1,
                             .group_in = 1,
                             .group_out = 1,
                             .bias = bias,
                             .multiplier = multiplier,
                             .store = plain};
    const struct tepi_conv_kernel *const variants[] = {&tepi_u8s8_conv_1x1_scalar,
                                                       &tepi_u8s8_dwconv_1x1_scalar};
    for (size_t k = 0; k < 2; k++) {
        uint8_t packed[4];
        CHECK(variants[k]->takes(&conv));
        CHECK_INT(variants[k]->packed_bytes(&conv), 4);
        variants[k]->pack(&conv, weights, packed);
        conv.weights = packed;
        memset(out, 0, sizeof(out));
        variants[k]->run(&conv, 0, 1);
        CHECK_INT(out[2], 0); /* row 1 was not asked for */
        variants[k]->run(&conv, 1, 2);
        /* 1000 - 3 + 12 - 640 = 369, 1000 - 4 + 15 - 768 = 243, 1000 - 6 + 21 - 1024 = -9, … */
        CHECK_BYTES(out, ((const uint8_t[]){184, 122, 0, 0}), 4);
    }
}

CHECK_CASE(windows_clip_to_the_image)
{
    const struct {
        int64_t start;
        uint32_t kernel, dilation, extent;
        size_t first, count;
    } rows[] = {
        {0, 3, 1, 5, 0, 3},  {-1, 3, 1, 5, 0, 2}, {3, 3, 1, 5, 3, 2},  {-2, 3, 1, 1, 0, 1},
        {-3, 3, 1, 5, 0, 0}, {5, 1, 1, 5, 0, 0},  {-1, 3, 2, 5, 1, 2}, {-3, 2, 2, 5, 0, 0},
        {-1, 9, 2, 4, 1, 2}, {1, 9, 3, 8, 1, 3},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct tepi_window window =
            tepi_clip_window(rows[i].start, rows[i].kernel, rows[i].dilation, rows[i].extent);
        CHECK_INT(window.count, rows[i].count);
        if (window.count)
            CHECK_INT(window.first, rows[i].first);
    }
}

CHECK_CASE(softmax_shares_add_up_and_saturate)
{
    float table[256];
    const uint8_t a[4] = {10, 10, 10, 10}, one[1] = {200};
    uint8_t out[4];
    for (int i = 0; i < 256; i++)
        table[i] = expf((float)(i - 255) * 0.1f);
    struct tepi_softmax op = {.table = table, .ratio = 256.0f, .count = 4, .rows = 1};
    tepi_u8_softmax_scalar(&op, a, out);
    CHECK_BYTES(out, ((const uint8_t[]){64, 64, 64, 64}), 4);
    op.count = 1;
    tepi_u8_softmax_scalar(&op, one, out);
    CHECK_INT(out[0], 255);
    op.ratio = 100.0f;
    op.zero_point = 128;
    tepi_u8_softmax_scalar(&op, one, out);
    CHECK_INT(out[0], 228);
}

/* Mean 2, variance 2: (0 - 2) / sqrt(2) * gamma + beta. */
CHECK_CASE(layer_normalization_by_hand)
{
    const uint8_t a[5] = {0, 1, 2, 3, 4};
    const float gamma[5] = {10, 10, 10, 10, 1000}, beta[5] = {0, 0, 3, 0, 0};
    const struct tepi_layernorm op = {gamma, beta, 1e-9f, 100};
    uint8_t out[5];
    tepi_u8_layernorm_scalar(&op, a, out, 5);
    CHECK_BYTES(out, ((const uint8_t[]){86, 93, 103, 107, 255}), 5);
    const uint8_t flat[5] = {9, 9, 9, 9, 9};
    tepi_u8_layernorm_scalar(&op, flat, out, 5);
    CHECK_BYTES(out, ((const uint8_t[]){100, 100, 103, 100, 100}), 5);
}

/* (1 - 1, 2 - 1) x ((3 - 2, 4 - 2), (5 - 2, 6 - 2)), and the same b given as its transpose. */
CHECK_CASE(product_by_hand)
{
    const uint8_t a[2] = {1, 2}, b[4] = {3, 4, 5, 6}, transposed[4] = {3, 5, 4, 6};
    uint8_t out[2];
    struct tepi_matmul m = {.a = a,
                            .b = b,
                            .output = out,
                            .a_stride = 2,
                            .b_stride = 2,
                            .out_stride = 2,
                            .rows = 1,
                            .depth = 2,
                            .columns = 2,
                            .a_zero_point = 1,
                            .b_zero_point = 2,
                            .multiplier = 1.5f,
                            .store = {.zero_point = 10, .hi = 255}};
    tepi_u8_matmul_1x1_scalar.run(&m, 0, 1);
    CHECK_BYTES(out, ((const uint8_t[]){14, 16}), 2);
    m.b = transposed;
    m.b_transposed = true;
    tepi_u8_matmul_1x1_scalar.run(&m, 0, 1);
    CHECK_BYTES(out, ((const uint8_t[]){14, 16}), 2);
}

CHECK_CASE(every_set_of_the_build_is_complete)
{
    for (int isa = TEPI_KERNEL_SCALAR; isa <= TEPI_KERNEL_AMXINT8; isa++) {
        const struct tepi_kernel_set *set = tepi_kernels_for((enum tepi_kernel_isa)isa);
        if (!set)
            continue;
        CHECK_INT(set->isa, isa);
        CHECK(set->add && set->mul && set->table && set->maxpool && set->avgpool && set->quantize &&
              set->dequantize && set->copy_u8 && set->softmax && set->layernorm && set->matmul);
        size_t last = 0;
        while (set->convolutions[last + 1])
            last++;
        CHECK(set->convolutions[last] == &tepi_u8s8_conv_1x1_scalar || isa > TEPI_KERNEL_SCALAR);
        CHECK(set->convolutions[last]->takes(&(struct tepi_conv){.groups = 1, .group_in = 1}));
    }
}

CHECK_CASE(the_best_set_is_there_and_nothing_above_it)
{
    const enum tepi_kernel_isa best = tepi_kernels_best();
    CHECK(tepi_kernels_for(best));
    CHECK(tepi_kernels_for(TEPI_KERNEL_SCALAR) == tepi_kernels_scalar());
    for (int isa = (int)best + 1; isa <= TEPI_KERNEL_AMXINT8; isa++)
        CHECK(!tepi_kernels_for((enum tepi_kernel_isa)isa));
    CHECK(!tepi_kernels_for((enum tepi_kernel_isa)0));
    CHECK(!tepi_kernels_for((enum tepi_kernel_isa)99));
}

static const struct check_case cases[] = {
    CHECK_ENTRY(rounding_is_half_to_even_and_saturates),
    CHECK_ENTRY(the_store_clamps_before_the_table),
    CHECK_ENTRY(accumulators_are_rounded_to_float_first),
    CHECK_ENTRY(add_rounds_each_fused_step_once),
    CHECK_ENTRY(mul_rounds_product_and_sum_apart),
    CHECK_ENTRY(a_step_of_zero_repeats_the_second_operand),
    CHECK_ENTRY(convolution_by_hand),
    CHECK_ENTRY(windows_clip_to_the_image),
    CHECK_ENTRY(softmax_shares_add_up_and_saturate),
    CHECK_ENTRY(layer_normalization_by_hand),
    CHECK_ENTRY(product_by_hand),
    CHECK_ENTRY(every_set_of_the_build_is_complete),
    CHECK_ENTRY(the_best_set_is_there_and_nothing_above_it),
};
CHECK_MAIN(cases)
