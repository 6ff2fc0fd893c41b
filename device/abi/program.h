/* SPDX-License-Identifier: Apache-2.0 */
/* Card program: header, tensor table, instructions, constants; little-endian, position-free.
 *
 * Data model. Activations on the card are uint8; an int8 tensor of the model is held with 128 added
 * to its values and its zero point, which changes no result. A tensor is an NHWC image with byte
 * strides; a matrix of M rows is n=1, h=1, w=M; a vector is w=1. Around each image a tensor may own
 * a halo, which holds the zero point when FILL has written it, so that convolutions need no case
 * for padding. Channels may be padded: bytes between c and stride_w are undefined. INPUT and OUTPUT
 * tensors are the host's own flat arrays (n=h=w=1, c=elements); MAP moves data across.
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

/* Limits of time. Work is counted as multiply-accumulates of CONV and MATMUL, taps times output
 * elements of a pool, and elements touched (halo with them for FILL) of all else. A program of more
 * than WORK_MAX for one item is refused, and so is one instruction other than CONV and MATMUL of
 * more than STEPS_MAX (those two look at abort and deadline within, the others only before they
 * begin). */
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
    TEPI_TYPE_I8 = 1,  /* INPUT and OUTPUT only: MAP flips the top bit */
    TEPI_TYPE_F32 = 2, /* INPUT and OUTPUT only */
};

enum tepi_place {
    TEPI_PLACE_ARENA = 0,
    TEPI_PLACE_INPUT = 1,
    TEPI_PLACE_OUTPUT = 2,
    TEPI_PLACE_CONSTANT = 3, /* U8 in the constant section, read-only */
};

struct tepi_tensor {
    uint8_t type;  /* enum tepi_type */
    uint8_t place; /* enum tepi_place */
    uint16_t port; /* of INPUT (0..inputs-1) and OUTPUT (0..outputs-1), else 0 */
    uint32_t n, h, w, c;
    uint32_t stride_n, stride_h, stride_w; /* bytes; stride_w >= c, stride_h >= w * stride_w, … */
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
};

/* Convolution. Output pixel (y, x) reads input pixel (y * stride_h + ky * dilation_h - pad_top, …);
 * every read must lie in the input's image and halo. Channels in group g of the output read the
 * channels of group g of the input. out = table[clamp(requantize(bias[o] + sum, m[o], zp), lo,
 * hi)], the sum over ky, kx, ci of (uint8)input * (int8)weight; the compiler folds the input's zero
 * point into the bias. Constants: weights int8 [out.c][kernel_h][kernel_w][in.c / groups], bias
 * int32 [out.c], multiplier float32 [out.c]. bias + sum must not leave int32 (the compiler's duty;
 * it wraps modulo 2^32 on the card). */
struct tepi_conv_params {
    uint16_t kernel_h, kernel_w, stride_h, stride_w, dilation_h, dilation_w;
    uint16_t pad_top, pad_left;
    uint32_t groups;
    uint32_t weights, bias, multiplier; /* constant offsets */
    uint32_t table;                     /* uint8[256] or TEPI_NONE */
    uint8_t lo, hi;                     /* clamp of the stored result, 0 and 255: none */
    uint8_t reserved[2];
};

/* out = saturate(round_half_even(fma(a', ratio_a, fma(b', ratio_b, fixed)))) + out_offset, where
 * a' = (float)(a - a_offset), b' likewise, fma in float32 with one rounding, and the saturation is
 * to [0 - out_offset, 255 - out_offset]: onnxruntime's QLinearAdd on x86-64, int8 by offset 128.
 * out and a have one extent; b's n, h, w, c are each out's or 1. Then table and clamp as CONV. */
struct tepi_add_params {
    float ratio_a, ratio_b, fixed;
    int32_t a_offset, b_offset, out_offset;
    uint32_t table;
    uint8_t lo, hi;
    uint8_t reserved[2];
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
    uint32_t value; /* 0..255 */
};

/* For every index i of dims: out[out_start + i . out_stride] = convert(a[start + i . stride]),
 * where strides and starts count elements from element (0,0,0,0) of the tensor's place, ignoring
 * its own strides. U8 -> U8: copy, or table. F32 -> U8: quantize by out's scale and zero point:
 * clamp(round_half_even(x / scale)) as ONNX QuantizeLinear, NaN gives the lowest value. U8 -> F32:
 * (float)(q - zero_point) * scale. I8 <-> U8: flip the top bit. F32 -> F32, I8 -> I8: copy. Other
 * pairs, and a table with other types than U8, are refused. Quantization saturates at [lo, hi], and
 * the scale in use (out's, or a's for U8 -> F32) is above 0. Every element named lies in the
 * tensor's own bytes, halo included. dims and strides from rank on are 0. */
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

struct tepi_instruction {
    uint8_t code;  /* enum tepi_instruction_code */
    uint8_t flags; /* must be 0 */
    uint16_t a;    /* tensor index; TEPI_NO_TENSOR: none (FILL) */
    uint16_t b;    /* tensor index; TEPI_NO_TENSOR: none (all but ADD, MUL, MATMUL) */
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
        uint8_t bytes[112]; /* unused ones must be 0 */
    };
};

_Static_assert(sizeof(struct tepi_program_header) == 128, "the header is 128 bytes");
_Static_assert(sizeof(struct tepi_tensor) == 56, "a tensor entry is 56 bytes");
_Static_assert(sizeof(struct tepi_instruction) == 128, "an instruction is 128 bytes");

#endif
