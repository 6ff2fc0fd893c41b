/* SPDX-License-Identifier: Apache-2.0 */
/* A program image on its way in: header and tensor table checked, instructions readable. */
#ifndef TEPI_CARD_PROGRAM_IMAGE_H
#define TEPI_CARD_PROGRAM_IMAGE_H

#include "abi/faults.h"
#include "abi/program.h"
#include "card/program.h"

/* Header and tables are private copies: what was checked is what is used, even if the host writes
 * to its memory meanwhile. Constants stay the host's bytes, so their values are checked
 * where they are copied. */
struct tepi_image {
    struct tepi_program_header header;
    struct tepi_tensor *tensors;
    struct tepi_instruction *instructions;
    const uint8_t *constants;
    struct tepi_program_source source;
};

/* Checks everything but the instructions; on success tepi_image_close is the caller's duty. */
struct tepi_verdict tepi_image_open(struct tepi_image *image,
                                    const struct tepi_program_source *source);
void tepi_image_close(struct tepi_image *image);

/* Says that `bytes` of the constants at `offset` have been copied or packed. */
void tepi_image_consumed(const struct tepi_image *image, uint64_t offset, uint64_t bytes);

/* Bytes of one element; of a whole port. */
uint32_t tepi_type_bytes(uint8_t type);

/* Bytes that a tensor owns, halo with it, counted from its element (0,0,0,0): `before` lie before
 * it, `after` from it on. */
struct tepi_reach {
    uint64_t before, after;
};
struct tepi_reach tepi_tensor_reach(const struct tepi_tensor *tensor);

/* Tensor `index` where it is a uint8 image that instructions compute on, in the arena or, unless
 * it is to be written, in the constants; else NULL. */
const struct tepi_tensor *tepi_image_source(const struct tepi_image *image, uint16_t index);
const struct tepi_tensor *tepi_image_target(const struct tepi_image *image, uint16_t index);
/* The same of float32; of either. */
const struct tepi_tensor *tepi_image_float_source(const struct tepi_image *image, uint16_t index);
const struct tepi_tensor *tepi_image_float_target(const struct tepi_image *image, uint16_t index);
const struct tepi_tensor *tepi_image_any_source(const struct tepi_image *image, uint16_t index);
const struct tepi_tensor *tepi_image_any_target(const struct tepi_image *image, uint16_t index);
/* Whether tensor `index` may hold a quantization that is known only as the program runs. */
bool tepi_image_quantizes(const struct tepi_image *image, uint16_t index);

/* Whether [offset, offset + bytes) lies in the constants and is aligned (1 or 4). */
bool tepi_image_holds(const struct tepi_image *image, uint32_t offset, uint64_t bytes,
                      uint32_t alignment);

#endif
