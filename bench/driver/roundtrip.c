/* SPDX-License-Identifier: Apache-2.0 */
/* Round trips between driver and software card: what a run costs beside its arithmetic.
 *
 * Prints the best and the median of many short rounds, ns a command. `lent` is the pair whose
 * ringing thread waits anyway, `event loop` the one that signals an eventfd. */
#include "abi/program.h"
#include "card/card.h"
#include "card/program_crc.h"
#include "driver/bus_inproc.h"
#include "driver/clock.h"
#include "driver/loaded.h"
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 101, COMMANDS = 500, THREADS_MOST = 4 };

/* A program that copies `elements` bytes. */
struct image {
    struct tepi_program_header header;
    struct tepi_tensor tensors[2];
    uint8_t pad[16];
    struct tepi_instruction copy;
};
_Static_assert(sizeof(struct image) == 384, "sections lie on 64-byte boundaries");

struct setting {
    struct tepi_card *card;
    struct tepi_controller *controller;
    struct tepi_loaded *loaded;
    void *ports[2];
};

static void make_image(struct image *image, uint32_t elements)
{
    memset(image, 0, sizeof *image);
    image->header = (struct tepi_program_header){
        .magic = TEPI_PROGRAM_MAGIC,
        .abi = 1,
        .header_bytes = sizeof image->header,
        .total_bytes = sizeof *image,
        .tensors = 2,
        .instructions = 1,
        .tensors_offset = offsetof(struct image, tensors),
        .instructions_offset = offsetof(struct image, copy),
        .constants_offset = sizeof *image,
        .inputs = 1,
        .outputs = 1,
    };
    for (int i = 0; i < 2; i++) {
        image->tensors[i] = (struct tepi_tensor){
            .place = i ? TEPI_PLACE_OUTPUT : TEPI_PLACE_INPUT,
            .n = 1,
            .h = 1,
            .w = 1,
            .c = elements,
            .stride_n = elements,
            .stride_h = elements,
            .stride_w = elements,
        };
    }
    image->copy.code = TEPI_OP_MAP;
    image->copy.b = 0xffff;
    image->copy.out = 1;
    image->copy.map.rank = 1;
    image->copy.map.dims[0] = elements;
    image->copy.map.stride[0] = image->copy.map.out_stride[0] = 1;
    image->copy.map.table = TEPI_NONE;
    image->copy.map.hi = 255;
    image->header.crc32 = tepi_crc32(0, image, sizeof *image);
}

static void fail(const char *what, int result)
{
    fprintf(stderr, "%s: %s\n", what, strerror(-result));
    exit(1);
}

static void open_setting(struct setting *setting, uint32_t elements)
{
    const struct tepi_card_config config = {.memory_bytes = 64u << 20, .workers = 1, .queues = 2};
    struct tepi_failure failure;
    struct tepi_bus *bus = NULL;
    struct image image;
    make_image(&image, elements);
    int result = tepi_card_create(&config, &setting->card);
    if (result == 0) {
        const struct tepi_device_port port = tepi_card_port(setting->card);
        result = tepi_bus_inproc_open(&port, &bus);
    }
    if (result == 0) {
        result = tepi_controller_open(bus, NULL, &setting->controller, &failure);
    }
    if (result == 0) {
        const struct tepi_program_bytes bytes = {.address = &image, .bytes = sizeof image};
        result = tepi_loaded_open(setting->controller, &bytes, &setting->loaded, &failure);
    }
    if (result) {
        fail("opening the card", result);
    }
    setting->ports[0] = calloc(1, elements);
    setting->ports[1] = calloc(1, elements);
}

static void close_setting(struct setting *setting)
{
    free(setting->ports[0]);
    free(setting->ports[1]);
    tepi_loaded_close(setting->loaded);
    tepi_controller_close(setting->controller);
    tepi_card_destroy(setting->card);
}

static void nop(struct setting *setting)
{
    const struct tepi_submission entry = {.opcode = TEPI_CMD_NOP, .batch = 1};
    struct tepi_completion completion;
    const int result = tepi_controller_command(setting->controller, &entry, &completion, NULL);
    if (result) {
        fail("NOP", result);
    }
}

static void run(struct setting *setting)
{
    const struct tepi_request request = {.ports = setting->ports, .batch = 1};
    const int result = tepi_loaded_run(setting->loaded, &request, NULL, NULL);
    if (result) {
        fail("EXECUTE", result);
    }
}

/* A run for an event loop, waited for by poll; so short that the card does it in the doorbell. */
static void run_event_loop(struct setting *setting)
{
    const struct tepi_request request = {.ports = setting->ports, .batch = 1};
    struct tepi_run *started = NULL;
    struct tepi_done done;
    struct pollfd event = {.fd = tepi_controller_eventfd(setting->controller), .events = POLLIN};
    const int result = tepi_loaded_start(setting->loaded, &request, &started, NULL);
    if (result) {
        fail("starting a run", result);
    }
    while (tepi_controller_collect(setting->controller, &done, 1) == 0) {
        poll(&event, 1, -1);
    }
    tepi_run_end(done.owner, &done.completion, false, NULL, NULL);
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(const char *name, struct setting *setting, void (*act)(struct setting *))
{
    double rounds[ROUNDS];
    for (int round = 0; round < ROUNDS; round++) {
        const uint64_t start = tepi_now_ns();
        for (int i = 0; i < COMMANDS; i++) {
            act(setting);
        }
        rounds[round] = (double)(tepi_now_ns() - start) / COMMANDS;
    }
    qsort(rounds, ROUNDS, sizeof rounds[0], by_size);
    printf("%-30s best %8.0f ns   median %8.0f ns\n", name, rounds[0], rounds[ROUNDS / 2]);
}

static void *run_share(void *argument)
{
    for (int i = 0; i < COMMANDS * 20; i++) {
        run(argument);
    }
    return NULL;
}

static void measure_threads(struct setting *setting, int count)
{
    pthread_t threads[THREADS_MOST];
    const uint64_t start = tepi_now_ns();
    for (int i = 0; i < count; i++) {
        pthread_create(&threads[i], NULL, run_share, setting);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    const double each = (double)(tepi_now_ns() - start) / (COMMANDS * 20.0 * count);
    printf("EXECUTE 64 B, %d threads             %8.0f ns a run, %.2f million/s\n", count, each,
           1000.0 / each);
}

int main(void)
{
    struct setting small;
    struct setting large;
    open_setting(&small, 64);
    open_setting(&large, 150528);
    measure("NOP, lent", &small, nop);
    measure("EXECUTE 64 B, lent", &small, run);
    measure("EXECUTE 147 KiB, lent", &large, run);
    measure("EXECUTE 64 B, event loop", &small, run_event_loop);
    measure("EXECUTE 147 KiB, event loop", &large, run_event_loop);
    for (int count = 1; count <= THREADS_MOST; count *= 2) {
        measure_threads(&small, count);
    }
    close_setting(&small);
    close_setting(&large);
    return 0;
}
