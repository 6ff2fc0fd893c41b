/* SPDX-License-Identifier: Apache-2.0 */
/* The checks of everything but convolution. */
#include "kernels/guarded.h"
#include "kernels/scalar/scalar.h"
#include "kernels/variants.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#pragma GCC visibility push(default)

enum { CANARY = 0xa5 };

static int compare(const struct guarded *output, const struct guarded *expected, const char *what,
                   char *why)
{
    for (size_t i = 0; i < output->size; i++) {
        if (output->bytes[i] != expected->bytes[i]) {
            snprintf(why, TEPI_WHY_BYTES, "%s: output byte %zu of %zu is %u, the reference has %u",
                     what, i, output->size, output->bytes[i], expected->bytes[i]);
            return 1;
        }
    }
    return 0;
}

static struct guarded canaries(size_t size, bool at_end)
{
    struct guarded block = guarded_new(size, at_end);
    memset(block.bytes, CANARY, size);
    return block;
}

/* -2 .. 2 by powers of two and what lies between. */
static float draw_float(uint64_t *random)
{
    const float sign = random_below(random, 2) ? -1.0f : 1.0f;
    const float part = random_below(random, 3) ? (float)random_below(random, 1 << 24) : 8388608.0f;
    return sign * ldexpf(part, (int)random_below(random, 12) - 35);
}

static struct tepi_store draw_store(uint64_t *random, const uint8_t *table)
{
    const uint32_t lo = random_below(random, 3) ? 0 : random_below(random, 256);
    return (struct tepi_store){
        .lo = (uint8_t)lo, .hi = (uint8_t)(255 - random_below(random, 256 - lo)), .table = table};
}

/* Makes the first element a tie after two roundings, which one rounding (fma) tells apart. */
static void make_tie(struct tepi_add *add, uint8_t a)
{
    const float product = (float)(a - add->a_offset) * add->ratio_a;
    add->ratio_b = 0;
    add->fixed = 0.5f - product;
    add->out_offset = 128;
}

struct bytewise {
    const struct tepi_kernel_set *set;
    struct guarded a, b;
    uint8_t table[256];
    size_t count, b_step;
    struct tepi_add add;
    struct tepi_mul mul;
    int32_t zero_point;
};

static void run_bytewise(const struct tepi_kernel_set *set, enum tepi_bytewise kind,
                         const struct bytewise *w, uint8_t *out)
{
    switch (kind) {
    case TEPI_BYTEWISE_ADD:
        set->add(&w->add, w->a.bytes, w->b.bytes, w->b_step, out, w->count);
        break;
    case TEPI_BYTEWISE_MUL:
        set->mul(&w->mul, w->a.bytes, w->b.bytes, w->b_step, out, w->count);
        break;
    case TEPI_BYTEWISE_TABLE:
        set->table(w->table, w->a.bytes, out, w->count);
        break;
    }
}

int tepi_check_bytewise(uint32_t set, uint32_t kind, uint32_t count, uint32_t b_step,
                        uint32_t has_table, uint64_t seed, char *why)
{
    static const char *const kinds[] = {"add", "mul", "table"};
    const bool at_end = seed & 1;
    struct bytewise w = {.count = count, .b_step = b_step};
    w.a = guarded_new(count + TEPI_KERNEL_SLACK, at_end);
    w.b = guarded_new((b_step ? count : 1) + TEPI_KERNEL_SLACK, at_end);
    random_fill(&seed, w.a.bytes, w.a.size);
    random_fill(&seed, w.b.bytes, w.b.size);
    random_fill(&seed, w.table, sizeof(w.table));
    w.zero_point = (int32_t)random_below(&seed, 256);
    const struct tepi_store store = draw_store(&seed, has_table ? w.table : NULL);
    w.add = (struct tepi_add){draw_float(&seed),
                              draw_float(&seed),
                              draw_float(&seed) * 64,
                              (int32_t)random_below(&seed, 256),
                              (int32_t)random_below(&seed, 256),
                              w.zero_point,
                              store};
    if (random_below(&seed, 2))
        make_tie(&w.add, w.a.bytes[0]);
    w.mul = (struct tepi_mul){draw_float(&seed) / 16,
                              draw_float(&seed) * 64,
                              (int32_t)random_below(&seed, 256),
                              (int32_t)random_below(&seed, 256),
                              w.zero_point,
                              store};
    struct guarded output = canaries(count, at_end), expected = canaries(count, at_end);
    run_bytewise(tepi_set(0), (enum tepi_bytewise)kind, &w, expected.bytes);
    run_bytewise(tepi_set(set), (enum tepi_bytewise)kind, &w, output.bytes);
    const int verdict = compare(&output, &expected, kinds[kind], why);
    guarded_free(&w.a);
    guarded_free(&w.b);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

static uint32_t outputs(uint32_t in, uint32_t pads, uint32_t kernel, uint32_t dilation,
                        uint32_t stride)
{
    const uint32_t window = (kernel - 1) * dilation + 1;
    return in + pads < window ? 0 : (in + pads - window) / stride + 1;
}

int tepi_check_pool(uint32_t set, const struct tepi_pool_case *s, uint64_t seed, char *why)
{
    const bool at_end = seed & 1;
    struct tepi_pool pool = {
        .in_stride_w = s->channels + s->in_padding,
        .out_stride_w = s->channels + s->out_padding,
        .n = s->n,
        .in_h = s->in_h,
        .in_w = s->in_w,
        .out_h =
            outputs(s->in_h, s->pad_top + s->pad_bottom, s->kernel_h, s->dilation_h, s->stride_h),
        .out_w =
            outputs(s->in_w, s->pad_left + s->pad_right, s->kernel_w, s->dilation_w, s->stride_w),
        .channels = s->channels,
        .kernel_h = s->kernel_h,
        .kernel_w = s->kernel_w,
        .stride_h = s->stride_h,
        .stride_w = s->stride_w,
        .dilation_h = s->dilation_h,
        .dilation_w = s->dilation_w,
        .pad_top = s->pad_top,
        .pad_left = s->pad_left,
        .count_include_pad = s->count_include_pad,
        .in_scale = 0.5f,
        .out_scale = ldexpf(1.0f, -(int)random_below(&seed, 3)) + 0.1f,
        .in_zero_point = (int32_t)random_below(&seed, 256),
        .out_zero_point = (int32_t)random_below(&seed, 256),
    };
    if (pool.out_h == 0 || pool.out_w == 0)
        return 2;
    pool.in_stride_h = s->in_w * pool.in_stride_w;
    pool.in_stride_n = s->in_h * pool.in_stride_h;
    pool.out_stride_h = pool.out_w * pool.out_stride_w;
    pool.out_stride_n = pool.out_h * pool.out_stride_h;
    struct guarded input =
        guarded_new(s->n * pool.in_stride_n - s->in_padding + TEPI_KERNEL_SLACK, at_end);
    const size_t size = s->n * pool.out_stride_n - s->out_padding;
    struct guarded output = canaries(size, at_end), expected = canaries(size, at_end);
    random_fill(&seed, input.bytes, input.size);
    const uint32_t rows = s->n * pool.out_h, cut = s->row_cut < rows ? s->row_cut : rows;
    const struct tepi_kernel_set *variant = tepi_set(set);
    pool.input = input.bytes;
    pool.output = expected.bytes;
    (s->average ? tepi_u8_avgpool_scalar : tepi_u8_maxpool_scalar)(&pool, 0, rows);
    pool.output = output.bytes;
    (s->average ? variant->avgpool : variant->maxpool)(&pool, 0, cut);
    (s->average ? variant->avgpool : variant->maxpool)(&pool, cut, rows);
    const int verdict = compare(&output, &expected, s->average ? "avgpool" : "maxpool", why);
    guarded_free(&input);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

static void run_plane(const struct tepi_kernel_set *set, const struct tepi_plane_case *s,
                      const struct tepi_quantization *q, const void *input, void *output)
{
    const struct tepi_plane plane = {
        .input = input,
        .output = output,
        .rows = s->rows,
        .columns = s->columns,
        .in_row = (ptrdiff_t)s->in_row,
        .in_column = (ptrdiff_t)s->in_column,
        .out_row = (ptrdiff_t)s->out_row,
        .out_column = (ptrdiff_t)s->out_column,
    };
    if (s->kind == TEPI_PLANE_QUANTIZE)
        set->quantize(&plane, q);
    else if (s->kind == TEPI_PLANE_DEQUANTIZE)
        set->dequantize(&plane, q);
    else
        set->copy_u8(&plane, (uint8_t)s->flip);
}

/* Floats around the quantized range, with ties, infinities and NaN among them. */
static void fill_floats(uint64_t *random, uint8_t *bytes, size_t count)
{
    static const float special[] = {INFINITY, -INFINITY, NAN, -0.0f, 1e30f, -1e30f, 3e9f, -3e9f};
    for (size_t i = 0; i < count; i++) {
        float x = ((float)random_below(random, 1 << 16) - 32768.0f) / 512.0f;
        if (random_below(random, 8) == 0)
            x = (float)random_below(random, 400) - 199.5f;
        if (random_below(random, 16) == 0)
            x = special[random_below(random, 8)];
        memcpy(bytes + i * sizeof(x), &x, sizeof(x));
    }
}

int tepi_check_plane(uint32_t set, const struct tepi_plane_case *s, uint64_t seed, char *why)
{
    static const char *const kinds[] = {"quantize", "dequantize", "copy"};
    const size_t in_size = s->kind == TEPI_PLANE_QUANTIZE ? sizeof(float) : 1;
    const size_t out_size = s->kind == TEPI_PLANE_DEQUANTIZE ? sizeof(float) : 1;
    const size_t in = (size_t)(s->rows - 1) * s->in_row + (s->columns - 1) * (size_t)s->in_column;
    const size_t out =
        (size_t)(s->rows - 1) * s->out_row + (s->columns - 1) * (size_t)s->out_column;
    /* One spare byte in front puts the operands at odd addresses, against the page behind them. */
    const size_t odd = s->odd ? 1 : 0;
    const bool at_end = odd || (seed & 1);
    struct guarded input = guarded_new((in + 1) * in_size + odd, at_end);
    struct guarded output = canaries((out + 1) * out_size + odd, !odd && at_end);
    struct guarded expected = canaries((out + 1) * out_size + odd, !odd && at_end);
    uint8_t *elements = input.bytes + (at_end ? odd : 0);
    if (s->kind == TEPI_PLANE_QUANTIZE)
        fill_floats(&seed, elements, in + 1);
    else
        random_fill(&seed, elements, in + 1);
    const uint32_t lo = random_below(&seed, 3) ? 0 : random_below(&seed, 256);
    const struct tepi_quantization q = {
        .scale = random_below(&seed, 2) ? 0.5f : 0.3f + (float)random_below(&seed, 100) / 128.0f,
        .zero_point = (int32_t)random_below(&seed, 256),
        .lo = (uint8_t)lo,
        .hi = (uint8_t)(255 - random_below(&seed, 256 - lo)),
    };
    run_plane(tepi_set(0), s, &q, elements, expected.bytes + odd);
    run_plane(tepi_set(set), s, &q, elements, output.bytes + odd);
    const int verdict = compare(&output, &expected, kinds[s->kind], why);
    guarded_free(&input);
    guarded_free(&output);
    guarded_free(&expected);
    return verdict;
}

#pragma GCC visibility pop
