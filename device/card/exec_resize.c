/* SPDX-License-Identifier: Apache-2.0 */
/* RESIZE: nearest pixel by two lists of indices. */
#include "card/exec.h"
#include <string.h>

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_tensor *a = tepi_image_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_target(image, in->out);
    if (!a || !out || a->n != out->n || a->c != out->c)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    if (!tepi_image_holds(image, in->resize.rows, 4 * (uint64_t)out->h, 4) ||
        !tepi_image_holds(image, in->resize.columns, 4 * (uint64_t)out->w, 4))
        return TEPI_FAULT_PROGRAM_CONSTANT;
    *work = tepi_elements(out);
    return TEPI_FAULT_OK;
}

static void resize_row(const struct tepi_resize_step *s, const uint8_t *in, uint8_t *out)
{
    for (uint32_t x = 0; x < s->o.w; x++, out += s->o.stride_w)
        memmove(out, in + (size_t)s->columns[x] * s->a.stride_w, s->o.c);
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run)
{
    const struct tepi_resize_step *s = &step->resize;
    for (size_t n = 0; n < s->o.n; n++) {
        const uint8_t *in = tepi_at(run, &s->in) + n * s->a.stride_n;
        uint8_t *out = tepi_at(run, &s->out) + n * s->o.stride_n;
        for (uint32_t y = 0; y < s->o.h; y++)
            resize_row(s, in + (size_t)s->rows[y] * s->a.stride_h, out + (size_t)y * s->o.stride_h);
    }
    return TEPI_FAULT_OK;
}

static const uint32_t *keep_indices(struct tepi_prepare *prepare, uint32_t offset, uint32_t count,
                                    uint32_t extent)
{
    const uint32_t *kept = tepi_prepare_constant(prepare, offset, 4 * (uint64_t)count);
    for (uint32_t i = 0; kept && i < count; i++)
        if (kept[i] >= extent)
            prepare->fault = TEPI_FAULT_PROGRAM_CONSTANT;
    return kept;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_tensor *a = &prepare->image->tensors[in->a];
    const struct tepi_tensor *out = &prepare->image->tensors[in->out];
    step->run = run;
    step->resize = (struct tepi_resize_step){
        .in = tepi_prepare_site(prepare, in->a),
        .out = tepi_prepare_site(prepare, in->out),
        .a = *a,
        .o = *out,
        .rows = keep_indices(prepare, in->resize.rows, out->h, a->h),
        .columns = keep_indices(prepare, in->resize.columns, out->w, a->w),
    };
}

const struct tepi_operation tepi_operation_resize = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_resize_params),
    .has_a = true,
};
