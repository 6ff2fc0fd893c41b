/* SPDX-License-Identifier: Apache-2.0 */
/* AMX tiles in portable C. What the processor answers with an exception ends the program here. */
#ifndef TEPI_KERNELS_AMXINT8_TILE_EMULATED_H
#define TEPI_KERNELS_AMXINT8_TILE_EMULATED_H

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct tepi_tiles {
    struct tepi_tile_config config;
    uint8_t data[TEPI_TILES][TEPI_TILE_ROWS][TEPI_TILE_BYTES];
};

static inline void tepi_tile_configure(struct tepi_tiles *tiles,
                                       const struct tepi_tile_config *config)
{
    memset(tiles, 0, sizeof(*tiles));
    tiles->config = *config;
    for (int n = 0; n < TEPI_TILES; n++)
        if (config->palette != 1 || config->rows[n] > TEPI_TILE_ROWS ||
            config->row_bytes[n] > TEPI_TILE_BYTES || !config->rows[n] != !config->row_bytes[n])
            abort();
}

static inline void tepi_tile_release(struct tepi_tiles *tiles)
{
    memset(tiles, 0, sizeof(*tiles));
}

static inline void tepi_tile_zero(struct tepi_tiles *tiles, int n)
{
    if (!tiles->config.rows[n])
        abort();
    memset(tiles->data[n], 0, sizeof(tiles->data[n]));
}

static inline void tepi_tile_load(struct tepi_tiles *tiles, int n, const void *base, size_t pitch)
{
    tepi_tile_zero(tiles, n);
    for (size_t row = 0; row < tiles->config.rows[n]; row++)
        memcpy(tiles->data[n][row], (const uint8_t *)base + row * pitch,
               tiles->config.row_bytes[n]);
}

static inline void tepi_tile_store(struct tepi_tiles *tiles, int n, void *base, size_t pitch)
{
    if (!tiles->config.rows[n])
        abort();
    for (size_t row = 0; row < tiles->config.rows[n]; row++)
        memcpy((uint8_t *)base + row * pitch, tiles->data[n][row], tiles->config.row_bytes[n]);
}

/* sums[m][n] += u8[m][4k + i] * s8[k][4n + i], modulo 2^32. */
static inline void tepi_tile_dot_u8s8(struct tepi_tiles *tiles, int sums, int u8, int s8)
{
    const struct tepi_tile_config *c = &tiles->config;
    if (!c->rows[sums] || c->rows[sums] != c->rows[u8] || c->row_bytes[sums] != c->row_bytes[s8] ||
        c->row_bytes[u8] != c->rows[s8] * 4 || c->row_bytes[sums] % 4 || sums == u8 || sums == s8 ||
        u8 == s8)
        abort();
    for (size_t m = 0; m < c->rows[sums]; m++) {
        uint32_t row[TEPI_TILE_BYTES / 4];
        memcpy(row, tiles->data[sums][m], sizeof(row));
        for (size_t k = 0; k < c->rows[s8]; k++) {
            for (size_t n = 0; n < c->row_bytes[sums]; n++) {
                const int32_t weight = (int8_t)tiles->data[s8][k][n];
                row[n / 4] += (uint32_t)(tiles->data[u8][m][4 * k + n % 4] * weight);
            }
        }
        memcpy(tiles->data[sums][m], row, c->row_bytes[sums]);
    }
}

#endif
