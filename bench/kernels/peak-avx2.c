/* SPDX-License-Identifier: Apache-2.0 */
/* What this core does at most with 256-bit vectors: independent products in registers. VPMADDWD
 * leaves the sum over steps to VPADDD, VPDPBUSD (AVX-VNNI) holds it. */
#include "peak.h"
#include <immintrin.h>

#define STEP(a)                                                                                    \
    __asm__ volatile("vpmaddwd %2, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(a), "=&x"(p) : "x"(ones))
#define DOT(a) __asm__ volatile("%{vex%} vpdpbusd %1, %1, %0" : "+x"(a) : "x"(ones))

enum { REPEATS = 200000, AT_ONCE = 12 };

#define ALL(do)                                                                                    \
    do                                                                                             \
        (a[0]);                                                                                    \
    do                                                                                             \
        (a[1]);                                                                                    \
    do                                                                                             \
        (a[2]);                                                                                    \
    do                                                                                             \
        (a[3]);                                                                                    \
    do                                                                                             \
        (a[4]);                                                                                    \
    do                                                                                             \
        (a[5]);                                                                                    \
    do                                                                                             \
        (a[6]);                                                                                    \
    do                                                                                             \
        (a[7]);                                                                                    \
    do                                                                                             \
        (a[8]);                                                                                    \
    do                                                                                             \
        (a[9]);                                                                                    \
    do                                                                                             \
        (a[10]);                                                                                   \
    do                                                                                             \
    (a[11])

double peak_avx2(double (*seconds)(void))
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i a[AT_ONCE], p;
#pragma GCC unroll 12 /* else the array stays in memory */
    for (int i = 0; i < AT_ONCE; i++)
        a[i] = ones;
    const double begin = seconds();
    for (int n = 0; n < REPEATS; n++) {
        ALL(STEP);
    }
    return 2.0 * 16 * AT_ONCE * REPEATS / (seconds() - begin);
}

double peak_avxvnni(double (*seconds)(void))
{
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i a[AT_ONCE];
    if (!__builtin_cpu_supports("avxvnni"))
        return 0;
#pragma GCC unroll 12 /* else the array stays in memory */
    for (int i = 0; i < AT_ONCE; i++)
        a[i] = ones;
    const double begin = seconds();
    for (int n = 0; n < REPEATS; n++) {
        ALL(DOT);
    }
    return 2.0 * 32 * AT_ONCE * REPEATS / (seconds() - begin);
}
