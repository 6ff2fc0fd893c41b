/* SPDX-License-Identifier: Apache-2.0 */
/* Card program: header, tensor table, instructions, constants; little-endian, position-free.
 *
 * Data model. Activations on the card are uint8; an int8 tensor of the model is held with 128 added
 * to its values and its zero point, which changes no result. A tensor is an NHWC image with byte
 * strides; a matrix of M rows is n=1, h=1, w=M; a vector is w=1. Around each image a tensor may own
 * a halo, which holds the zero point when FILL has written it, so that convolutions need no case
 * for padding. Channels may be padded: bytes between c and stride_w are undefined. INPUT and OUTPUT
 * tensors are the host's own flat arrays (n=h=w=1, c=elements); MAP moves data across. Between
 * integer instructions float32 tensors may stand in the arena, for the vector unit: their offset
 * and strides are multiples of 4, a pixel takes 4 * c bytes, and they have no halo. Truth values
 * are held there as 1 and 0.
 *
 * Numerics. accumulators are int32; `requantize(acc, m, zp)` is
 *     f = (float)acc * m;  f = clamp(f, 0 - zp, 255 - zp);  result = round_half_even(f) + zp
 * in IEEE float32 without contraction, as ONNX QLinearConv with onnxruntime's order of operations.
 *
 * All sections are 64-byte aligned. Offsets in the header count from its first byte, constant
 * offsets from the first byte of the constant section. TEPI_NONE marks an absent one.
 *
 * Sections lie inside the image and do not overlap. Every float of an instruction or tensor, and
 * every float constant, is finite; a zero point or offset that is subtracted from or added to a
 * stored value is 0..255. int32 and float32 constants are 4-byte aligned. What an instruction does
 * not use is 0 (tensor indices: TEPI_NO_TENSOR). Anything else is refused at load. */
#ifndef TEPI_ABI_PROGRAM_H
#define TEPI_ABI_PROGRAM_H

#include <stdint.h>

#define TEPI_PROGRAM_MAGIC    0x47525054u /* "TPRG" */
#define TEPI_NONE             0xffffffffu
#define TEPI_TENSORS_MAX      65535u
#define TEPI_INSTRUCTIONS_MAX 65535u
#define TEPI_PORTS_MAX        256u
#define TEPI_DIM_MAX          (1u << 24) /* of any n, h, w, c */
#define TEPI_HALO_MAX         1024u      /* pixels */
#define TEPI_KERNEL_MAX       1024u      /* kernel height, width, stride, dilation */
#define TEPI_ARENA_MAX        (1ull << 32)
#define TEPI_NO_TENSOR        0xffffu

/* Limits of time. Work is counted as multiply-accumulates of CONV and products, taps times output
 * elements of a pool, elements of all rows times steps of VECTOR, and elements touched (halo with
 * them for FILL) of all else. A program of more than WORK_MAX for one item is refused, and so is
 * one instruction other than CONV, MATMUL and FMATMUL of more than STEPS_MAX (those three and
 * VECTOR look at abort and deadline within, the others only before they begin). */
#define TEPI_WORK_MAX  (1ull << 40)
#define TEPI_STEPS_MAX (1ull << 32)

struct tepi_program_header {
    uint32_t magic;
    uint16_t abi;          /* TEPI_ABI_VERSION it was compiled for */
    uint16_t header_bytes; /* sizeof this struct */
    uint64_t total_bytes;  /* of the whole image */
    uint32_t crc32;        /* CRC-32 (ISO-HDLC, as zlib) of the image with this field 0 */
    uint32_t flags;        /* must be 0 */
    uint32_t tensors;
    uint32_t instructions;
    uint64_t tensors_offset;
    uint64_t instructions_offset;
    uint64_t constants_offset;
    uint64_t constants_bytes;
    uint64_t arena_bytes; /* scratch of one item in flight, all ARENA tensors with halos inside */
    uint64_t macs;        /* multiply-accumulates of one item, for scheduling */
    uint16_t inputs;      /* ports 0..inputs-1; each has exactly one INPUT tensor */
    uint16_t outputs;
    uint32_t reserved[11]; /* must be 0 */
};

enum tepi_type {
    TEPI_TYPE_U8 = 0,
    TEPI_TYPE_I8 = 1, /* INPUT and OUTPUT only: MAP flips the top bit */
    TEPI_TYPE_F32 = 2,
    TEPI_TYPE_I64 = 3,  /* INPUT only: MAP makes float32 of it, GATHER reads it */
    TEPI_TYPE_I32 = 4,  /* INPUT only, likewise */
    TEPI_TYPE_BOOL = 5, /* INPUT only: a byte, MAP makes 0 or 1 of it */
};

/* Bytes of an element. */
#define TEPI_TYPE_BYTES(type)                                                                      \
    ((type) == TEPI_TYPE_I64 ? 8u : (type) == TEPI_TYPE_F32 || (type) == TEPI_TYPE_I32 ? 4u : 1u)

enum tepi_place {
    TEPI_PLACE_ARENA = 0,
    TEPI_PLACE_INPUT = 1,
    TEPI_PLACE_OUTPUT = 2,
    TEPI_PLACE_CONSTANT = 3, /* U8 or F32 in the constant section, read-only */
};

struct tepi_tensor {
    uint8_t type;  /* enum tepi_type */
    uint8_t place; /* enum tepi_place */
    uint16_t port; /* of INPUT (0..inputs-1) and OUTPUT (0..outputs-1), else 0 */
    uint32_t n, h, w, c;
    /* bytes; stride_w >= c * bytes of an element, stride_h >= w * stride_w, … */
    uint32_t stride_n, stride_h, stride_w;
    uint16_t halo_top, halo_left, halo_bottom, halo_right; /* pixels, inside the strides */
    uint64_t offset;    /* bytes from the start of the place to element (0,0,0,0) */
    float scale;        /* real = scale * (stored - zero_point); 0 where it has no meaning */
    int32_t zero_point; /* of the stored uint8 */
};

enum tepi_instruction_code {
    TEPI_OP_FILL = 1,       /* out: write `value` to the halo, or to halo and images */
    TEPI_OP_MAP = 2,        /* strided copy with type conversion and optional table */
    TEPI_OP_CONV = 3,       /* dense, grouped or depthwise convolution; 1x1 is MatMul and Gemm */
    TEPI_OP_ADD = 4,        /* a, b -> out with broadcast */
    TEPI_OP_MUL = 5,        /* a, b -> out with broadcast */
    TEPI_OP_TABLE = 6,      /* out = table[a], same extent */
    TEPI_OP_MAXPOOL = 7,    /* largest of a window */
    TEPI_OP_AVGPOOL = 8,    /* requantized mean of a window; global where the window is the image */
    TEPI_OP_RESIZE = 9,     /* nearest: out[y][x] = a[rows[y]][columns[x]] */
    TEPI_OP_SOFTMAX = 10,   /* along c */
    TEPI_OP_MATMUL = 11,    /* a x b, both activations, for each n and h */
    TEPI_OP_LAYERNORM = 12, /* along c */
    TEPI_OP_VECTOR = 13,    /* a short program of float32 operations on rows */
    TEPI_OP_FMATMUL = 14,   /* a x b in float32, for each n and h */
    TEPI_OP_GATHER = 15,    /* rows of a, chosen by the indices in b */
    TEPI_OP_RANGE = 16,     /* a's scale and zero point, as ONNX DynamicQuantizeLinear */
};

/* A quantization that is known only as the program runs: an F32 tensor of n=h=w=1, c=2 in the arena
 * that holds a scale and a zero point, an integer 0..255, as RANGE writes them. Where FILL, MAP or
 * CONV has such a tensor as b, it stands in for the scale and zero point of the tensor that the
 * instruction quantizes, fills or convolves. A scale that is not above 0 and finite counts as 1, a
 * zero point outside 0..255 or NaN as 0; its fraction is dropped. */

/* out = saturate(round_half_even(fma(a', ratio_a, fma(b', ratio_b, fixed)))) + out_offset, where
 * a' = (float)(a - a_offset), b' likewise, fma in float32 with one rounding, and the saturation is
 * to [0 - out_offset, 255 - out_offset]: onnxruntime's QLinearAdd on x86-64, int8 by offset 128.
 * out and a have one extent; b's n, h, w, c are each out's or 1. Then out = table[clamp(out, lo,
 * hi)]. */
struct tepi_add_params {
    float ratio_a, ratio_b, fixed;
    int32_t a_offset, b_offset, out_offset;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[2];
};

/* Convolution. Output pixel (y, x) reads input pixel (y * stride_h + ky * dilation_h - pad_top, …);
 * every read must lie in the input's image and halo. Channels in group g of the output read the
 * channels of group g of the input. out = table[clamp(requantize(bias[o] + sum, m[o], zp), lo,
 * hi)], the sum over ky, kx, ci of (uint8)input * (int8)weight; the compiler folds the input's zero
 * point into the bias. Constants: weights int8 [out.c][kernel_h][kernel_w][in.c / groups], bias
 * int32 [out.c], multiplier float32 [out.c]. bias + sum must not leave int32 (the compiler's duty;
 * it wraps modulo 2^32 on the card).
 *
 * Where out is F32 it is (float)(bias[o] + sum) * m[o] + addend[o], each operation rounded, an
 * absent addend adding nothing; table is absent, lo and hi are 0 and 255. Where b is a quantization
 * (see above) its zero point is that of the input, which is not folded into bias (TEPI_NONE:
 * zeros): the card subtracts zero_point * (sum of the channel's weights) from bias[o] modulo 2^32
 * and uses scale * m[o], rounded, for m[o]; out is F32.
 *
 * Where b is a U8 image of out's extent it is a residual: what the convolution gives, table
 * applied, is ADD's a and b its b, or the other way round with residual_first, and `residual` makes
 * out of them. Bytes that b has in common with out are not defined then. Without b, both are 0. */
struct tepi_conv_params {
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
    uint32_t groups;
    uint32_t weights, bias, multiplier; /* constant offsets */
    uint32_t table;                     /* uint8[256] or TEPI_NONE */
    uint8_t lo, hi;                     /* clamp of the stored result, 0 and 255: none */
    uint8_t residual_first;
    uint8_t reserved;
    uint32_t addend; /* F32 out: constant offset, float32[out.c], or TEPI_NONE; else 0 */
    struct tepi_add_params residual;
};

/* out = saturate(round_half_even((float)((a - zp_a) * (b - zp_b)) * ratio + zero)) + out_offset,
 * product and sum each rounded to float32. Extents, saturation, table and clamp as ADD. */
struct tepi_mul_params {
    float ratio, zero;
    int32_t a_zero_point, b_zero_point, out_offset;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[2];
};

struct tepi_fill_params {
    uint32_t whole; /* 0: the halo only; 1: halo, images and channel padding */
    uint32_t value; /* 0..255; 0 where b gives it, as a zero point */
};

/* For every index i of dims: out[out_start + i . out_stride] = convert(a[start + i . stride]),
 * where strides and starts count elements from element (0,0,0,0) of the tensor's place, ignoring
 * its own strides. U8 -> U8: copy, or table. F32 -> U8: quantize by out's scale and zero point:
 * clamp(round_half_even(x / scale)) as ONNX QuantizeLinear, NaN gives the lowest value. U8 -> F32:
 * (float)(q - zero_point) * scale. I8 <-> U8: flip the top bit. F32 -> F32, I8 -> I8: copy. I64,
 * I32 -> F32: the nearest float32; BOOL -> F32: 1 for any byte but 0. Other pairs, and a table with
 * other types than U8, are refused. Quantization saturates at [lo, hi], and the scale in use
 * (out's, or a's for U8 -> F32) is above 0; F32 -> U8 takes it from b where there is one. Every
 * element named lies in the tensor's own bytes, halo included. dims and strides from rank on are 0.
 */
struct tepi_map_params {
    uint32_t rank; /* 1..6 */
    uint32_t dims[6];
    int32_t stride[6];
    int32_t out_stride[6];
    uint32_t start, out_start;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[2];
};

struct tepi_table_params {
    uint32_t table;
};

/* Windows as CONV, but clipped to the image, never reading the halo. Pads are at most
 * TEPI_HALO_MAX and every window holds at least one pixel of the image. */
struct tepi_pool_params {
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left, pad_bottom, pad_right;
    uint32_t count_include_pad; /* AVGPOOL: the divisor counts padding pixels */
    /* AVGPOOL: requantize(sum - pixels * a_zero_point, in_scale / (out_scale * divisor), zp_out)
     * over the pixels of the window that lie in the image; divisor is their number, or
     * kernel_h * kernel_w with count_include_pad, as float32. For MAXPOOL both are 0. */
    float in_scale, out_scale;
};

struct tepi_resize_params {
    uint32_t rows;    /* constant offset, uint32[out.h] < a.h */
    uint32_t columns; /* uint32[out.w] < a.w */
};

/* Per pixel: t = table[255 - max(a) + a[c]] (float32 [256]), sum in order of c;
 * out = min(255, (uint32)round_half_even(t * ratio / sum) + zp_out): onnxruntime's QLinearSoftmax.
 * t * ratio / sum saturates at [0, 255] before it is rounded. */
struct tepi_softmax_params {
    uint32_t table; /* constant offset, float32[256] */
    float ratio;
};

/* For each n and h one product of a [w rows of c] and b [a.c rows of out.c], or with b_transposed b
 * [out.c rows of a.c]: out = table[clamp(requantize(acc, multiplier, zp_out), lo, hi)], acc the sum
 * of (a - zp_a) * (b - zp_b) over a's c, with the zero points of the three tensors. a's and b's n
 * and h are each out's or 1, and there are fewer than 2^32 products. A tensor that is split holds
 * its heads side by side: its h is 1, its c a multiple of `heads`, and it counts as an image of h =
 * heads and c / heads channels whose head i begins i * (c / heads) bytes into each pixel. acc must
 * not leave int32 (the compiler's duty; it wraps modulo 2^32 on the card). */
struct tepi_matmul_params {
    float multiplier;
    uint32_t heads;                      /* 1..TEPI_DIM_MAX; 0 where no tensor is split */
    uint8_t a_split, b_split, out_split; /* 0 or 1 */
    uint8_t b_transposed;                /* 0 or 1 */
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[2];
};

/* Per pixel, with integer sums over c that are exact, so that their order is free:
 *     mean = sum(a) / c;  variance = max(0, sum(a * a) / c - mean * mean);
 *     factor = 1 / sqrt(variance + epsilon)
 * in float64, each operation rounded; then in float32
 *     out = saturate(round_half_even(fma(((float)a - (float)mean) * (float)factor, gamma[c],
 *     beta[c]))) + zp_out, saturated to [0 - zp_out, 255 - zp_out].
 * ONNX LayerNormalization where epsilon is the model's over the square of the input's scale, gamma
 * and beta the model's over the output's scale. */
struct tepi_layernorm_params {
    float epsilon;        /* above 0 */
    uint32_t gamma, beta; /* constant offsets, float32[c] */
};

/* The vector unit. For each n, h and w of out, the row of c elements of every operand goes through
 * `steps` operations on registers that hold a row, or one value where all that went into them is
 * one value. Operands' n, h and w are each out's or 1, their c is `row` or 1, and they lie in the
 * arena; sources may be constants. U8 sources are dequantized and U8 targets quantized, by their
 * tensor's scale (above 0) and zero point, as MAP does. Targets are `out` (number 0) and `more`
 * (1..); they have out's n, h and w. Where two operands share bytes without being one tensor, what
 * is read there is undefined.
 *
 * Each register is written before it is read, in the order of the operations; each target is stored
 * once; an operation on a row and a single value takes the value for each element. A value that is
 * stored to a row target becomes the row; a row is not stored to a target of c = 1, and a reduction
 * of a single value counts it as a row of it. What is loaded from a tensor that is a target too is
 * as it stands at the LOAD. */
#define TEPI_VECTOR_SOURCES   12u
#define TEPI_VECTOR_TARGETS   4u
#define TEPI_VECTOR_REGISTERS 16u
#define TEPI_VECTOR_STEPS_MAX 64u
#define TEPI_VECTOR_ROW_MAX   (1u << 18) /* elements of a row that must stay whole */

/* A row stays whole where an operation reduces it, or a target of c = 1 is a source too.
 *
 * In IEEE float32, each rounded to nearest even, without contraction. A NaN among MAX's or MIN's
 * operands is the result, b where they are equal; comparisons with NaN are false but for NE. EXP,
 * LOG, ERF, TANH and SIGMOID are the fixed sequences of operations in kernels/functions.h, the same
 * on every instruction set. SUM adds 16 sums, each of every 16th element in order from 0, in a
 * fixed tree: lane i + 8, then + 4, + 2, + 1. MAXOF and MINOF do not depend on order: a NaN is the
 * result, and a zero is +0. Every NaN that VECTOR or FMATMUL stores as float32 is 0x7fc00000. */
enum tepi_vector_code {
    TEPI_VECTOR_LOAD = 1,     /* out = source number a */
    TEPI_VECTOR_STORE = 2,    /* target number out = a */
    TEPI_VECTOR_VALUE = 3,    /* out = value, not NaN */
    TEPI_VECTOR_ADD = 4,      /* a + b */
    TEPI_VECTOR_SUB = 5,      /* a - b */
    TEPI_VECTOR_MUL = 6,      /* a * b */
    TEPI_VECTOR_DIV = 7,      /* a / b */
    TEPI_VECTOR_MAX = 8,      /* the larger of a and b */
    TEPI_VECTOR_MIN = 9,      /* the smaller */
    TEPI_VECTOR_EQ = 10,      /* 1 where a == b, else 0 */
    TEPI_VECTOR_NE = 11,      /* a != b */
    TEPI_VECTOR_LT = 12,      /* a < b */
    TEPI_VECTOR_LE = 13,      /* a <= b */
    TEPI_VECTOR_SELECT = 14,  /* b where a is not 0, else c */
    TEPI_VECTOR_NEG = 15,     /* -a */
    TEPI_VECTOR_ABS = 16,     /* |a| */
    TEPI_VECTOR_SQRT = 17,    /* root of a */
    TEPI_VECTOR_FLOOR = 18,   /* largest integer not above a */
    TEPI_VECTOR_CEIL = 19,    /* smallest integer not below a */
    TEPI_VECTOR_ROUND = 20,   /* nearest integer, halves to even */
    TEPI_VECTOR_EXP = 21,     /* e^a */
    TEPI_VECTOR_LOG = 22,     /* natural logarithm of a */
    TEPI_VECTOR_ERF = 23,     /* error function of a */
    TEPI_VECTOR_TANH = 24,    /* hyperbolic tangent of a */
    TEPI_VECTOR_SIGMOID = 25, /* 1 / (1 + e^-a) */
    TEPI_VECTOR_SUM = 26,     /* sum of the row a: one value */
    TEPI_VECTOR_MAXOF = 27,   /* largest of the row a: one value */
    TEPI_VECTOR_MINOF = 28,   /* smallest of the row a: one value */
};

struct tepi_vector_step {
    uint8_t code;    /* enum tepi_vector_code */
    uint8_t out;     /* register 0..REGISTERS-1, or target of STORE */
    uint8_t a, b, c; /* registers, or source of LOAD; 0 where unused */
    uint8_t reserved[3];
    float value; /* of VALUE, else 0 */
};

/* Rows of the operands through a program of steps. */
struct tepi_vector_params {
    uint32_t row;   /* elements of a row, 1..TEPI_DIM_MAX */
    uint32_t code;  /* constant offset, struct tepi_vector_step[steps], 4-byte aligned */
    uint32_t steps; /* 1..TEPI_VECTOR_STEPS_MAX */
    uint32_t reserved;
    uint16_t sources[TEPI_VECTOR_SOURCES];  /* tensor indices; TEPI_NO_TENSOR from the last on */
    uint16_t more[TEPI_VECTOR_TARGETS - 1]; /* likewise */
    uint16_t reserved2;
};

/* As MATMUL for F32 tensors: out = (the sum over a's c, in order with acc = fma(a, b, acc) from 0
 * on) * scale, rounded. */
struct tepi_fmatmul_params {
    float scale;
    uint32_t heads;
    uint8_t a_split, b_split, out_split;
    uint8_t b_transposed;
};

/* out's pixel w is a's pixel w = index[w]: a is [w rows of c] (n=h=1) in the arena or a constant, b
 * an INPUT of I64 or I32 with as many elements as out has pixels (n=h=1); a negative index counts
 * from the end. Types of a and out are alike, or a is U8 and out F32: dequantized as MAP does. An
 * index outside a faults INDEX as the program runs. */
struct tepi_gather_params {
    uint32_t reserved;
};

/* out (F32, n=h=w=1, c=2) = scale and zero point of the F32 tensor a: lowest = min(a, 0), highest =
 * max(a, 0); scale = (highest - lowest) / 255, or 1 where they are equal; zero point =
 * round_half_even((0 - lowest) / scale) saturated to 0..255, 0 where that is NaN. NaNs in a are
 * passed over. */
struct tepi_range_params {
    uint32_t reserved;
};

struct tepi_instruction {
    uint8_t code;  /* enum tepi_instruction_code */
    uint8_t flags; /* must be 0 */
    uint16_t a;    /* tensor index; TEPI_NO_TENSOR: none (FILL) */
    uint16_t b;    /* tensor index; TEPI_NO_TENSOR: none */
    uint16_t out;
    uint32_t node;     /* of the model's nodes the one it came from, for reports; TEPI_NONE */
    uint32_t reserved; /* must be 0 */
    union {
        struct tepi_fill_params fill;
        struct tepi_map_params map;
        struct tepi_conv_params conv;
        struct tepi_add_params add;
        struct tepi_mul_params mul;
        struct tepi_table_params table;
        struct tepi_pool_params pool;
        struct tepi_resize_params resize;
        struct tepi_softmax_params softmax;
        struct tepi_matmul_params matmul;
        struct tepi_layernorm_params layernorm;
        struct tepi_vector_params vector;
        struct tepi_fmatmul_params fmatmul;
        struct tepi_gather_params gather;
        struct tepi_range_params range;
        uint8_t bytes[112]; /* unused ones must be 0 */
    };
};

_Static_assert(sizeof(struct tepi_program_header) == 128, "the header is 128 bytes");
_Static_assert(sizeof(struct tepi_tensor) == 56, "a tensor entry is 56 bytes");
_Static_assert(sizeof(struct tepi_vector_step) == 12, "a vector step is 12 bytes");
_Static_assert(sizeof(struct tepi_instruction) == 128, "an instruction is 128 bytes");

#endif
