/* SPDX-License-Identifier: Apache-2.0 */
/* FMATMUL against its formula: heads apart or side by side, broadcast, transposed, padded; and more
 * columns than one stripe has. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { FLOATS_MAX = 1 << 17, ROUNDS = 300, WIDE_ROUNDS = 6 };

/* A tensor of n x h matrices, split or not, and its elements as the port has them. */
struct matrices {
    uint32_t n, h, rows, columns;
    bool split;
    uint16_t port, image;
    float floats[FLOATS_MAX];
};

struct product {
    struct builder b;
    struct matrices a, second, out;
    bool transposed;
    uint32_t depth;
    float scale;
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
    m->image = builder_floats(b, nhwc, nhwc[3] + (chance_below(chance, 2) ? 3 : 0));
}

static void fill(struct matrices *m, struct chance *chance)
{
    static const float special[] = {INFINITY, -INFINITY, NAN, -0.0f, 1e-40f, 3e38f};
    const bool odd = chance_below(chance, 4) == 0;
    for (size_t i = 0; i < volume(m); i++) {
        const uint32_t pick = chance_below(chance, 100);
        m->floats[i] = odd && pick < 6
                           ? special[pick]
                           : ((float)chance_below(chance, 1 << 20) - 524288.0f) / 65536.0f;
    }
}

static void set_extents(struct product *p, struct chance *chance, bool wide)
{
    const uint32_t n = 1 + chance_below(chance, 2), h = 1 + chance_below(chance, wide ? 2 : 4);
    const uint32_t rows = 1 + chance_below(chance, wide ? 9 : 20);
    const uint32_t columns = wide ? 100 + chance_below(chance, 60) : 1 + chance_below(chance, 40);
    p->depth = wide ? 400 : 1 + chance_below(chance, 30);
    p->transposed = chance_below(chance, 2);
    p->scale = chance_below(chance, 2) ? 1.0f : 0.17677669f;
    p->a = (struct matrices){.n = chance_below(chance, 3) ? n : 1,
                             .h = chance_below(chance, 3) ? h : 1,
                             .rows = rows,
                             .columns = p->depth};
    p->second = (struct matrices){.n = wide || chance_below(chance, 3) == 0 ? 1 : n,
                                  .h = chance_below(chance, 3) ? h : 1,
                                  .rows = p->transposed ? columns : p->depth,
                                  .columns = p->transposed ? p->depth : columns};
    p->out = (struct matrices){.n = n, .h = h, .rows = rows, .columns = columns};
    p->a.split = p->a.h == h && chance_below(chance, 2);
    p->second.split = p->second.h == h && chance_below(chance, 2);
    p->out.split = chance_below(chance, 2);
}

static void build(struct product *p, struct chance *chance, bool wide)
{
    set_extents(p, chance, wide);
    builder_init(&p->b);
    struct matrices *operands[] = {&p->a, &p->second};
    for (int i = 0; i < 2; i++) {
        fill(operands[i], chance);
        operands[i]->port = builder_input(&p->b, TEPI_TYPE_F32, (uint32_t)volume(operands[i]));
        add_image(&p->b, operands[i], chance);
        builder_load(&p->b, operands[i]->port, operands[i]->image);
    }
    p->out.port = builder_output(&p->b, TEPI_TYPE_F32, (uint32_t)volume(&p->out));
    add_image(&p->b, &p->out, chance);
    const bool any = p->a.split || p->second.split || p->out.split;
    struct tepi_instruction *in = builder_add(&p->b, TEPI_OP_FMATMUL, p->a.image, p->out.image);
    in->b = p->second.image;
    in->fmatmul = (struct tepi_fmatmul_params){
        .scale = p->scale,
        .heads = any ? p->out.h : 0,
        .a_split = p->a.split,
        .b_split = p->second.split,
        .out_split = p->out.split,
        .b_transposed = p->transposed,
    };
    builder_store(&p->b, p->out.image, p->out.port);
}

static float product_at(const struct product *p, uint32_t n, uint32_t h, uint32_t row,
                        uint32_t column)
{
    float acc = 0;
    for (uint32_t k = 0; k < p->depth; k++) {
        const size_t at =
            p->transposed ? place(&p->second, n, h, column, k) : place(&p->second, n, h, k, column);
        acc = fmaf(p->a.floats[place(&p->a, n, h, row, k)], p->second.floats[at], acc);
    }
    const uint32_t bits = 0x7fc00000;
    float nan;
    memcpy(&nan, &bits, sizeof(nan));
    acc *= p->scale;
    return isnan(acc) ? nan : acc;
}

static void expect(struct product *p)
{
    for (uint32_t n = 0; n < p->out.n; n++)
        for (uint32_t h = 0; h < p->out.h; h++)
            for (uint32_t row = 0; row < p->out.rows; row++)
                for (uint32_t c = 0; c < p->out.columns; c++)
                    p->out.floats[place(&p->out, n, h, row, c)] = product_at(p, n, h, row, c);
}

static void check_products(int *check_failures, uint64_t seed, int rounds, bool wide)
{
    struct chance chance = {.state = seed};
    static struct product p;
    static float found[FLOATS_MAX];
    for (int round = 0; round < rounds; round++) {
        build(&p, &chance, wide);
        expect(&p);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            const void *inputs[] = {p.a.floats, p.second.floats};
            void *outputs[] = {found};
            CHECK_INT(builder_run_on(&p.b, kernels, inputs, outputs).fault, TEPI_FAULT_OK);
            CHECK_BYTES(found, p.out.floats, volume(&p.out) * sizeof(float));
        }
        builder_free(&p.b);
    }
}

CHECK_CASE(products_equal_their_formula_however_their_heads_lie)
{
    check_products(check_failures, 92, ROUNDS, false);
}

CHECK_CASE(columns_of_several_stripes)
{
    check_products(check_failures, 93, WIDE_ROUNDS, true);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(products_equal_their_formula_however_their_heads_lie),
    CHECK_ENTRY(columns_of_several_stripes),
};
CHECK_MAIN(cases)
