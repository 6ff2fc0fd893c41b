/* SPDX-License-Identifier: Apache-2.0 */
/* FILL: a value into a tensor's halo, or into halo, images and the padding between channels. */
#include "card/exec.h"
#include <string.h>

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    const bool dynamic = in->b != TEPI_NO_TENSOR;
    if (!out || in->fill.whole > 1 || in->fill.value > (dynamic ? 0 : 255) ||
        (dynamic && !tepi_image_quantizes(image, in->b)))
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const struct tepi_reach reach = tepi_tensor_reach(out);
    *work = reach.before + reach.after;
    return TEPI_FAULT_OK;
}

/* Channels of `pixels` neighbours; with `padding` the bytes between them too, but none behind the
 * last one's channels, which may be another tensor's. */
static void fill_pixels(const struct tepi_fill_step *fill, uint8_t *at, uint32_t pixels,
                        bool padding)
{
    const struct tepi_tensor *t = &fill->tensor;
    if (pixels == 0)
        return;
    if (padding || t->stride_w == t->c) {
        memset(at, fill->value, (size_t)(pixels - 1) * t->stride_w + t->c);
        return;
    }
    for (uint32_t x = 0; x < pixels; x++, at += t->stride_w)
        memset(at, fill->value, t->c);
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run)
{
    struct tepi_fill_step now = step->fill;
    const struct tepi_fill_step *fill = &now;
    const struct tepi_tensor *t = &fill->tensor;
    if (now.dynamic)
        now.value = (uint8_t)tepi_run_quantization(run, &now.quantization).zero_point;
    const uint32_t width = (uint32_t)t->halo_left + t->w + t->halo_right;
    const ptrdiff_t stride_h = t->stride_h, left = (ptrdiff_t)t->halo_left * t->stride_w;
    const int64_t top = -(int64_t)t->halo_top, bottom = (int64_t)t->h + t->halo_bottom;
    for (uint32_t n = 0; n < t->n; n++) {
        uint8_t *image = tepi_at(run, &fill->site) + (size_t)n * t->stride_n;
        for (int64_t y = top; y < bottom; y++) {
            uint8_t *row = image + y * stride_h;
            if (fill->whole || y < 0 || y >= t->h) {
                fill_pixels(fill, row - left, width, fill->whole);
                continue;
            }
            fill_pixels(fill, row - left, t->halo_left, false);
            fill_pixels(fill, row + (size_t)t->w * t->stride_w, t->halo_right, false);
        }
    }
    return TEPI_FAULT_OK;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    step->run = run;
    step->fill = (struct tepi_fill_step){
        .site = tepi_prepare_site(prepare, in->out),
        .tensor = prepare->image->tensors[in->out],
        .value = (uint8_t)in->fill.value,
        .whole = in->fill.whole,
        .dynamic = in->b != TEPI_NO_TENSOR,
    };
    if (step->fill.dynamic)
        step->fill.quantization = tepi_prepare_site(prepare, in->b);
}

const struct tepi_operation tepi_operation_fill = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_fill_params),
    .may_have_b = true,
};
