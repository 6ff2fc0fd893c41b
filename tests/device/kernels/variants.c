/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel sets there are to test, and the check of a convolution variant. */
#include "kernels/variants.h"
#include "kernels/guarded.h"
#include "kernels/scalar/scalar.h"
#include "kernels/sets.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The shared library for Python exports the checks, whatever the build hides. */
#pragma GCC visibility push(default)

enum { CANARY = 0xa5, PART_PIXELS = 16 };

static const enum tepi_kernel_isa isas[] = {TEPI_KERNEL_SCALAR, TEPI_KERNEL_AVX2,
                                            TEPI_KERNEL_AVX512VNNI, TEPI_KERNEL_AMXINT8};
static const char *const names[] = {"scalar", "avx2", "avx512vnni", "amxint8"};

#if defined(TEPI_HAVE_AMXINT8)
const struct tepi_kernel_set *tepi_kernels_amxint8_emulated(void);
#endif

/* The emulated AMX set runs wherever AVX512-VNNI does. */
static const struct tepi_kernel_set *emulated(void)
{
#if defined(TEPI_HAVE_AMXINT8)
    return tepi_kernels_for(TEPI_KERNEL_AVX512VNNI) ? tepi_kernels_amxint8_emulated() : NULL;
#else
    return NULL;
#endif
}

static const struct tepi_kernel_set *find(uint32_t index, const char **name)
{
    for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++) {
        const struct tepi_kernel_set *set = tepi_kernels_for(isas[i]);
        if (set && index-- == 0) {
            *name = names[i];
            return set;
        }
    }
    *name = "amxint8-emulated";
    return index == 0 ? emulated() : NULL;
}

uint32_t tepi_sets(void)
{
    const char *name;
    uint32_t count = 0;
    while (find(count, &name))
        count++;
    return count;
}

const struct tepi_kernel_set *tepi_set(uint32_t set)
{
    const char *name;
    return find(set, &name);
}

const char *tepi_set_name(uint32_t set)
{
    const char *name;
    find(set, &name);
    return name;
}

uint32_t tepi_convolutions(uint32_t set)
{
    uint32_t count = 0;
    while (tepi_set(set)->convolutions[count])
        count++;
    return count;
}

const char *tepi_convolution_name(uint32_t set, uint32_t variant)
{
    return tepi_set(set)->convolutions[variant]->name;
}

struct operands {
    struct guarded input, expected, output, canonical, bias, multiplier, addend, packed, scratch;
    uint8_t table[256];
};

static struct tepi_conv geometry(const struct tepi_conv_case *s)
{
    const size_t in_h = (s->out_h - 1) * s->stride_h + (s->kernel_h - 1) * s->dilation_h + 1;
    const size_t in_w = (s->out_w - 1) * s->stride_w + (s->kernel_w - 1) * s->dilation_w + 1;
    const size_t in_c = (size_t)s->groups * s->group_in, out_c = (size_t)s->groups * s->group_out;
    const size_t bytes = s->floats ? sizeof(float) : 1;
    struct tepi_conv conv = {
        .n = s->n,
        .out_h = s->out_h,
        .out_w = s->out_w,
        .kernel_h = s->kernel_h,
        .kernel_w = s->kernel_w,
        .stride_h = s->stride_h,
        .stride_w = s->stride_w,
        .dilation_h = s->dilation_h,
        .dilation_w = s->dilation_w,
        .groups = s->groups,
        .group_in = s->group_in,
        .group_out = s->group_out,
        .in_stride_w = in_c + s->in_padding,
        .out_stride_w = (out_c + s->out_padding) * bytes,
        .store = {.zero_point = (int32_t)s->zero_point, .lo = (uint8_t)s->lo, .hi = (uint8_t)s->hi},
        .floats = s->floats,
    };
    conv.in_stride_h = in_w * conv.in_stride_w + s->in_padding;
    conv.in_stride_n = in_h * conv.in_stride_h;
    conv.out_stride_h = s->out_w * conv.out_stride_w + s->out_padding * bytes;
    conv.out_stride_n = s->out_h * conv.out_stride_h;
    return conv;
}

/* Bytes up to the last that the geometry names. */
static size_t in_extent(const struct tepi_conv *c)
{
    const size_t y = (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h;
    const size_t x = (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w;
    return (c->n - 1) * c->in_stride_n + y * c->in_stride_h + x * c->in_stride_w +
           (size_t)c->groups * c->group_in;
}

static size_t out_extent(const struct tepi_conv *c)
{
    return (c->n - 1) * c->out_stride_n + (c->out_h - 1) * c->out_stride_h +
           (c->out_w - 1) * c->out_stride_w +
           (size_t)c->groups * c->group_out * (c->floats ? sizeof(float) : 1);
}

static void fill_operands(struct operands *o, const struct tepi_conv *conv, bool extreme,
                          uint64_t *random)
{
    const size_t channels = (size_t)conv->groups * conv->group_out;
    const float terms = (float)(conv->kernel_h * conv->kernel_w * conv->group_in);
    random_fill(random, o->input.bytes, o->input.size);
    random_fill(random, o->canonical.bytes, o->canonical.size);
    random_fill(random, o->table, sizeof(o->table));
    memset(o->expected.bytes, CANARY, o->expected.size);
    memset(o->output.bytes, CANARY, o->output.size);
    for (size_t i = 0; extreme && i < o->input.size; i++)
        o->input.bytes[i] = o->input.bytes[i] & 1 ? 255 : 0;
    for (size_t i = 0; extreme && i < o->canonical.size; i++)
        o->canonical.bytes[i] = o->canonical.bytes[i] & 7 ? 0x80 : 0x7f;
    for (size_t i = 0; i < channels; i++) {
        int32_t bias = (int32_t)random_next(random);
        float multiplier = ldexpf((float)(1 + random_below(random, 1000)), -9);
        if (extreme) {
            multiplier = ldexpf(multiplier, (int)random_below(random, 32) - 30);
        } else {
            bias >>= 14;
            /* Powers of two make ties. */
            multiplier = random_below(random, 4) ? multiplier / (70.0f * sqrtf(terms))
                                                 : ldexpf(1.0f, -(int)random_below(random, 12));
        }
        memcpy(o->bias.bytes + 4 * i, &bias, 4);
        memcpy(o->multiplier.bytes + 4 * i, &multiplier, 4);
        const float addend = ldexpf((float)(int32_t)random_next(random), -24);
        memcpy(o->addend.bytes + 4 * i, &addend, 4);
    }
}

static int compare(const struct operands *o, const char *name, char *why)
{
    for (size_t i = 0; i < o->output.size; i++) {
        if (o->output.bytes[i] != o->expected.bytes[i]) {
            snprintf(why, TEPI_WHY_BYTES, "%s: output byte %zu of %zu is %u, the reference has %u",
                     name, i, o->output.size, o->output.bytes[i], o->expected.bytes[i]);
            return 1;
        }
    }
    return 0;
}

static size_t in_lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Channels [0, panel) and the rest apart and, of an only row, both halves of its pixels: as several
 * threads share a convolution. */
static void run_in_parts(const struct tepi_conv *conv, const struct tepi_conv_kernel *kernel)
{
    const bool panels = conv->groups == 1 && conv->group_out > TEPI_KERNEL_PANEL;
    const uint32_t rows = conv->n * conv->out_h;
    const uint32_t half = rows == 1 && conv->out_w >= 2 * PART_PIXELS ? conv->out_w / 2 : 0;
    for (uint32_t part = panels ? 0 : 1; part < 2; part++) {
        struct tepi_conv side = *conv;
        if (panels)
            side.group_out = TEPI_KERNEL_PANEL;
        if (panels && part == 1) {
            side.weights = (const uint8_t *)conv->weights + kernel->packed_bytes(&side);
            side.group_out = conv->group_out - TEPI_KERNEL_PANEL;
            side.bias += TEPI_KERNEL_PANEL;
            side.multiplier += TEPI_KERNEL_PANEL;
            side.output += TEPI_KERNEL_PANEL * (conv->floats ? sizeof(float) : 1);
            side.addend = conv->addend ? conv->addend + TEPI_KERNEL_PANEL : NULL;
        }
        if (half) {
            struct tepi_conv begin = side;
            begin.out_w = half;
            kernel->run(&begin, 0, 1);
            side.out_w -= half;
            side.input += half * side.stride_w * side.in_stride_w;
            side.output += half * side.out_stride_w;
        }
        kernel->run(&side, 0, rows);
    }
}

static int run_variant(struct operands *o, struct tepi_conv *conv,
                       const struct tepi_conv_kernel *kernel, uint32_t cut, char *why)
{
    const uint32_t rows = conv->n * conv->out_h;
    o->packed = guarded_new(in_lines(kernel->packed_bytes(conv)), true);
    o->scratch = guarded_new(in_lines(kernel->scratch_bytes(conv)), true);
    kernel->pack(conv, (const int8_t *)o->canonical.bytes, o->packed.bytes);
    conv->weights = o->packed.bytes;
    conv->scratch = o->scratch.bytes;
    conv->output = o->output.bytes;
    cut = cut < rows ? cut : rows;
    kernel->run(conv, 0, cut);
    kernel->run(conv, cut, rows);
    int verdict = compare(o, kernel->name, why);
    if (verdict == 0) {
        memset(o->output.bytes, CANARY, o->output.size);
        run_in_parts(conv, kernel);
        verdict = compare(o, kernel->name, why);
    }
    guarded_free(&o->packed);
    guarded_free(&o->scratch);
    return verdict;
}

int tepi_check_conv(uint32_t set, uint32_t variant, const struct tepi_conv_case *shape,
                    uint64_t seed, char *why)
{
    const struct tepi_conv_kernel *kernel = tepi_set(set)->convolutions[variant];
    struct tepi_conv conv = geometry(shape);
    if (!kernel->takes(&conv))
        return 2;
    const size_t channels = (size_t)conv.groups * conv.group_out;
    const bool at_end = seed & 1;
    struct operands o = {
        .input = guarded_new(in_extent(&conv) + TEPI_KERNEL_SLACK, at_end),
        .expected = guarded_new(out_extent(&conv), at_end),
        .output = guarded_new(out_extent(&conv), at_end),
        .canonical = guarded_new(channels * conv.kernel_h * conv.kernel_w * conv.group_in, at_end),
        .bias = guarded_new(channels * 4, true),
        .multiplier = guarded_new(channels * 4, true),
        .addend = guarded_new(channels * 4, true),
    };
    fill_operands(&o, &conv, shape->extreme, &seed);
    conv.input = o.input.bytes;
    conv.bias = (const int32_t *)o.bias.bytes;
    conv.multiplier = (const float *)o.multiplier.bytes;
    conv.addend = shape->floats == 2 ? (const float *)o.addend.bytes : NULL;
    conv.store.table = shape->has_table ? o.table : NULL;
    conv.weights = o.canonical.bytes;
    conv.output = o.expected.bytes;
    tepi_u8s8_conv_1x1_scalar.run(&conv, 0, conv.n * conv.out_h);
    const int verdict = run_variant(&o, &conv, kernel, shape->row_cut, why);
    guarded_free(&o.input);
    guarded_free(&o.expected);
    guarded_free(&o.output);
    guarded_free(&o.canonical);
    guarded_free(&o.bias);
    guarded_free(&o.multiplier);
    guarded_free(&o.addend);
    return verdict;
}

#pragma GCC visibility pop
