/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels: one operation, shape class and instruction set per file, chosen at run time.
 *
 * File, function, test and bench of a kernel share one name: type-operation-tile-isa, for example
 * u8s8-conv-6x64-avx512vnni.c. Every variant's result equals the scalar reference byte for byte.
 * Kernels know no program and no card: pointers, extents and byte strides only. They do not
 * allocate, do not fail and check nothing; the caller has validated.
 *
 * Over-read: a kernel may read up to TEPI_KERNEL_SLACK bytes past the last byte that an input's
 * geometry names (never before the first), and must not let those bytes reach a result. Stores
 * never touch a byte outside the output's channels. The plane kernels (quantize, dequantize,
 * copy_u8) do not over-read and assume no alignment: their planes may be the host's own memory. */
#ifndef TEPI_KERNELS_KERNELS_H
#define TEPI_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TEPI_KERNEL_SLACK 64u
#define TEPI_KERNEL_PANEL 64u /* channels, see struct tepi_conv_kernel */

/* Numbered as the card's ISA register. */
enum tepi_kernel_isa {
    TEPI_KERNEL_SCALAR = 1,
    TEPI_KERNEL_AVX2 = 2,
    TEPI_KERNEL_AVX512VNNI = 3,
    TEPI_KERNEL_AMXINT8 = 4,
};

/* What happens to a requantized byte before it is stored: clamp, then table (NULL: none). */
struct tepi_store {
    int32_t zero_point;
    uint8_t lo, hi;
    const uint8_t *table;
};

struct tepi_conv {
    /* Geometry: output pixel (n, y, x) reads at input + n * in_stride_n
     * + (y * stride_h + ky * dilation_h) * in_stride_h + (x * stride_w + kx * dilation_w) *
     * in_stride_w
     * + group * group_in + ci. `input` already points at the first tap (padding subtracted). */
    const uint8_t *input;
    uint8_t *output;
    size_t in_stride_n, in_stride_h, in_stride_w;
    size_t out_stride_n, out_stride_h, out_stride_w;
    uint32_t n, out_h, out_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint32_t groups, group_in, group_out; /* channels of one group */
    /* Constants; weights as packed by the same kernel, bias and multiplier [groups * group_out]. */
    const void *weights;
    const int32_t *bias;
    const float *multiplier;
    struct tepi_store store;
    /* float32 results, output strides being multiples of 4 bytes: (float)acc * multiplier + addend,
     * each operation rounded; addend NULL: nothing is added. `store` is then unused. */
    bool floats;
    const float *addend; /* [groups * group_out] */
    void *scratch;       /* scratch_bytes, 64-byte aligned, one per caller */
};

/* One convolution variant. Work is cut in rows: row r is (r / out_h, r % out_h), so that several
 * workers may each run a range of one convolution. Where there is but one row they may each run a
 * stretch of its pixels, with weights packed for the whole: packing and scratch_bytes depend on
 * n, out_h and out_w in no other way than that fewer pixels or channels ask for no more scratch. Or
 * each takes some of the channels of one group: from a multiple of TEPI_KERNEL_PANEL on they are
 * packed as by themselves, behind the packed_bytes of the channels before them. */
struct tepi_conv_kernel {
    const char *name;
    enum tepi_kernel_isa isa;
    bool (*takes)(const struct tepi_conv *conv); /* looks at extents and strides only */
    size_t (*packed_bytes)(const struct tepi_conv *conv);
    /* canonical: int8 [groups * group_out][kernel_h][kernel_w][group_in]; packed is 64-byte aligned
     */
    void (*pack)(const struct tepi_conv *conv, const int8_t *canonical, void *packed);
    size_t (*scratch_bytes)(const struct tepi_conv *conv);
    void (*run)(const struct tepi_conv *conv, uint32_t row_begin, uint32_t row_end);
    uint32_t rows; /* any may be run, whole multiples of these cost least; 0: no matter */
};

/* One product of activations: rows x depth by depth x columns, see abi/program.h. */
struct tepi_matmul {
    const uint8_t *a, *b;
    uint8_t *output;
    size_t a_stride, b_stride, out_stride; /* from row to row */
    uint32_t rows, depth, columns;
    bool b_transposed; /* b is columns x depth */
    int32_t a_zero_point, b_zero_point;
    float multiplier;
    struct tepi_store store;
    void *scratch; /* scratch_bytes, 64-byte aligned, one per caller */
};

/* `pack` makes of b what `run` wants, in scratch; it serves all rows, and other a with the same b
 * and zero points. */
struct tepi_matmul_kernel {
    const char *name;
    enum tepi_kernel_isa isa;
    size_t (*scratch_bytes)(const struct tepi_matmul *matmul); /* looks at extents only */
    void (*pack)(const struct tepi_matmul *matmul);
    void (*run)(const struct tepi_matmul *matmul, uint32_t row_begin, uint32_t row_end);
};

/* out[i] = add or mul of a[i], b[i * b_step] for i < count, b_step 0 or 1. See abi/program.h. */
struct tepi_add {
    float ratio_a, ratio_b, fixed;
    int32_t a_offset, b_offset, out_offset;
    struct tepi_store store; /* zero_point unused */
};
struct tepi_mul {
    float ratio, zero;
    int32_t a_zero_point, b_zero_point, out_offset;
    struct tepi_store store; /* zero_point unused */
};

/* See abi/program.h; `rows` runs of `count` bytes, the steps from run to run. */
struct tepi_softmax {
    const float *table;
    float ratio;
    int32_t zero_point;
    size_t count, rows, a_step, out_step;
};
struct tepi_layernorm {
    const float *gamma, *beta;
    float epsilon;
    int32_t zero_point;
};

struct tepi_pool {
    const uint8_t *input; /* element (0,0,0,0) of the image */
    uint8_t *output;
    size_t in_stride_n, in_stride_h, in_stride_w;
    size_t out_stride_n, out_stride_h, out_stride_w;
    uint32_t n, in_h, in_w, out_h, out_w, channels;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w, pad_top, pad_left;
    bool count_include_pad;
    float in_scale, out_scale;
    int32_t in_zero_point, out_zero_point;
};

/* A strided 2-D tile of a type conversion: element (i, j) of rows x columns. Strides in elements;
 * at least one of the two column strides is 1 in the shapes worth a fast path. */
struct tepi_plane {
    const void *input;
    void *output;
    uint32_t rows, columns;
    ptrdiff_t in_row, in_column, out_row, out_column;
};
struct tepi_quantization {
    float scale;
    int32_t zero_point;
    uint8_t lo, hi;
};

/* The vector unit's operations on float32, see abi/program.h, in the order of its codes. */
enum tepi_vector_operation {
    TEPI_F32_ADD,
    TEPI_F32_SUB,
    TEPI_F32_MUL,
    TEPI_F32_DIV,
    TEPI_F32_MAX,
    TEPI_F32_MIN,
    TEPI_F32_EQ,
    TEPI_F32_NE,
    TEPI_F32_LT,
    TEPI_F32_LE,
    TEPI_F32_SELECT,
    TEPI_F32_NEG,
    TEPI_F32_ABS,
    TEPI_F32_SQRT,
    TEPI_F32_FLOOR,
    TEPI_F32_CEIL,
    TEPI_F32_ROUND,
    TEPI_F32_EXP,
    TEPI_F32_LOG,
    TEPI_F32_ERF,
    TEPI_F32_TANH,
    TEPI_F32_SIGMOID,
    TEPI_F32_SUM, /* the last three: one value from a row */
    TEPI_F32_MAXOF,
    TEPI_F32_MINOF,
    TEPI_F32_OPERATIONS
};

/* out[i] = operation(a[i * a_step], b[i * b_step], c[i * c_step]) for i < count, count above 0,
 * steps 0 or 1; operations of one operand take a_step 1 but for the last three. `out` has room for
 * count rounded up to TEPI_VECTOR_LANES, of which what lies past count is undefined, and may be one
 * of the operands. Which NaN a NaN is, is undefined too. */
#define TEPI_VECTOR_LANES 16u
struct tepi_vector {
    const float *a, *b, *c;
    size_t a_step, b_step, c_step, count;
    float *out;
};
typedef void tepi_vector_call(const struct tepi_vector *vector);

struct tepi_vector_kernels {
    tepi_vector_call *operations[TEPI_F32_OPERATIONS];
    /* out[i] = a[i * a_step], exactly `count` of them, every NaN as 0x7fc00000. */
    void (*store)(const float *a, size_t a_step, float *out, size_t count);
    /* lowest[0] and highest[0] of themselves and a[0..count-1], NaNs passed over. */
    void (*range)(const float *a, size_t count, float *lowest, float *highest);
};

/* One float32 product: rows x depth by depth x columns; each result is a sum over depth in order,
 * acc = fma(a, b, acc) from 0 on, times scale; every NaN is 0x7fc00000. */
struct tepi_fmatmul {
    const float *a, *b;
    float *output;
    size_t a_stride, b_stride, out_stride; /* from row to row, in elements */
    uint32_t rows, depth, columns;
    bool b_transposed; /* b is columns x depth */
    float scale;
    void *scratch; /* scratch_bytes, 64-byte aligned, one per caller */
};

/* `pack` makes of b what `run` wants, in scratch; it serves all rows, and other a with the same b.
 */
struct tepi_fmatmul_kernel {
    const char *name;
    enum tepi_kernel_isa isa;
    size_t (*scratch_bytes)(const struct tepi_fmatmul *fmatmul); /* looks at extents only */
    void (*pack)(const struct tepi_fmatmul *fmatmul);
    void (*run)(const struct tepi_fmatmul *fmatmul, uint32_t row_begin, uint32_t row_end);
};

/* Everything an instruction set offers. Entries are never NULL; a set falls back on a lower one. */
struct tepi_kernel_set {
    enum tepi_kernel_isa isa;
    const struct tepi_conv_kernel *const
        *convolutions; /* best first, ends with NULL, last takes all */
    void (*add)(const struct tepi_add *op, const uint8_t *a, const uint8_t *b, size_t b_step,
                uint8_t *out, size_t count);
    void (*mul)(const struct tepi_mul *op, const uint8_t *a, const uint8_t *b, size_t b_step,
                uint8_t *out, size_t count);
    void (*table)(const uint8_t *table, const uint8_t *a, uint8_t *out, size_t count);
    void (*maxpool)(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
    void (*avgpool)(const struct tepi_pool *pool, uint32_t row_begin, uint32_t row_end);
    void (*quantize)(const struct tepi_plane *plane, const struct tepi_quantization *q);
    void (*dequantize)(const struct tepi_plane *plane, const struct tepi_quantization *q);
    void (*copy_u8)(const struct tepi_plane *plane, uint8_t flip); /* out = in ^ flip */
    void (*softmax)(const struct tepi_softmax *op, const uint8_t *a, uint8_t *out);
    void (*layernorm)(const struct tepi_layernorm *op, const uint8_t *a, uint8_t *out,
                      size_t count);
    const struct tepi_matmul_kernel *matmul;
    const struct tepi_vector_kernels *vector;
    const struct tepi_fmatmul_kernel *fmatmul;
};

/* The best instruction set of this machine (CPUID, and the kernel's permission for AMX tiles, which
 * is asked for once per process), and the set for one, or NULL where this machine lacks it. */
enum tepi_kernel_isa tepi_kernels_best(void);
const struct tepi_kernel_set *tepi_kernels_for(enum tepi_kernel_isa isa);

#endif
