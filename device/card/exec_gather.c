/* SPDX-License-Identifier: Apache-2.0 */
/* GATHER: rows of a table by the indices of an input. */
#include "card/exec.h"
#include <string.h>

static uint16_t check(const struct tepi_image *image, const struct tepi_instruction *in,
                      uint64_t *work)
{
    const struct tepi_tensor *a = tepi_image_any_source(image, in->a);
    const struct tepi_tensor *out = tepi_image_any_target(image, in->out);
    if (!a || !out || in->b >= image->header.tensors || in->gather.reserved)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    const struct tepi_tensor *b = &image->tensors[in->b];
    const bool indices = b->type == TEPI_TYPE_I64 || b->type == TEPI_TYPE_I32; /* ports alone */
    const bool dequantizes = a->type == TEPI_TYPE_U8 && out->type == TEPI_TYPE_F32 && a->scale > 0;
    if (!indices || (a->type != out->type && !dequantizes) || a->n != 1 || a->h != 1 ||
        out->n != 1 || out->h != 1 || a->c != out->c || b->c != out->w)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    *work = tepi_elements(out);
    return TEPI_FAULT_OK;
}

/* Read once: the host may write to its memory meanwhile. Halves, since ports are aligned to 4. */
static int64_t index_at(const uint8_t *port, uint32_t bytes, uint32_t pixel)
{
    const volatile uint32_t *words = (const volatile uint32_t *)(const void *)port;
    if (bytes == sizeof(int32_t))
        return (int32_t)words[pixel];
    const uint64_t low = words[2 * (size_t)pixel], high = words[2 * (size_t)pixel + 1];
    return (int64_t)(high << 32 | low);
}

static uint16_t run(const struct tepi_step *step, const struct tepi_run *run,
                    struct tepi_range units, void *scratch)
{
    (void)scratch;
    const struct tepi_gather_step *s = &step->gather;
    const uint8_t *a = tepi_at(run, &s->a), *indices = tepi_at(run, &s->indices);
    uint8_t *out = tepi_at(run, &s->out);
    struct tepi_plane plane = {.rows = 1, .columns = s->count, .in_column = 1, .out_column = 1};
    for (uint32_t pixel = units.begin; pixel < units.end; pixel++) {
        int64_t index = index_at(indices, s->index_bytes, pixel);
        index += index < 0 ? s->rows : 0;
        if (index < 0 || index >= s->rows)
            return TEPI_FAULT_INDEX;
        plane.input = a + (uint64_t)index * s->a_step;
        plane.output = out + (uint64_t)pixel * s->out_step;
        if (s->dequantizes)
            run->kernels->dequantize(&plane, &s->quantization);
        else
            memmove(plane.output, plane.input, s->bytes);
    }
    return TEPI_FAULT_OK;
}

static void prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                    struct tepi_step *step)
{
    const struct tepi_tensor *tensors = prepare->image->tensors;
    const struct tepi_tensor *a = &tensors[in->a], *out = &tensors[in->out];
    step->gather = (struct tepi_gather_step){
        .a = tepi_prepare_site(prepare, in->a),
        .indices = tepi_prepare_site(prepare, in->b),
        .out = tepi_prepare_site(prepare, in->out),
        .rows = a->w,
        .count = a->c,
        .bytes = (size_t)a->c * tepi_type_bytes(a->type),
        .a_step = a->stride_w,
        .out_step = out->stride_w,
        .index_bytes = tepi_type_bytes(tensors[in->b].type),
        .dequantizes = a->type != out->type,
        .quantization = {.scale = a->scale, .zero_point = a->zero_point, .hi = 255},
    };
    tepi_cut_step(prepare, step, run, out->w, tepi_elements(out), TEPI_PACE_ELEMENT);
}

const struct tepi_operation tepi_operation_gather = {
    .check = check,
    .prepare = prepare,
    .params_bytes = sizeof(struct tepi_gather_params),
    .has_a = true,
    .has_b = true,
};
