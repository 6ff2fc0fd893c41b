/* SPDX-License-Identifier: Apache-2.0 */
/* CONV: checks that every tap lies in image and halo, packs weights for the best kernel. */
#include "card/exec_residual.h"

/* Multiply-accumulates between two looks at abort and deadline: some 0.1 s on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 28)

/* Pixels that one row may be joined to; keeps counts far from 2^32. */
#define JOINED_MAX (UINT64_C(1) << 24)

enum {
    SIDE_PIXELS = 256, /* with more, threads share rows or pixels, with as many at most channels */
    SIDES_MAX = 16,
    SIDES_ENOUGH = 8, /* for some threads without a cut of their rows */
    PIXEL_GRAIN = 48, /* a multiple of every kernel's tile but one, which takes twice as many */
    WIDE_ROW = 32 * PIXEL_GRAIN,
    STRIP_BYTES = 1 << 16,
};

/* Taps of `out` windows along one axis stay in [-before, extent + after). */
static bool taps_inside(uint32_t out, uint32_t kernel, uint32_t stride, uint32_t dilation,
                        uint32_t pad, uint32_t extent, uint32_t before, uint32_t after)
{
    const uint64_t last = (uint64_t)(out - 1) * stride + (uint64_t)(kernel - 1) * dilation;
    return pad <= before && last < (uint64_t)extent + after + pad;
}

static bool window_valid(const struct tepi_conv_params *p)
{
    const uint32_t fields[] = {p->kernel_h, p->kernel_w,   p->stride_h,
                               p->stride_w, p->dilation_h, p->dilation_w};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i] == 0 || fields[i] > TEPI_KERNEL_MAX)
            return false;
    return true;
}

/* What ends a convolution: clamp and table, or float32. */
static uint16_t check_results(const struct tepi_image *image, const struct tepi_instruction *in,
                              const struct tepi_tensor *out)
{
    const struct tepi_conv_params *p = &in->conv;
    const bool floats = out->type == TEPI_TYPE_F32, dynamic = floats && in->b != TEPI_NO_TENSOR;
    const uint64_t bytes = 4 * (uint64_t)out->c;
    if (floats ? p->table != TEPI_NONE || p->lo != 0 || p->hi != 255 : p->addend != 0)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    if (dynamic && !tepi_image_quantizes(image, in->b))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const bool no_bias = dynamic && p->bias == TEPI_NONE;
    if ((!no_bias && !tepi_image_holds(image, p->bias, bytes, 4)) ||
        !tepi_image_holds(image, p->multiplier, bytes, 4) ||
        (floats && p->addend != TEPI_NONE && !tepi_image_holds(image, p->addend, bytes, 4)))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    const uint16_t fault = tepi_residual_check(image, in);
    return fault == TEPI_FAULT_OK ? tepi_check_store(image, p->table, p->lo, p->hi) : fault;
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_conv_params *p = &in->conv;
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_any_target(image, in->out);
    if (!a || !out || !window_valid(p) || a->n != out->n || p->groups == 0 || a->c % p->groups ||
        out->c % p->groups || p->reserved ||
        !taps_inside(out->h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, a->h, a->halo_top,
                     a->halo_bottom) ||
        !taps_inside(out->w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, a->w,
                     a->halo_left, a->halo_right))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* Below 2^33, since the taps of one pixel are distinct bytes of the input; all filters are held
     * in less than 2^32 bytes, so that the work below cannot wrap. */
    const uint64_t filter = (uint64_t)p->kernel_h * p->kernel_w * (a->c / p->groups);
    if (!tepi_image_holds(image, p->weights, filter * out->c, 1))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    *work = filter * tepi_elements(out);
    return check_results(image, in, out);
}

/* Cuts lie between rows of the kernel's tiles. */
static uint32_t rows_of_tile(const struct tepi_conv_step *s)
{
    return s->kernel->rows ? s->kernel->rows : 1;
}

static uint32_t tiles_of(const struct tepi_conv_step *s)
{
    return (s->conv.n * s->conv.out_h + rows_of_tile(s) - 1) / rows_of_tile(s);
}

/* Where unit `unit` of one side begins: a row of tiles, or a pixel of the only row. */
static uint32_t bound(const struct tepi_conv_step *s, uint32_t extent, uint32_t unit)
{
    const uint32_t even = (uint32_t)((uint64_t)extent * unit / s->cuts);
    return unit == s->cuts || s->grain == 0 ? even : even / s->grain * s->grain;
}

/* The convolution that some neighbouring sides are together. */
static struct tepi_conv join_sides(const struct tepi_conv_step *s, const struct tepi_run *run,
                                   struct tepi_range sides)
{
    struct tepi_conv conv = s->conv;
    const uint32_t first = sides.begin * s->channels;
    conv.input = tepi_at(run, &s->in);
    conv.output = tepi_at(run, &s->out) + (size_t)first * s->out_bytes;
    conv.weights = (const uint8_t *)conv.weights + sides.begin * s->side_bytes;
    conv.bias = conv.bias ? conv.bias + first : NULL;
    conv.multiplier += first;
    conv.addend = conv.addend ? conv.addend + first : NULL;
    if (sides.end < s->sides)
        conv.group_out = sides.end * s->channels;
    conv.group_out -= first;
    return conv;
}

/* Bias and multiplier of the channels of `conv`, from the first on, as the input's quantization
 * asks for them. */
static void set_quantization(const struct tepi_conv_step *s, struct tepi_conv *conv,
                             const struct tepi_run *run, uint32_t first)
{
    const struct tepi_quantization q = tepi_run_quantization(run, &s->quantization);
    const uint32_t channels = conv->groups * conv->group_out, zero_point = (uint32_t)q.zero_point;
    uint8_t *scratch = conv->scratch;
    uint32_t *bias = (uint32_t *)(void *)(scratch + s->bias_at);
    float *multiplier = (float *)(void *)(scratch + s->multiplier_at);
    for (uint32_t o = 0; o < channels; o++) {
        bias[o] =
            (conv->bias ? (uint32_t)conv->bias[o] : 0) - zero_point * s->weight_sums[first + o];
        multiplier[o] = q.scale * conv->multiplier[o];
    }
    conv->bias = (const int32_t *)bias;
    conv->multiplier = multiplier;
}

/* Some cuts of the sides that `conv` is, the first of them at `channel` of the output. */
static void run_cuts(const struct tepi_conv_step *s, const struct tepi_run *run,
                     struct tepi_conv *conv, struct tepi_range cuts, uint32_t channel)
{
    struct tepi_range rows = {0, 1};
    uint32_t pixel = 0;
    if (s->grain == 0) {
        const uint32_t all = conv->n * conv->out_h, tile = rows_of_tile(s), tiles = tiles_of(s);
        const uint32_t end = bound(s, tiles, cuts.end) * tile;
        rows = (struct tepi_range){bound(s, tiles, cuts.begin) * tile, end < all ? end : all};
    } else {
        pixel = bound(s, conv->out_w, cuts.begin);
        conv->input += pixel * conv->stride_w * conv->in_stride_w;
        conv->output += pixel * conv->out_stride_w;
        conv->out_w = bound(s, conv->out_w, cuts.end) - pixel;
    }
    s->kernel->run(conv, rows.begin, rows.end);
    if (s->residual.present)
        tepi_residual_add(&s->residual, run, conv, rows, pixel, channel);
}

/* Unit u is cut u % cuts of side u / cuts; whole sides that follow each other run as one. */
static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    const struct tepi_conv_step *s = &step->conv;
    while (units.begin < units.end) {
        const uint32_t side = units.begin / s->cuts, first = units.begin % s->cuts;
        uint32_t count = units.end - units.begin;
        count = count < s->units_at_once ? count : s->units_at_once;
        const uint32_t whole = first == 0 && count >= s->cuts ? count / s->cuts : 1;
        count = count < whole * s->cuts - first ? count : whole * s->cuts - first;
        struct tepi_conv conv = join_sides(s, run, (struct tepi_range){side, side + whole});
        conv.scratch = scratch;
        if (s->weight_sums)
            set_quantization(s, &conv, run, side * s->channels);
        run_cuts(s, run, &conv, (struct tepi_range){first, whole > 1 ? s->cuts : first + count},
                 side * s->channels);
        units.begin += count;
        const uint16_t fault =
            units.begin < units.end ? tepi_run_interrupted(run->control) : TEPI_FAULT_OK;
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    return TEPI_FAULT_OK;
}

/* Where the next row begins just where one more pixel of this one would, on all sides, the two are
 * one row, and images likewise: kernels meet fewer row ends. So it is in 1x1 convolutions of images
 * without halo. */
static void join_rows(struct tepi_conv *conv, const struct tepi_residual *residual)
{
    const size_t in_step = conv->stride_w * conv->in_stride_w;
    if (conv->out_h != 1 && (conv->stride_h * conv->in_stride_h != conv->out_w * in_step ||
                             conv->out_stride_h != conv->out_w * conv->out_stride_w ||
                             !tepi_residual_joins_rows(residual, conv)))
        return;
    if ((uint64_t)conv->out_w * conv->out_h > JOINED_MAX)
        return;
    conv->out_w *= conv->out_h;
    conv->out_h = 1;
    if (conv->in_stride_n != conv->out_w * in_step ||
        conv->out_stride_n != conv->out_w * conv->out_stride_w ||
        !tepi_residual_joins_images(residual, conv) || (uint64_t)conv->out_w * conv->n > JOINED_MAX)
        return;
    conv->out_w *= conv->n;
    conv->n = 1;
}

static struct tepi_conv geometry(const struct tepi_tensor *a, const struct tepi_tensor *out,
                                 const struct tepi_conv_params *p,
                                 const struct tepi_residual *residual)
{
    struct tepi_conv conv = {
        .in_stride_n = a->stride_n,
        .in_stride_h = a->stride_h,
        .in_stride_w = a->stride_w,
        .out_stride_n = out->stride_n,
        .out_stride_h = out->stride_h,
        .out_stride_w = out->stride_w,
        .n = out->n,
        .out_h = out->h,
        .out_w = out->w,
        .kernel_h = p->kernel_h,
        .kernel_w = p->kernel_w,
        .stride_h = p->stride_h,
        .stride_w = p->stride_w,
        .dilation_h = p->dilation_h,
        .dilation_w = p->dilation_w,
        .groups = p->groups,
        .group_in = a->c / p->groups,
        .group_out = out->c / p->groups,
        .floats = out->type == TEPI_TYPE_F32,
    };
    join_rows(&conv, residual);
    return conv;
}

/* Where pixels are few, threads share the channels: each then streams its own weights alone. */
static void cut_channels(struct tepi_conv_step *s, const struct tepi_conv *conv)
{
    const uint64_t pixels = (uint64_t)conv->n * conv->out_h * conv->out_w;
    const uint32_t panels = conv->group_out / TEPI_KERNEL_PANEL;
    s->sides = 1;
    s->channels = conv->group_out;
    if (conv->groups != 1 || pixels > SIDE_PIXELS || panels < 2)
        return;
    struct tepi_conv side = *conv;
    side.group_out = (panels + SIDES_MAX - 1) / SIDES_MAX * TEPI_KERNEL_PANEL;
    if (!s->kernel->takes(&side))
        return;
    s->channels = side.group_out;
    s->sides = conv->group_out / s->channels; /* what is left goes to the last */
    s->side_bytes = s->kernel->packed_bytes(&side);
}

/* How one side is cut: into rows, or the pixels of its only row; sides that are many, not at all.
 */
static void cut_rows(struct tepi_conv_step *s, const struct tepi_conv *conv)
{
    const uint32_t rows = conv->n * conv->out_h;
    const uint32_t grain = conv->out_w < WIDE_ROW ? PIXEL_GRAIN : 2 * PIXEL_GRAIN;
    const uint32_t most = rows > 1 ? tiles_of(s) : conv->out_w / grain ? conv->out_w / grain : 1;
    s->grain = rows > 1 ? 0 : grain;
    s->cuts = s->sides == 1 ? most : s->sides >= SIDES_ENOUGH || most < 2 ? 1 : 2;
}

static const struct tepi_conv_kernel *kernel_for(const struct tepi_prepare *prepare,
                                                 const struct tepi_conv *conv)
{
    const struct tepi_conv_kernel *const *kernel = prepare->kernels->convolutions;
    while (!(*kernel)->takes(conv))
        kernel++;
    return *kernel;
}

/* Sums of each channel's weights, modulo 2^32, kept on the shelf. */
static const uint32_t *sum_weights(struct tepi_prepare *prepare, const struct tepi_conv *conv,
                                   uint32_t weights)
{
    const size_t filter = (size_t)conv->kernel_h * conv->kernel_w * conv->group_in;
    const size_t channels = (size_t)conv->groups * conv->group_out;
    struct tepi_shelf *shelf = &prepare->shelf;
    uint32_t *sums = tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, channels * sizeof(*sums)));
    const int8_t *canonical = (const int8_t *)prepare->image->constants + weights;
    for (size_t o = 0; sums && o < channels; o++) {
        sums[o] = 0;
        for (size_t i = 0; i < filter; i++)
            sums[o] += (uint32_t)*canonical++;
    }
    return sums;
}

/* Everything of the step that a quantization known only as the program runs asks for. */
static void prepare_dynamic(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                            struct tepi_conv_step *s, uint64_t kernel_scratch)
{
    const struct tepi_conv *conv = &s->conv;
    const uint64_t line = 64, bytes = 4 * (uint64_t)conv->groups * conv->group_out;
    s->weight_sums = sum_weights(prepare, conv, in->conv.weights);
    s->quantization = tepi_prepare_site(prepare, in->b);
    s->bias_at = (kernel_scratch + line - 1) / line * line;
    s->multiplier_at = s->bias_at + (bytes + line - 1) / line * line + TEPI_KERNEL_SLACK;
    tepi_prepare_scratch(prepare, s->multiplier_at + bytes + TEPI_KERNEL_SLACK);
}

/* What is stored before the residual is added to it stays in the first-level cache. */
static void bound_strip(struct tepi_conv_step *s, uint64_t unit_bytes)
{
    const uint32_t most = unit_bytes < STRIP_BYTES ? (uint32_t)(STRIP_BYTES / unit_bytes) : 1;
    s->units_at_once = s->units_at_once < most ? s->units_at_once : most;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_conv_params *p = &in->conv;
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    const struct tepi_residual residual = tepi_residual_prepare(prepare, in);
    struct tepi_conv conv = geometry(a, out, p, &residual);
    const struct tepi_conv_kernel *kernel = kernel_for(prepare, &conv);
    struct tepi_shelf *shelf = &prepare->shelf;
    void *packed = tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, kernel->packed_bytes(&conv)));
    if (packed) {
        kernel->pack(&conv, (const int8_t *)prepare->image->constants + p->weights, packed);
        tepi_image_consumed(prepare->image, p->weights,
                            (uint64_t)p->kernel_h * p->kernel_w * (a->c / p->groups) * out->c);
    }
    conv.weights = packed;
    conv.bias = tepi_prepare_constant(prepare, p->bias, 4 * (uint64_t)out->c);
    conv.multiplier = tepi_prepare_floats(prepare, p->multiplier, out->c);
    conv.store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, out->zero_point);
    if (conv.floats)
        conv.addend = tepi_prepare_floats(prepare, p->addend, out->c);
    const uint64_t scratch = kernel->scratch_bytes(&conv);
    tepi_prepare_scratch(prepare, scratch);

    struct tepi_site site = tepi_prepare_site(prepare, in->a);
    site.offset -= (uint64_t)p->pad_top * a->stride_h + (uint64_t)p->pad_left * a->stride_w;
    struct tepi_conv_step *s = &step->conv;
    *s = (struct tepi_conv_step){
        .in = site,
        .out = tepi_prepare_site(prepare, in->out),
        .kernel = kernel,
        .conv = conv,
        .out_bytes = tepi_type_bytes(out->type),
        .residual = residual,
    };
    if (in->b != TEPI_NO_TENSOR && !residual.present)
        prepare_dynamic(prepare, in, s, scratch);
    cut_channels(s, &conv);
    cut_rows(s, &conv);
    const uint64_t units = (uint64_t)s->sides * s->cuts;
    const uint64_t work = tepi_elements(out) * p->kernel_h * p->kernel_w * conv.group_in;
    const uint64_t unit_work = work / units + 1;
    s->units_at_once = unit_work < WORK_AT_ONCE ? (uint32_t)(WORK_AT_ONCE / unit_work) : 1;
    if (residual.present)
        bound_strip(s, tepi_elements(out) / units + 1);
    tepi_cut_step(prepare, step, run, units, work,
                  conv.group_in == 1 ? TEPI_PACE_WINDOW : TEPI_PACE_DENSE);
}

const struct tepi_operation tepi_operation_conv = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_conv_params),
    .has_a = true,
    .may_have_b = true,
};
