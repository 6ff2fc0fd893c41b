/* SPDX-License-Identifier: Apache-2.0 */
/* Quantizations known only as a program runs: RANGE makes one, MAP, FILL and CONV use it, and none
 * that a program could write leads anywhere else. */
#include "card/builder.h"
#include "check.h"
#include <math.h>

enum { COUNT = 60 };

static const uint32_t quantization_nhwc[4] = {1, 1, 1, 2};

struct ranged {
    float lowest, highest, scale, zero_point;
};

/* RANGE of 3 x 4 x 5 floats, `values` repeated over them, with gaps between pixels or without. */
static struct tepi_verdict range_of(const float *values, int count, uint32_t gap, unsigned set,
                                    float found[2])
{
    float input[COUNT];
    struct builder b;
    for (int i = 0; i < COUNT; i++)
        input[i] = values[i % count];
    builder_init(&b);
    const uint16_t from = builder_input(&b, TEPI_TYPE_F32, COUNT);
    const uint16_t to = builder_output(&b, TEPI_TYPE_F32, 2);
    const uint16_t a = builder_floats(&b, (const uint32_t[]){1, 3, 4, 5}, 5 + gap);
    const uint16_t out = builder_floats(&b, quantization_nhwc, 2);
    builder_load(&b, from, a);
    builder_add(&b, TEPI_OP_RANGE, a, out);
    builder_store(&b, out, to);
    const struct tepi_verdict verdict =
        builder_run_on(&b, builder_kernels(set), (const void *[]){input}, (void *[]){found});
    builder_free(&b);
    return verdict;
}

CHECK_CASE(range_covers_all_values_and_zero)
{
    static const struct {
        float values[3], scale, zero_point;
    } expected[] = {
        {{-51, 204, 0}, 1, 51},
        {{3, 510, 2}, 2, 0},
        {{-255, -3, -1}, 1, 255},
        {{0, 0, -0.0f}, 1, 0},
        {{-0.5f, 254.5f, 1}, 1, 0}, /* half to even */
        {{-1.5f, 253.5f, 1}, 1, 2},
        {{NAN, -1, 254}, 1, 1},
        {{NAN, NAN, NAN}, 1, 0},
        {{INFINITY, 1, 2}, INFINITY, 0},
        {{-INFINITY, INFINITY, 0}, INFINITY, 0},
        {{1e-45f, 0, 0}, 0, 0},
        {{-1e-45f, 0, 0}, 0, 255},
    };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        for (unsigned k = 0; builder_kernels(k); k++) {
            for (uint32_t gap = 0; gap < 2; gap++) {
                float found[2];
                CHECK_INT(range_of(expected[i].values, 3, gap, k, found).fault, TEPI_FAULT_OK);
                CHECK_BYTES(found, (&(const float[2]){expected[i].scale, expected[i].zero_point}),
                            sizeof(found));
            }
        }
    }
}

/* What is not a quantization counts as one: {as the arena has it, as it is used}. */
static const float quantizations[][4] = {
    {0.5f, 10, 0.5f, 10},   {0.25f, 255, 0.25f, 255},
    {NAN, 3, 1, 3},         {INFINITY, 3, 1, 3},
    {-1, 3, 1, 3},          {0, 3, 1, 3},
    {-INFINITY, 3, 1, 3},   {2, NAN, 2, 0},
    {2, INFINITY, 2, 0},    {2, -1, 2, 0},
    {2, 256, 2, 0},         {2, 1e30f, 2, 0},
    {1e-45f, 7, 1e-45f, 7}, {2, 3.75f, 2, 3},
    {2, -0.0f, 2, 0},       {3e38f, 9, 3e38f, 9},
};
enum { QUANTIZATIONS = sizeof(quantizations) / sizeof(quantizations[0]) };

static uint16_t add_quantization(struct builder *b)
{
    const uint16_t from = builder_input(b, TEPI_TYPE_F32, 2);
    const uint16_t image = builder_floats(b, quantization_nhwc, 2);
    builder_load(b, from, image);
    return image;
}

static uint8_t quantized(float value, float scale, float zero_point)
{
    const double q = isnan(value) ? -1 : nearbyint((double)(value / scale)) + (double)zero_point;
    return (uint8_t)(q < 0 ? 0 : q > 255 ? 255 : q);
}

CHECK_CASE(map_and_fill_take_a_quantization_from_the_arena)
{
    static const float values[4] = {-3.3f, 0, 17.6f, 1e9f};
    for (size_t i = 0; i < QUANTIZATIONS; i++) {
        const float *q = quantizations[i];
        struct builder b;
        builder_init(&b);
        const uint16_t to = builder_output(&b, TEPI_TYPE_U8, 4);
        const uint16_t filled = builder_output(&b, TEPI_TYPE_U8, 18);
        const uint16_t dynamic = add_quantization(&b);
        const uint16_t from = builder_input(&b, TEPI_TYPE_F32, 4);
        const uint16_t image = builder_arena(&b, (const uint32_t[]){1, 1, 4, 1}, 1, 1, 0);
        b.tensors[image].scale = 0; /* b's is meant */
        builder_add(&b, TEPI_OP_FILL, TEPI_NO_TENSOR, image)->b = dynamic;
        builder_load(&b, from, image);
        b.instructions[b.header.instructions - 1].b = dynamic;
        builder_store(&b, image, to);
        struct tepi_instruction *all = builder_add(&b, TEPI_OP_MAP, image, filled);
        all->map = (struct tepi_map_params){
            .rank = 2, .dims = {3, 6}, .stride = {6, 1}, .out_stride = {6, 1}, .table = TEPI_NONE};
        all->map.hi = 255;
        b.tensors[image].n = 1;
        /* The image with its halo, from its first byte: one row and one pixel before the origin. */
        const uint16_t whole = builder_arena(&b, (const uint32_t[]){1, 1, 1, 18}, 18, 0, 0);
        b.tensors[whole].offset = b.tensors[image].offset - 7;
        all->a = whole;
        for (unsigned k = 0; builder_kernels(k); k++) {
            uint8_t found[4], pixels[18], expected[18];
            CHECK_INT(builder_run_on(&b, builder_kernels(k), (const void *[]){q, values},
                                     (void *[]){found, pixels})
                          .fault,
                      TEPI_FAULT_OK);
            memset(expected, (int)q[3], sizeof(expected));
            for (int v = 0; v < 4; v++) {
                expected[7 + v] = quantized(values[v], q[2], q[3]);
                CHECK_INT(found[v], expected[7 + v]);
            }
            CHECK_BYTES(pixels, expected, sizeof(expected));
        }
        builder_free(&b);
    }
}

/* One channel in, three out, 1x1: (float)(bias + sum - zero_point * weight) * (scale * m) + addend.
 */
CHECK_CASE(convolution_takes_its_inputs_quantization_from_the_arena)
{
    static const int8_t weights[3] = {1, -128, 127};
    static const int32_t bias[3] = {5, INT32_MAX, -7};
    static const float multiplier[3] = {0.5f, 1e-3f, 3e38f}, addend[3] = {1, -2, 0.25f};
    static const uint8_t input[2] = {200, 0};
    for (size_t i = 0; i < 4 * QUANTIZATIONS; i++) {
        const float *q = quantizations[i / 4];
        const bool has_bias = i & 1, has_addend = i & 2;
        struct builder b;
        builder_init(&b);
        const uint16_t to = builder_output(&b, TEPI_TYPE_F32, 6);
        const uint16_t dynamic = add_quantization(&b);
        const uint16_t from = builder_input(&b, TEPI_TYPE_U8, 2);
        const uint16_t a = builder_arena(&b, (const uint32_t[]){1, 1, 2, 1}, 1, 0, 0);
        const uint16_t out = builder_floats(&b, (const uint32_t[]){1, 1, 2, 3}, 4);
        builder_load(&b, from, a);
        struct tepi_instruction *in = builder_add(&b, TEPI_OP_CONV, a, out);
        in->b = dynamic;
        in->conv = (struct tepi_conv_params){
            .kernel_h = 1,
            .kernel_w = 1,
            .stride_h = 1,
            .stride_w = 1,
            .dilation_h = 1,
            .dilation_w = 1,
            .groups = 1,
            .weights = builder_constant(&b, weights, sizeof(weights)),
            .bias = has_bias ? builder_constant(&b, bias, sizeof(bias)) : TEPI_NONE,
            .multiplier = builder_constant(&b, multiplier, sizeof(multiplier)),
            .table = TEPI_NONE,
            .hi = 255,
            .addend = has_addend ? builder_constant(&b, addend, sizeof(addend)) : TEPI_NONE,
        };
        builder_store(&b, out, to);
        float expected[6];
        for (int pixel = 0; pixel < 2; pixel++) {
            for (int o = 0; o < 3; o++) {
                const int64_t sum =
                    (has_bias ? bias[o] : 0) + (int64_t)(input[pixel] - (int)q[3]) * weights[o];
                const float scaled = q[2] * multiplier[o];
                const float product = (float)(int32_t)(uint32_t)sum * scaled;
                expected[3 * pixel + o] = has_addend ? product + addend[o] : product;
            }
        }
        for (unsigned k = 0; builder_kernels(k); k++) {
            float found[6];
            CHECK_INT(builder_run_on(&b, builder_kernels(k), (const void *[]){q, input},
                                     (void *[]){found})
                          .fault,
                      TEPI_FAULT_OK);
            for (int o = 0; o < 6; o++)
                CHECK(found[o] == expected[o] || (isnan(found[o]) && isnan(expected[o])));
        }
        builder_free(&b);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(range_covers_all_values_and_zero),
    CHECK_ENTRY(map_and_fill_take_a_quantization_from_the_arena),
    CHECK_ENTRY(convolution_takes_its_inputs_quantization_from_the_arena),
};
CHECK_MAIN(cases)
