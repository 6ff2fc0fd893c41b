/* SPDX-License-Identifier: Apache-2.0 */
/* The AVX2 kernel set, with and without what needs AVX-VNNI. */
#include "kernels/avx2/avx2.h"
#include "kernels/sets.h"

static const struct tepi_conv_kernel *const convolutions[] = {
    &tepi_u8s8_dwconv3x3_1x16_avx2,
    &tepi_u8s8_dwconv_1x16_avx2,
    &tepi_u8s8_wino3x3_4x4_avx2,
    &tepi_u8s8_conv_6x16_avx2,
    NULL,
};

static const struct tepi_conv_kernel *const convolutions_vnni[] = {
    &tepi_u8s8_dwconv3x3_1x32_avxvnni, &tepi_u8s8_dwconv3x3_1x16_avx2, &tepi_u8s8_dwconv_1x16_avx2,
    &tepi_u8s8_conv_6x16_avxvnni,      &tepi_u8s8_conv_6x16_avx2,      NULL,
};

#define SET(list)                                                                                  \
    {                                                                                              \
        .isa = TEPI_KERNEL_AVX2,                                                                   \
        .convolutions = list,                                                                      \
        .add = tepi_u8_add_32_avx2,                                                                \
        .mul = tepi_u8_mul_32_avx2,                                                                \
        .table = tepi_u8_table_32_avx2,                                                            \
        .maxpool = tepi_u8_maxpool_32_avx2,                                                        \
        .avgpool = tepi_u8_avgpool_32_avx2,                                                        \
        .quantize = tepi_f32u8_quantize_32_avx2,                                                   \
        .dequantize = tepi_u8f32_dequantize_8_avx2,                                                \
        .copy_u8 = tepi_u8_copy_32_avx2,                                                           \
        .softmax = tepi_u8_softmax_32_avx2,                                                        \
        .layernorm = tepi_u8_layernorm_32_avx2,                                                    \
        .matmul = &tepi_u8_matmul_6x16_avx2,                                                       \
        .vector = &tepi_f32_vector_8_avx2,                                                         \
        .fmatmul = &tepi_f32_matmul_6x16_avx2,                                                     \
    }

static const struct tepi_kernel_set set = SET(convolutions);
static const struct tepi_kernel_set set_vnni = SET(convolutions_vnni);

const struct tepi_kernel_set *tepi_kernels_avx2(void)
{
    return __builtin_cpu_supports("avxvnni") ? &set_vnni : &set;
}
