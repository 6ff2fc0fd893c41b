/* SPDX-License-Identifier: Apache-2.0 */
/* Tampering with a specimen, one statement at a time; for test cases of check.h. */
#ifndef TEPI_TESTS_CARD_TAMPER_H
#define TEPI_TESTS_CARD_TAMPER_H

#include "card/specimen.h"

/* The specimen of `make` that `tampering` was done to ends in a fault. In it, h, t, i and constants
 * are the header, tensors, instructions and constants; they may be used in the expected info too.
 * The last two arguments are the fault and the info expected. */
#define TAMPERED(make, tampering, ...)                                                             \
    do {                                                                                           \
        struct specimen s;                                                                         \
        make(&s);                                                                                  \
        struct tepi_program_header *h = s.header;                                                  \
        struct tepi_tensor *t = s.tensors;                                                         \
        struct tepi_instruction *i = s.instructions;                                               \
        uint8_t *constants = s.constants;                                                          \
        (void)h, (void)t, (void)i, (void)constants;                                                \
        tampering;                                                                                 \
        const struct tepi_verdict found = specimen_try(s.image, s.bytes, builder_kernels(0));      \
        const uint32_t expected[] = {__VA_ARGS__};                                                 \
        specimen_free(&s);                                                                         \
        CHECK_INT(found.fault, expected[0]);                                                       \
        CHECK_INT(found.info, expected[1]);                                                        \
    } while (0)

#define REFUSED(tampering, ...) TAMPERED(specimen_make, tampering, __VA_ARGS__)

/* As REFUSED, but the program stays valid: the limits themselves are allowed. */
#define ACCEPTED(tampering) REFUSED(tampering, TEPI_FAULT_OK, 0)

#endif
