/* SPDX-License-Identifier: Apache-2.0 */
/* What the AVX512-VNNI set is made of; the AMX set builds on the same functions. */
#ifndef TEPI_KERNELS_AVX512VNNI_AVX512VNNI_H
#define TEPI_KERNELS_AVX512VNNI_AVX512VNNI_H

#include "kernels/kernels.h"

extern const struct tepi_conv_kernel tepi_u8s8_dwconv3x3_1x64_avx512vnni; /* stride_w 1 or 2 */
extern const struct tepi_conv_kernel tepi_u8s8_dwconv_1x64_avx512vnni; /* one channel per group */
/* 3 wide, stride_w 1, up to 16 channels out, rows of at least 16 pixels */
extern const struct tepi_conv_kernel tepi_u8s8_conv3w_16x16_avx512vnni;
extern const struct tepi_conv_kernel tepi_u8s8_conv_6x64_avx512vnni; /* takes all but floats */
extern const struct tepi_matmul_kernel tepi_u8_matmul_6x64_avx512vnni;

void tepi_u8_table_64_avx512vnni(const uint8_t *table, const uint8_t *a, uint8_t *out,
                                 size_t count);
void tepi_u8_add_64_avx512vnni(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                               size_t b_step, uint8_t *out, size_t count);
void tepi_u8_mul_64_avx512vnni(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                               size_t b_step, uint8_t *out, size_t count);
void tepi_u8_maxpool_64_avx512vnni(const struct tepi_pool *pool, uint32_t row_begin,
                                   uint32_t row_end);
void tepi_u8_avgpool_64_avx512vnni(const struct tepi_pool *pool, uint32_t row_begin,
                                   uint32_t row_end);
void tepi_f32u8_quantize_64_avx512vnni(const struct tepi_plane *plane,
                                       const struct tepi_quantization *q);
void tepi_u8f32_dequantize_64_avx512vnni(const struct tepi_plane *plane,
                                         const struct tepi_quantization *q);
void tepi_u8_copy_64_avx512vnni(const struct tepi_plane *plane, uint8_t flip);
void tepi_u8_softmax_64_avx512vnni(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out);
void tepi_u8_layernorm_64_avx512vnni(const struct tepi_layernorm *op, const uint8_t *a,
                                     uint8_t *out, size_t count);
/* Runs the output row through the store's table, if it has one. */
void tepi_store_table(const struct tepi_conv *conv, uint8_t *row);

#endif
