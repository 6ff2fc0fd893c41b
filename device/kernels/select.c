/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernel sets this machine can run: CPUID, the register state that the kernel saves (XCR0),
 * and, for AMX, its permission to use tiles. */
#include "kernels/sets.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux arch_prctl(2): permission for a dynamically enabled state component, here tile data. */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA  18

/* XCR0: SSE and AVX; opmask and the two halves of ZMM; tile configuration and data. */
#define XCR0_AVX    0x6u
#define XCR0_AVX512 0xe6u
#define XCR0_AMX    0x60000u

/* CPUID leaf 1 and 7 (subleaf 0), Intel SDM volume 2A, CPUID. */
#define LEAF1_C_FMA        (1u << 12)
#define LEAF1_C_OSXSAVE    (1u << 27)
#define LEAF7_B_AVX2       (1u << 5)
#define LEAF7_B_AVX512F    (1u << 16)
#define LEAF7_B_AVX512DQ   (1u << 17)
#define LEAF7_B_AVX512BW   (1u << 30)
#define LEAF7_B_AVX512VL   (1u << 31)
#define LEAF7_C_AVX512VNNI (1u << 11)
#define LEAF7_D_AMX_TILE   (1u << 24)
#define LEAF7_D_AMX_INT8   (1u << 25)

static uint64_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Asking again is harmless: the permission is the process's and stays. */
static bool tiles_permitted(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static enum tepi_kernel_isa machine_isa(bool ask_for_tiles)
{
    uint32_t a, b, c, d, leaf1_c;
    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !(leaf1_c & LEAF1_C_OSXSAVE))
        return TEPI_KERNEL_SCALAR;
    const uint64_t state = saved_state();
    if (!(leaf1_c & LEAF1_C_FMA) || (state & XCR0_AVX) != XCR0_AVX ||
        !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & LEAF7_B_AVX2))
        return TEPI_KERNEL_SCALAR;
    const uint32_t avx512 =
        LEAF7_B_AVX512F | LEAF7_B_AVX512DQ | LEAF7_B_AVX512BW | LEAF7_B_AVX512VL;
    if ((b & avx512) != avx512 || !(c & LEAF7_C_AVX512VNNI) || (state & XCR0_AVX512) != XCR0_AVX512)
        return TEPI_KERNEL_AVX2;
    const uint32_t amx = LEAF7_D_AMX_TILE | LEAF7_D_AMX_INT8;
    if ((d & amx) != amx || (state & XCR0_AMX) != XCR0_AMX || (ask_for_tiles && !tiles_permitted()))
        return TEPI_KERNEL_AVX512VNNI;
    return TEPI_KERNEL_AMXINT8;
}
#else
static enum tepi_kernel_isa machine_isa(bool ask_for_tiles)
{
    (void)ask_for_tiles;
    return TEPI_KERNEL_SCALAR;
}
#endif

static const struct tepi_kernel_set *built(enum tepi_kernel_isa isa)
{
    switch (isa) {
#if defined(TEPI_HAVE_AMXINT8)
    case TEPI_KERNEL_AMXINT8:
        return tepi_kernels_amxint8();
#endif
#if defined(TEPI_HAVE_AVX512VNNI)
    case TEPI_KERNEL_AVX512VNNI:
        return tepi_kernels_avx512vnni();
#endif
#if defined(TEPI_HAVE_AVX2)
    case TEPI_KERNEL_AVX2:
        return tepi_kernels_avx2();
#endif
    case TEPI_KERNEL_SCALAR:
        return tepi_kernels_scalar();
    default:
        return NULL;
    }
}

enum tepi_kernel_isa tepi_kernels_best(void)
{
    enum tepi_kernel_isa isa = machine_isa(true);
    while (!built(isa))
        isa = (enum tepi_kernel_isa)(isa - 1);
    return isa;
}

const struct tepi_kernel_set *tepi_kernels_for(enum tepi_kernel_isa isa)
{
    const bool tiles = isa == TEPI_KERNEL_AMXINT8;
    return isa <= machine_isa(tiles) ? built(isa) : NULL;
}
