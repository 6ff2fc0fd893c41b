/* SPDX-License-Identifier: Apache-2.0 */
/* MAXPOOL, AVGPOOL and RESIZE against their definitions. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { SHAPES = 120, BYTES_MAX = 1 << 16 };

struct scene {
    struct builder b;
    uint32_t a[4], out[4];
    uint16_t image, result;
    uint8_t input[BYTES_MAX], expected[BYTES_MAX], found[BYTES_MAX];
    size_t volume;
};

static void build(struct scene *s, struct chance *chance, int32_t a_zero, int32_t out_zero)
{
    const size_t in = (size_t)s->a[0] * s->a[1] * s->a[2] * s->a[3];
    s->volume = (size_t)s->out[0] * s->out[1] * s->out[2] * s->out[3];
    chance_fill(chance, s->input, in);
    builder_init(&s->b);
    const uint16_t port = builder_input(&s->b, TEPI_TYPE_U8, (uint32_t)in);
    builder_output(&s->b, TEPI_TYPE_U8, (uint32_t)s->volume);
    const uint32_t padding = chance_below(chance, 2) * 5;
    s->image =
        builder_arena(&s->b, s->a, s->a[3] + padding, (uint16_t)chance_below(chance, 3), a_zero);
    s->result = builder_arena(&s->b, s->out, s->out[3] + padding, 0, out_zero);
    builder_fill(&s->b, s->image, 255); /* pools must not read the halo */
    builder_load(&s->b, port, s->image);
}

static const uint8_t *pixel_of(const struct scene *s, uint32_t n, int64_t y, int64_t x)
{
    if (y < 0 || x < 0 || y >= s->a[1] || x >= s->a[2])
        return NULL;
    return s->input + ((n * s->a[1] + (size_t)y) * s->a[2] + (size_t)x) * s->a[3];
}

static uint8_t pool_at(const struct scene *s, const struct tepi_pool_params *p, bool average,
                       const uint32_t at[4], int32_t a_zero, int32_t out_zero)
{
    int32_t sum = 0, pixels = 0, largest = 0;
    for (uint32_t ky = 0; ky < p->kernel_h; ky++)
        for (uint32_t kx = 0; kx < p->kernel_w; kx++) {
            const uint8_t *pixel =
                pixel_of(s, at[0], (int64_t)at[1] * p->stride_h + ky * p->dilation_h - p->pad_top,
                         (int64_t)at[2] * p->stride_w + kx * p->dilation_w - p->pad_left);
            if (!pixel)
                continue;
            pixels++;
            sum += pixel[at[3]] - a_zero;
            largest = pixel[at[3]] > largest ? pixel[at[3]] : largest;
        }
    if (!average)
        return (uint8_t)largest;
    const int32_t divisor = p->count_include_pad ? p->kernel_h * p->kernel_w : pixels;
    const float multiplier = p->in_scale / (p->out_scale * (float)divisor);
    const double value = nearbyint((double)((float)sum * multiplier)) + out_zero;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static struct tepi_pool_params random_pool(struct scene *s, struct chance *chance, bool average)
{
    struct tepi_pool_params p = {.kernel_h = (uint16_t)(1 + chance_below(chance, 4)),
                                 .kernel_w = (uint16_t)(1 + chance_below(chance, 4)),
                                 .stride_h = (uint16_t)(1 + chance_below(chance, 3)),
                                 .stride_w = (uint16_t)(1 + chance_below(chance, 3)),
                                 .dilation_h = (uint16_t)(1 + chance_below(chance, 2)),
                                 .dilation_w = (uint16_t)(1 + chance_below(chance, 2))};
    p.pad_top = p.pad_bottom = (uint16_t)chance_below(chance, p.kernel_h);
    p.pad_left = p.pad_right = (uint16_t)chance_below(chance, p.kernel_w);
    if (average) {
        p.count_include_pad = chance_below(chance, 2);
        p.in_scale = (float)(1 + chance_below(chance, 100)) / 500;
        p.out_scale = (float)(1 + chance_below(chance, 100)) / 500;
    }
    s->a[0] = s->out[0] = 1 + chance_below(chance, 2);
    s->a[1] = (p.kernel_h - 1u) * p.dilation_h + 1 + chance_below(chance, 6);
    s->a[2] = (p.kernel_w - 1u) * p.dilation_w + 1 + chance_below(chance, 6);
    s->a[3] = s->out[3] = 1 + chance_below(chance, 90);
    s->out[1] = 1 + (s->a[1] + 2u * p.pad_top - (p.kernel_h - 1u) * p.dilation_h - 1) / p.stride_h;
    s->out[2] = 1 + (s->a[2] + 2u * p.pad_left - (p.kernel_w - 1u) * p.dilation_w - 1) / p.stride_w;
    return p;
}

CHECK_CASE(pools_equal_the_definition)
{
    struct scene *s = malloc(sizeof(*s));
    struct chance chance = {.state = 11};
    for (uint32_t i = 0; i < SHAPES; i++) {
        const bool average = i % 2;
        const struct tepi_pool_params p = random_pool(s, &chance, average);
        const int32_t a_zero = (int32_t)chance_below(&chance, 256);
        const int32_t out_zero = (int32_t)chance_below(&chance, 256);
        build(s, &chance, a_zero, out_zero);
        builder_add(&s->b, average ? TEPI_OP_AVGPOOL : TEPI_OP_MAXPOOL, s->image, s->result)->pool =
            p;
        builder_store(&s->b, s->result, 1);
        uint8_t *expected = s->expected;
        for (uint32_t n = 0; n < s->out[0]; n++)
            for (uint32_t y = 0; y < s->out[1]; y++)
                for (uint32_t x = 0; x < s->out[2]; x++)
                    for (uint32_t c = 0; c < s->out[3]; c++)
                        *expected++ =
                            pool_at(s, &p, average, (uint32_t[]){n, y, x, c}, a_zero, out_zero);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const struct tepi_verdict found =
                builder_run_on(&s->b, kernels, (const void *[]){s->input}, (void *[]){s->found});
            CHECK_INT(found.fault, TEPI_FAULT_OK);
            CHECK_BYTES(s->found, s->expected, s->volume);
        }
        builder_free(&s->b);
    }
    free(s);
}

CHECK_CASE(a_global_mean_takes_the_whole_image)
{
    struct scene *s = malloc(sizeof(*s));
    struct chance chance = {.state = 12};
    *s = (struct scene){.a = {1, 7, 9, 65}, .out = {1, 1, 1, 65}};
    build(s, &chance, 3, 10);
    builder_add(&s->b, TEPI_OP_AVGPOOL, s->image, s->result)->pool =
        (struct tepi_pool_params){.kernel_h = 7,
                                  .kernel_w = 9,
                                  .stride_h = 1,
                                  .stride_w = 1,
                                  .dilation_h = 1,
                                  .dilation_w = 1,
                                  .in_scale = 0.5f,
                                  .out_scale = 0.25f};
    builder_store(&s->b, s->result, 1);
    CHECK_INT(
        builder_run_on(&s->b, builder_kernels(0), (const void *[]){s->input}, (void *[]){s->found})
            .fault,
        TEPI_FAULT_OK);
    for (size_t c = 0; c < 65; c++) {
        int32_t sum = 0;
        for (size_t i = 0; i < 63; i++)
            sum += s->input[i * 65 + c] - 3;
        const double mean = nearbyint((double)((float)sum * (0.5f / (0.25f * 63.0f)))) + 10;
        CHECK_INT(s->found[c], mean > 255 ? 255 : mean);
    }
    builder_free(&s->b);
    free(s);
}

CHECK_CASE(resize_takes_listed_rows_and_columns)
{
    struct scene *s = malloc(sizeof(*s));
    struct chance chance = {.state = 13};
    for (uint32_t i = 0; i < 40; i++) {
        uint32_t rows[16], columns[16];
        s->a[0] = s->out[0] = 1 + chance_below(&chance, 2);
        s->a[3] = s->out[3] = 1 + chance_below(&chance, 40);
        for (int d = 1; d < 3; d++) {
            s->a[d] = 1 + chance_below(&chance, 8);
            s->out[d] = 1 + chance_below(&chance, 16);
        }
        for (int k = 0; k < 16; k++) {
            rows[k] = chance_below(&chance, s->a[1]);
            columns[k] = chance_below(&chance, s->a[2]);
        }
        build(s, &chance, 0, 0);
        builder_add(&s->b, TEPI_OP_RESIZE, s->image, s->result)->resize =
            (struct tepi_resize_params){.rows = builder_constant(&s->b, rows, s->out[1] * 4),
                                        .columns = builder_constant(&s->b, columns, s->out[2] * 4)};
        builder_store(&s->b, s->result, 1);
        uint8_t *expected = s->expected;
        for (uint32_t n = 0; n < s->out[0]; n++)
            for (uint32_t y = 0; y < s->out[1]; y++)
                for (uint32_t x = 0; x < s->out[2]; x++, expected += s->out[3])
                    memcpy(expected, pixel_of(s, n, rows[y], columns[x]), s->out[3]);
        CHECK_INT(builder_run_on(&s->b, builder_kernels(0), (const void *[]){s->input},
                                 (void *[]){s->found})
                      .fault,
                  TEPI_FAULT_OK);
        CHECK_BYTES(s->found, s->expected, s->volume);
        builder_free(&s->b);
    }
    free(s);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(pools_equal_the_definition),
    CHECK_ENTRY(a_global_mean_takes_the_whole_image),
    CHECK_ENTRY(resize_takes_listed_rows_and_columns),
};
CHECK_MAIN(cases)
