/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions made ready to run: one step per instruction, everything that does not change from
 * run to run worked out at load.
 *
 * Each operation is a row of one table: check (the validator), prepare (counts the bytes it keeps,
 * then keeps them), and the step's run. */
#ifndef TEPI_CARD_EXEC_H
#define TEPI_CARD_EXEC_H

#include "card/program_image.h"

struct tepi_step;

/* One run's addresses. Bases: the arena, the program's block, then each port. */
enum { TEPI_BASE_ARENA = 0, TEPI_BASE_BLOCK = 1, TEPI_BASE_PORTS = 2 };
struct tepi_run {
    const struct tepi_kernel_set *kernels;
    const struct tepi_run_control *control;
    void *scratch; /* of the convolution kernels, for this thread */
    uint64_t scratch_bytes;
    uint8_t *bases[TEPI_BASE_PORTS + TEPI_PORTS_MAX];
};

/* Where a tensor's element (0,0,0,0) lies. */
struct tepi_site {
    uint32_t base;
    uint64_t offset;
};
static inline uint8_t *tepi_at(const struct tepi_run *run, const struct tepi_site *site)
{
    return run->bases[site->base] + site->offset;
}

/* TEPI_FAULT_OK, or why the run must stop now. */
uint16_t tepi_run_interrupted(const struct tepi_run_control *control);

/* `value` into each byte of a box of images x rows x (pixels * stride_w); rows are written as one
 * when channels fill the pixel stride. */
struct tepi_fill_step {
    struct tepi_site site;
    struct tepi_site quantization; /* where `dynamic` */
    struct tepi_tensor tensor;
    uint8_t value;
    bool whole, dynamic;
};

/* Strided copy: `depth` outer loops around one plane. Steps in elements of each side. */
enum { TEPI_MAP_RANK = 6 };
struct tepi_map_step {
    struct tepi_site in, out;
    uint32_t in_bytes, out_bytes; /* of one element */
    uint32_t depth;
    uint32_t extent[TEPI_MAP_RANK];
    int64_t in_step[TEPI_MAP_RANK], out_step[TEPI_MAP_RANK];
    struct tepi_plane plane;
    struct tepi_quantization quantization;
    struct tepi_site dynamic; /* of the quantization, where is_dynamic */
    bool is_dynamic;
    uint8_t in_type, flip;
    const uint8_t *table;
    void (*copy)(const struct tepi_map_step *step, const struct tepi_run *run,
                 const struct tepi_plane *plane);
};

/* ADD to what a convolution has just stored, b with the strides that the joined rows have. */
struct tepi_residual {
    bool present, first; /* first: b is the sum's first operand */
    struct tepi_site b;
    uint64_t stride_n, stride_h, stride_w;
    struct tepi_add add;
};

/* Cut into `sides` of `channels` of the output each (the last may have more), and each of them
 * along the rows, or along the pixels of the only row. */
struct tepi_conv_step {
    struct tepi_site in, out; /* in: the first tap, padding subtracted */
    const struct tepi_conv_kernel *kernel;
    struct tepi_conv conv;
    size_t side_bytes; /* of packed weights */
    uint32_t sides, channels;
    uint32_t cuts, grain;   /* units of one side; pixels that a cut keeps together, 0: rows */
    uint32_t units_at_once; /* between two looks at abort and deadline */
    uint32_t out_bytes;     /* of one element */
    /* Where the input's quantization is known only as the program runs: the sums of each channel's
     * weights, and where in scratch its bias and multiplier go. */
    const uint32_t *weight_sums; /* NULL: known before */
    struct tepi_site quantization;
    size_t bias_at, multiplier_at;
    struct tepi_residual residual;
};

/* Up to three loops over pixels around a call on `count` consecutive bytes. */
struct tepi_rows {
    uint64_t count;
    size_t b_step;
    uint32_t depth;
    uint64_t extent[4], out_step[4], a_step[4], b_step_outer[4];
};
struct tepi_elementwise_step {
    struct tepi_site a, b, out;
    struct tepi_rows rows;
    union {
        struct tepi_add add;
        struct tepi_mul mul;
        const uint8_t *table;
        struct tepi_softmax softmax;
        struct tepi_layernorm layernorm;
    };
};

/* A tensor as so many products of w rows of c bytes. */
struct tepi_heads {
    uint32_t n, h, w, c;
    uint64_t stride_n, stride_h, stride_w;
};
struct tepi_matmul_step {
    struct tepi_site a, b, out;
    struct tepi_heads a_heads, b_heads, out_heads;
    struct tepi_matmul matmul;
    uint32_t rows_at_once; /* between two looks at abort and deadline */
    uint64_t work;
};

/* A tensor as VECTOR walks it: along a row its elements follow each other, or there is one. */
struct tepi_vector_operand {
    struct tepi_site site;
    uint64_t steps[3]; /* bytes, of the loops around the row */
    struct tepi_quantization quantization;
    uint8_t bytes; /* of an element: of uint8 or float32 */
    bool single;
};

/* One thing that is done with a block of a row. Places are float32 in scratch (TEPI_VECTOR_ROWS of
 * them rows, then as many single values), sources where they lie, values of VALUE. */
enum { TEPI_VECTOR_CELLS = TEPI_VECTOR_REGISTERS };
enum tepi_vector_kind {
    TEPI_VECTOR_CALL,
    TEPI_VECTOR_DEQUANTIZE,
    TEPI_VECTOR_COPY,
    TEPI_VECTOR_PUT,
};
struct tepi_vector_act {
    uint8_t kind;      /* enum tepi_vector_kind */
    uint8_t operation; /* of CALL */
    uint8_t operand;   /* of all others: source or target */
    uint8_t a, b, c, out;
    uint8_t a_step, b_step, c_step;
    bool row; /* as many elements as the block has, else one */
};

/* `loops` around rows of `count` elements, which are worked on in blocks. */
struct tepi_vector_step_list {
    const struct tepi_vector_act *acts;
    const float *values;
    uint32_t count, rows, singles; /* acts; cells of scratch in use */
};
struct tepi_vector_unit {
    struct tepi_vector_operand operands[TEPI_VECTOR_SOURCES + TEPI_VECTOR_TARGETS];
    uint32_t sources, targets; /* the targets behind the sources */
    uint32_t loops, extent[3];
    uint64_t count, block, blocks;
    struct tepi_vector_step_list list;
    uint64_t block_work;
};

struct tepi_fmatmul_step {
    struct tepi_site a, b, out;
    struct tepi_heads a_heads, b_heads, out_heads;
    struct tepi_fmatmul fmatmul;
    uint32_t stripe, stripes; /* columns of each, the last may have fewer */
    uint32_t rows_at_once;    /* between two looks at abort and deadline */
    uint64_t work;
};

/* Pixel w of out is row index[w] of a. */
struct tepi_gather_step {
    struct tepi_site a, indices, out;
    int64_t rows;
    uint32_t count, index_bytes;
    size_t bytes; /* of a row */
    uint64_t a_step, out_step;
    bool dequantizes;
    struct tepi_quantization quantization;
};

struct tepi_range_step {
    struct tepi_site a, out;
    struct tepi_tensor tensor;
    uint32_t runs; /* of `count` floats in each row of pixels */
    size_t count;
};

struct tepi_pool_step {
    struct tepi_site in, out;
    struct tepi_pool pool;
};

struct tepi_resize_step {
    struct tepi_site in, out;
    struct tepi_tensor a, o;
    const uint32_t *rows, *columns;
};

/* What an instruction asks of arithmetic and memory, for profiles. */
struct tepi_cost {
    uint64_t macs, bytes_read, bytes_written;
};

struct tepi_range {
    uint32_t begin, end;
};
typedef uint16_t tepi_run_range(const struct tepi_step *step, const struct tepi_run *run,
                                struct tepi_range units, void *scratch);

/* An instruction in `units` that any threads may compute in any order; run NULL: in one piece. */
struct tepi_cut {
    tepi_run_range *run;
    uint32_t units;
    uint32_t at_least; /* units in a piece, or handing it over costs more than it saves */
    bool worth;        /* sharing */
};

struct tepi_step {
    uint16_t (*run)(const struct tepi_step *step, const struct tepi_run *run);
    struct tepi_cut cut;
    uint32_t node;
    uint8_t code;
    struct tepi_cost cost;
    union {
        struct tepi_fill_step fill;
        struct tepi_map_step map;
        struct tepi_conv_step conv;
        struct tepi_elementwise_step elementwise;
        struct tepi_pool_step pool;
        struct tepi_resize_step resize;
        struct tepi_matmul_step matmul;
        struct tepi_vector_unit vector;
        struct tepi_fmatmul_step fmatmul;
        struct tepi_gather_step gather;
        struct tepi_range_step range;
    };
};

/* A quantization that is known only now, with what is not one made valid (abi/program.h). */
struct tepi_quantization tepi_run_quantization(const struct tepi_run *run,
                                               const struct tepi_site *site);

/* What a program keeps in its block. Run once with `block` NULL to learn `used`, then again with a
 * block of that size; each piece is 64-byte aligned with TEPI_KERNEL_SLACK behind it. */
struct tepi_shelf {
    uint8_t *block;
    uint64_t used;
};
uint64_t tepi_shelf_reserve(struct tepi_shelf *shelf, uint64_t bytes); /* its offset */
/* Of a piece just reserved or kept; NULL while counting. */
void *tepi_shelf_at(const struct tepi_shelf *shelf, uint64_t offset);

struct tepi_prepare {
    const struct tepi_image *image;
    const struct tepi_kernel_set *kernels;
    struct tepi_shelf shelf;
    uint64_t kernel_scratch; /* largest that any kernel asked for */
    uint64_t shared_ns;      /* of the instructions worth sharing, on one thread */
    uint16_t fault;          /* set where the value of a kept constant is refused */
    uint32_t instruction;    /* being prepared */
};
/* A copy of constants on the shelf; NULL while counting and for TEPI_NONE. */
const void *tepi_prepare_constant(struct tepi_prepare *prepare, uint32_t offset, uint64_t bytes);
/* The same of float32 that must be finite. Values are checked where they are kept, not before: the
 * card's memory bounds that work, and the host cannot change them any more. */
const float *tepi_prepare_floats(struct tepi_prepare *prepare, uint32_t offset, uint64_t count);
/* A kernel, or the step itself, asks for so many bytes of scratch. */
void tepi_prepare_scratch(struct tepi_prepare *prepare, uint64_t bytes);
/* The site of a tensor; constant tensors are copied, their floats must be finite. */
struct tepi_site tepi_prepare_site(struct tepi_prepare *prepare, uint16_t tensor);
struct tepi_store tepi_prepare_store(struct tepi_prepare *prepare, uint32_t table, uint8_t lo,
                                     uint8_t hi, int32_t zero_point);

/* What `work` counts: multiply-accumulates of a dense convolution, taps of a window on each channel
 * alone, elements; of float32, multiply-accumulates and elements. */
enum tepi_pace {
    TEPI_PACE_DENSE,
    TEPI_PACE_WINDOW,
    TEPI_PACE_ELEMENT,
    TEPI_PACE_PRODUCT,
    TEPI_PACE_FLOAT,
};
/* At the end of a prepare: `run` computes the step's units, 1 to 2^32 - 1, of `work` together. */
void tepi_cut_step(struct tepi_prepare *prepare, struct tepi_step *step, tepi_run_range *run,
                   uint64_t units, uint64_t work, enum tepi_pace pace);
/* One instruction, on the run's team where that is worth it; a fault, or TEPI_FAULT_OK. */
uint16_t tepi_run_step(const struct tepi_step *step, const struct tepi_run *run);

/* Returns TEPI_FAULT_OK, _PROGRAM_INSTRUCTION or _PROGRAM_CONSTANT; *work is how many elementary
 * steps (multiply-accumulates of CONV and products, else elements touched) a run takes. */
typedef uint16_t tepi_check(const struct tepi_image *image,
                            const struct tepi_instruction *instruction, uint64_t *work);
typedef void tepi_prepare_step(struct tepi_prepare *prepare,
                               const struct tepi_instruction *instruction, struct tepi_step *step);

struct tepi_operation {
    tepi_check *check;
    tepi_prepare_step *prepare;
    size_t params_bytes;
    bool has_a, has_b, may_have_b;
};
/* NULL: no such instruction. */
const struct tepi_operation *tepi_operation_for(uint8_t code);

extern const struct tepi_operation tepi_operation_fill, tepi_operation_map, tepi_operation_conv,
    tepi_operation_add, tepi_operation_mul, tepi_operation_table, tepi_operation_maxpool,
    tepi_operation_avgpool, tepi_operation_resize, tepi_operation_softmax, tepi_operation_matmul,
    tepi_operation_layernorm, tepi_operation_vector, tepi_operation_fmatmul, tepi_operation_gather,
    tepi_operation_range;

/* Faults of the clamp and table that end CONV, ADD, MUL and MATMUL. */
uint16_t tepi_check_store(const struct tepi_image *image, uint32_t table, uint8_t lo, uint8_t hi);
/* Faults of the numbers of an addition, and its parameters made ready. */
uint16_t tepi_check_sum(const struct tepi_image *image, const struct tepi_add_params *params);
struct tepi_add tepi_prepare_sum(struct tepi_prepare *prepare,
                                 const struct tepi_add_params *params);
/* Elements of a tensor, halo not counted. */
uint64_t tepi_elements(const struct tepi_tensor *tensor);

#endif
