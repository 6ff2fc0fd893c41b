/* SPDX-License-Identifier: Apache-2.0 */
/* Tester of kernel variants: makes random operands for a shape, runs the scalar reference and the
 * variant, compares every byte. Operands lie against unreadable pages, so that a read before an
 * input, a read more than TEPI_KERNEL_SLACK past it, or a store outside the output's own bytes is
 * caught (the last by the bytes around it).
 *
 * Each check answers 0 when the variant agrees, else 1 with a reason in `why`. It is plain C with
 * flat arguments so that the C tests and the Python ones (ctypes) draw shapes for the same code. */
#ifndef TEPI_TESTS_KERNELS_VARIANTS_H
#define TEPI_TESTS_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

enum { TEPI_WHY_BYTES = 256 };

/* Kernel sets of this build that this machine can run, the emulated ones included; index 0 is the
 * scalar set. */
uint32_t tepi_sets(void);
const struct tepi_kernel_set *tepi_set(uint32_t set);
const char *tepi_set_name(uint32_t set);
/* Convolution variants of one set. */
uint32_t tepi_convolutions(uint32_t set);
const char *tepi_convolution_name(uint32_t set, uint32_t variant);

struct tepi_conv_case {
    uint32_t n, out_h, out_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint32_t groups, group_in, group_out;
    uint32_t in_padding, out_padding; /* bytes between the channels of neighbouring pixels */
    uint32_t zero_point, lo, hi, has_table;
    uint32_t row_cut; /* rows [0, cut) and [cut, end) run apart */
    uint32_t extreme; /* operands at the ends of their ranges: sums wrap, results saturate */
    uint32_t floats;  /* 1: float32 results, 2: with an addend; out_padding is then of 4 bytes */
};
/* 2: the variant does not take this shape. */
int tepi_check_conv(uint32_t set, uint32_t variant, const struct tepi_conv_case *shape,
                    uint64_t seed, char *why);

struct tepi_pool_case {
    uint32_t n, in_h, in_w, channels;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint32_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t in_padding, out_padding;
    uint32_t average, count_include_pad, row_cut;
};
int tepi_check_pool(uint32_t set, const struct tepi_pool_case *shape, uint64_t seed, char *why);

/* rows x depth by depth x columns; paddings lie between neighbouring rows. */
struct tepi_matmul_case {
    uint32_t rows, depth, columns, b_transposed;
    uint32_t a_padding, b_padding, out_padding;
    uint32_t a_zero_point, b_zero_point, lo, hi, has_table;
    uint32_t row_cut, extreme;
};
int tepi_check_matmul(uint32_t set, const struct tepi_matmul_case *shape, uint64_t seed, char *why);

/* Softmax or layer normalization of `rows` pixels of `count` channels; flat: all values alike. */
struct tepi_channels_case {
    uint32_t layernorm, rows, count, a_padding, out_padding, extreme, flat;
};
int tepi_check_channels(uint32_t set, const struct tepi_channels_case *shape, uint64_t seed,
                        char *why);

enum tepi_bytewise { TEPI_BYTEWISE_ADD, TEPI_BYTEWISE_MUL, TEPI_BYTEWISE_TABLE };
/* `count` elements; b_step as the kernel's; in_place: out is a (TABLE). */
int tepi_check_bytewise(uint32_t set, uint32_t kind, uint32_t count, uint32_t b_step,
                        uint32_t has_table, uint64_t seed, char *why);

enum tepi_planewise { TEPI_PLANE_QUANTIZE, TEPI_PLANE_DEQUANTIZE, TEPI_PLANE_COPY };
/* Element strides of rows and columns on both sides; `odd` puts operands at odd addresses. */
struct tepi_plane_case {
    uint32_t kind, rows, columns;
    uint32_t in_row, in_column, out_row, out_column;
    uint32_t flip, odd;
};
int tepi_check_plane(uint32_t set, const struct tepi_plane_case *shape, uint64_t seed, char *why);

#endif
