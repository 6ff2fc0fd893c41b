/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX512-VNNI kernel set. float32 is the AVX2 kernels' own, convolutions to it with them. */
#include "kernels/avx2/avx2.h"
#include "kernels/avx512vnni/avx512vnni.h"
#include "kernels/sets.h"

static const struct tepi_conv_kernel *const convolutions[] = {
    &tepi_u8s8_dwconv3x3_1x64_avx512vnni,
    &tepi_u8s8_dwconv_1x64_avx512vnni,
    &tepi_u8s8_conv3w_16x16_avx512vnni,
    &tepi_u8s8_conv_6x64_avx512vnni,
    &tepi_u8s8_conv_6x16_avx2,
    NULL,
};

static const struct tepi_conv_kernel *const convolutions_vnni[] = {
    &tepi_u8s8_dwconv3x3_1x64_avx512vnni,
    &tepi_u8s8_dwconv_1x64_avx512vnni,
    &tepi_u8s8_conv3w_16x16_avx512vnni,
    &tepi_u8s8_conv_6x64_avx512vnni,
    &tepi_u8s8_conv_6x16_avxvnni,
    &tepi_u8s8_conv_6x16_avx2,
    NULL,
};

#define SET(list)                                                                                  \
    {                                                                                              \
        .isa = TEPI_KERNEL_AVX512VNNI,                                                             \
        .convolutions = list,                                                                      \
        .add = tepi_u8_add_64_avx512vnni,                                                          \
        .mul = tepi_u8_mul_64_avx512vnni,                                                          \
        .table = tepi_u8_table_64_avx512vnni,                                                      \
        .maxpool = tepi_u8_maxpool_64_avx512vnni,                                                  \
        .avgpool = tepi_u8_avgpool_64_avx512vnni,                                                  \
        .quantize = tepi_f32u8_quantize_64_avx512vnni,                                             \
        .dequantize = tepi_u8f32_dequantize_64_avx512vnni,                                         \
        .copy_u8 = tepi_u8_copy_64_avx512vnni,                                                     \
        .softmax = tepi_u8_softmax_64_avx512vnni,                                                  \
        .layernorm = tepi_u8_layernorm_64_avx512vnni,                                              \
        .matmul = &tepi_u8_matmul_6x64_avx512vnni,                                                 \
        .vector = &tepi_f32_vector_8_avx2,                                                         \
        .fmatmul = &tepi_f32_matmul_6x16_avx2,                                                     \
    }

static const struct tepi_kernel_set set = SET(convolutions);
static const struct tepi_kernel_set set_vnni = SET(convolutions_vnni);

const struct tepi_kernel_set *tepi_kernels_avx512vnni(void)
{
    return __builtin_cpu_supports("avxvnni") ? &set_vnni : &set;
}
