/* SPDX-License-Identifier: Apache-2.0 */
/* CRC-32 (ISO-HDLC: reflected 0x04C11DB7, as zlib's crc32). */
#ifndef TEPI_CARD_PROGRAM_CRC_H
#define TEPI_CARD_PROGRAM_CRC_H

#include <stddef.h>
#include <stdint.h>

/* Of `bytes` of data that follow those whose CRC is `crc`; 0 to begin. */
uint32_t tepi_crc32(uint32_t crc, const void *data, size_t bytes);

#endif
