/* SPDX-License-Identifier: Apache-2.0 */
/* float32 tensors and the instructions on them that must be refused: each field tampered with in
 * turn, and the limits themselves accepted. */
#include "card/float_specimen.h"
#include "card/tamper.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

#define AFTER(tampering, ...)    TAMPERED(float_specimen_make, tampering, __VA_ARGS__)
#define TENSOR(index, tampering) AFTER(t[index].tampering, TEPI_FAULT_PROGRAM_TENSOR, (index))
#define INSTRUCTION(index, tampering)                                                              \
    AFTER(i[index].tampering, TEPI_FAULT_PROGRAM_INSTRUCTION, (index))
#define CONSTANT(index, tampering) AFTER(i[index].tampering, TEPI_FAULT_PROGRAM_CONSTANT, (index))
#define VALID(tampering)           AFTER(tampering, TEPI_FAULT_OK, 0)

CHECK_CASE(the_specimen_itself_loads_and_runs_on_every_set)
{
    const struct tepi_kernel_set *kernels;
    struct specimen s;
    float_specimen_make(&s);
    CHECK_INT(s.header->tensors, FLOATS_TENSORS);
    CHECK_INT(s.header->instructions, FLOATS_INSTRUCTIONS);
    for (unsigned k = 0; (kernels = builder_kernels(k)); k++)
        CHECK_INT(specimen_try(s.image, s.bytes, kernels).fault, TEPI_FAULT_OK);
    specimen_free(&s);
}

CHECK_CASE(float_tensors_misaligned_overlapping_or_with_a_halo)
{
    static const int tensors[] = {FLOATS_ROWS, FLOATS_GAMMA, FLOATS_QUANTIZATION, FLOATS_SCORES};
    for (size_t k = 0; k < sizeof(tensors) / sizeof(tensors[0]); k++) {
        const int at = tensors[k];
        TENSOR(at, offset += 1);
        TENSOR(at, offset += 2);
        TENSOR(at, offset = UINT64_MAX - 3);
        TENSOR(at, stride_w += 1);
        TENSOR(at, stride_h += 2);
        TENSOR(at, stride_n += 3);
        TENSOR(at, stride_w = t[at].c * 4 - 4);
        TENSOR(at, halo_top = 1);
        TENSOR(at, halo_left = 1);
        TENSOR(at, halo_bottom = 1);
        TENSOR(at, halo_right = 1);
        TENSOR(at, port = 1);
        TENSOR(at, type = TEPI_TYPE_I64);
        TENSOR(at, type = TEPI_TYPE_I32);
        TENSOR(at, type = TEPI_TYPE_BOOL);
        TENSOR(at, type = TEPI_TYPE_I8);
        TENSOR(at, type = 6);
    }
    /* The last in the arena: four bytes too far, and each of its last element's bytes. */
    TENSOR(FLOATS_SCORES, offset += 4);
    for (uint32_t missing = 1; missing < 5; missing++)
        AFTER(h->arena_bytes -= missing, TEPI_FAULT_PROGRAM_TENSOR, FLOATS_SCORES);
    TENSOR(FLOATS_GAMMA, offset = (h->constants_bytes - 28) / 4 * 4);
    TENSOR(FLOATS_IMAGE, type = TEPI_TYPE_F32);
    VALID(h->arena_bytes += 1);
}

CHECK_CASE(ports_of_types_that_only_inputs_have)
{
    TENSOR(FLOATS_OUTPUT, type = TEPI_TYPE_I64);
    TENSOR(FLOATS_OUTPUT, type = TEPI_TYPE_I32);
    TENSOR(FLOATS_OUTPUT, type = TEPI_TYPE_BOOL);
    TENSOR(FLOATS_INDICES, stride_w = 31);
    TENSOR(FLOATS_INPUT, stride_w = 511);
    TENSOR(FLOATS_TRUTHS, type = TEPI_TYPE_I64); /* four elements of eight bytes in four */
    TENSOR(FLOATS_INPUT, type = 255);
    VALID(t[FLOATS_INDICES].type = TEPI_TYPE_I32);
}

CHECK_CASE(float_constants_that_are_not_finite)
{
    const float infinite = INFINITY, nan = NAN;
    AFTER(memcpy(constants + t[FLOATS_GAMMA].offset + 28, &infinite, 4),
          TEPI_FAULT_PROGRAM_CONSTANT, FLOATS_VECTOR);
    AFTER(memcpy(constants + t[FLOATS_GAMMA].offset, &nan, 4), TEPI_FAULT_PROGRAM_CONSTANT,
          FLOATS_VECTOR);
    AFTER(memcpy(constants + i[FLOATS_CONV].conv.addend + 28, &nan, 4), TEPI_FAULT_PROGRAM_CONSTANT,
          FLOATS_CONV);
}

/* Instructions on bytes refuse float32, and those on float32 refuse bytes. */
CHECK_CASE(operands_of_another_type)
{
    static const int codes[] = {TEPI_OP_ADD,     TEPI_OP_MUL,     TEPI_OP_TABLE,
                                TEPI_OP_MAXPOOL, TEPI_OP_AVGPOOL, TEPI_OP_RESIZE,
                                TEPI_OP_MATMUL,  TEPI_OP_SOFTMAX, TEPI_OP_LAYERNORM};
    struct specimen bytes;
    specimen_make(&bytes);
    for (size_t k = 0; k < sizeof(codes) / sizeof(codes[0]); k++) {
        int from = 0;
        while (bytes.instructions[from].code != codes[k])
            from++;
        struct tepi_instruction in = bytes.instructions[from];
        const bool has_b = in.b != TEPI_NO_TENSOR;
        in.a = in.out = FLOATS_IMAGE;
        in.b = has_b ? FLOATS_IMAGE : TEPI_NO_TENSOR;
        AFTER((i[FLOATS_RANGE] = in, i[FLOATS_RANGE].a = FLOATS_ROWS),
              TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_RANGE);
        AFTER((i[FLOATS_RANGE] = in, i[FLOATS_RANGE].out = FLOATS_ROWS),
              TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_RANGE);
        if (has_b)
            AFTER((i[FLOATS_RANGE] = in, i[FLOATS_RANGE].b = FLOATS_ROWS),
                  TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_RANGE);
    }
    specimen_free(&bytes);
    INSTRUCTION(FLOATS_FMATMUL, a = FLOATS_TABLE);
    INSTRUCTION(FLOATS_FMATMUL, b = FLOATS_TABLE);
    INSTRUCTION(FLOATS_FMATMUL, out = FLOATS_TABLE);
    INSTRUCTION(FLOATS_RANGE, a = FLOATS_IMAGE);
    INSTRUCTION(FLOATS_RANGE, a = FLOATS_INPUT);
    INSTRUCTION(FLOATS_RANGE, out = FLOATS_IMAGE);
    INSTRUCTION(FLOATS_FILL, out = FLOATS_ROWS);
    INSTRUCTION(FLOATS_CONV, a = FLOATS_ROWS);
}

CHECK_CASE(quantizations_that_are_none)
{
    static const int users[] = {FLOATS_FILL, FLOATS_QUANTIZE, FLOATS_CONV};
    for (size_t k = 0; k < 3; k++) {
        INSTRUCTION(users[k], b = FLOATS_ROWS);
        INSTRUCTION(users[k], b = FLOATS_GAMMA);
        INSTRUCTION(users[k], b = FLOATS_INPUT);
        INSTRUCTION(users[k], b = FLOATS_IMAGE);
        INSTRUCTION(users[k], b = FLOATS_TENSORS);
        AFTER(t[FLOATS_QUANTIZATION].c = 1, TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_RANGE);
    }
    AFTER((i[FLOATS_RANGE] = i[FLOATS_LOAD], t[FLOATS_QUANTIZATION].c = 1),
          TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_FILL);
    AFTER((t[FLOATS_QUANTIZATION].w = 2, t[FLOATS_QUANTIZATION].stride_h = 16,
           t[FLOATS_QUANTIZATION].stride_n = 16),
          TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_RANGE);
    INSTRUCTION(FLOATS_RANGE, range.reserved = 1);
    INSTRUCTION(FLOATS_RANGE, b = FLOATS_ROWS);
    INSTRUCTION(FLOATS_FILL, fill.value = 1);          /* b gives it */
    INSTRUCTION(FLOATS_LOAD, b = FLOATS_QUANTIZATION); /* float32 to float32 */
    INSTRUCTION(FLOATS_NUMBERS, b = FLOATS_QUANTIZATION);
    INSTRUCTION(FLOATS_QUANTIZE, map.table = 0);
    INSTRUCTION(FLOATS_QUANTIZE, map.hi = (i[FLOATS_QUANTIZE].map.lo = 1, 0));
    VALID(t[FLOATS_IMAGE].zero_point = 7);
    VALID((t[FLOATS_IMAGE].scale = 0, i[FLOATS_VECTOR] = i[FLOATS_RANGE]));
    VALID(i[FLOATS_QUANTIZE].b = TEPI_NO_TENSOR);
    VALID((i[FLOATS_FILL].b = TEPI_NO_TENSOR, i[FLOATS_FILL].fill.value = 255));
}

CHECK_CASE(conv_to_floats)
{
    INSTRUCTION(FLOATS_CONV, conv.table = 0);
    INSTRUCTION(FLOATS_CONV, conv.lo = 1);
    INSTRUCTION(FLOATS_CONV, conv.hi = 254);
    INSTRUCTION(FLOATS_CONV, out = FLOATS_IMAGE); /* bytes from a quantization known too late */
    INSTRUCTION(FLOATS_CONV, out = FLOATS_OUTPUT);
    AFTER((i[FLOATS_CONV].b = TEPI_NO_TENSOR, i[FLOATS_CONV].out = FLOATS_IMAGE,
           i[FLOATS_CONV].conv.bias = i[FLOATS_CONV].conv.multiplier),
          TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_CONV); /* an addend to bytes */
    CONSTANT(FLOATS_CONV, conv.addend += 2);
    CONSTANT(FLOATS_CONV, conv.addend = (uint32_t)h->constants_bytes - 28);
    CONSTANT(FLOATS_CONV, conv.bias = (uint32_t)h->constants_bytes - 28);
    CONSTANT(FLOATS_CONV, conv.bias = TEPI_NONE - 1);
    CONSTANT(FLOATS_CONV, conv.multiplier = TEPI_NONE);
    CONSTANT(FLOATS_CONV, b = TEPI_NO_TENSOR); /* then a bias is wanted */
    INSTRUCTION(FLOATS_CONV, conv.reserved = 1);
    INSTRUCTION(FLOATS_CONV, bytes[76] = 1);
    VALID(i[FLOATS_CONV].conv.addend = TEPI_NONE);
    VALID(i[FLOATS_CONV].conv.groups = 8);
    VALID(i[FLOATS_CONV].conv.bias = i[FLOATS_CONV].conv.multiplier);
    VALID((i[FLOATS_CONV].b = TEPI_NO_TENSOR, i[FLOATS_CONV].conv.bias = 0));
    VALID((i[FLOATS_CONV].b = TEPI_NO_TENSOR, i[FLOATS_CONV].out = FLOATS_IMAGE,
           i[FLOATS_CONV].conv.addend = 0, i[FLOATS_CONV].conv.bias = 0));
}

CHECK_CASE(fmatmul_fields_and_extents_that_disagree)
{
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.scale = NAN);
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.scale = INFINITY);
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.heads = 1);
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.b_transposed = 2);
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.b_transposed = 0);
    INSTRUCTION(FLOATS_FMATMUL, fmatmul.a_split = 1);
    INSTRUCTION(FLOATS_FMATMUL, bytes[12] = 1);
    INSTRUCTION(FLOATS_FMATMUL, a = FLOATS_INPUT);
    INSTRUCTION(FLOATS_FMATMUL, a = TEPI_NO_TENSOR);
    INSTRUCTION(FLOATS_FMATMUL, b = TEPI_NO_TENSOR);
    INSTRUCTION(FLOATS_FMATMUL, b = FLOATS_TENSORS);
    INSTRUCTION(FLOATS_FMATMUL, b = FLOATS_GAMMA); /* one column, not four */
    INSTRUCTION(FLOATS_FMATMUL, out = FLOATS_GAMMA);
    INSTRUCTION(FLOATS_FMATMUL, out = FLOATS_OUTPUT);
    INSTRUCTION(FLOATS_FMATMUL, out = FLOATS_ROWS);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.heads = 0);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.heads = 3);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.heads = 4);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.heads = UINT32_MAX);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.a_split = 0);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.b_split = 2);
    INSTRUCTION(FLOATS_FMATMUL_SPLIT, fmatmul.out_split = 1);
    VALID((i[FLOATS_FMATMUL_SPLIT].fmatmul.scale = -0.0f));
}

CHECK_CASE(gather_operands)
{
    INSTRUCTION(FLOATS_GATHER, gather.reserved = 1);
    INSTRUCTION(FLOATS_GATHER, bytes[4] = 1);
    INSTRUCTION(FLOATS_GATHER, a = FLOATS_INPUT);
    INSTRUCTION(FLOATS_GATHER, a = FLOATS_IMAGE); /* more than one row of pixels */
    INSTRUCTION(FLOATS_GATHER, a = FLOATS_PRODUCT);
    INSTRUCTION(FLOATS_GATHER, a = FLOATS_TENSORS);
    INSTRUCTION(FLOATS_GATHER, a = TEPI_NO_TENSOR);
    INSTRUCTION(FLOATS_GATHER, b = TEPI_NO_TENSOR);
    INSTRUCTION(FLOATS_GATHER, b = FLOATS_TENSORS);
    INSTRUCTION(FLOATS_GATHER, b = FLOATS_TRUTHS);
    INSTRUCTION(FLOATS_GATHER, b = FLOATS_INPUT);
    INSTRUCTION(FLOATS_GATHER, b = FLOATS_FOUND);
    INSTRUCTION(FLOATS_GATHER, out = FLOATS_ROWS);
    INSTRUCTION(FLOATS_GATHER, out = FLOATS_OUTPUT);
    INSTRUCTION(FLOATS_GATHER, out = FLOATS_GAMMA);
    AFTER(t[FLOATS_INDICES].c = 3, TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_NUMBERS);
    AFTER((i[FLOATS_NUMBERS] = i[FLOATS_LOAD], t[FLOATS_INDICES].c = 3),
          TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_GATHER);
    AFTER(t[FLOATS_TABLE].scale = 0, TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_GATHER);
    AFTER((i[FLOATS_GATHER].a = FLOATS_FOUND, i[FLOATS_GATHER].out = FLOATS_TABLE),
          TEPI_FAULT_PROGRAM_INSTRUCTION, FLOATS_GATHER); /* float32 to bytes */
    VALID(i[FLOATS_GATHER].a = FLOATS_FOUND);
    VALID(i[FLOATS_GATHER].out = FLOATS_TABLE);
    VALID(t[FLOATS_TABLE].w = 1); /* the indices are 0 */
    VALID(i[FLOATS_GATHER].a = FLOATS_GAMMA);
}

CHECK_CASE(map_of_numbers)
{
    INSTRUCTION(FLOATS_NUMBERS, out = FLOATS_IMAGE);
    INSTRUCTION(FLOATS_NUMBERS, out = FLOATS_TABLE);
    INSTRUCTION(FLOATS_NUMBERS, map.table = 0);
    INSTRUCTION(FLOATS_NUMBERS, map.dims[0] = 5);
    INSTRUCTION(FLOATS_NUMBERS, map.start = 1);
    INSTRUCTION(FLOATS_NUMBERS, map.out_start = 13);
    INSTRUCTION(FLOATS_LOAD_TRUTHS, out = FLOATS_TABLE);
    INSTRUCTION(FLOATS_LOAD_TRUTHS, map.stride[0] = 2);
    INSTRUCTION(FLOATS_LOAD, map.out_start = 1); /* the last float would be the next tensor's */
    INSTRUCTION(FLOATS_LOAD, map.out_stride[3] = -1);
    INSTRUCTION(FLOATS_STORE, map.start = 1);
    INSTRUCTION(FLOATS_LOAD, a = FLOATS_SUMS);
    VALID((i[FLOATS_NUMBERS].map.out_start = 12));
    VALID((i[FLOATS_NUMBERS].map.start = 3, i[FLOATS_NUMBERS].map.stride[0] = -1));
    VALID(i[FLOATS_LOAD].a = FLOATS_ROWS);
}

CHECK_CASE(every_flipped_bit_of_tables_and_steps)
{
    struct specimen s;
    float_specimen_make(&s);
    const size_t end = (size_t)s.header->constants_offset + FLOATS_STEPS * 12;
    for (size_t bit = 8 * sizeof(*s.header); bit < 8 * end; bit++) {
        s.image[bit / 8] ^= (uint8_t)(1u << bit % 8);
        specimen_try(s.image, s.bytes, tepi_kernels_for(tepi_kernels_best()));
        s.image[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    CHECK_INT(specimen_try(s.image, s.bytes, builder_kernels(0)).fault, TEPI_FAULT_OK);
    specimen_free(&s);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(the_specimen_itself_loads_and_runs_on_every_set),
    CHECK_ENTRY(float_tensors_misaligned_overlapping_or_with_a_halo),
    CHECK_ENTRY(ports_of_types_that_only_inputs_have),
    CHECK_ENTRY(float_constants_that_are_not_finite),
    CHECK_ENTRY(operands_of_another_type),
    CHECK_ENTRY(quantizations_that_are_none),
    CHECK_ENTRY(conv_to_floats),
    CHECK_ENTRY(fmatmul_fields_and_extents_that_disagree),
    CHECK_ENTRY(gather_operands),
    CHECK_ENTRY(map_of_numbers),
    CHECK_ENTRY(every_flipped_bit_of_tables_and_steps),
};
CHECK_MAIN(cases)
