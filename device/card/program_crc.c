/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 eight bytes at a time: lookup[k][b] is the CRC of byte b followed by k zero bytes. */
#include "card/program_crc.h"

#define POLYNOMIAL 0xedb88320u /* 0x04C11DB7 with its bits reversed */

enum { SLICES = 8 };

static void fill_lookup(uint32_t lookup[SLICES][256])
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
        lookup[0][byte] = crc;
    }
    for (int k = 1; k < SLICES; k++)
        for (uint32_t byte = 0; byte < 256; byte++)
            lookup[k][byte] = lookup[k - 1][byte] >> 8 ^ lookup[0][lookup[k - 1][byte] & 0xff];
}

uint32_t tepi_crc32(uint32_t crc, const void *data, size_t bytes)
{
    uint32_t lookup[SLICES][256];
    const uint8_t *in = data;
    fill_lookup(lookup);
    crc = ~crc;
    for (; bytes >= SLICES; bytes -= SLICES, in += SLICES) {
        crc ^=
            (uint32_t)in[0] | (uint32_t)in[1] << 8 | (uint32_t)in[2] << 16 | (uint32_t)in[3] << 24;
        crc = lookup[7][crc & 0xff] ^ lookup[6][crc >> 8 & 0xff] ^ lookup[5][crc >> 16 & 0xff] ^
              lookup[4][crc >> 24] ^ lookup[3][in[4]] ^ lookup[2][in[5]] ^ lookup[1][in[6]] ^
              lookup[0][in[7]];
    }
    while (bytes--)
        crc = crc >> 8 ^ lookup[0][(crc ^ *in++) & 0xff];
    return ~crc;
}
