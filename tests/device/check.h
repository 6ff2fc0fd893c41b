/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assertions for the C tests. A test file lists its cases in one table and ends with
 * CHECK_MAIN(table); a failed check prints where and what and ends that case.
 */
#ifndef TEPI_TESTS_CHECK_H
#define TEPI_TESTS_CHECK_H

#include <stdio.h>
#include <string.h>

struct check_case {
    const char *name;
    void (*run)(int *failures);
};

/* Declares a case: CHECK_CASE(name) { CHECK(x == y); } and, in the table, CHECK_ENTRY(name). */
#define CHECK_CASE(name)  static void name(int *check_failures)
#define CHECK_ENTRY(name) {#name, name}

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: CHECK(%s)\n", __FILE__, __LINE__, #condition);                 \
            ++*check_failures;                                                                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define CHECK_INT(actual, expected)                                                                \
    do {                                                                                           \
        long long check_a = (long long)(actual), check_e = (long long)(expected);                  \
        if (check_a != check_e) {                                                                  \
            fprintf(stderr, "%s:%d: %s is %lld (0x%llx), expected %lld (0x%llx)\n", __FILE__,      \
                    __LINE__, #actual, check_a, (unsigned long long)check_a, check_e,              \
                    (unsigned long long)check_e);                                                  \
            ++*check_failures;                                                                     \
            return;                                                                                \
        }                                                                                          \
    } while (0)

#define CHECK_BYTES(actual, expected, size)                                                        \
    do {                                                                                           \
        const unsigned char *check_a = (const void *)(actual),                                     \
                            *check_e = (const void *)(expected);                                   \
        for (size_t check_i = 0; check_i < (size_t)(size); check_i++) {                            \
            if (check_a[check_i] != check_e[check_i]) {                                            \
                fprintf(stderr, "%s:%d: %s differs from %s at byte %zu: 0x%02x, not 0x%02x\n",     \
                        __FILE__, __LINE__, #actual, #expected, check_i, check_a[check_i],         \
                        check_e[check_i]);                                                         \
                ++*check_failures;                                                                 \
                return;                                                                            \
            }                                                                                      \
        }                                                                                          \
    } while (0)

static inline int check_run(const struct check_case *cases, size_t count)
{
    int failed = 0;
    for (size_t i = 0; i < count; i++) {
        int failures = 0;
        cases[i].run(&failures);
        printf("%s %s\n", failures ? "FAIL" : "ok  ", cases[i].name);
        failed += failures != 0;
    }
    printf("%zu cases, %d failed\n", count, failed);
    return failed != 0;
}

#define CHECK_MAIN(table)                                                                          \
    int main(void)                                                                                 \
    {                                                                                              \
        return check_run(table, sizeof(table) / sizeof((table)[0]));                               \
    }

#endif
