/* SPDX-License-Identifier: Apache-2.0 */
/* Checks of a program's frame: size, magic, ABI, checksum, sections, tensor table. */
#include "card/program_image.h"
#include "abi/registers.h"
#include "card/program_crc.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SECTION_ALIGNMENT = 64, CHECKED_AT_ONCE = 1 << 20 };

static struct tepi_verdict verdict(enum tepi_fault fault, uint64_t info)
{
    return (struct tepi_verdict){(uint16_t)fault, (uint32_t)info};
}

static struct tepi_verdict bad_field(size_t offset)
{
    return verdict(TEPI_FAULT_PROGRAM_HEADER, offset);
}

struct section {
    uint64_t offset, bytes;
    size_t field; /* of the header, for the fault */
};

static struct tepi_verdict check_sections(const struct tepi_program_header *header)
{
    const struct section sections[] = {
        {0, sizeof(*header), 0},
        {header->tensors_offset, header->tensors * sizeof(struct tepi_tensor),
         offsetof(struct tepi_program_header, tensors_offset)},
        {header->instructions_offset, header->instructions * sizeof(struct tepi_instruction),
         offsetof(struct tepi_program_header, instructions_offset)},
        {header->constants_offset, header->constants_bytes,
         offsetof(struct tepi_program_header, constants_offset)},
    };
    for (size_t i = 1; i < sizeof(sections) / sizeof(sections[0]); i++) {
        const struct section *s = &sections[i];
        if (s->offset % SECTION_ALIGNMENT || s->offset > header->total_bytes ||
            s->bytes > header->total_bytes - s->offset)
            return bad_field(s->field);
        for (size_t j = 0; j < i; j++) {
            const struct section *other = &sections[j];
            if (s->bytes && s->offset < other->offset + other->bytes &&
                other->offset < s->offset + s->bytes)
                return bad_field(s->field);
        }
    }
    return verdict(TEPI_FAULT_OK, 0);
}

static struct tepi_verdict check_fields(const struct tepi_program_header *header)
{
    if (header->flags)
        return bad_field(offsetof(struct tepi_program_header, flags));
    if (header->tensors == 0 || header->tensors > TEPI_TENSORS_MAX)
        return bad_field(offsetof(struct tepi_program_header, tensors));
    if (header->instructions == 0 || header->instructions > TEPI_INSTRUCTIONS_MAX)
        return bad_field(offsetof(struct tepi_program_header, instructions));
    if (header->arena_bytes > TEPI_ARENA_MAX)
        return bad_field(offsetof(struct tepi_program_header, arena_bytes));
    if (header->constants_bytes > TEPI_NONE) /* so that TEPI_NONE is never an offset */
        return bad_field(offsetof(struct tepi_program_header, constants_bytes));
    if (header->macs > TEPI_WORK_MAX)
        return bad_field(offsetof(struct tepi_program_header, macs));
    if (header->inputs > TEPI_PORTS_MAX)
        return bad_field(offsetof(struct tepi_program_header, inputs));
    if (header->outputs == 0 || header->outputs > TEPI_PORTS_MAX - header->inputs)
        return bad_field(offsetof(struct tepi_program_header, outputs));
    for (size_t i = 0; i < sizeof(header->reserved) / sizeof(header->reserved[0]); i++)
        if (header->reserved[i])
            return bad_field(offsetof(struct tepi_program_header, reserved) + 4 * i);
    return check_sections(header);
}

static void consumed(const struct tepi_program_source *source, uint64_t offset, uint64_t bytes)
{
    if (source->consumed && bytes)
        source->consumed(source->context, offset, bytes);
}

/* Of what follows the header. */
static uint32_t checksum(const struct tepi_program_source *source, uint32_t crc)
{
    const uint8_t *bytes = source->image;
    uint64_t piece;
    for (uint64_t at = sizeof(struct tepi_program_header); at < source->bytes; at += piece) {
        piece = source->bytes - at < CHECKED_AT_ONCE ? source->bytes - at : CHECKED_AT_ONCE;
        crc = tepi_crc32(crc, bytes + at, (size_t)piece);
        consumed(source, at, piece);
    }
    return crc;
}

/* Magic and ABI come before the checksum: an image of another age may keep its checksum elsewhere.
 * The checksum comes before all other fields, so that a damaged image is told from a wrong one. */
static struct tepi_verdict check_header(struct tepi_program_header *header,
                                        const struct tepi_program_source *source)
{
    const void *bytes = source->image;
    const uint64_t size = source->bytes;
    if (size < sizeof(*header))
        return verdict(TEPI_FAULT_PROGRAM_TRUNCATED, 0);
    memcpy(header, bytes, sizeof(*header));
    if (header->magic != TEPI_PROGRAM_MAGIC)
        return verdict(TEPI_FAULT_PROGRAM_MAGIC, 0);
    if (header->abi != TEPI_ABI_VERSION)
        return verdict(TEPI_FAULT_PROGRAM_ABI, header->abi);
    if (header->header_bytes != sizeof(*header))
        return bad_field(offsetof(struct tepi_program_header, header_bytes));
    if (header->total_bytes > size)
        return verdict(TEPI_FAULT_PROGRAM_TRUNCATED, 0);
    if (header->total_bytes < size || size > SIZE_MAX)
        return bad_field(offsetof(struct tepi_program_header, total_bytes));

    struct tepi_program_header zeroed = *header;
    zeroed.crc32 = 0;
    if (checksum(source, tepi_crc32(0, &zeroed, sizeof(zeroed))) != header->crc32)
        return verdict(TEPI_FAULT_PROGRAM_CRC, 0);
    return check_fields(header);
}

uint32_t tepi_type_bytes(uint8_t type)
{
    return TEPI_TYPE_BYTES(type);
}

struct tepi_reach tepi_tensor_reach(const struct tepi_tensor *t)
{
    const uint64_t before =
        (uint64_t)t->halo_top * t->stride_h + (uint64_t)t->halo_left * t->stride_w;
    const uint64_t after = (uint64_t)(t->n - 1) * t->stride_n +
                           ((uint64_t)t->h - 1 + t->halo_bottom) * t->stride_h +
                           ((uint64_t)t->w - 1 + t->halo_right) * t->stride_w +
                           (uint64_t)t->c * tepi_type_bytes(t->type);
    return (struct tepi_reach){before, after};
}

static bool extent_valid(const struct tepi_tensor *t)
{
    const uint32_t dims[] = {t->n, t->h, t->w, t->c};
    for (size_t i = 0; i < 4; i++)
        if (dims[i] == 0 || dims[i] > TEPI_DIM_MAX)
            return false;
    return t->halo_top <= TEPI_HALO_MAX && t->halo_left <= TEPI_HALO_MAX &&
           t->halo_bottom <= TEPI_HALO_MAX && t->halo_right <= TEPI_HALO_MAX;
}

/* Each dimension's stride spans the one inside it, halo included: no two pixels share a byte. */
static bool strides_valid(const struct tepi_tensor *t)
{
    const uint64_t row = ((uint64_t)t->halo_left + t->w + t->halo_right) * t->stride_w;
    const uint64_t image = ((uint64_t)t->halo_top + t->h + t->halo_bottom) * t->stride_h;
    return t->stride_w >= (uint64_t)t->c * tepi_type_bytes(t->type) && t->stride_h >= row &&
           t->stride_n >= image;
}

static bool without_halo(const struct tepi_tensor *t)
{
    return t->halo_top == 0 && t->halo_left == 0 && t->halo_bottom == 0 && t->halo_right == 0;
}

static bool port_valid(const struct tepi_tensor *t, uint32_t ports)
{
    return t->port < ports && t->n == 1 && t->h == 1 && t->w == 1 && t->offset == 0 &&
           without_halo(t);
}

/* float32 is aligned wherever it lies: places are. */
static bool floats_valid(const struct tepi_tensor *t)
{
    return without_halo(t) && t->offset % 4 == 0 && t->stride_w % 4 == 0 && t->stride_h % 4 == 0 &&
           t->stride_n % 4 == 0;
}

static bool image_valid(const struct tepi_tensor *t, uint64_t place_bytes)
{
    const struct tepi_reach reach = tepi_tensor_reach(t);
    const bool typed = t->type == TEPI_TYPE_U8 || (t->type == TEPI_TYPE_F32 && floats_valid(t));
    return typed && t->port == 0 && t->offset >= reach.before && t->offset <= place_bytes &&
           reach.after <= place_bytes - t->offset;
}

static bool tensor_valid(const struct tepi_program_header *header, const struct tepi_tensor *t)
{
    if (t->type > TEPI_TYPE_BOOL || !extent_valid(t) || !strides_valid(t) || !isfinite(t->scale) ||
        t->scale < 0 || t->zero_point < 0 || t->zero_point > 255)
        return false;
    switch (t->place) {
    case TEPI_PLACE_ARENA:
        return image_valid(t, header->arena_bytes);
    case TEPI_PLACE_CONSTANT:
        return image_valid(t, header->constants_bytes);
    case TEPI_PLACE_INPUT:
        return port_valid(t, header->inputs);
    case TEPI_PLACE_OUTPUT:
        return t->type <= TEPI_TYPE_F32 && port_valid(t, header->outputs);
    default:
        return false;
    }
}

/* Every port has exactly one tensor. */
static struct tepi_verdict check_tensors(const struct tepi_image *image)
{
    bool seen[2][TEPI_PORTS_MAX] = {{false}};
    uint32_t ports = 0;
    for (uint32_t i = 0; i < image->header.tensors; i++) {
        const struct tepi_tensor *t = &image->tensors[i];
        if (!tensor_valid(&image->header, t))
            return verdict(TEPI_FAULT_PROGRAM_TENSOR, i);
        if (t->place != TEPI_PLACE_INPUT && t->place != TEPI_PLACE_OUTPUT)
            continue;
        bool *port = &seen[t->place == TEPI_PLACE_OUTPUT][t->port];
        if (*port)
            return verdict(TEPI_FAULT_PROGRAM_TENSOR, i);
        *port = true;
        ports++;
    }
    if (ports != (uint32_t)image->header.inputs + image->header.outputs)
        return verdict(TEPI_FAULT_PROGRAM_TENSOR, image->header.tensors);
    return verdict(TEPI_FAULT_OK, 0);
}

static void *copy_of(const uint8_t *bytes, size_t size)
{
    void *copy = malloc(size);
    return copy ? memcpy(copy, bytes, size) : NULL;
}

struct tepi_verdict tepi_image_open(struct tepi_image *image,
                                    const struct tepi_program_source *source)
{
    memset(image, 0, sizeof(*image));
    struct tepi_verdict found = check_header(&image->header, source);
    if (found.fault)
        return found;
    const struct tepi_program_header *header = &image->header;
    const uint8_t *base = source->image;
    const size_t tensors = header->tensors * sizeof(struct tepi_tensor);
    const size_t instructions = header->instructions * sizeof(struct tepi_instruction);
    image->constants = base + header->constants_offset;
    image->source = *source;
    image->tensors = copy_of(base + header->tensors_offset, tensors);
    image->instructions = copy_of(base + header->instructions_offset, instructions);
    if (!image->tensors || !image->instructions)
        found = verdict(TEPI_FAULT_NO_MEMORY, (tensors + instructions) / 1024 + 1);
    else
        found = check_tensors(image);
    if (found.fault)
        tepi_image_close(image);
    return found;
}

void tepi_image_close(struct tepi_image *image)
{
    free(image->tensors);
    free(image->instructions);
    memset(image, 0, sizeof(*image));
}

void tepi_image_consumed(const struct tepi_image *image, uint64_t offset, uint64_t bytes)
{
    consumed(&image->source, image->header.constants_offset + offset, bytes);
}

const struct tepi_tensor *tepi_image_any_target(const struct tepi_image *image, uint16_t index)
{
    if (index >= image->header.tensors || image->tensors[index].place != TEPI_PLACE_ARENA)
        return NULL;
    return &image->tensors[index];
}

const struct tepi_tensor *tepi_image_any_source(const struct tepi_image *image, uint16_t index)
{
    if (index < image->header.tensors && image->tensors[index].place == TEPI_PLACE_CONSTANT)
        return &image->tensors[index];
    return tepi_image_any_target(image, index);
}

static const struct tepi_tensor *of_type(const struct tepi_tensor *t, uint8_t type)
{
    return t && t->type == type ? t : NULL;
}

const struct tepi_tensor *tepi_image_source(const struct tepi_image *image, uint16_t index)
{
    return of_type(tepi_image_any_source(image, index), TEPI_TYPE_U8);
}

const struct tepi_tensor *tepi_image_target(const struct tepi_image *image, uint16_t index)
{
    return of_type(tepi_image_any_target(image, index), TEPI_TYPE_U8);
}

const struct tepi_tensor *tepi_image_float_source(const struct tepi_image *image, uint16_t index)
{
    return of_type(tepi_image_any_source(image, index), TEPI_TYPE_F32);
}

const struct tepi_tensor *tepi_image_float_target(const struct tepi_image *image, uint16_t index)
{
    return of_type(tepi_image_any_target(image, index), TEPI_TYPE_F32);
}

bool tepi_image_quantizes(const struct tepi_image *image, uint16_t index)
{
    const struct tepi_tensor *t = tepi_image_float_target(image, index);
    return t && t->n == 1 && t->h == 1 && t->w == 1 && t->c == 2;
}

bool tepi_image_holds(const struct tepi_image *image, uint32_t offset, uint64_t bytes,
                      uint32_t alignment)
{
    const uint64_t size = image->header.constants_bytes;
    return offset % alignment == 0 && offset <= size && bytes <= size - offset;
}
