/* SPDX-License-Identifier: Apache-2.0 */
/* What the multiplier of this core does at most: independent VPDPBUSD in registers. */
#include "peak.h"
#include <immintrin.h>

#define DOT(a) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(a) : "v"(ones))

double peak_avx512vnni(double (*seconds)(void))
{
    enum { REPEATS = 200000, DOTS = 12 };
    const __m512i ones = _mm512_set1_epi8(1);
    __m512i a = ones, b = ones, c = ones, d = ones, e = ones, f = ones;
    __m512i g = ones, h = ones, i = ones, j = ones, k = ones, l = ones;
    const double begin = seconds();
    for (int n = 0; n < REPEATS; n++) {
        DOT(a);
        DOT(b);
        DOT(c);
        DOT(d);
        DOT(e);
        DOT(f);
        DOT(g);
        DOT(h);
        DOT(i);
        DOT(j);
        DOT(k);
        DOT(l);
    }
    const double taken = seconds() - begin;
    a = _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d));
    e = _mm512_add_epi32(_mm512_add_epi32(e, f), _mm512_add_epi32(g, h));
    i = _mm512_add_epi32(_mm512_add_epi32(i, j), _mm512_add_epi32(k, l));
    __asm__ volatile("" : : "v"(a), "v"(e), "v"(i));
    return 2.0 * 64 * DOTS * REPEATS / taken;
}
