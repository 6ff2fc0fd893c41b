/* SPDX-License-Identifier: Apache-2.0 */
/* uint8 plane to float32, as ONNX DequantizeLinear. The float side may be at any byte address: it
 * is the host's own memory. */
#include "kernels/scalar/scalar.h"
#include <string.h>

void tepi_u8f32_dequantize_scalar(const struct tepi_plane *plane, const struct tepi_quantization *q)
{
    const ptrdiff_t step = plane->out_column * (ptrdiff_t)sizeof(float);
    for (ptrdiff_t i = 0; i < (ptrdiff_t)plane->rows; i++) {
        const uint8_t *in = (const uint8_t *)plane->input + i * plane->in_row;
        uint8_t *out = (uint8_t *)plane->output + i * plane->out_row * (ptrdiff_t)sizeof(float);
        for (ptrdiff_t j = 0; j < (ptrdiff_t)plane->columns; j++) {
            const float value = (float)(in[j * plane->in_column] - q->zero_point) * q->scale;
            memcpy(out + j * step, &value, sizeof(value));
        }
    }
}
