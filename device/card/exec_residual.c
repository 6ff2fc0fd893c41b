/* SPDX-License-Identifier: Apache-2.0 */
#include "card/exec_residual.h"

static bool is_zero(const struct tepi_add_params *p)
{
    return p->ratio_a == 0 && p->ratio_b == 0 && p->fixed == 0 && p->a_offset == 0 &&
           p->b_offset == 0 && p->out_offset == 0 && p->table == 0 && p->lo == 0 && p->hi == 0 &&
           p->reserved[0] == 0 && p->reserved[1] == 0;
}

uint16_t tepi_residual_check(const struct tepi_image *image, const struct tepi_instruction *in)
{
    const struct tepi_conv_params *p = &in->conv;
    const struct tepi_tensor *out = &image->tensors[in->out];
    if (in->b == TEPI_NO_TENSOR || out->type != TEPI_TYPE_U8)
        return is_zero(&p->residual) && p->residual_first == 0 ? TEPI_FAULT_OK
                                                               : TEPI_FAULT_PROGRAM_INSTRUCTION;
    const struct tepi_tensor *b = tepi_image_source(image, in->b);
    if (!b || b->n != out->n || b->h != out->h || b->w != out->w || b->c != out->c ||
        p->residual_first > 1)
        return TEPI_FAULT_PROGRAM_INSTRUCTION;
    return tepi_check_sum(image, &p->residual);
}

struct tepi_residual tepi_residual_prepare(struct tepi_prepare *prepare,
                                           const struct tepi_instruction *in)
{
    const struct tepi_tensor *tensors = prepare->image->tensors;
    if (in->b == TEPI_NO_TENSOR || tensors[in->out].type != TEPI_TYPE_U8)
        return (struct tepi_residual){.present = false};
    const struct tepi_tensor *b = &tensors[in->b];
    return (struct tepi_residual){
        .present = true,
        .first = in->conv.residual_first,
        .b = tepi_prepare_site(prepare, in->b),
        .stride_n = b->stride_n,
        .stride_h = b->stride_h,
        .stride_w = b->stride_w,
        .add = tepi_prepare_sum(prepare, &in->conv.residual),
    };
}

bool tepi_residual_joins_rows(const struct tepi_residual *residual, const struct tepi_conv *conv)
{
    return !residual->present || residual->stride_h == conv->out_w * residual->stride_w;
}

bool tepi_residual_joins_images(const struct tepi_residual *residual, const struct tepi_conv *conv)
{
    return !residual->present || residual->stride_n == conv->out_w * residual->stride_w;
}

static void add(const struct tepi_residual *residual, const struct tepi_kernel_set *kernels,
                const uint8_t *b, uint8_t *out, size_t count)
{
    kernels->add(&residual->add, residual->first ? b : out, residual->first ? out : b, 1, out,
                 count);
}

void tepi_residual_add(const struct tepi_residual *residual, const struct tepi_run *run,
                       const struct tepi_conv *conv, struct tepi_range rows, uint32_t pixel,
                       uint32_t channel)
{
    const uint32_t channels = conv->groups * conv->group_out;
    const bool whole = conv->out_stride_w == channels && residual->stride_w == channels;
    const uint8_t *base = tepi_at(run, &residual->b) + pixel * residual->stride_w + channel;
    for (uint32_t row = rows.begin; row < rows.end; row++) {
        const uint32_t n = row / conv->out_h, y = row % conv->out_h;
        const uint8_t *b = base + n * residual->stride_n + y * residual->stride_h;
        uint8_t *out = conv->output + n * conv->out_stride_n + y * conv->out_stride_h;
        if (whole) {
            add(residual, run->kernels, b, out, (size_t)conv->out_w * channels);
            continue;
        }
        for (uint32_t x = 0; x < conv->out_w; x++)
            add(residual, run->kernels, b + x * residual->stride_w, out + x * conv->out_stride_w,
                channels);
    }
}
