/* SPDX-License-Identifier: Apache-2.0 */
/* The reference kernels: plain C that every other variant equals byte for byte, and what a set of
 * another instruction set names where it has nothing better. */
#ifndef TEPI_KERNELS_SCALAR_SCALAR_H
#define TEPI_KERNELS_SCALAR_SCALAR_H

#include "kernels/kernels.h"

extern const struct tepi_conv_kernel tepi_u8s8_dwconv_1x1_scalar; /* one channel per group */
extern const struct tepi_conv_kernel tepi_u8s8_conv_1x1_scalar;   /* takes all */
extern const struct tepi_matmul_kernel tepi_u8_matmul_1x1_scalar;
extern const struct tepi_vector_kernels tepi_f32_vector_1_scalar;
extern const struct tepi_fmatmul_kernel tepi_f32_matmul_1x1_scalar;

void tepi_u8_add_scalar(const struct tepi_add *op, const uint8_t *a, const uint8_t *b,
                        size_t b_step, uint8_t *out, size_t count);
void tepi_u8_mul_scalar(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b,
                        size_t b_step, uint8_t *out, size_t count);
void tepi_u8_table_scalar(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count);
void tepi_u8_maxpool_scalar(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
void tepi_u8_avgpool_scalar(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
void tepi_f32u8_quantize_scalar(const struct tepi_plane *plane, const struct tepi_quantization *q);
void tepi_u8f32_dequantize_scalar(const struct tepi_plane *plane,
                                  const struct tepi_quantization *q);
void tepi_u8_copy_scalar(const struct tepi_plane *plane, uint8_t flip);
void tepi_u8_softmax_scalar(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out);
void tepi_u8_layernorm_scalar(const struct tepi_layernorm *op, const uint8_t *a, uint8_t *out,
                              size_t count);

#endif
