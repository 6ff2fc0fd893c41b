/* SPDX-License-Identifier: Apache-2.0 */
/* A CONV that adds a residual as it stores against CONV and ADD one after the other, on every set;
 * and what must be refused of it. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SHAPES = 120 };

struct shape {
    uint32_t a[4], out[4];
    uint32_t a_pixel, out_pixel, b_pixel;
    uint16_t b_halo, halo;
    bool first, table;
    struct tepi_conv_params conv;
};

static size_t volume(const uint32_t nhwc[4])
{
    return (size_t)nhwc[0] * nhwc[1] * nhwc[2] * nhwc[3];
}

static uint32_t pixel_of(uint32_t channels, struct chance *chance)
{
    return chance_below(chance, 2) ? channels : (channels + 15) / 16 * 16;
}

/* 1x1 and 3x3 windows, rows that join and rows that do not, one image or two. */
static struct shape random_shape(struct chance *chance)
{
    const uint16_t kernel = chance_below(chance, 2) ? 3 : 1;
    const bool depthwise = chance_below(chance, 5) == 0;
    struct shape s = {.halo = kernel / 2};
    s.a[0] = s.out[0] = 1 + chance_below(chance, 2);
    s.a[1] = s.out[1] = 1 + chance_below(chance, 20);
    s.a[2] = s.out[2] = 1 + chance_below(chance, 40);
    s.a[3] = 1 + chance_below(chance, 70);
    s.out[3] = depthwise ? s.a[3] : 1 + chance_below(chance, 150);
    s.a_pixel = pixel_of(s.a[3], chance);
    s.out_pixel = pixel_of(s.out[3], chance);
    s.b_pixel = pixel_of(s.out[3], chance);
    s.b_halo = (uint16_t)chance_below(chance, 2);
    s.first = chance_below(chance, 2);
    s.table = chance_below(chance, 3) == 0;
    s.conv = (struct tepi_conv_params){
        .kernel_h = kernel,
        .kernel_w = kernel,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .pad_top = kernel / 2,
        .pad_left = kernel / 2,
        .groups = depthwise ? s.a[3] : 1,
        .lo = (uint8_t)chance_below(chance, 50),
        .hi = 255,
        .table = TEPI_NONE,
    };
    return s;
}

static uint32_t random_constant(struct builder *b, struct chance *chance, size_t bytes)
{
    uint8_t *values = malloc(bytes);
    chance_fill(chance, values, bytes);
    const uint32_t offset = builder_constant(b, values, bytes);
    free(values);
    return offset;
}

static void set_constants(struct builder *b, struct shape *s, struct chance *chance)
{
    const uint32_t outs = s->out[3];
    const size_t filter = (size_t)s->conv.kernel_h * s->conv.kernel_w * (s->a[3] / s->conv.groups);
    int32_t bias[150];
    float multiplier[150];
    for (uint32_t o = 0; o < outs; o++) {
        bias[o] = (int32_t)chance_below(chance, 20000) - 10000;
        multiplier[o] = (float)(1 + chance_below(chance, 4000)) / 1e6f;
    }
    s->conv.weights = random_constant(b, chance, filter * outs);
    s->conv.bias = builder_constant(b, bias, outs * sizeof *bias);
    s->conv.multiplier = builder_constant(b, multiplier, outs * sizeof *multiplier);
    if (s->table)
        s->conv.table = random_constant(b, chance, 256);
}

static struct tepi_add_params random_sum(struct builder *b, struct chance *chance)
{
    return (struct tepi_add_params){
        .ratio_a = (float)(1 + chance_below(chance, 2000)) / 1e3f,
        .ratio_b = (float)(1 + chance_below(chance, 2000)) / 1e3f,
        .fixed = (float)chance_below(chance, 200) - 100.0f,
        .a_offset = (int32_t)chance_below(chance, 2) * 128,
        .b_offset = (int32_t)chance_below(chance, 2) * 128,
        .out_offset = (int32_t)chance_below(chance, 2) * 128,
        .table = chance_below(chance, 3) ? TEPI_NONE : random_constant(b, chance, 256),
        .lo = (uint8_t)chance_below(chance, 30),
        .hi = (uint8_t)(200 + chance_below(chance, 56)),
    };
}

/* Two outputs: of the fused instruction, and of the two. */
static void build(struct builder *b, struct shape *s, struct chance *chance)
{
    builder_init(b);
    const uint32_t bytes = (uint32_t)volume(s->out);
    const uint16_t in = builder_input(b, TEPI_TYPE_U8, (uint32_t)volume(s->a));
    const uint16_t other = builder_input(b, TEPI_TYPE_U8, bytes);
    const uint16_t fused = builder_output(b, TEPI_TYPE_U8, bytes);
    const uint16_t apart = builder_output(b, TEPI_TYPE_U8, bytes);
    const int32_t zero_point = (int32_t)chance_below(chance, 256);
    const uint16_t a = builder_arena(b, s->a, s->a_pixel, s->halo, 7);
    const uint16_t c = builder_arena(b, s->out, s->b_pixel, s->b_halo, 0);
    const uint16_t o = builder_arena(b, s->out, s->out_pixel, 0, zero_point);
    const uint16_t between = builder_arena(b, s->out, s->out_pixel, 0, zero_point);
    const uint16_t sum = builder_arena(b, s->out, s->out_pixel, 0, 0);
    builder_fill(b, a, 7);
    builder_load(b, in, a);
    builder_load(b, other, c);
    set_constants(b, s, chance);
    builder_add(b, TEPI_OP_CONV, a, between)->conv = s->conv;
    const struct tepi_add_params add = random_sum(b, chance);
    struct tepi_instruction *i = builder_add(b, TEPI_OP_ADD, s->first ? c : between, sum);
    i->b = s->first ? between : c;
    i->add = add;
    i = builder_add(b, TEPI_OP_CONV, a, o);
    i->b = c;
    i->conv = s->conv;
    i->conv.residual = add;
    i->conv.residual_first = s->first;
    builder_store(b, o, fused);
    builder_store(b, sum, apart);
}

CHECK_CASE(a_residual_is_an_addition_after_the_convolution)
{
    struct chance chance = {.state = 0x853c49e6748fea9b};
    for (int n = 0; n < SHAPES; n++) {
        struct shape s = random_shape(&chance);
        struct builder b;
        build(&b, &s, &chance);
        const size_t bytes = volume(s.out);
        uint8_t *in = malloc(volume(s.a)), *other = malloc(bytes);
        uint8_t *fused = malloc(bytes), *apart = malloc(bytes);
        chance_fill(&chance, in, volume(s.a));
        chance_fill(&chance, other, bytes);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const struct tepi_verdict found =
                builder_run_on(&b, kernels, (const void *[]){in, other}, (void *[]){fused, apart});
            CHECK_INT(found.fault, TEPI_FAULT_OK);
            CHECK_BYTES(fused, apart, bytes);
        }
        builder_free(&b);
        free(in), free(other), free(fused), free(apart);
    }
}

/* CONV of an image of 2x3 pixels and 4 channels with itself as the residual. */
enum { IMAGE, OUT, OTHER, FLOATS };
static struct tepi_instruction *plain(struct builder *b)
{
    static const uint32_t nhwc[] = {1, 2, 3, 4}, wider[] = {1, 2, 3, 5};
    static const float ones[] = {1, 1, 1, 1};
    static const int32_t zeros[4];
    builder_init(b);
    builder_arena(b, nhwc, 4, 0, 0);
    builder_arena(b, nhwc, 4, 0, 0);
    builder_arena(b, wider, 5, 0, 0);
    builder_floats(b, nhwc, 4);
    const uint16_t in = builder_input(b, TEPI_TYPE_U8, 24);
    const uint16_t out = builder_output(b, TEPI_TYPE_U8, 24);
    builder_load(b, in, IMAGE);
    builder_store(b, IMAGE, out);
    struct tepi_instruction *i = builder_add(b, TEPI_OP_CONV, IMAGE, OUT);
    i->b = IMAGE;
    i->conv = (struct tepi_conv_params){
        .kernel_h = 1,
        .kernel_w = 1,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = 1,
        .weights = builder_constant(b, zeros, 16),
        .bias = builder_constant(b, zeros, sizeof zeros),
        .multiplier = builder_constant(b, ones, sizeof ones),
        .table = TEPI_NONE,
        .hi = 255,
        .residual = {.ratio_a = 1, .ratio_b = 1, .table = TEPI_NONE, .hi = 255},
    };
    return i;
}

static uint16_t fault_of(const struct builder *b)
{
    uint8_t pixels[24] = {0};
    return builder_run_on(b, builder_kernels(0), (const void *[]){pixels}, (void *[]){pixels})
        .fault;
}

#define VERDICT(tampering, expected)                                                               \
    do {                                                                                           \
        struct builder b;                                                                          \
        struct tepi_instruction *i = plain(&b);                                                    \
        struct tepi_conv_params *p = &i->conv;                                                     \
        (void)p;                                                                                   \
        tampering;                                                                                 \
        const uint16_t fault = fault_of(&b);                                                       \
        builder_free(&b);                                                                          \
        CHECK_INT(fault, expected);                                                                \
    } while (0)
#define REFUSED(tampering) VERDICT(tampering, TEPI_FAULT_PROGRAM_INSTRUCTION)

CHECK_CASE(residuals_that_are_refused)
{
    VERDICT(, TEPI_FAULT_OK);
    VERDICT(p->residual_first = 1, TEPI_FAULT_OK);
    REFUSED(p->residual_first = 2);
    REFUSED(p->reserved = 1);
    REFUSED(p->residual.reserved[0] = 1);
    REFUSED(p->residual.reserved[1] = 1);
    REFUSED(p->residual.ratio_a = INFINITY);
    REFUSED(p->residual.ratio_b = NAN);
    REFUSED(p->residual.fixed = -INFINITY);
    REFUSED(p->residual.a_offset = 256);
    REFUSED(p->residual.b_offset = -1);
    REFUSED(p->residual.out_offset = 256);
    REFUSED((p->residual.lo = 9, p->residual.hi = 8));
    REFUSED(i->b = OTHER);
    REFUSED(i->b = FLOATS);
    REFUSED(p->addend = 64);
    VERDICT(p->residual.table = 1u << 20, TEPI_FAULT_PROGRAM_CONSTANT);
    /* Without a residual nothing of it may be said. */
    REFUSED(i->b = TEPI_NO_TENSOR);
    REFUSED((i->b = TEPI_NO_TENSOR, memset(&p->residual, 0, sizeof p->residual),
             p->residual_first = 1));
    VERDICT((i->b = TEPI_NO_TENSOR, memset(&p->residual, 0, sizeof p->residual)), TEPI_FAULT_OK);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(a_residual_is_an_addition_after_the_convolution),
    CHECK_ENTRY(residuals_that_are_refused),
};
CHECK_MAIN(cases)
