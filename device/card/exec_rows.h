/* SPDX-License-Identifier: Apache-2.0 */
/* Instructions that walk over tensors and call a kernel on runs of consecutive bytes. */
#ifndef TEPI_CARD_EXEC_ROWS_H
#define TEPI_CARD_EXEC_ROWS_H

#include "card/exec.h"

/* out and a are images of one extent, b (where has_b) broadcasts to it; *work: their elements. */
uint16_t tepi_rows_check(const struct tepi_image *image, const struct tepi_instruction *in,
                         bool has_b, uint64_t *work);

/* Sites and loops of the step. With `joined` false a call covers exactly the channels of one pixel.
 */
void tepi_rows_prepare(struct tepi_prepare *prepare, const struct tepi_instruction *in,
                       struct tepi_elementwise_step *step, bool has_b, bool joined);

typedef void tepi_rows_call(const struct tepi_elementwise_step *step,
                            const struct tepi_kernel_set *kernels, const uint8_t *a,
                            const uint8_t *b, uint8_t *out, size_t count);
/* A unit is a stretch of bytes where all are one row, else some rounds of the outermost loop. */
uint16_t tepi_rows_run(const struct tepi_step *step, const struct tepi_run *run,
                       struct tepi_range units, tepi_rows_call *kernel);

/* At the end of a prepare: cuts the step into units for `run`. With `rows_cut` false a row, which
 * is a pixel's channels, stays whole. */
void tepi_rows_cut(struct tepi_prepare *prepare, struct tepi_step *step, tepi_run_range *run,
                   bool rows_cut);

#endif
