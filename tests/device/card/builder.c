/* SPDX-License-Identifier: Apache-2.0 */
/* See builder.h. */
#include "card/builder.h"
#include "abi/registers.h"
#include "card/program_crc.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

void builder_init(struct builder *builder)
{
    memset(builder, 0, sizeof(*builder));
    builder->constants = calloc(1, BUILDER_CONSTANTS);
    builder->header = (struct tepi_program_header){
        .magic = TEPI_PROGRAM_MAGIC,
        .abi = TEPI_ABI_VERSION,
        .header_bytes = sizeof(struct tepi_program_header),
    };
}

void builder_free(struct builder *builder)
{
    free(builder->constants);
}

static uint64_t round64(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint32_t builder_constant(struct builder *builder, const void *data, size_t bytes)
{
    const uint64_t offset = round64(builder->header.constants_bytes);
    assert(offset + bytes <= BUILDER_CONSTANTS);
    memcpy(builder->constants + offset, data, bytes);
    builder->header.constants_bytes = offset + bytes;
    return (uint32_t)offset;
}

static uint16_t add_tensor(struct builder *builder, struct tepi_tensor tensor)
{
    assert(builder->header.tensors < BUILDER_TENSORS);
    builder->tensors[builder->header.tensors] = tensor;
    return (uint16_t)builder->header.tensors++;
}

uint16_t builder_arena(struct builder *builder, const uint32_t nhwc[4], uint32_t pixel_bytes,
                       uint16_t halo, int32_t zero_point)
{
    const uint32_t stride_h = (nhwc[2] + 2u * halo) * pixel_bytes;
    const uint32_t stride_n = (nhwc[1] + 2u * halo) * stride_h;
    const uint64_t base = round64(builder->header.arena_bytes);
    builder->header.arena_bytes = base + (uint64_t)nhwc[0] * stride_n;
    return add_tensor(builder, (struct tepi_tensor){
                                   .place = TEPI_PLACE_ARENA,
                                   .n = nhwc[0],
                                   .h = nhwc[1],
                                   .w = nhwc[2],
                                   .c = nhwc[3],
                                   .stride_n = stride_n,
                                   .stride_h = stride_h,
                                   .stride_w = pixel_bytes,
                                   .halo_top = halo,
                                   .halo_left = halo,
                                   .halo_bottom = halo,
                                   .halo_right = halo,
                                   .offset = base + (uint64_t)halo * stride_h + halo * pixel_bytes,
                                   .scale = 1.0f,
                                   .zero_point = zero_point,
                               });
}

uint16_t builder_constant_image(struct builder *builder, const uint32_t nhwc[4],
                                const uint8_t *pixels)
{
    const uint32_t bytes = nhwc[0] * nhwc[1] * nhwc[2] * nhwc[3];
    return add_tensor(builder, (struct tepi_tensor){
                                   .place = TEPI_PLACE_CONSTANT,
                                   .n = nhwc[0],
                                   .h = nhwc[1],
                                   .w = nhwc[2],
                                   .c = nhwc[3],
                                   .stride_n = nhwc[1] * nhwc[2] * nhwc[3],
                                   .stride_h = nhwc[2] * nhwc[3],
                                   .stride_w = nhwc[3],
                                   .offset = builder_constant(builder, pixels, bytes),
                                   .scale = 1.0f,
                               });
}

uint16_t builder_floats(struct builder *builder, const uint32_t nhwc[4], uint32_t pixel_floats)
{
    const uint16_t image = builder_arena(builder, nhwc, 4 * pixel_floats, 0, 0);
    builder->tensors[image].type = TEPI_TYPE_F32;
    return image;
}

uint16_t builder_constant_floats(struct builder *builder, const uint32_t nhwc[4],
                                 const float *floats)
{
    const uint32_t bytes = 4 * nhwc[0] * nhwc[1] * nhwc[2] * nhwc[3];
    return add_tensor(builder, (struct tepi_tensor){
                                   .type = TEPI_TYPE_F32,
                                   .place = TEPI_PLACE_CONSTANT,
                                   .n = nhwc[0],
                                   .h = nhwc[1],
                                   .w = nhwc[2],
                                   .c = nhwc[3],
                                   .stride_n = 4 * nhwc[1] * nhwc[2] * nhwc[3],
                                   .stride_h = 4 * nhwc[2] * nhwc[3],
                                   .stride_w = 4 * nhwc[3],
                                   .offset = builder_constant(builder, floats, bytes),
                               });
}

static uint32_t element_bytes(uint8_t type)
{
    const bool four = type == TEPI_TYPE_F32 || type == TEPI_TYPE_I32;
    return four ? 4 : type == TEPI_TYPE_I64 ? 8 : 1;
}

static uint16_t add_port(struct builder *builder, uint8_t type, uint8_t place, uint16_t port,
                         uint32_t elements)
{
    const uint32_t bytes = elements * element_bytes(type);
    return add_tensor(builder, (struct tepi_tensor){
                                   .type = type,
                                   .place = place,
                                   .port = port,
                                   .n = 1,
                                   .h = 1,
                                   .w = 1,
                                   .c = elements,
                                   .stride_n = bytes,
                                   .stride_h = bytes,
                                   .stride_w = bytes,
                               });
}

uint16_t builder_input(struct builder *builder, uint8_t type, uint32_t elements)
{
    return add_port(builder, type, TEPI_PLACE_INPUT, builder->header.inputs++, elements);
}

uint16_t builder_output(struct builder *builder, uint8_t type, uint32_t elements)
{
    return add_port(builder, type, TEPI_PLACE_OUTPUT, builder->header.outputs++, elements);
}

struct tepi_instruction *builder_add(struct builder *builder, uint8_t code, uint16_t a,
                                     uint16_t out)
{
    assert(builder->header.instructions < BUILDER_INSTRUCTIONS);
    struct tepi_instruction *in = &builder->instructions[builder->header.instructions];
    *in = (struct tepi_instruction){.code = code, .a = a, .b = TEPI_NO_TENSOR, .out = out};
    in->node = builder->header.instructions++;
    return in;
}

struct tepi_instruction *builder_vector(struct builder *builder, uint16_t out, uint32_t row,
                                        uint32_t code, uint32_t count, const uint16_t *sources,
                                        const uint16_t *more)
{
    struct tepi_instruction *in = builder_add(builder, TEPI_OP_VECTOR, TEPI_NO_TENSOR, out);
    struct tepi_vector_params *p = &in->vector;
    *p = (struct tepi_vector_params){.row = row, .code = code, .steps = count};
    memset(p->sources, 0xff, sizeof(p->sources));
    memset(p->more, 0xff, sizeof(p->more));
    for (int i = 0; sources && sources[i] != TEPI_NO_TENSOR; i++)
        p->sources[i] = sources[i];
    for (int i = 0; more && more[i] != TEPI_NO_TENSOR; i++)
        p->more[i] = more[i];
    return in;
}

void builder_fill(struct builder *builder, uint16_t image, uint8_t value)
{
    struct tepi_instruction *in = builder_add(builder, TEPI_OP_FILL, TEPI_NO_TENSOR, image);
    in->fill.whole = 1;
    in->fill.value = value;
}

/* Writes the element strides of a flat NHWC array and of the image itself. */
static void set_strides(const struct tepi_tensor *image, uint32_t dims[6], int32_t flat[6],
                        int32_t strided[6])
{
    const uint32_t bytes = element_bytes(image->type);
    const uint32_t extents[4] = {image->n, image->h, image->w, image->c};
    const uint32_t strides[4] = {image->stride_n, image->stride_h, image->stride_w, bytes};
    int32_t step = 1;
    for (int i = 3; i >= 0; i--) {
        dims[i] = extents[i];
        flat[i] = step;
        strided[i] = (int32_t)(strides[i] / bytes);
        step *= (int32_t)extents[i];
    }
}

void builder_load(struct builder *builder, uint16_t port, uint16_t image)
{
    struct tepi_map_params *map = &builder_add(builder, TEPI_OP_MAP, port, image)->map;
    *map = (struct tepi_map_params){.rank = 4, .table = TEPI_NONE, .hi = 255};
    set_strides(&builder->tensors[image], map->dims, map->stride, map->out_stride);
}

void builder_store(struct builder *builder, uint16_t image, uint16_t port)
{
    struct tepi_map_params *map = &builder_add(builder, TEPI_OP_MAP, image, port)->map;
    *map = (struct tepi_map_params){.rank = 4, .table = TEPI_NONE, .hi = 255};
    set_strides(&builder->tensors[image], map->dims, map->out_stride, map->stride);
}

uint8_t *builder_image(const struct builder *builder, size_t *bytes)
{
    struct tepi_program_header header = builder->header;
    const size_t tensors = header.tensors * sizeof(struct tepi_tensor);
    const size_t instructions = header.instructions * sizeof(struct tepi_instruction);
    header.tensors_offset = sizeof(header);
    header.instructions_offset = round64(header.tensors_offset + tensors);
    header.constants_offset = round64(header.instructions_offset + instructions);
    header.total_bytes = header.constants_offset + header.constants_bytes;
    *bytes = (size_t)header.total_bytes;
    uint8_t *image = calloc(1, *bytes);
    memcpy(image, &header, sizeof(header));
    memcpy(image + header.tensors_offset, builder->tensors, tensors);
    memcpy(image + header.instructions_offset, builder->instructions, instructions);
    memcpy(image + header.constants_offset, builder->constants, (size_t)header.constants_bytes);
    builder_seal(image, *bytes);
    return image;
}

void builder_seal(uint8_t *image, size_t bytes)
{
    const size_t at = offsetof(struct tepi_program_header, crc32);
    memset(image + at, 0, 4);
    const uint32_t crc = tepi_crc32(0, image, bytes);
    memcpy(image + at, &crc, 4);
}

static struct tepi_verdict run_loaded(const struct tepi_program *program, const void *const *inputs,
                                      void *const *outputs)
{
    void *ports[TEPI_PORTS_MAX];
    const uint32_t in = tepi_program_inputs(program), all = in + tepi_program_outputs(program);
    for (uint32_t i = 0; i < all; i++) {
        const size_t bytes = (size_t)tepi_program_port_bytes(program, i);
        ports[i] = malloc(bytes);
        if (i < in)
            memcpy(ports[i], inputs[i], bytes);
        else
            memset(ports[i], 0xa5, bytes);
    }
    const size_t scratch_bytes = (size_t)tepi_program_scratch_bytes(program);
    void *scratch = aligned_alloc(64, (size_t)round64(scratch_bytes));
    memset(scratch, 0x5a, scratch_bytes);
    const struct tepi_verdict found = tepi_program_run(program, ports, scratch, NULL);
    for (uint32_t i = 0; i < all; i++) {
        if (i >= in && outputs)
            memcpy(outputs[i - in], ports[i], (size_t)tepi_program_port_bytes(program, i));
        free(ports[i]);
    }
    free(scratch);
    return found;
}

struct tepi_verdict builder_run_on(const struct builder *builder,
                                   const struct tepi_kernel_set *kernels, const void *const *inputs,
                                   void *const *outputs)
{
    struct tepi_memory memory = {.bytes = UINT64_C(64) << 20};
    struct tepi_program *program;
    size_t bytes;
    uint8_t *image = builder_image(builder, &bytes);
    struct tepi_verdict found = tepi_program_load(image, bytes, kernels, &memory, &program);
    memset(image, 0xee, bytes); /* the program must not look at it again */
    free(image);
    if (found.fault == TEPI_FAULT_OK) {
        found = run_loaded(program, inputs, outputs);
        tepi_program_free(program);
    }
    assert(tepi_memory_free(&memory) == memory.bytes);
    return found;
}

const struct tepi_kernel_set *builder_kernels(unsigned n)
{
    for (int isa = TEPI_KERNEL_SCALAR; isa <= TEPI_KERNEL_AMXINT8; isa++) {
        const struct tepi_kernel_set *set = tepi_kernels_for((enum tepi_kernel_isa)isa);
        if (set && n-- == 0)
            return set;
    }
    return NULL;
}

/* xorshift64* */
uint32_t chance_next(struct chance *chance)
{
    chance->state ^= chance->state >> 12;
    chance->state ^= chance->state << 25;
    chance->state ^= chance->state >> 27;
    return (uint32_t)(chance->state * UINT64_C(0x2545f4914f6cdd1d) >> 32);
}

uint32_t chance_below(struct chance *chance, uint32_t limit)
{
    return chance_next(chance) % limit;
}

void chance_fill(struct chance *chance, void *bytes, size_t count)
{
    uint8_t *at = bytes;
    while (count--)
        *at++ = (uint8_t)chance_next(chance);
}
