/* SPDX-License-Identifier: Apache-2.0 */
/* float32 plane to uint8, as ONNX QuantizeLinear. The float side may be at any byte address: it is
 * the host's own memory. */
#include "kernels/scalar/requantize.h"
#include "kernels/scalar/scalar.h"
#include <string.h>

static uint8_t quantize(const uint8_t *bytes, const struct tepi_quantization *q)
{
    float value;
    memcpy(&value, bytes, sizeof(value));
    const uint8_t rounded = tepi_round_u8(value / q->scale, q->zero_point);
    const uint8_t raised = rounded > q->lo ? rounded : q->lo;
    return raised < q->hi ? raised : q->hi;
}

void tepi_f32u8_quantize_scalar(const struct tepi_plane *plane, const struct tepi_quantization *q)
{
    const ptrdiff_t step = plane->in_column * (ptrdiff_t)sizeof(float);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in =
            (const uint8_t *)plane->input + i * plane->in_row * (ptrdiff_t)sizeof(float);
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row;
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++)
            out[j * plane->out_column] = quantize(in + j * step, q);
    }
}
