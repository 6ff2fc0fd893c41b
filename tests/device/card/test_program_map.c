/* SPDX-License-Identifier: Apache-2.0 */
/* MAP over random strided copies of every pair of types, and FILL, against plain index loops. */
#include "card/builder.h"
#include "check.h"
#include <math.h>
#include <stdlib.h>

enum { COPIES = 600, ELEMENTS_MAX = 20000 };

struct copy {
    struct tepi_map_params map;
    uint32_t in_elements, out_elements;
};

/* Strides of a random order of the dimensions, some with gaps, some reversed; *elements that the
 * side needs, and its start. */
static void random_side(struct chance *chance, const struct tepi_map_params *map, int32_t *strides,
                        uint32_t *start, uint32_t *elements)
{
    uint32_t order[6];
    int32_t step = 1;
    int64_t lowest = 0, highest = 0;
    for (uint32_t i = 0; i < map->rank; i++)
        order[i] = i;
    for (uint32_t i = map->rank; i > 1; i--) {
        const uint32_t other = chance_below(chance, i), kept = order[i - 1];
        order[i - 1] = order[other];
        order[other] = kept;
    }
    for (uint32_t i = 0; i < map->rank; i++) {
        const uint32_t d = order[i];
        const bool reversed = chance_below(chance, 6) == 0;
        strides[d] = reversed ? -step : step;
        const int64_t span = (int64_t)(map->dims[d] - 1) * strides[d];
        lowest += span < 0 ? span : 0;
        highest += span > 0 ? span : 0;
        step *= (int32_t)map->dims[d];
        step += chance_below(chance, 3) == 0 ? (int32_t)chance_below(chance, 4) : 0;
    }
    *start = (uint32_t)-lowest + chance_below(chance, 3);
    *elements = *start + (uint32_t)highest + 1;
}

static struct copy random_copy(struct chance *chance)
{
    struct copy copy = {.map = {.rank = 1 + chance_below(chance, 6), .table = TEPI_NONE}};
    uint32_t left = 1500;
    for (uint32_t i = 0; i < copy.map.rank; i++) {
        const uint32_t most = left < 40 ? left : 40;
        copy.map.dims[i] = 1 + chance_below(chance, most);
        left /= copy.map.dims[i];
    }
    copy.map.lo = (uint8_t)chance_below(chance, 20);
    copy.map.hi = (uint8_t)(255 - chance_below(chance, 20));
    random_side(chance, &copy.map, copy.map.stride, &copy.map.start, &copy.in_elements);
    random_side(chance, &copy.map, copy.map.out_stride, &copy.map.out_start, &copy.out_elements);
    return copy;
}

struct conversion {
    uint8_t in, out;
    bool table;
};
static const struct conversion conversions[] = {
    {TEPI_TYPE_U8, TEPI_TYPE_U8, false},  {TEPI_TYPE_U8, TEPI_TYPE_U8, true},
    {TEPI_TYPE_F32, TEPI_TYPE_U8, false}, {TEPI_TYPE_U8, TEPI_TYPE_F32, false},
    {TEPI_TYPE_I8, TEPI_TYPE_U8, false},  {TEPI_TYPE_U8, TEPI_TYPE_I8, false},
    {TEPI_TYPE_I8, TEPI_TYPE_I8, false},  {TEPI_TYPE_F32, TEPI_TYPE_F32, false},
};
enum { CONVERSIONS = sizeof(conversions) / sizeof(conversions[0]) };

static const float odd_values[] = {NAN, INFINITY, -INFINITY, -0.0f, 1e30f, -1e30f, 0.125f, 0.375f};

static uint32_t type_bytes(uint8_t type)
{
    return type == TEPI_TYPE_F32 ? 4 : 1;
}

static void random_input(struct chance *chance, uint8_t type, uint8_t *bytes, uint32_t elements)
{
    if (type != TEPI_TYPE_F32) {
        chance_fill(chance, bytes, elements);
        return;
    }
    for (uint32_t i = 0; i < elements; i++) {
        const uint32_t pick = chance_below(chance, 64);
        const float value =
            pick < 8 ? odd_values[pick] : (float)((int32_t)chance_below(chance, 4096) - 2048) / 32;
        memcpy(bytes + 4 * i, &value, 4);
    }
}

static uint8_t quantized(float value, const struct tepi_map_params *map)
{
    double q = isnan(value) ? -INFINITY : nearbyint((double)(value / 0.25f)) + 77;
    q = q < map->lo ? map->lo : q > map->hi ? map->hi : q;
    return (uint8_t)q;
}

static void convert(const struct conversion *kind, const struct tepi_map_params *map,
                    const uint8_t *table, const uint8_t *in, uint8_t *out)
{
    float value;
    if (kind->in == TEPI_TYPE_F32 && kind->out == TEPI_TYPE_F32) {
        memcpy(out, in, 4);
    } else if (kind->in == TEPI_TYPE_F32) {
        memcpy(&value, in, 4);
        *out = quantized(value, map);
    } else if (kind->out == TEPI_TYPE_F32) {
        value = (float)(*in - 77) * 0.25f;
        memcpy(out, &value, 4);
    } else {
        *out = kind->table ? table[*in] : (uint8_t)(*in + (kind->in != kind->out ? 128 : 0));
    }
}

static void reference(const struct conversion *kind, const struct copy *copy, const uint8_t *table,
                      const uint8_t *in, uint8_t *out)
{
    const struct tepi_map_params *map = &copy->map;
    uint32_t total = 1;
    for (uint32_t d = 0; d < map->rank; d++)
        total *= map->dims[d];
    for (uint32_t k = 0; k < total; k++) {
        int64_t from = map->start, to = map->out_start;
        uint32_t rest = k;
        for (uint32_t d = map->rank; d-- > 0;) {
            const uint32_t index = rest % map->dims[d];
            rest /= map->dims[d];
            from += (int64_t)index * map->stride[d];
            to += (int64_t)index * map->out_stride[d];
        }
        convert(kind, map, table, in + from * type_bytes(kind->in),
                out + to * type_bytes(kind->out));
    }
}

/* Straight from port to port: the types that live nowhere else are there, and neither side has
 * slack behind it. */
CHECK_CASE(random_copies_of_every_conversion)
{
    static uint8_t in[4 * ELEMENTS_MAX], expected[4 * ELEMENTS_MAX], found[4 * ELEMENTS_MAX];
    struct chance chance = {.state = 42};
    uint8_t table[256];
    chance_fill(&chance, table, sizeof(table));
    for (uint32_t i = 0; i < COPIES; i++) {
        const struct conversion *kind = &conversions[i % CONVERSIONS];
        const struct copy copy = random_copy(&chance);
        struct builder b;
        CHECK(copy.in_elements <= ELEMENTS_MAX && copy.out_elements <= ELEMENTS_MAX);
        builder_init(&b);
        const uint16_t from = builder_input(&b, kind->in, copy.in_elements);
        const uint16_t to = builder_output(&b, kind->out, copy.out_elements);
        b.tensors[from].scale = b.tensors[to].scale = 0.25f;
        b.tensors[from].zero_point = b.tensors[to].zero_point = 77;
        struct tepi_map_params *map = &builder_add(&b, TEPI_OP_MAP, from, to)->map;
        *map = copy.map;
        if (kind->table)
            map->table = builder_constant(&b, table, sizeof(table));
        random_input(&chance, kind->in, in, copy.in_elements);
        const size_t bytes = (size_t)copy.out_elements * type_bytes(kind->out);
        const struct tepi_kernel_set *kernels;
        for (unsigned k = 0; (kernels = builder_kernels(k)); k++) {
            memset(expected, 0xa5, bytes); /* as the builder leaves what MAP does not write */
            reference(kind, &copy, table, in, expected);
            CHECK_INT(builder_run_on(&b, kernels, (const void *[]){in}, (void *[]){found}).fault,
                      TEPI_FAULT_OK);
            CHECK_BYTES(found, expected, bytes);
        }
        builder_free(&b);
    }
}

/* The whole arena as one flat tensor. */
static uint16_t whole_arena(struct builder *b)
{
    const uint32_t bytes = (uint32_t)b->header.arena_bytes;
    const uint16_t flat = builder_arena(b, (const uint32_t[]){1, 1, 1, bytes}, bytes, 0, 0);
    b->tensors[flat].offset = 0;
    b->header.arena_bytes = bytes;
    return flat;
}

/* What FILL leaves in an arena of 7s: 9 in the bytes it must write. */
static void expect_fill(const struct tepi_tensor *t, bool whole, uint8_t *arena)
{
    const int64_t halo = t->halo_top;
    for (uint32_t n = 0; n < t->n; n++)
        for (int64_t y = -halo; y < t->h + halo; y++)
            for (int64_t x = -halo; x < t->w + halo; x++) {
                const bool inside = y >= 0 && y < t->h && x >= 0 && x < t->w;
                const bool last = x == t->w + halo - 1;
                uint8_t *pixel = arena + t->offset + n * t->stride_n + y * t->stride_h +
                                 x * (int64_t)t->stride_w;
                if (whole || !inside)
                    memset(pixel, 9, whole && !last ? t->stride_w : t->c);
            }
}

CHECK_CASE(fill_writes_the_halo_or_everything_and_nothing_else)
{
    static uint8_t expected[ELEMENTS_MAX], found[ELEMENTS_MAX];
    struct chance chance = {.state = 43};
    for (uint32_t i = 0; i < 60; i++) {
        struct builder b;
        const uint32_t nhwc[4] = {1 + chance_below(&chance, 2), 1 + chance_below(&chance, 4),
                                  1 + chance_below(&chance, 4), 1 + chance_below(&chance, 20)};
        const uint32_t pixel = nhwc[3] + (i % 3 ? 0 : chance_below(&chance, 8));
        builder_init(&b);
        const uint16_t image =
            builder_arena(&b, nhwc, pixel, (uint16_t)chance_below(&chance, 4), 0);
        const uint16_t flat = whole_arena(&b);
        const uint16_t out = builder_output(&b, TEPI_TYPE_U8, (uint32_t)b.header.arena_bytes);
        builder_fill(&b, flat, 7);
        builder_add(&b, TEPI_OP_FILL, TEPI_NO_TENSOR, image)->fill =
            (struct tepi_fill_params){.whole = i % 2, .value = 9};
        builder_store(&b, flat, out);
        memset(expected, 7, sizeof(expected));
        expect_fill(&b.tensors[image], i % 2, expected);
        CHECK_INT(builder_run_on(&b, builder_kernels(0), NULL, (void *[]){found}).fault,
                  TEPI_FAULT_OK);
        CHECK_BYTES(found, expected, b.header.arena_bytes);
        builder_free(&b);
    }
}

static const struct check_case cases[] = {
    CHECK_ENTRY(random_copies_of_every_conversion),
    CHECK_ENTRY(fill_writes_the_halo_or_everything_and_nothing_else),
};
CHECK_MAIN(cases)
