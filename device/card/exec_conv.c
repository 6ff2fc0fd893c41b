/* SPDX-License-Identifier: Apache-2.0 */
/* CONV: checks that every tap lies in image and halo, packs weights for the best kernel. */
#include "card/exec.h"

/* Multiply-accumulates between two looks at abort and deadline: some 0.1 s on the slowest set. */
#define WORK_AT_ONCE (UINT64_C(1) << 28)

/* Pixels that one row may be joined to; keeps counts far from 2^32. */
#define JOINED_MAX (UINT64_C(1) << 24)

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

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_conv_params *p = &in->conv;
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    if (!a || !out || !window_valid(p) || a->n != out->n || p->groups == 0 || a->c % p->groups ||
        out->c % p->groups || p->reserved[0] || p->reserved[1] ||
        !taps_inside(out->h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, a->h, a->halo_top,
                     a->halo_bottom) ||
        !taps_inside(out->w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, a->w,
                     a->halo_left, a->halo_right))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* Below 2^33, since the taps of one pixel are distinct bytes of the input; all filters are held
     * in less than 2^32 bytes, so that the work below cannot wrap. */
    const uint64_t filter = (uint64_t)p->kernel_h * p->kernel_w * (a->c / p->groups);
    if (!tepi_image_holds(image, p->weights, filter * out->c, 1) ||
        !tepi_image_holds(image, p->bias, 4 * (uint64_t)out->c, 4) ||
        !tepi_image_holds(image, p->multiplier, 4 * (uint64_t)out->c, 4))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    *work = filter * tepi_elements(out);
    return tepi_check_store(image, p->table, p->lo, p->hi);
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run)
{
    const struct tepi_conv_step *s = &step->conv;
    struct tepi_conv conv = s->conv;
    conv.input = tepi_at(run, &s->in);
    conv.output = tepi_at(run, &s->out);
    conv.scratch = run->scratch;
    const uint32_t rows = conv.n * conv.out_h;
    uint32_t row = 0;
    while (rows - row > s->rows_at_once) {
        s->kernel->run(&conv, row, row + s->rows_at_once);
        row += s->rows_at_once;
        const uint16_t fault = tepi_run_interrupted(run->control);
        if (fault != TEPI_FAULT_OK)
            return fault;
    }
    s->kernel->run(&conv, row, rows);
    return TEPI_FAULT_OK;
}

/* Where the next row begins just where one more pixel of this one would, on both sides, the two are
 * one row, and images likewise: kernels meet fewer row ends. So it is in 1x1 convolutions of images
 * without halo. */
static void join_rows(struct tepi_conv *conv)
{
    const size_t in_step = conv->stride_w * conv->in_stride_w;
    if (conv->out_h != 1 && (conv->stride_h * conv->in_stride_h != conv->out_w * in_step ||
                             conv->out_stride_h != conv->out_w * conv->out_stride_w))
        return;
    if ((uint64_t)conv->out_w * conv->out_h > JOINED_MAX)
        return;
    conv->out_w *= conv->out_h;
    conv->out_h = 1;
    if (conv->in_stride_n != conv->out_w * in_step ||
        conv->out_stride_n != conv->out_w * conv->out_stride_w ||
        (uint64_t)conv->out_w * conv->n > JOINED_MAX)
        return;
    conv->out_w *= conv->n;
    conv->n = 1;
}

static struct tepi_conv geometry(const struct tepi_tensor *a, const struct tepi_tensor *out,
                                 const struct tepi_conv_params *p)
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
    };
    join_rows(&conv);
    return conv;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_conv_params *p = &in->conv;
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    struct tepi_conv conv = geometry(a, out, p);
    const struct tepi_conv_kernel *const *kernel = prepare->kernels->convolutions;
    while (!(*kernel)->takes(&conv))
        kernel++;

    struct tepi_shelf *shelf = &prepare->shelf;
    void *packed = tepi_shelf_at(shelf, tepi_shelf_reserve(shelf, (*kernel)->packed_bytes(&conv)));
    if (packed)
        (*kernel)->pack(&conv, (const int8_t *)prepare->image->constants + p->weights, packed);
    conv.weights = packed;
    conv.bias = tepi_prepare_constant(prepare, p->bias, 4 * (uint64_t)out->c);
    conv.multiplier = tepi_prepare_floats(prepare, p->multiplier, out->c);
    conv.store = tepi_prepare_store(prepare, p->table, p->lo, p->hi, out->zero_point);
    const uint64_t scratch = (*kernel)->scratch_bytes(&conv);
    if (scratch > prepare->kernel_scratch)
        prepare->kernel_scratch = scratch;

    struct tepi_site site = tepi_prepare_site(prepare, in->a);
    site.offset -= (uint64_t)p->pad_top * a->stride_h + (uint64_t)p->pad_left * a->stride_w;
    const uint64_t row_work =
        (uint64_t)conv.out_w * out->c * p->kernel_h * p->kernel_w * conv.group_in;
    const uint64_t rows = row_work < WORK_AT_ONCE ? WORK_AT_ONCE / row_work : 1;
    step->run = run;
    step->conv = (struct tepi_conv_step){
        .in = site,
        .out = tepi_prepare_site(prepare, in->out),
        .kernel = *kernel,
        .conv = conv,
        .rows_at_once = (uint32_t)(rows < UINT32_MAX ? rows : UINT32_MAX),
    };
}

const struct tepi_operation tepi_operation_conv = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_conv_params),
    .has_a = true,
};
