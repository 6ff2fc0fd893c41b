/* SPDX-License-Identifier: Apache-2.0 */
/* What the AVX2 set is made of. Two of its convolutions need AVX-VNNI too (CPUID leaf 7 subleaf 1
 * EAX bit 4); the set holds them where the machine has that. */
#ifndef TEPI_KERNELS_AVX2_AVX2_H
#define TEPI_KERNELS_AVX2_AVX2_H

#include "kernels/kernels.h"

extern const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x16_avx2;    /* stride_w 1 or 2 */
extern const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x32_avxvnni; /* likewise */
extern const struct tepi_conv_kernel tepi_u8s8_dwconv_1x16_avx2;       /* one channel per group */
extern const struct tepi_conv_kernel tepi_u8s8_wino3x3_4x4_avx2;       /* dense, stride 1 */
extern const struct tepi_conv_kernel tepi_u8s8_conv_6x16_avx2;         /* takes all */
extern const struct tepi_conv_kernel tepi_u8s8_conv_6x16_avxvnni;      /* takes all */
extern const struct tepi_matmul_kernel tepi_u8_matmul_6x16_avx2;

extern const struct tepi_vector_kernels tepi_f32_vector_8_avx2;
extern const struct tepi_fmatmul_kernel tepi_f32_matmul_6x16_avx2;

void tepi_u8_table_32_avx2(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count);
void tepi_u8_add_32_avx2(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                         size_t b_step, uint8_t *out, size_t count);
void tepi_u8_mul_32_avx2(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                         size_t b_step, uint8_t *out, size_t count);
void tepi_u8_maxpool_32_avx2(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
void tepi_u8_avgpool_32_avx2(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
void tepi_f32u8_quantize_32_avx2(const struct tepi_plane *plane, const struct tepi_quantization *q);
void tepi_u8f32_dequantize_8_avx2(const struct tepi_plane *plane,
                                  const struct tepi_quantization *q);
void tepi_u8_copy_32_avx2(const struct tepi_plane *plane, uint8_t flip);
void tepi_u8_softmax_32_avx2(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out);
void tepi_u8_layernorm_32_avx2(const struct tepi_layernorm *op, const uint8_t *a, uint8_t *out,
                               size_t count);

#endif
