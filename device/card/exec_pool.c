/* SPDX-License-Identifier: Apache-2.0 */
/* MAXPOOL and AVGPOOL. */
#include "card/exec.h"
#include <math.h>

/* Every window of `out` along one axis holds a pixel of [0, extent). Windows that start inside do
 * by their first tap; of those that start in the padding each is looked at, and they are few
 * because `pad` is at most TEPI_HALO_MAX. */
static bool windows_touch(uint32_t out, uint32_t kernel, uint32_t stride, uint32_t dilation,
                          uint32_t pad, uint32_t extent)
{
    if ((uint64_t)(out - 1) * stride >= (uint64_t)extent + pad)
        return false;
    for (uint32_t start = 0, i = 0; i < out && start < pad; i++, start += stride) {
        const uint32_t tap = (pad - start + dilation - 1) / dilation;
        if (tap >= kernel || start + tap * dilation - pad >= extent)
            return false;
    }
    return true;
}

static bool window_valid(const struct tepi_pool_params *p)
{
    const uint32_t fields[] = {p->kernel_h, p->kernel_w,   p->stride_h,
                               p->stride_w, p->dilation_h, p->dilation_w};
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        if (fields[i] == 0 || fields[i] > TEPI_KERNEL_MAX)
            return false;
    return p->pad_top <= TEPI_HALO_MAX && p->pad_left <= TEPI_HALO_MAX &&
           p->pad_bottom <= TEPI_HALO_MAX && p->pad_right <= TEPI_HALO_MAX;
}

static bool scales_valid(const struct tepi_instruction *in)
{
    const struct tepi_pool_params *p = &in->pool;
    if (in->code == TEPI_OP_MAXPOOL)
        return p->count_include_pad == 0 && p->in_scale == 0 && p->out_scale == 0;
    return p->count_include_pad <= 1 && isfinite(p->in_scale) && p->in_scale > 0 &&
           isfinite(p->out_scale) && p->out_scale > 0;
}

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_pool_params *p = &in->pool;
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    if (!a || !out || a->n != out->n || a->c != out->c || !window_valid(p) || !scales_valid(in) ||
        !windows_touch(out->h, p->kernel_h, p->stride_h, p->dilation_h, p->pad_top, a->h) ||
        !windows_touch(out->w, p->kernel_w, p->stride_w, p->dilation_w, p->pad_left, a->w))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    /* At most 2^20 taps of 2^32 elements. */
    *work = (uint64_t)p->kernel_h * p->kernel_w * tepi_elements(out);
    return TEPI_FAULT_OK;
}

static struct tepi_pool bind_pool(const struct tepi_step *step, const struct tepi_run *run)
{
    struct tepi_pool pool = step->pool.pool;
    pool.input = tepi_at(run, &step->pool.in);
    pool.output = tepi_at(run, &step->pool.out);
    return pool;
}

static uint16_t run_max(const struct tepi_step *step, const struct tepi_run *run,
                        struct tepi_range rows, void *scratch)
{
    (void)scratch;
    const struct tepi_pool pool = bind_pool(step, run);
    run->kernels->maxpool(&pool, rows.begin, rows.end);
    return TEPI_FAULT_OK;
}

static uint16_t run_average(const struct tepi_step *step, const struct tepi_run *run,
                            struct tepi_range rows, void *scratch)
{
    (void)scratch;
    const struct tepi_pool pool = bind_pool(step, run);
    run->kernels->avgpool(&pool, rows.begin, rows.end);
    return TEPI_FAULT_OK;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_pool_params *p = &in->pool;
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    step->pool.in = tepi_prepare_site(prepare, in->a);
    step->pool.out = tepi_prepare_site(prepare, in->out);
    step->pool.pool = (struct tepi_pool){
        .in_stride_n = a->stride_n,
        .in_stride_h = a->stride_h,
        .in_stride_w = a->stride_w,
        .out_stride_n = out->stride_n,
        .out_stride_h = out->stride_h,
        .out_stride_w = out->stride_w,
        .n = a->n,
        .in_h = a->h,
        .in_w = a->w,
        .out_h = out->h,
        .out_w = out->w,
        .channels = a->c,
        .kernel_h = p->kernel_h,
        .kernel_w = p->kernel_w,
        .stride_h = p->stride_h,
        .stride_w = p->stride_w,
        .dilation_h = p->dilation_h,
        .dilation_w = p->dilation_w,
        .pad_top = p->pad_top,
        .pad_left = p->pad_left,
        .count_include_pad = p->count_include_pad,
        .in_scale = p->in_scale,
        .out_scale = p->out_scale,
        .in_zero_point = a->zero_point,
        .out_zero_point = out->zero_point,
    };
    const uint64_t taps = (uint64_t)p->kernel_h * p->kernel_w * tepi_elements(out);
    tepi_cut_step(prepare, step, in->code == TEPI_OP_MAXPOOL ? run_max : run_average,
                  (uint64_t)out->n * out->h, taps, TEPI_PACE_WINDOW);
}

const struct tepi_operation tepi_operation_maxpool = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_pool_params),
    .has_a = true,
};
const struct tepi_operation tepi_operation_avgpool = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_pool_params),
    .has_a = true,
};
