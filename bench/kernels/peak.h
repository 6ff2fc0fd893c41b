/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEPI_BENCH_PEAK_H
#define TEPI_BENCH_PEAK_H

/* Operations a second, a multiply-accumulate being two, over about a millisecond; 0 where the
 * machine lacks AVX-VNNI. */
double peak_avx2(double (*seconds)(void));
double peak_avxvnni(double (*seconds)(void));
double peak_avx512vnni(double (*seconds)(void));

#endif
