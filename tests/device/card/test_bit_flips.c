/* SPDX-License-Identifier: Apache-2.0 */
/* Bits of card memory that change by plan: corrected, found, or neither. */
#include "card/faults.h"
#include "card/raw_host.h"
#include "check.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { INPUT = 100, LOG_CODE = 8, LOG_INFO = 12, LOG_COMMAND = 22 };

static bool plan(struct raw_host *raw, struct tepi_planned_fault fault)
{
    return tepi_card_plan_faults(raw->card, &fault, 1) == 0;
}

/* A 1x1 convolution of RAW_ITEM channels; the sums of an input of INPUT stay within a byte, even
 * with one weight of them 128 more or less. */
static uint32_t load_convolution(struct raw_host *raw)
{
    static const uint32_t shape[4] = {1, 1, 1, RAW_ITEM};
    int8_t weights[RAW_ITEM * RAW_ITEM];
    int32_t bias[RAW_ITEM] = {0};
    float multiplier[RAW_ITEM];
    for (uint32_t i = 0; i < sizeof weights; i++) {
        weights[i] = (int8_t)(i * 7 % 15) - 7;
    }
    for (uint32_t i = 0; i < RAW_ITEM; i++) {
        multiplier[i] = 0.002f;
    }
    struct builder b;
    builder_init(&b);
    const uint16_t input = builder_input(&b, TEPI_TYPE_U8, RAW_ITEM);
    const uint16_t output = builder_output(&b, TEPI_TYPE_U8, RAW_ITEM);
    const uint16_t a = builder_arena(&b, shape, RAW_ITEM, 0, 0);
    const uint16_t out = builder_arena(&b, shape, RAW_ITEM, 0, 128);
    builder_load(&b, input, a);
    builder_add(&b, TEPI_OP_CONV, a, out)->conv = (struct tepi_conv_params){
        .kernel_h = 1,
        .kernel_w = 1,
        .stride_h = 1,
        .stride_w = 1,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = 1,
        .weights = builder_constant(&b, weights, sizeof weights),
        .bias = builder_constant(&b, bias, sizeof bias),
        .multiplier = builder_constant(&b, multiplier, sizeof multiplier),
        .table = TEPI_NONE,
        .hi = 255,
    };
    builder_store(&b, out, output);
    size_t bytes;
    uint32_t handle = 0;
    uint8_t *image = builder_image(&b, &bytes);
    if (raw_load(raw, image, bytes, &handle)) {
        handle = 0;
    }
    free(image);
    builder_free(&b);
    return handle;
}

/* An EXECUTE by queue 1; its fault, or UINT32_MAX where nothing came. */
static uint32_t answer(struct raw_host *raw, uint32_t program, uint16_t command_id,
                       uint8_t item[RAW_ITEM])
{
    struct tepi_completion done;
    (void)raw_copies(raw, program, INPUT); /* puts the input, and is one EXECUTE */
    const struct tepi_submission entry = raw_copy_entry(raw, program, command_id);
    const struct tepi_segment *list =
        (const void *)(raw->memory + (size_t)(entry.list_iova - RAW_WINDOW));
    uint8_t *output = raw->memory + (size_t)(list[1].iova - RAW_WINDOW);
    memset(output, 0, RAW_ITEM);
    const uint32_t fault = raw_do(raw, 1, &entry, &done);
    memcpy(item, output, RAW_ITEM);
    return fault;
}

static uint32_t log_field(struct raw_host *raw, uint32_t entry, uint32_t field)
{
    return raw_read32(raw, TEPI_REG_FAULT_LOG + entry % TEPI_FAULT_LOG_ENTRIES * 32 + field);
}

static struct tepi_planned_fault flip(uint32_t kind, uint32_t count, uint64_t after)
{
    return (struct tepi_planned_fault){
        .kind = kind, .trigger = TEPI_PLANNED_ON_EXECUTE, .after = after, .count = count};
}

CHECK_CASE(flips_that_make_no_sense)
{
    struct raw_host raw;
    CHECK(raw_open(&raw, NULL));
    const struct tepi_planned_fault wrong[] = {
        flip(TEPI_PLANNED_BIT_FLIP, 0, 1),
        flip(TEPI_PLANNED_BIT_FLIP, 3, 1),
        flip(TEPI_PLANNED_BIT_FLIP_UNDETECTED, 0, 1),
        flip(TEPI_PLANNED_BIT_FLIP_UNDETECTED, 1001, 1),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_INT(tepi_card_plan_faults(raw.card, &wrong[i], 1), -EINVAL);
    }
    /* With nothing loaded there is nothing to change. */
    CHECK(plan(&raw, flip(TEPI_PLANNED_BIT_FLIP, 2, 0)));
    CHECK(plan(&raw, flip(TEPI_PLANNED_BIT_FLIP_UNDETECTED, 9, 0)));
    CHECK(raw_copies(&raw, raw_load_copy(&raw, RAW_ITEM), 5));
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    raw_close(&raw);
}

CHECK_CASE(one_flipped_bit_is_corrected)
{
    struct raw_host raw;
    uint8_t right[RAW_ITEM], item[RAW_ITEM];
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 1, right), TEPI_FAULT_OK);
    struct tepi_planned_fault fault = flip(TEPI_PLANNED_BIT_FLIP, 1, 2);
    fault.repeat = 99;
    CHECK(plan(&raw, fault));
    for (uint32_t i = 1; i <= 50; i++) {
        CHECK_INT(answer(&raw, program, 3, item), TEPI_FAULT_OK);
        CHECK(memcmp(item, right, RAW_ITEM) == 0);
        CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), i);
        CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), i);
        CHECK_INT(log_field(&raw, i - 1, LOG_CODE), TEPI_FAULT_MEMORY_ECC_CORRECTED);
        CHECK_INT(log_field(&raw, i - 1, LOG_COMMAND - 2) >> 16, 3);
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_READY);
    raw_close(&raw);
}

/* The same plan changes the same lines, and others with each flip. */
CHECK_CASE(flips_are_where_the_plan_says)
{
    struct raw_host raw;
    uint8_t item[RAW_ITEM];
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = load_convolution(&raw);
    for (int turn = 0; turn < 2; turn++) {
        struct tepi_planned_fault fault = flip(TEPI_PLANNED_BIT_FLIP, 1, 2);
        fault.repeat = 3;
        CHECK(plan(&raw, fault));
        for (int i = 0; i < 4; i++) {
            CHECK_INT(answer(&raw, program, 3, item), TEPI_FAULT_OK);
        }
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 8);
    bool differs = false;
    for (uint32_t i = 0; i < 4; i++) {
        CHECK_INT(log_field(&raw, i, LOG_INFO), log_field(&raw, i + 4, LOG_INFO));
        differs |= log_field(&raw, i, LOG_INFO) != log_field(&raw, 0, LOG_INFO);
    }
    CHECK(differs);
    raw_close(&raw);
}

/* What changed at once is found when the program runs, even where the plan has ended before. */
CHECK_CASE(flips_outlive_their_plan)
{
    struct raw_host raw;
    uint8_t right[RAW_ITEM], item[RAW_ITEM];
    CHECK(raw_open(&raw, NULL));
    const uint32_t program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 1, right), TEPI_FAULT_OK);
    const uint32_t newer = load_convolution(&raw);
    struct tepi_planned_fault many[40];
    for (size_t i = 0; i < 40; i++) {
        many[i] = flip(TEPI_PLANNED_BIT_FLIP, 1, 0);
    }
    CHECK_INT(tepi_card_plan_faults(raw.card, many, 40), 0);
    CHECK_INT(tepi_card_plan_faults(raw.card, NULL, 0), 0);
    CHECK_INT(answer(&raw, newer, 2, item), TEPI_FAULT_OK);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 0);
    CHECK_INT(answer(&raw, program, 3, item), TEPI_FAULT_OK);
    CHECK(memcmp(item, right, RAW_ITEM) == 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 40);
    raw_close(&raw);
}

CHECK_CASE(two_flipped_bits_are_fatal_and_never_computed_with)
{
    struct raw_host raw;
    uint8_t right[RAW_ITEM], item[RAW_ITEM];
    static const uint8_t untouched[RAW_ITEM];
    CHECK(raw_open(&raw, NULL));
    uint32_t program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 1, right), TEPI_FAULT_OK);
    CHECK(plan(&raw, flip(TEPI_PLANNED_BIT_FLIP, 2, 2)));
    (void)raw_copies(&raw, program, INPUT);
    const struct tepi_submission entry = raw_copy_entry(&raw, program, 4);
    const struct tepi_segment *list =
        (const void *)(raw.memory + (size_t)(entry.list_iova - RAW_WINDOW));
    uint8_t *output = raw.memory + (size_t)(list[1].iova - RAW_WINDOW);
    memset(output, 0, RAW_ITEM);
    raw_submit(&raw, 1, &entry);
    const time_t until = time(NULL) + 20;
    while (raw_read32(&raw, TEPI_REG_STATUS) == TEPI_STATUS_READY && time(NULL) < until) {
    }
    CHECK_INT(raw_read32(&raw, TEPI_REG_STATUS), TEPI_STATUS_FAULT);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 1);
    CHECK_INT(log_field(&raw, 0, LOG_CODE), TEPI_FAULT_MEMORY_ECC);
    raw_write32(&raw, TEPI_REG_RESET, TEPI_RESET_KEY);
    CHECK(memcmp(output, untouched, RAW_ITEM) == 0);
    raw_start(&raw);
    program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 1, item), TEPI_FAULT_OK);
    CHECK(memcmp(item, right, RAW_ITEM) == 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 0);
    raw_close(&raw);
}

CHECK_CASE(undetected_flips_change_results_until_unloaded)
{
    struct raw_host raw;
    uint8_t right[RAW_ITEM], wrong[RAW_ITEM], item[RAW_ITEM];
    CHECK(raw_open(&raw, NULL));
    uint32_t program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 1, right), TEPI_FAULT_OK);
    CHECK(plan(&raw, flip(TEPI_PLANNED_BIT_FLIP_UNDETECTED, 1, 2)));
    CHECK_INT(answer(&raw, program, 2, wrong), TEPI_FAULT_OK);
    CHECK(memcmp(wrong, right, RAW_ITEM) != 0);
    CHECK_INT(answer(&raw, program, 3, item), TEPI_FAULT_OK);
    CHECK(memcmp(item, wrong, RAW_ITEM) == 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_FAULT_COUNT), 0);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 0);
    struct tepi_completion done;
    struct tepi_submission unload = raw_entry(&raw, TEPI_CMD_UNLOAD, 5);
    unload.program = program;
    CHECK_INT(raw_do(&raw, 1, &unload, &done), TEPI_FAULT_OK);
    program = load_convolution(&raw);
    CHECK_INT(answer(&raw, program, 6, item), TEPI_FAULT_OK);
    CHECK(memcmp(item, right, RAW_ITEM) == 0);
    raw_close(&raw);
}

/* A line changes and is corrected only while nobody runs its program, so whoever would correct it
 * waits for a command that does, as long as its own deadline and abort let it. */
CHECK_CASE(correction_waits_for_those_who_run_the_program)
{
    struct raw_host raw;
    struct tepi_completion done;
    CHECK(raw_open(&raw, &(struct raw_options){.workers = 2}));
    const uint32_t program = raw_load_copy(&raw, RAW_ITEM);
    const struct tepi_submission endless = raw_endless(&raw, program, 1);
    raw_submit(&raw, 1, &endless);
    CHECK(raw_has_begun(&raw));
    CHECK(plan(&raw, flip(TEPI_PLANNED_BIT_FLIP, 1, 0)));
    struct tepi_submission entry = raw_copy_entry(&raw, program, 2);
    entry.deadline_ns = 5000000;
    CHECK_INT(raw_do(&raw, 1, &entry, &done), TEPI_FAULT_DEADLINE);
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 0);
    entry = raw_entry(&raw, TEPI_CMD_ABORT, 3);
    entry.program = 1;
    raw_submit(&raw, 1, &entry);
    for (int i = 0; i < 2; i++) {
        CHECK(raw_wait(&raw, 1, &done));
    }
    CHECK(raw_copies(&raw, program, 9));
    CHECK_INT(raw_read32(&raw, TEPI_REG_ECC_CORRECTED), 1);
    raw_close(&raw);
}

static const struct check_case cases[] = {
    CHECK_ENTRY(flips_that_make_no_sense),
    CHECK_ENTRY(one_flipped_bit_is_corrected),
    CHECK_ENTRY(flips_are_where_the_plan_says),
    CHECK_ENTRY(flips_outlive_their_plan),
    CHECK_ENTRY(two_flipped_bits_are_fatal_and_never_computed_with),
    CHECK_ENTRY(undetected_flips_change_results_until_unloaded),
    CHECK_ENTRY(correction_waits_for_those_who_run_the_program),
};

CHECK_MAIN(cases)
