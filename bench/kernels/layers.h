/* SPDX-License-Identifier: Apache-2.0 */
/* The convolutions and fully connected layers of the benchmark models, with how often each comes.
 */
#ifndef TEPI_BENCH_LAYERS_H
#define TEPI_BENCH_LAYERS_H

#include <stddef.h>
#include <stdint.h>

struct layer {
    const char *model;
    uint32_t times, out_h, out_w, kernel, stride;
    uint32_t groups, group_in, group_out;
};

/* Ends with an entry whose model is NULL. */
extern const struct layer layers[];

#endif
