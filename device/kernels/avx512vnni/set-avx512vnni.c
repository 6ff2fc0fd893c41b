/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX512-VNNI kernel set. */
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/scalar/scalar.h"
#include "kernels/sets.h"

static const struct tepi_conv_kernel *const convolutions[] = {
    &tepi_u8s8_dwconv3x3_1x64_avx512vnni,
    &tepi_u8s8_dwconv_1x64_avx512vnni,
    &tepi_u8s8_conv_6x64_avx512vnni,
    NULL,
};

static const struct tepi_kernel_set set = {
    .isa = TEPI_KERNEL_AVX512VNNI,
    .convolutions = convolutions,
    .add = tepi_u8_add_scalar,
    .mul = tepi_u8_mul_scalar,
    .table = tepi_u8_table_64_avx512vnni,
    .maxpool = tepi_u8_maxpool_scalar,
    .avgpool = tepi_u8_avgpool_scalar,
    .quantize = tepi_f32u8_quantize_scalar,
    .dequantize = tepi_u8f32_dequantize_scalar,
    .copy_u8 = tepi_u8_copy_scalar,
    .softmax = tepi_u8_softmax_scalar,
};

const struct tepi_kernel_set *tepi_kernels_avx512vnni(void)
{
    return &set;
}
