/* SPDX-License-Identifier: Apache-2.0 */
/* RANGE: the quantization that covers a tensor's values and 0. */
#include "card/exec.h"
#include <math.h>

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_tensor *a = tepi_image_float_source(image, in->a);
    if (!a || !tepi_image_quantizes(image, in->out) || in->range.reserved)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    *work = tepi_elements(a);
    return TEPI_FAULT_OK;
}

static float zero_point_of(float lowest, float scale)
{
    const float zero_point = rintf((0.0f - lowest) / scale);
    if (!(zero_point > 0)) /* NaN where both ends are infinite */
        return 0;
    return zero_point < 255 ? zero_point : 255;
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run)
{
    const struct tepi_range_step *s = &step->range;
    const struct tepi_tensor *t = &s->tensor;
    float lowest = 0, highest = 0;
    for (uint32_t n = 0; n < t->n; n++) {
        for (uint32_t y = 0; y < t->h; y++) {
            const uint8_t *row =
                tepi_at(run, &s->a) + (uint64_t)n * t->stride_n + (uint64_t)y * t->stride_h;
            for (uint32_t x = 0; x < s->runs; x++, row += t->stride_w)
                run->kernels->vector->range((const float *)(const void *)row, s->count, &lowest,
                                            &highest);
        }
    }
    float *out = (float *)(void *)tepi_at(run, &s->out);
    const float scale = lowest == highest ? 1.0f : (highest - lowest) / 255.0f;
    out[0] = scale;
    out[1] = zero_point_of(lowest, scale);
    return TEPI_FAULT_OK;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const bool joined = a->stride_w == (uint64_t)a->c * sizeof(float);
    step->run = run;
    step->range = (struct tepi_range_step){
        .a = tepi_prepare_site(prepare, in->a),
        .out = tepi_prepare_site(prepare, in->out),
        .tensor = *a,
        .runs = joined ? 1 : a->w,
        .count = joined ? (size_t)a->w * a->c : a->c,
    };
}

const struct tepi_operation tepi_operation_range = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_range_params),
    .has_a = true,
};
