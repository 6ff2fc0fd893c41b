/* SPDX-License-Identifier: Apache-2.0 */
/* CONV against a convolution written from the definition, over random shapes, on every set. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { SHAPES = 150 };

struct shape {
    uint32_t a[4], out[4];
    struct tepi_conv_params conv;
    uint32_t a_pixel, out_pixel;
    uint16_t halo;
};

struct operands {
    uint8_t *input, *expected, *found;
    int8_t *weights;
    int32_t *bias;
    float *multiplier;
    uint8_t table[256];
};

static size_t volume(const uint32_t nhwc[4])
{
    return (size_t)nhwc[0] * nhwc[1] * nhwc[2] * nhwc[3];
}

static struct shape random_shape(struct chance *chance)
{
    struct shape s = {.halo = (uint16_t)chance_below(chance, 4)};
    struct tepi_conv_params *p = &s.conv;
    p->kernel_h = (uint16_t)(1 + chance_below(chance, 3));
    p->kernel_w = (uint16_t)(1 + chance_below(chance, 3));
    p->stride_h = (uint16_t)(1 + chance_below(chance, 2));
    p->stride_w = (uint16_t)(1 + chance_below(chance, 2));
    p->dilation_h = (uint16_t)(1 + chance_below(chance, 2));
    p->dilation_w = (uint16_t)(1 + chance_below(chance, 2));
    p->pad_top = (uint16_t)chance_below(chance, s.halo + 1u);
    p->pad_left = (uint16_t)chance_below(chance, s.halo + 1u);
    const uint32_t kind = chance_below(chance, 3);
    const uint32_t in = kind == 1 ? 1 : 1 + chance_below(chance, 80);
    const uint32_t out = kind == 1 ? 1 : 1 + chance_below(chance, 40);
    p->groups = kind == 0 ? 1 : 1 + chance_below(chance, kind == 1 ? 80 : 3);
    const uint32_t reach_h = (p->kernel_h - 1u) * p->dilation_h;
    const uint32_t reach_w = (p->kernel_w - 1u) * p->dilation_w;
    s.a[0] = s.out[0] = 1 + chance_below(chance, 2);
    s.a[1] = 1 + reach_h + chance_below(chance, 9);
    s.a[2] = 1 + reach_w + chance_below(chance, 19);
    s.a[3] = in * p->groups;
    s.out[1] = 1 + (s.a[1] + s.halo + p->pad_top - reach_h - 1) / p->stride_h;
    s.out[2] = 1 + (s.a[2] + s.halo + p->pad_left - reach_w - 1) / p->stride_w;
    s.out[3] = out * p->groups;
    s.a_pixel = chance_below(chance, 2) ? s.a[3] : (s.a[3] + 15) / 16 * 16;
    s.out_pixel = chance_below(chance, 2) ? s.out[3] : (s.out[3] + 15) / 16 * 16;
    return s;
}

/* The value of the padded input: the zero point outside the image. */
static int32_t tap(const struct shape *s, const uint8_t *input, uint32_t n, int64_t y, int64_t x,
                   uint32_t c, uint8_t zero)
{
    if (y < 0 || x < 0 || y >= s->a[1] || x >= s->a[2])
        return zero;
    return input[((n * s->a[1] + (size_t)y) * s->a[2] + (size_t)x) * s->a[3] + c];
}

static int64_t window(const struct shape *s, const struct operands *v, uint32_t n, uint32_t y,
                      uint32_t x, uint32_t o, uint8_t zero)
{
    const struct tepi_conv_params *p = &s->conv;
    const uint32_t in = s->a[3] / p->groups, group = o / (s->out[3] / p->groups);
    int64_t sum = v->bias[o];
    for (uint32_t ky = 0; ky < p->kernel_h; ky++)
        for (uint32_t kx = 0; kx < p->kernel_w; kx++)
            for (uint32_t c = 0; c < in; c++)
                sum +=
                    tap(s, v->input, n, (int64_t)y * p->stride_h + ky * p->dilation_h - p->pad_top,
                        (int64_t)x * p->stride_w + kx * p->dilation_w - p->pad_left, group * in + c,
                        zero) *
                    v->weights[((o * p->kernel_h + ky) * p->kernel_w + kx) * (size_t)in + c];
    return sum;
}

static uint8_t finish(const struct shape *s, const struct operands *v, int64_t sum, float m,
                      int32_t zero_point)
{
    double value = nearbyint((double)((float)sum * m)) + zero_point;
    value = value < s->conv.lo ? s->conv.lo : value > s->conv.hi ? s->conv.hi : value;
    const uint8_t byte = (uint8_t)value;
    return s->conv.table == TEPI_NONE ? byte : v->table[byte];
}

static void reference(const struct shape *s, const struct operands *v, uint8_t zero,
                      int32_t out_zero)
{
    uint8_t *at = v->expected;
    for (uint32_t n = 0; n < s->out[0]; n++)
        for (uint32_t y = 0; y < s->out[1]; y++)
            for (uint32_t x = 0; x < s->out[2]; x++)
                for (uint32_t o = 0; o < s->out[3]; o++)
                    *at++ =
                        finish(s, v, window(s, v, n, y, x, o, zero), v->multiplier[o], out_zero);
}

static void make_operands(struct operands *v, const struct shape *s, struct chance *chance)
{
    const size_t filter = (size_t)s->conv.kernel_h * s->conv.kernel_w * (s->a[3] / s->conv.groups);
    const uint32_t outs = s->out[3];
    v->input = malloc(volume(s->a));
    v->expected = malloc(volume(s->out));
    v->found = malloc(volume(s->out));
    v->weights = malloc(filter * outs);
    v->bias = malloc(outs * sizeof(*v->bias));
    v->multiplier = malloc(outs * sizeof(*v->multiplier));
    chance_fill(chance, v->input, volume(s->a));
    chance_fill(chance, v->weights, filter * outs);
    chance_fill(chance, v->table, sizeof(v->table));
    for (uint32_t o = 0; o < outs; o++) {
        v->bias[o] = (int32_t)chance_below(chance, 20000) - 10000;
        v->multiplier[o] = (float)(1 + chance_below(chance, 4000)) / 1e6f;
    }
}

static void free_operands(struct operands *v)
{
    free(v->input);
    free(v->expected);
    free(v->found);
    free(v->weights);
    free(v->bias);
    free(v->multiplier);
}

static void build(struct builder *b, struct shape *s, const struct operands *v, uint8_t zero,
                  int32_t out_zero)
{
    const size_t filter = (size_t)s->conv.kernel_h * s->conv.kernel_w * (s->a[3] / s->conv.groups);
    builder_init(b);
    const uint16_t in = builder_input(b, TEPI_TYPE_U8, (uint32_t)volume(s->a));
    const uint16_t out = builder_output(b, TEPI_TYPE_U8, (uint32_t)volume(s->out));
    const uint16_t a = builder_arena(b, s->a, s->a_pixel, s->halo, zero);
    const uint16_t o = builder_arena(b, s->out, s->out_pixel, 0, out_zero);
    builder_add(b, TEPI_OP_FILL, TEPI_NO_TENSOR, a)->fill.value = zero;
    builder_load(b, in, a);
    s->conv.weights = builder_constant(b, v->weights, filter * s->out[3]);
    s->conv.bias = builder_constant(b, v->bias, s->out[3] * sizeof(int32_t));
    s->conv.multiplier = builder_constant(b, v->multiplier, s->out[3] * sizeof(float));
    if (s->conv.table != TEPI_NONE)
        s->conv.table = builder_constant(b, v->table, 256);
    builder_add(b, TEPI_OP_CONV, a, o)->conv = s->conv;
    builder_store(b, o, out);
}

CHECK_CASE(random_shapes_equal_the_definition)
{
    struct chance chance = {.state = 0x9e3779b97f4a7c15};
    for (int i = 0; i < SHAPES; i++) {
        struct shape s = random_shape(&chance);
        struct operands v;
        struct builder b;
        make_operands(&v, &s, &chance);
        const uint8_t zero = (uint8_t)chance_next(&chance);
        const int32_t out_zero = (int32_t)chance_below(&chance, 256);
        s.conv.lo = (uint8_t)(i % 3 ? 0 : chance_below(&chance, 100));
        s.conv.hi = (uint8_t)(i % 3 ? 255 : 100 + chance_below(&chance, 156));
        s.conv.table = i % 4 ? TEPI_NONE : 0;
        build(&b, &s, &v, zero, out_zero);
        reference(&s, &v, zero, out_zero);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const void *inputs[] = {v.input};
            void *outputs[] = {v.found};
            CHECK_INT(builder_run_on(&b, kernels, inputs, outputs).fault, TEPI_FAULT_OK);
            CHECK_BYTES(v.found, v.expected, volume(s.out));
        }
        builder_free(&b);
        free_operands(&v);
    }
}

/* 70000 * 255 * 127 leaves int32: the sum is the same as modulo 2^32. */
CHECK_CASE(sums_wrap_modulo_2_32)
{
    enum { CHANNELS = 70000 };
    struct shape s = {.a = {1, 1, 1, CHANNELS}, .out = {1, 1, 1, 1}, .a_pixel = CHANNELS};
    struct operands v;
    struct builder b;
    struct chance chance = {.state = 3};
    s.out_pixel = 1;
    s.conv = (struct tepi_conv_params){.kernel_h = 1,
                                       .kernel_w = 1,
                                       .stride_h = 1,
                                       .stride_w = 1,
                                       .dilation_h = 1,
                                       .dilation_w = 1,
                                       .groups = 1,
                                       .table = TEPI_NONE,
                                       .hi = 255};
    make_operands(&v, &s, &chance);
    memset(v.input, 255, CHANNELS);
    memset(v.weights, 127, CHANNELS);
    v.bias[0] = 0;
    v.multiplier[0] = 1.0f / 16777216.0f;
    build(&b, &s, &v, 0, 128);
    const int32_t wrapped = (int32_t)(uint32_t)(UINT64_C(70000) * 255 * 127);
    const uint8_t expected = (uint8_t)(nearbyint((double)wrapped / 16777216.0) + 128);
    const struct tepi_kernel_set *kernels;
    for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
        const void *inputs[] = {v.input};
        void *outputs[] = {v.found};
        CHECK_INT(builder_run_on(&b, kernels, inputs, outputs).fault, TEPI_FAULT_OK);
        CHECK_INT(v.found[0], expected);
    }
    builder_free(&b);
    free_operands(&v);
}

/* Rows and images that follow each other run as one; a gap between them on either side must not. */
CHECK_CASE(images_with_and_without_gaps_between_them)
{
    struct chance chance = {.state = 21};
    for (uint32_t gaps = 0; gaps < 4; gaps++) {
        struct shape s = {.a = {3, 4, 5, 6}, .out = {3, 4, 5, 7}, .a_pixel = 8, .out_pixel = 7};
        struct operands v;
        struct builder b;
        s.conv = (struct tepi_conv_params){.kernel_h = 1,
                                           .kernel_w = 1,
                                           .stride_h = 1,
                                           .stride_w = 1,
                                           .dilation_h = 1,
                                           .dilation_w = 1,
                                           .groups = 1,
                                           .table = TEPI_NONE,
                                           .hi = 255};
        make_operands(&v, &s, &chance);
        build(&b, &s, &v, 0, 30);
        struct tepi_tensor *a = &b.tensors[2], *out = &b.tensors[3];
        a->stride_n += gaps & 1 ? 64 : 0;
        out->stride_n += gaps & 2 ? 64 : 0;
        out->offset += 1024; /* room for the gaps */
        b.header.arena_bytes += 2048;
        b.instructions[1].map.out_stride[0] = (int32_t)a->stride_n;
        b.instructions[3].map.stride[0] = (int32_t)out->stride_n;
        reference(&s, &v, 0, 30);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const struct tepi_verdict found =
                builder_run_on(&b, kernels, (const void *[]){v.input}, (void *[]){v.found});
            CHECK_INT(found.fault, TEPI_FAULT_OK);
            CHECK_BYTES(v.found, v.expected, volume(s.out));
        }
        builder_free(&b);
        free_operands(&v);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(random_shapes_equal_the_definition),
    CHECK_ENTRY(sums_wrap_modulo_2_32),
    CHECK_ENTRY(images_with_and_without_gaps_between_them),
};
CHECK_MAIN(cases)
