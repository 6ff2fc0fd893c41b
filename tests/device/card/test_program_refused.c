/* SPDX-License-Identifier: Apache-2.0 */
/* Frames that must be refused: every field of the header and of a tensor tampered with in turn,
 * under a fresh checksum so that the validators are met and not the CRC; then every kind of damage
 * that the CRC must find, and memory that is full. */
#include "card/specimen.h"
#include "card/tamper.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

#define HEADER(field)                                                                              \
    TEPI_FAULT_PROGRAM_HEADER, (uint32_t)offsetof(struct tepi_program_header, field)
#define TENSOR(index) TEPI_FAULT_PROGRAM_TENSOR, (index)

CHECK_CASE(the_specimen_itself_loads_and_runs_on_every_set)
{
    const struct tepi_kernel_set *kernels;
    struct specimen s;
    specimen_make(&s);
    for (unsigned k = 0; (kernels = builder_kernels(k)); k++)
        CHECK_INT(specimen_try(s.image, s.bytes, kernels).fault, TEPI_FAULT_OK);
    specimen_free(&s);
}

CHECK_CASE(header_fields_out_of_range)
{
    REFUSED(h->magic++, TEPI_FAULT_PROGRAM_MAGIC, 0);
    REFUSED(h->abi = 2, TEPI_FAULT_PROGRAM_ABI, 2);
    REFUSED(h->abi = 0, TEPI_FAULT_PROGRAM_ABI, 0);
    REFUSED(h->header_bytes = 64, HEADER(header_bytes));
    REFUSED(h->total_bytes++, TEPI_FAULT_PROGRAM_TRUNCATED, 0);
    REFUSED(h->total_bytes = UINT64_MAX, TEPI_FAULT_PROGRAM_TRUNCATED, 0);
    REFUSED(h->total_bytes--, HEADER(total_bytes));
    REFUSED(h->flags = 1, HEADER(flags));
    REFUSED(h->tensors = 0, HEADER(tensors));
    REFUSED(h->tensors = 65536, HEADER(tensors));
    REFUSED(h->instructions = 0, HEADER(instructions));
    REFUSED(h->instructions = UINT32_MAX, HEADER(instructions));
    REFUSED(h->arena_bytes = TEPI_ARENA_MAX + 1, HEADER(arena_bytes));
    REFUSED(h->macs = UINT64_MAX, HEADER(macs));
    REFUSED(h->inputs = 257, HEADER(inputs));
    REFUSED(h->outputs = 0, HEADER(outputs));
    REFUSED(h->outputs = 256, HEADER(outputs));
    REFUSED(h->reserved[0] = 1, HEADER(reserved[0]));
    REFUSED(h->reserved[10] = 1, HEADER(reserved[10]));
}

CHECK_CASE(sections_outside_misaligned_or_overlapping)
{
    REFUSED(h->tensors_offset++, HEADER(tensors_offset));
    REFUSED(h->tensors_offset = 0, HEADER(tensors_offset));
    REFUSED(h->tensors_offset = 64, HEADER(tensors_offset));
    REFUSED(h->tensors_offset = UINT64_MAX - 63, HEADER(tensors_offset));
    REFUSED(h->tensors_offset = h->total_bytes / 64 * 64, HEADER(tensors_offset));
    REFUSED(h->instructions_offset = h->tensors_offset, HEADER(instructions_offset));
    REFUSED(h->instructions_offset += 4, HEADER(instructions_offset));
    REFUSED(h->instructions_offset = UINT64_MAX / 2 + 1, HEADER(instructions_offset));
    REFUSED(h->constants_offset = h->instructions_offset, HEADER(constants_offset));
    REFUSED(h->constants_offset += 64, HEADER(constants_offset));
    REFUSED(h->constants_bytes++, HEADER(constants_offset));
    REFUSED(h->constants_bytes = UINT32_MAX, HEADER(constants_offset));
    REFUSED(h->constants_bytes = UINT64_C(1) << 32, HEADER(constants_bytes));
    REFUSED(h->constants_bytes = UINT64_MAX, HEADER(constants_bytes));
    REFUSED(h->tensors = 60000, HEADER(tensors_offset));
    REFUSED(h->instructions = 60000, HEADER(instructions_offset));
}

CHECK_CASE(tensors_of_unknown_kind_or_extent)
{
    struct tepi_tensor *a;
    REFUSED(t[SPECIMEN_A].type = 3, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].type = TEPI_TYPE_F32, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].type = TEPI_TYPE_I8, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_CONSTANT].type = TEPI_TYPE_F32, TENSOR(SPECIMEN_CONSTANT));
    REFUSED(t[SPECIMEN_A].place = 4, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].port = 1, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].n = 0, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].n = 2, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].n = UINT32_MAX, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].h = 0, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].h = 5, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].w = 0, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].w = 5, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].w = (1u << 24) + 1, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].c = 0, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].c = 17, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].stride_w = 7, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].stride_w = UINT32_MAX, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].stride_h--, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].stride_h = UINT32_MAX, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].stride_n--, TENSOR(SPECIMEN_A));
    REFUSED((a = &t[SPECIMEN_A], a->n = 1u << 24, a->stride_n = UINT32_MAX), TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].halo_top++, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].halo_left++, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].halo_bottom++, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].halo_right++, TENSOR(SPECIMEN_A));
    REFUSED((a = &t[SPECIMEN_A], a->halo_top = 1025, a->stride_n = 1 << 30), TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].scale = NAN, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].scale = INFINITY, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].scale = -1.0f, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].zero_point = -1, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].zero_point = 256, TENSOR(SPECIMEN_A));
}

CHECK_CASE(tensors_outside_their_place)
{
    REFUSED(t[SPECIMEN_A].offset = 0, TENSOR(SPECIMEN_A)); /* its halo lies before the arena */
    REFUSED(t[SPECIMEN_A].offset--, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].offset = h->arena_bytes, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_A].offset = UINT64_MAX, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_HEADS].offset++, TENSOR(SPECIMEN_HEADS));
    REFUSED(h->arena_bytes--, TENSOR(SPECIMEN_HEADS));
    REFUSED(h->arena_bytes = 0, TENSOR(SPECIMEN_A));
    REFUSED(t[SPECIMEN_CONSTANT].offset = h->constants_bytes - 7, TENSOR(SPECIMEN_CONSTANT));
    REFUSED(h->constants_bytes = 4, TENSOR(SPECIMEN_CONSTANT));
}

CHECK_CASE(ports_missing_doubled_or_misshapen)
{
    REFUSED(t[SPECIMEN_INPUT].port = 1, TENSOR(SPECIMEN_INPUT));
    REFUSED(t[SPECIMEN_OUTPUT].port = 3, TENSOR(SPECIMEN_OUTPUT));
    REFUSED(t[SPECIMEN_FLOATS].port = 0, TENSOR(SPECIMEN_FLOATS));
    REFUSED(h->inputs = 2, TENSOR(h->tensors));
    REFUSED(h->inputs = 0, TENSOR(SPECIMEN_INPUT));
    REFUSED(h->outputs = 4, TENSOR(h->tensors));
    REFUSED(t[SPECIMEN_INPUT].n = 2, TENSOR(SPECIMEN_INPUT));
    REFUSED(t[SPECIMEN_INPUT].h = 2, TENSOR(SPECIMEN_INPUT));
    REFUSED(t[SPECIMEN_INPUT].w = 2, TENSOR(SPECIMEN_INPUT));
    REFUSED(t[SPECIMEN_INPUT].offset = 1, TENSOR(SPECIMEN_INPUT));
    REFUSED(t[SPECIMEN_OUTPUT].halo_top = 1, TENSOR(SPECIMEN_OUTPUT));
    REFUSED(t[SPECIMEN_OUTPUT].halo_right = 1, TENSOR(SPECIMEN_OUTPUT));
    REFUSED(t[SPECIMEN_OUTPUT].c = (1u << 24) + 1, TENSOR(SPECIMEN_OUTPUT));
}

/* Strides and places with room to spare, so that only the limit itself is in the way. */
static void give_room(struct tepi_program_header *h, struct tepi_tensor *t)
{
    h->arena_bytes = UINT64_C(1) << 32;
    t->stride_w = 1u << 25;
    t->stride_h = 1u << 28;
    t->stride_n = 1u << 30;
    t->h = t->w = 1;
    t->offset = t->place == TEPI_PLACE_ARENA ? 1u << 31 : 0;
}

#define ROOMY(index, tampering)                                                                    \
    REFUSED((give_room(h, &t[index]), t[index].stride_w = 16, t[index].tampering), TENSOR(index))

CHECK_CASE(limits_with_room_to_spare)
{
    REFUSED((give_room(h, &t[SPECIMEN_A]), t[SPECIMEN_A].c = (1u << 24) + 1), TENSOR(SPECIMEN_A));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].c = (1u << 24) + 1),
            TENSOR(SPECIMEN_OUTPUT));
    ROOMY(SPECIMEN_A, halo_left = 1025);
    ROOMY(SPECIMEN_A, halo_right = 1025);
    REFUSED((give_room(h, &t[SPECIMEN_A]), t[SPECIMEN_A].stride_w = 16,
             t[SPECIMEN_A].stride_h = 1 << 16, t[SPECIMEN_A].halo_top = 1025),
            TENSOR(SPECIMEN_A));
    REFUSED((give_room(h, &t[SPECIMEN_A]), t[SPECIMEN_A].stride_w = 16,
             t[SPECIMEN_A].stride_h = 1 << 16, t[SPECIMEN_A].halo_bottom = 1025),
            TENSOR(SPECIMEN_A));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].h = 2), TENSOR(SPECIMEN_OUTPUT));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].w = 2), TENSOR(SPECIMEN_OUTPUT));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].halo_top = 1),
            TENSOR(SPECIMEN_OUTPUT));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].halo_left = 1),
            TENSOR(SPECIMEN_OUTPUT));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].halo_bottom = 1),
            TENSOR(SPECIMEN_OUTPUT));
    REFUSED((give_room(h, &t[SPECIMEN_OUTPUT]), t[SPECIMEN_OUTPUT].halo_right = 1),
            TENSOR(SPECIMEN_OUTPUT));
    /* Room alone is no fault of the tensor's. */
    REFUSED((give_room(h, &t[SPECIMEN_A]), t[SPECIMEN_A].n = 1), TEPI_FAULT_PROGRAM_INSTRUCTION,
            SPECIMEN_CONV);
    ACCEPTED(give_room(h, &t[SPECIMEN_OUTPUT]));
}

/* Of fitting extent and type, and still refused: nothing lies behind a port's last byte. */
CHECK_CASE(a_port_is_no_operand_of_a_computing_instruction)
{
    struct tepi_tensor *b;
    REFUSED((b = &t[SPECIMEN_B], b->h = b->w = 1, b->c = 128,
             b->stride_w = b->stride_h = b->stride_n = 128, t[SPECIMEN_INPUT].type = TEPI_TYPE_U8,
             i[SPECIMEN_CONV] = i[SPECIMEN_TABLE], i[2].a = SPECIMEN_INPUT),
            TEPI_FAULT_PROGRAM_INSTRUCTION, 2);
}

CHECK_CASE(every_flipped_bit)
{
    struct specimen s;
    specimen_make(&s);
    for (size_t bit = 0; bit < 8 * s.bytes; bit++) {
        s.image[bit / 8] ^= (uint8_t)(1u << bit % 8);
        const uint16_t fault = specimen_try_unsealed(s.image, s.bytes, builder_kernels(0)).fault;
        CHECK(fault >= TEPI_FAULT_PROGRAM_TRUNCATED && fault <= TEPI_FAULT_PROGRAM_HEADER);
        s.image[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    specimen_free(&s);
}

CHECK_CASE(every_truncation)
{
    struct specimen s;
    specimen_make(&s);
    for (size_t bytes = 0; bytes < s.bytes; bytes++) {
        const struct tepi_verdict found = specimen_try_unsealed(s.image, bytes, builder_kernels(0));
        CHECK_INT(found.fault, TEPI_FAULT_PROGRAM_TRUNCATED);
    }
    specimen_free(&s);
}

CHECK_CASE(bytes_behind_the_end)
{
    struct specimen s;
    specimen_make(&s);
    uint8_t *longer = malloc(s.bytes + 1);
    memcpy(longer, s.image, s.bytes);
    longer[s.bytes] = 0;
    CHECK_INT(specimen_try_unsealed(longer, s.bytes + 1, builder_kernels(0)).fault,
              TEPI_FAULT_PROGRAM_HEADER);
    free(longer);
    specimen_free(&s);
}

CHECK_CASE(memory_full_says_how_much_is_missing)
{
    struct specimen s;
    struct tepi_memory memory = {.bytes = 1 << 20};
    struct tepi_program *program;
    specimen_make(&s);
    CHECK_INT(tepi_program_load(s.image, s.bytes, builder_kernels(0), &memory, &program).fault, 0);
    const uint64_t needed = memory.bytes - tepi_memory_free(&memory);
    tepi_program_free(program);
    CHECK_INT(tepi_memory_free(&memory), memory.bytes);

    memory.bytes = needed - 1;
    struct tepi_verdict found =
        tepi_program_load(s.image, s.bytes, builder_kernels(0), &memory, &program);
    CHECK_INT(found.fault, TEPI_FAULT_NO_MEMORY);
    CHECK_INT(found.info, 1);
    CHECK(!program);
    memory.bytes = needed - 4096;
    found = tepi_program_load(s.image, s.bytes, builder_kernels(0), &memory, &program);
    CHECK_INT(found.info, 4);
    CHECK_INT(tepi_memory_free(&memory), memory.bytes);
    memory.bytes = needed;
    CHECK_INT(tepi_program_load(s.image, s.bytes, builder_kernels(0), &memory, &program).fault, 0);
    CHECK_INT(tepi_memory_free(&memory), 0);
    tepi_program_free(program);
    specimen_free(&s);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(the_specimen_itself_loads_and_runs_on_every_set),
    CHECK_ENTRY(header_fields_out_of_range),
    CHECK_ENTRY(sections_outside_misaligned_or_overlapping),
    CHECK_ENTRY(tensors_of_unknown_kind_or_extent),
    CHECK_ENTRY(tensors_outside_their_place),
    CHECK_ENTRY(ports_missing_doubled_or_misshapen),
    CHECK_ENTRY(limits_with_room_to_spare),
    CHECK_ENTRY(a_port_is_no_operand_of_a_computing_instruction),
    CHECK_ENTRY(every_flipped_bit),
    CHECK_ENTRY(every_truncation),
    CHECK_ENTRY(bytes_behind_the_end),
    CHECK_ENTRY(memory_full_says_how_much_is_missing),
};
CHECK_MAIN(cases)
