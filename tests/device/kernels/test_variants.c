/* SPDX-License-Identifier: Apache-2.0 */
/* Every kernel variant that this machine can run against the scalar reference, over shapes from a
 * fixed seed. The Python tests draw more shapes for the same checks. */
#include "check.h"
#include "kernels/guarded.h"
#include "kernels/variants.h"

enum { ROUNDS = 200 };

static struct tepi_conv_case draw_conv(uint64_t *r)
{
    struct tepi_conv_case s = {
        .n = 1 + random_below(r, 2),
        .out_h = 1 + random_below(r, 5),
        .out_w = 1 + random_below(r, 40),
        .kernel_h = 1 + random_below(r, 5),
        .kernel_w = 1 + random_below(r, 5),
        .stride_h = 1 + random_below(r, 2),
        .stride_w = 1 + random_below(r, 3),
        .dilation_h = 1 + random_below(r, 2),
        .dilation_w = 1 + random_below(r, 4) / 3,
        .groups = 1,
        .in_padding = random_below(r, 4) ? 0 : random_below(r, 70),
        .out_padding = random_below(r, 4) ? 0 : random_below(r, 70),
        .zero_point = random_below(r, 256),
        .hi = 255,
        .has_table = random_below(r, 8) == 0,
        .row_cut = random_below(r, 8),
        .extreme = random_below(r, 4) == 0,
        .floats = random_below(r, 4) ? 0 : 1 + random_below(r, 2),
    };
    if (random_below(r, 3) == 0) {
        s.lo = random_below(r, 128);
        s.hi = s.lo + random_below(r, 256 - s.lo);
    }
    return s;
}

static void set_dense(struct tepi_conv_case *s, uint64_t *r)
{
    s->group_in = 1 + random_below(r, random_below(r, 2) ? 16 : 200);
    s->group_out = 1 + random_below(r, random_below(r, 2) ? 48 : 200);
    if (random_below(r, 2))
        s->kernel_h = s->kernel_w = 1;
    if (random_below(r, 3) == 0) {
        s->kernel_h = s->kernel_w = 3;
        s->stride_h = s->stride_w = s->dilation_h = s->dilation_w = 1;
        s->out_h += 3;
        s->group_in += 15;
        s->group_out += 15;
    } else if (random_below(r, 4) == 0) {
        s->kernel_w = 3;
        s->stride_w = s->dilation_w = 1;
        s->out_w += 15;
        s->group_out = 1 + random_below(r, 16);
    }
}

static void set_grouped(struct tepi_conv_case *s, uint64_t *r)
{
    s->groups = 1 + random_below(r, 12);
    s->group_in = 1 + random_below(r, 20);
    s->group_out = 1 + random_below(r, 40);
}

static void set_depthwise(struct tepi_conv_case *s, uint64_t *r)
{
    s->groups = 1 + random_below(r, 200);
    s->group_in = s->group_out = 1;
    if (random_below(r, 2)) {
        s->kernel_h = s->kernel_w = 3;
        s->dilation_w = 1;
    }
}

CHECK_CASE(convolutions)
{
    void (*const kinds[])(struct tepi_conv_case *, uint64_t *) = {set_dense, set_grouped,
                                                                  set_depthwise};
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        for (uint32_t variant = 0; variant < tepi_convolutions(set); variant++) {
            uint64_t random = 1;
            int taken = 0;
            for (int round = 0; round < 3 * ROUNDS; round++) {
                struct tepi_conv_case shape = draw_conv(&random);
                kinds[round % 3](&shape, &random);
                taken += tepi_check_conv(set, variant, &shape, random, why) != 2;
                if (why[0])
                    fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
                CHECK(why[0] == 0);
            }
            CHECK(taken > ROUNDS / 10);
        }
    }
}

CHECK_CASE(pooling)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 2;
        for (int round = 0; round < ROUNDS; round++) {
            uint64_t *r = &random;
            const struct tepi_pool_case shape = {
                .n = 1 + random_below(r, 2),
                .in_h = 1 + random_below(r, 12),
                .in_w = 1 + random_below(r, 12),
                .channels = 1 + random_below(r, 200),
                .kernel_h = 1 + random_below(r, 5),
                .kernel_w = 1 + random_below(r, 5),
                .stride_h = 1 + random_below(r, 3),
                .stride_w = 1 + random_below(r, 3),
                .dilation_h = 1 + random_below(r, 2),
                .dilation_w = 1 + random_below(r, 2),
                .pad_top = random_below(r, 3),
                .pad_left = random_below(r, 3),
                .pad_bottom = random_below(r, 3),
                .pad_right = random_below(r, 3),
                .in_padding = random_below(r, 3) ? 0 : random_below(r, 70),
                .out_padding = random_below(r, 3) ? 0 : random_below(r, 70),
                .average = random_below(r, 2),
                .count_include_pad = random_below(r, 2),
                .row_cut = random_below(r, 8),
            };
            tepi_check_pool(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

/* More pixels than 16 bits can sum. */
CHECK_CASE(pooling_of_large_windows)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 5;
        for (uint32_t side = 15; side < 34; side++) {
            const struct tepi_pool_case shape = {
                .n = 1,
                .in_h = side,
                .in_w = side + 2,
                .channels = 1 + random_below(&random, 100),
                .kernel_h = side,
                .kernel_w = side + 1,
                .stride_h = 1,
                .stride_w = 1,
                .dilation_h = 1,
                .dilation_w = 1,
                .average = 1,
                .row_cut = 1,
            };
            CHECK_INT(tepi_check_pool(set, &shape, random, why), 0);
        }
    }
}

CHECK_CASE(bytewise)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 3;
        for (int round = 0; round < 4 * ROUNDS; round++) {
            const uint32_t count = 1 + random_below(&random, round % 2 ? 1000 : 70);
            tepi_check_bytewise(set, (uint32_t)round % 3, count, random_below(&random, 2),
                                random_below(&random, 4) == 0, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

CHECK_CASE(products)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 5;
        for (int round = 0; round < 2 * ROUNDS; round++) {
            uint64_t *r = &random;
            struct tepi_matmul_case shape = {
                .rows = 1 + random_below(r, 60),
                .depth = 1 + random_below(r, random_below(r, 2) ? 20 : 200),
                .columns = 1 + random_below(r, random_below(r, 2) ? 20 : 200),
                .b_transposed = random_below(r, 2),
                .a_padding = random_below(r, 2) ? 0 : random_below(r, 70),
                .b_padding = random_below(r, 2) ? 0 : random_below(r, 70),
                .out_padding = random_below(r, 2) ? 0 : random_below(r, 70),
                .a_zero_point = random_below(r, 256),
                .b_zero_point = random_below(r, 3) ? random_below(r, 256) : 128,
                .hi = 255,
                .has_table = random_below(r, 4) == 0,
                .row_cut = random_below(r, 60),
                .extreme = random_below(r, 4) == 0,
            };
            if (random_below(r, 3) == 0)
                shape.lo = random_below(r, 128), shape.hi = shape.lo + random_below(r, 128);
            tepi_check_matmul(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

/* Rows too long for all of them to be held in the cache at once, and more than one round of rows
 * that fit; sums that wrap. */
CHECK_CASE(products_of_large_extents)
{
    static const struct tepi_matmul_case shapes[] = {
        {.rows = 50, .depth = 3001, .columns = 19, .a_padding = 3, .row_cut = 20},
        {.rows = 41, .depth = 3000, .columns = 18, .b_transposed = 1, .out_padding = 5},
        {.rows = 13, .depth = 34000, .columns = 9, .b_transposed = 1, .extreme = 1},
        {.rows = 8, .depth = 34001, .columns = 3, .extreme = 1, .row_cut = 1},
        {.rows = 700, .depth = 130, .columns = 17, .has_table = 1, .row_cut = 555},
        {.rows = 3, .depth = 5, .columns = 2100, .b_transposed = 1, .b_padding = 1},
    };
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 7;
        for (size_t i = 0; i < 4 * sizeof(shapes) / sizeof(shapes[0]); i++) {
            struct tepi_matmul_case shape = shapes[i / 4];
            shape.hi = 255;
            shape.a_zero_point = random_below(&random, 256);
            shape.b_zero_point = random_below(&random, 256);
            tepi_check_matmul(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, shape %zu: %s\n", tepi_set_name(set), i / 4, why);
            CHECK(why[0] == 0);
        }
    }
}

CHECK_CASE(channels)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 6;
        for (int round = 0; round < 4 * ROUNDS; round++) {
            uint64_t *r = &random;
            const struct tepi_channels_case shape = {
                .layernorm = random_below(r, 2),
                .rows = 1 + random_below(r, 20),
                .count = 1 + random_below(r, round % 2 ? 700 : 70),
                .a_padding = random_below(r, 2) ? 0 : random_below(r, 70),
                .out_padding = random_below(r, 2) ? 0 : random_below(r, 70),
                .extreme = random_below(r, 4) == 0,
                .flat = random_below(r, 8) == 0,
            };
            tepi_check_channels(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

/* More channels than 32-bit lanes hold the squares of. */
CHECK_CASE(channels_of_long_rows)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 8;
        for (uint32_t round = 0; round < 3; round++) {
            const struct tepi_channels_case shape = {
                .layernorm = 1,
                .rows = 1,
                .count = 2500000 + random_below(&random, 1000),
                .extreme = round & 1,
                .flat = round & 2,
            };
            CHECK_INT(tepi_check_channels(set, &shape, random, why), 0);
        }
    }
}

/* Contiguous, transposed one way, transposed the other way, and neither. */
static struct tepi_plane_case draw_plane(uint64_t *r)
{
    struct tepi_plane_case s = {
        .kind = random_below(r, 3),
        .rows = random_below(r, 3) ? 1 + random_below(r, 20) : 3,
        .columns = 1 + random_below(r, 300),
        .in_column = 1,
        .out_column = 1,
        .flip = random_below(r, 2) ? 0x80 : 0,
        .odd = random_below(r, 2),
    };
    const uint32_t spare = random_below(r, 2) ? random_below(r, 9) : 0, way = random_below(r, 4);
    s.in_row = s.out_row = s.columns + spare;
    if (way & 1) {
        s.in_row = 1;
        s.in_column = s.rows + spare;
    }
    if (way & 2) {
        s.out_row = 1;
        s.out_column = s.rows + (random_below(r, 3) ? 0 : spare);
    }
    return s;
}

CHECK_CASE(planes)
{
    char why[TEPI_WHY_BYTES] = "";
    for (uint32_t set = 0; set < tepi_sets(); set++) {
        uint64_t random = 4;
        for (int round = 0; round < 4 * ROUNDS; round++) {
            const struct tepi_plane_case shape = draw_plane(&random);
            tepi_check_plane(set, &shape, random, why);
            if (why[0])
                fprintf(stderr, "%s, round %d: %s\n", tepi_set_name(set), round, why);
            CHECK(why[0] == 0);
        }
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(convolutions),
    CHECK_ENTRY(pooling),
    CHECK_ENTRY(pooling_of_large_windows),
    CHECK_ENTRY(bytewise),
    CHECK_ENTRY(products),
    CHECK_ENTRY(products_of_large_extents),
    CHECK_ENTRY(channels),
    CHECK_ENTRY(channels_of_long_rows),
    CHECK_ENTRY(planes),
};

CHECK_MAIN(cases)
