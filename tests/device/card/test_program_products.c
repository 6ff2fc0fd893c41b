/* SPDX-License-Identifier: Apache-2.0 */
/* MATMUL and LAYERNORM against their formulas: heads apart or side by side, broadcast, transposed,
 * padded channels. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { BYTES_MAX = 8192, ROUNDS = 300 };

/* A tensor of n x h matrices, split or not, and its bytes in order of n, h, row, column. */
struct matrices {
    uint32_t n, h, rows, columns;
    bool split;
    uint16_t port, image;
    uint8_t bytes[BYTES_MAX]; /* as the port has them */
};

static size_t place(const struct matrices *m, uint32_t n, uint32_t h, uint32_t row, uint32_t column)
{
    n = m->n == 1 ? 0 : n;
    h = m->h == 1 ? 0 : h;
    if (m->split)
        return ((size_t)n * m->rows + row) * m->h * m->columns + (size_t)h * m->columns + column;
    return (((size_t)n * m->h + h) * m->rows + row) * m->columns + column;
}

static size_t volume(const struct matrices *m)
{
    return (size_t)m->n * m->h * m->rows * m->columns;
}

static void add_image(struct builder *b, struct matrices *m, struct chance *chance)
{
    const uint32_t apart[4] = {m->n, m->h, m->rows, m->columns};
    const uint32_t together[4] = {m->n, 1, m->rows, m->h * m->columns};
    const uint32_t *nhwc = m->split ? together : apart;
    const uint32_t pixel = nhwc[3] + (chance_below(chance, 2) ? chance_below(chance, 40) : 0);
    m->image = builder_arena(b, nhwc, pixel, (uint16_t)(chance_below(chance, 4) / 3),
                             (int32_t)chance_below(chance, 256));
}

struct product {
    struct builder b;
    struct matrices a, second, out;
    bool transposed;
    uint32_t depth;
    struct tepi_matmul_params params;
};

static void build_product(struct product *p, struct chance *chance)
{
    const uint32_t n = 1 + chance_below(chance, 2), h = 1 + chance_below(chance, 4);
    const uint32_t rows = 1 + chance_below(chance, 8), columns = 1 + chance_below(chance, 40);
    p->depth = 1 + chance_below(chance, 20);
    p->transposed = chance_below(chance, 2);
    p->a = (struct matrices){.n = chance_below(chance, 3) ? n : 1,
                             .h = chance_below(chance, 3) ? h : 1,
                             .rows = rows,
                             .columns = p->depth};
    p->second = (struct matrices){.n = chance_below(chance, 3) ? n : 1,
                                  .h = chance_below(chance, 3) ? h : 1,
                                  .rows = p->transposed ? columns : p->depth,
                                  .columns = p->transposed ? p->depth : columns};
    p->out = (struct matrices){.n = n, .h = h, .rows = rows, .columns = columns};
    p->a.split = p->a.h == h && chance_below(chance, 2);
    p->second.split = p->second.h == h && chance_below(chance, 2);
    p->out.split = chance_below(chance, 2);
    builder_init(&p->b);
    struct matrices *operands[] = {&p->a, &p->second};
    for (int i = 0; i < 2; i++) {
        chance_fill(chance, operands[i]->bytes, volume(operands[i]));
        operands[i]->port = builder_input(&p->b, TEPI_TYPE_U8, (uint32_t)volume(operands[i]));
    }
    p->out.port = builder_output(&p->b, TEPI_TYPE_U8, (uint32_t)volume(&p->out));
    add_image(&p->b, &p->a, chance);
    add_image(&p->b, &p->second, chance);
    add_image(&p->b, &p->out, chance);
    builder_load(&p->b, p->a.port, p->a.image);
    builder_load(&p->b, p->second.port, p->second.image);
    const bool any = p->a.split || p->second.split || p->out.split;
    p->params = (struct tepi_matmul_params){
        .multiplier = ldexpf((float)(1 + chance_below(chance, 64)), -14),
        .heads = any ? h : 0,
        .a_split = p->a.split,
        .b_split = p->second.split,
        .out_split = p->out.split,
        .b_transposed = p->transposed,
        .table = TEPI_NONE,
        .lo = (uint8_t)chance_below(chance, 100),
        .hi = 255,
    };
    struct tepi_instruction *in = builder_add(&p->b, TEPI_OP_MATMUL, p->a.image, p->out.image);
    in->b = p->second.image;
    in->matmul = p->params;
    builder_store(&p->b, p->out.image, p->out.port);
}

static uint8_t product_at(const struct product *p, uint32_t n, uint32_t h, uint32_t row,
                          uint32_t column)
{
    const struct tepi_tensor *t = p->b.tensors;
    int64_t sum = 0;
    for (uint32_t k = 0; k < p->depth; k++) {
        const size_t at =
            p->transposed ? place(&p->second, n, h, column, k) : place(&p->second, n, h, k, column);
        sum += (int64_t)(p->a.bytes[place(&p->a, n, h, row, k)] - t[p->a.image].zero_point) *
               (p->second.bytes[at] - t[p->second.image].zero_point);
    }
    const int32_t zero = t[p->out.image].zero_point;
    double value = nearbyint((double)sum * (double)p->params.multiplier);
    value = value < -zero ? -zero : value > 255 - zero ? 255 - zero : value;
    const uint8_t byte = (uint8_t)((int32_t)value + zero);
    return byte < p->params.lo ? p->params.lo : byte;
}

/* Multipliers are dyadic: every product is exact, and halves are frequent. */
CHECK_CASE(matmul_equals_its_formula_however_its_heads_lie)
{
    struct chance chance = {.state = 91};
    for (int round = 0; round < ROUNDS; round++) {
        static struct product p;
        static uint8_t expected[BYTES_MAX], found[BYTES_MAX];
        build_product(&p, &chance);
        for (uint32_t n = 0; n < p.out.n; n++)
            for (uint32_t h = 0; h < p.out.h; h++)
                for (uint32_t row = 0; row < p.out.rows; row++)
                    for (uint32_t c = 0; c < p.out.columns; c++)
                        expected[place(&p.out, n, h, row, c)] = product_at(&p, n, h, row, c);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const void *inputs[] = {p.a.bytes, p.second.bytes};
            void *outputs[] = {found};
            CHECK_INT(builder_run_on(&p.b, kernels, inputs, outputs).fault, TEPI_FAULT_OK);
            CHECK_BYTES(found, expected, volume(&p.out));
        }
        builder_free(&p.b);
    }
}

/* Means, variances and factors of powers of two: every step is exact. */
CHECK_CASE(layernorm_runs_along_channels_of_each_pixel)
{
    enum { PIXELS = 12, CHANNELS = 20 };
    const uint32_t nhwc[4] = {1, 3, 4, CHANNELS};
    uint8_t bytes[PIXELS * CHANNELS], expected[PIXELS * CHANNELS], found[PIXELS * CHANNELS];
    float gamma[CHANNELS], beta[CHANNELS];
    for (int c = 0; c < CHANNELS; c++) {
        gamma[c] = (float)(c - 3);
        beta[c] = (float)c / 4;
    }
    /* Half of a pixel's channels lie `d` above its mean, half below: the deviation is d. */
    for (int i = 0; i < PIXELS; i++) {
        for (int c = 0; c < CHANNELS; c++) {
            const int side = c % 2 ? 1 : -1, d = 1 << i % 7;
            bytes[i * CHANNELS + c] = (uint8_t)(128 + i % 3 + side * (d - 1));
            const double normal = d == 1 ? 0 : side;
            const double value = nearbyint(normal * (double)gamma[c] + (double)beta[c]) + 10;
            expected[i * CHANNELS + c] = (uint8_t)(value < 0 ? 0 : value);
        }
    }
    const struct tepi_kernel_set *kernels;
    for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
        struct builder b;
        builder_init(&b);
        const uint16_t in = builder_input(&b, TEPI_TYPE_U8, sizeof(bytes));
        const uint16_t to = builder_output(&b, TEPI_TYPE_U8, sizeof(bytes));
        const uint16_t a = builder_arena(&b, nhwc, 32, 1, 0);
        const uint16_t out = builder_arena(&b, nhwc, CHANNELS, 0, 10);
        builder_load(&b, in, a);
        builder_add(&b, TEPI_OP_LAYERNORM, a, out)->layernorm = (struct tepi_layernorm_params){
            .epsilon = 1e-30f,
            .gamma = builder_constant(&b, gamma, sizeof(gamma)),
            .beta = builder_constant(&b, beta, sizeof(beta)),
        };
        builder_store(&b, out, to);
        const void *inputs[] = {bytes};
        void *outputs[] = {found};
        CHECK_INT(builder_run_on(&b, kernels, inputs, outputs).fault, TEPI_FAULT_OK);
        CHECK_BYTES(found, expected, sizeof(bytes));
        builder_free(&b);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(matmul_equals_its_formula_however_its_heads_lie),
    CHECK_ENTRY(layernorm_runs_along_channels_of_each_pixel),
};
CHECK_MAIN(cases)
