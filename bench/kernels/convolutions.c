/* SPDX-License-Identifier: Apache-2.0 */
/* Times each convolution variant over the layers of the benchmark models.
 *
 *     convolutions [ISA [MODEL [WITHOUT]]]
 *
 * ISA: scalar avx2 avx512vnni amxint8, default the best. WITHOUT: kernels whose names hold this are
 * passed over ("avxvnni": AVX2 as on a machine without AVX-VNNI). MODEL may be "all".
 *
 * One line per layer: median (and least) microseconds, GOP/s, share of the multiplier's peak as
 * measured in the same run (of AVX512-VNNI; of the better 256-bit one for avx2); then the sum per
 * model. Each run has cold weights in the way that a
 * whole model has: layers are timed in turn, every layer once per round. */
#include "kernels/kernels.h"
#include "layers.h"
#include "peak.h"
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LAYERS_MAX = 128, ROUNDS_MAX = 4096 };

struct bench {
    const struct layer *layer;
    const struct tepi_conv_kernel *kernel;
    struct tepi_conv conv;
    double taken[ROUNDS_MAX];
};

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *block(size_t bytes)
{
    void *memory = aligned_alloc(64, (bytes + TEPI_KERNEL_SLACK + 63) / 64 * 64);
    if (!memory)
        abort();
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)memory)[i] = (uint8_t)(i * 2654435761u >> 13);
    return memory;
}

static const struct tepi_conv_kernel *kernel_for(const struct tepi_kernel_set *set,
                                                 const struct tepi_conv *conv, const char *without)
{
    const struct tepi_conv_kernel *const *kernel = set->convolutions;
    while (*kernel && (!(*kernel)->takes(conv) || (without && strstr((*kernel)->name, without))))
        kernel++;
    if (!*kernel) {
        fprintf(stderr, "nothing is left without %s\n", without);
        exit(2);
    }
    return *kernel;
}

static void set_up(struct bench *b, const struct layer *l, const struct tepi_kernel_set *set,
                   const char *without)
{
    const size_t in_h = (l->out_h - 1) * l->stride + l->kernel;
    const size_t in_w = (l->out_w - 1) * l->stride + l->kernel;
    const size_t in_c = (size_t)l->groups * l->group_in, out_c = (size_t)l->groups * l->group_out;
    b->layer = l;
    b->conv = (struct tepi_conv){
        .in_stride_n = in_h * in_w * in_c,
        .in_stride_h = in_w * in_c,
        .in_stride_w = in_c,
        .out_stride_n = l->out_h * l->out_w * out_c,
        .out_stride_h = l->out_w * out_c,
        .out_stride_w = out_c,
        .n = 1,
        .out_h = l->out_h,
        .out_w = l->out_w,
        .kernel_h = l->kernel,
        .kernel_w = l->kernel,
        .stride_h = l->stride,
        .stride_w = l->stride,
        .dilation_h = 1,
        .dilation_w = 1,
        .groups = l->groups,
        .group_in = l->group_in,
        .group_out = l->group_out,
        .store = {.zero_point = 128, .hi = 255},
    };
    b->kernel = kernel_for(set, &b->conv, without);
    float *multiplier = block(out_c * sizeof(float));
    for (size_t i = 0; i < out_c; i++)
        multiplier[i] = 0.001f;
    int8_t *canonical = block(out_c * l->kernel * l->kernel * l->group_in);
    for (size_t i = 0; i < out_c * l->kernel * l->kernel * l->group_in; i++)
        canonical[i] /= 4; /* kernels may look at weights: as small as trained ones are */
    void *packed = block(b->kernel->packed_bytes(&b->conv));
    b->kernel->pack(&b->conv, canonical, packed);
    free(canonical);
    b->conv.input = block(in_h * in_w * in_c);
    b->conv.output = block(l->out_h * l->out_w * out_c);
    b->conv.weights = packed;
    b->conv.bias = block(out_c * sizeof(int32_t));
    b->conv.multiplier = multiplier;
    b->conv.scratch = block(b->kernel->scratch_bytes(&b->conv));
}

static double operations(const struct layer *l)
{
    return 2.0 * l->out_h * l->out_w * l->kernel * l->kernel * l->groups * l->group_in *
           l->group_out;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure(struct bench *benches, int count)
{
    int round = 0;
    const double begin = seconds();
    while (round < ROUNDS_MAX && (round < 10 || seconds() < begin + 2.0)) {
        for (int i = 0; i < count; i++) {
            const struct tepi_conv *conv = &benches[i].conv;
            const double start = seconds();
            benches[i].kernel->run(conv, 0, conv->out_h);
            benches[i].taken[round] = seconds() - start;
        }
        round++;
    }
    return round;
}

static void report(struct bench *benches, int count, int rounds, double peak)
{
    double sum = 0, least = 0, all = 0;
    for (int i = 0; i < count; i++) {
        struct bench *b = &benches[i];
        const struct layer *l = b->layer;
        qsort(b->taken, (size_t)rounds, sizeof(double), ascending);
        const double taken = b->taken[rounds / 2], ops = operations(l);
        printf("%-11s %ux %3ux%-3u k%u s%u %4ux%-4u->%-4u %-30s %8.2f (%8.2f) us %6.1f GOP/s "
               "%4.1f%%\n",
               l->model, l->times, l->out_h, l->out_w, l->kernel, l->stride, l->groups, l->group_in,
               l->groups * l->group_out, b->kernel->name, taken * 1e6, b->taken[0] * 1e6,
               ops / taken * 1e-9, 100 * ops / taken / peak);
        sum += taken * l->times;
        least += b->taken[0] * l->times;
        all += ops * l->times;
    }
    printf("%-11s %5d rounds, all layers %37s %8.2f (%8.2f) us %6.1f GOP/s %4.1f%%\n\n",
           benches[0].layer->model, rounds, "", sum * 1e6, least * 1e6, all / sum * 1e-9,
           100 * all / sum / peak);
}

static bool named_isa(const char *name, enum tepi_kernel_isa *isa)
{
    static const char *const names[] = {"scalar", "avx2", "avx512vnni", "amxint8"};
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, names[i]) == 0) {
            *isa = (enum tepi_kernel_isa)(i + 1);
            return true;
        }
    }
    return false;
}

/* Operations a second of the multiplier that the set is held against. */
static double peak_of(enum tepi_kernel_isa isa, const char *without)
{
    double peak = 0;
    for (int i = 0; i < 20; i++) {
        double once = 0;
        if (isa > TEPI_KERNEL_AVX2 ||
            (isa == TEPI_KERNEL_SCALAR && tepi_kernels_for(TEPI_KERNEL_AVX512VNNI)))
            once = peak_avx512vnni(seconds);
        else if (tepi_kernels_for(TEPI_KERNEL_AVX2) && without && strstr(without, "avxvnni"))
            once = peak_avx2(seconds);
        else if (tepi_kernels_for(TEPI_KERNEL_AVX2))
            once = fmax(peak_avx2(seconds), peak_avxvnni(seconds));
        peak = once > peak ? once : peak;
    }
    return peak;
}

int main(int argc, char **argv)
{
    enum tepi_kernel_isa isa = tepi_kernels_best();
    if (argc > 1 && !named_isa(argv[1], &isa)) {
        fprintf(stderr, "usage: %s [scalar|avx2|avx512vnni|amxint8 [MODEL|all [WITHOUT]]]\n",
                argv[0]);
        return 2;
    }
    const struct tepi_kernel_set *set = tepi_kernels_for(isa);
    if (!set) {
        fprintf(stderr, "this machine or build lacks %s; name a lower one\n", argv[1]);
        return 1;
    }
    const char *only = argc > 2 && strcmp(argv[2], "all") != 0 ? argv[2] : NULL;
    const char *without = argc > 3 ? argv[3] : NULL;
    const double peak = peak_of(isa, without);
    printf("peak of the multiplier here: %.1f GOP/s\n", peak * 1e-9);
    struct bench *benches = calloc(LAYERS_MAX, sizeof(*benches));
    for (const struct layer *l = layers; benches && l->model;) {
        const char *model = l->model;
        int count = 0;
        for (; l->model && strcmp(l->model, model) == 0; l++)
            if (!only || strcmp(only, model) == 0)
                set_up(&benches[count++], l, set, without);
        if (count)
            report(benches, count, measure(benches, count), peak);
    }
    free(benches);
    return 0;
}
