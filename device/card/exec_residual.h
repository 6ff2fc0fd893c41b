/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor added to what a convolution stores, while that is still in cache. */
#ifndef TEPI_CARD_EXEC_RESIDUAL_H
#define TEPI_CARD_EXEC_RESIDUAL_H

#include "card/exec.h"

/* Faults of a CONV with U8 result, whose b and numbers of an addition belong together. */
uint16_t tepi_residual_check(const struct tepi_image *image, const struct tepi_instruction *in);
/* Not present where the instruction has none. */
struct tepi_residual tepi_residual_prepare(struct tepi_prepare *prepare,
                                           const struct tepi_instruction *in);

/* Whether the rows of one image, or the images, follow each other here as one row does. */
bool tepi_residual_joins_rows(const struct tepi_residual *residual, const struct tepi_conv *conv);
bool tepi_residual_joins_images(const struct tepi_residual *residual, const struct tepi_conv *conv);

/* Adds to the `rows` of `conv` that its kernel has written; the part's first pixel and channel of
 * the step's output are `pixel` and `channel`. */
void tepi_residual_add(const struct tepi_residual *residual, const struct tepi_run *run,
                       const struct tepi_conv *conv, struct tepi_range rows, uint32_t pixel,
                       uint32_t channel);

#endif
