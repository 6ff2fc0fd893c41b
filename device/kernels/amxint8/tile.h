/* SPDX-License-Identifier: Apache-2.0 */
/* AMX tiles: the instructions, or with TEPI_AMX_EMULATED the same in portable C, so that a machine
 * without them runs the same kernel logic. Semantics: Intel SDM volume 2, LDTILECFG, TILELOADD,
 * TILESTORED, TILEZERO, TDPBUSD, TILERELEASE.
 *
 * Tile numbers are literals. `tiles` is the register state: empty on real hardware. */
#ifndef TEPI_KERNELS_AMXINT8_TILE_H
#define TEPI_KERNELS_AMXINT8_TILE_H

#include <stdint.h>

enum { TEPI_TILES = 8, TEPI_TILE_ROWS = 16, TEPI_TILE_BYTES = 64 };

/* Memory operand of LDTILECFG, palette 1. */
struct tepi_tile_config {
    uint8_t palette, start_row;
    uint8_t reserved[14];
    uint16_t row_bytes[16]; /* of tiles 0..7 */
    uint8_t rows[16];
};
_Static_assert(sizeof(struct tepi_tile_config) == 64, "LDTILECFG reads 64 bytes");

#if defined(TEPI_AMX_EMULATED)
#include "kernels/amxint8/tile_emulated.h"
#define TEPI_AMX(name)      name##_emulated
#define TEPI_AMX_NAME(name) name "-emulated"
#define TEPI_TILE_MEMORY()  ((void)0)
#else
#include <immintrin.h>
#define TEPI_AMX(name)      name
#define TEPI_AMX_NAME(name) name

struct tepi_tiles {
    char none;
};
/* GCC's intrinsics do not say which memory they read: what was written before must be there. */
#define TEPI_TILE_MEMORY()  __asm__ volatile("" : : : "memory")
#define TEPI_TILE(tiles, instruction)                                                              \
    do {                                                                                           \
        (void)(tiles);                                                                             \
        instruction;                                                                               \
    } while (0)
#define tepi_tile_configure(tiles, config)                                                         \
    do {                                                                                           \
        (void)(tiles);                                                                             \
        TEPI_TILE_MEMORY();                                                                        \
        _tile_loadconfig(config);                                                                  \
    } while (0)
#define tepi_tile_release(tiles)                TEPI_TILE(tiles, _tile_release())
#define tepi_tile_zero(tiles, n)                TEPI_TILE(tiles, _tile_zero(n))
#define tepi_tile_load(tiles, n, base, pitch)   TEPI_TILE(tiles, _tile_loadd(n, base, pitch))
#define tepi_tile_store(tiles, n, base, pitch)  TEPI_TILE(tiles, _tile_stored(n, base, pitch))
#define tepi_tile_dot_u8s8(tiles, sums, u8, s8) TEPI_TILE(tiles, _tile_dpbusd(sums, u8, s8))
#endif

#endif
