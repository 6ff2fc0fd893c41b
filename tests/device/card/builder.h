/* SPDX-License-Identifier: Apache-2.0 */
/* Writes small card programs for tests, and runs them on every kernel set of the machine. */
#ifndef TEPI_TESTS_CARD_BUILDER_H
#define TEPI_TESTS_CARD_BUILDER_H

#include "abi/faults.h"
#include "abi/program.h"
#include "card/program.h"

enum { BUILDER_TENSORS = 48, BUILDER_INSTRUCTIONS = 48, BUILDER_CONSTANTS = 1 << 20 };

struct builder {
    struct tepi_program_header header; /* counts, offsets and checksum are set by builder_image */
    struct tepi_tensor tensors[BUILDER_TENSORS];
    struct tepi_instruction instructions[BUILDER_INSTRUCTIONS];
    uint8_t *constants;
};

void builder_init(struct builder *builder);
void builder_free(struct builder *builder);

/* Offset of a copy of `bytes` in the constant section, aligned to 64. */
uint32_t builder_constant(struct builder *builder, const void *data, size_t bytes);

/* Indices of new tensors. An image gets its own place in the arena; `pixel_bytes` is its stride_w,
 * the halo the same on all sides. */
uint16_t builder_arena(struct builder *builder, const uint32_t nhwc[4], uint32_t pixel_bytes,
                       uint16_t halo, int32_t zero_point);
uint16_t builder_constant_image(struct builder *builder, const uint32_t nhwc[4],
                                const uint8_t *pixels);
/* The same of float32, `pixel_floats` from pixel to pixel, without halo. */
uint16_t builder_floats(struct builder *builder, const uint32_t nhwc[4], uint32_t pixel_floats);
uint16_t builder_constant_floats(struct builder *builder, const uint32_t nhwc[4],
                                 const float *floats);
uint16_t builder_input(struct builder *builder, uint8_t type, uint32_t elements);
uint16_t builder_output(struct builder *builder, uint8_t type, uint32_t elements);

/* A new instruction of `code` from a to out, everything else 0; valid until the next call. */
struct tepi_instruction *builder_add(struct builder *builder, uint8_t code, uint16_t a,
                                     uint16_t out);
/* VECTOR of `row` elements through `count` steps at constant offset `code`, from the sources to out
 * and the tensors of `more`, whose lists end with TEPI_NO_TENSOR; NULL: there are none. */
struct tepi_instruction *builder_vector(struct builder *builder, uint16_t out, uint32_t row,
                                        uint32_t code, uint32_t count, const uint16_t *sources,
                                        const uint16_t *more);
/* FILL of halo, images and padding. */
void builder_fill(struct builder *builder, uint16_t image, uint8_t value);
/* MAPs between a flat NHWC port and an image. */
void builder_load(struct builder *builder, uint16_t port, uint16_t image);
void builder_store(struct builder *builder, uint16_t image, uint16_t port);

/* The finished image, for free(); its bytes lie against the end of their allocation. */
uint8_t *builder_image(const struct builder *builder, size_t *bytes);
/* Writes the checksum that the image's bytes ask for. */
void builder_seal(uint8_t *image, size_t bytes);

/* Loads, runs once on `kernels` and frees; ports are copied to blocks of their exact size. */
struct tepi_verdict builder_run_on(const struct builder *builder,
                                   const struct tepi_kernel_set *kernels, const void *const *inputs,
                                   void *const *outputs);
/* Number n = 0, 1, … of the sets that this machine can run; NULL behind the last. */
const struct tepi_kernel_set *builder_kernels(unsigned n);

/* Deterministic bytes and numbers for tests. */
struct chance {
    uint64_t state;
};
uint32_t chance_next(struct chance *chance);
uint32_t chance_below(struct chance *chance, uint32_t limit);
void chance_fill(struct chance *chance, void *bytes, size_t count);

#endif
