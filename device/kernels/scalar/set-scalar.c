/* SPDX-License-Identifier: Apache-2.0 */
/* The scalar kernel set: runs everywhere, and is what the others are held against. */
#include "kernels/scalar/scalar.h"
#include "kernels/sets.h"

static const struct tepi_conv_kernel *const convolutions[] = {
    &tepi_u8s8_dwconv_1x1_scalar,
    &tepi_u8s8_conv_1x1_scalar,
    NULL,
};

static const struct tepi_kernel_set set = {
    .isa = TEPI_KERNEL_SCALAR,
    .convolutions = convolutions,
    .add = tepi_u8_add_scalar,
    .mul = tepi_u8_mul_scalar,
    .table = tepi_u8_table_scalar,
    .maxpool = tepi_u8_maxpool_scalar,
    .avgpool = tepi_u8_avgpool_scalar,
    .quantize = tepi_f32u8_quantize_scalar,
    .dequantize = tepi_u8f32_dequantize_scalar,
    .copy_u8 = tepi_u8_copy_scalar,
    .softmax = tepi_u8_softmax_scalar,
    .layernorm = tepi_u8_layernorm_scalar,
    .matmul = &tepi_u8_matmul_1x1_scalar,
    .vector = &tepi_f32_vector_1_scalar,
    .fmatmul = &tepi_f32_matmul_1x1_scalar,
};

const struct tepi_kernel_set *tepi_kernels_scalar(void)
{
    return &set;
}
