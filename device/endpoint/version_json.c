/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON of VERSION, as much of it as the card reads: one number of one object in an object. */
#include "endpoint/protocol.h"

#include <string.h>

/* Deeper nesting than any capability needs is refused, so that no text recurses for long. */
enum { DEPTH_MOST = 8 };

struct cursor {
    const char *at, *end;
};

struct wanted {
    const char *name;
    uint64_t value;
    bool found;
};

/* Where a value stands: the whole text, capabilities' object, the wanted number, elsewhere. */
enum place { TOP, CAPABILITIES, WANTED, ELSEWHERE };

static bool value(struct cursor *cursor, enum place place, unsigned depth, struct wanted *wanted);

static void skip_space(struct cursor *cursor)
{
    while (cursor->at < cursor->end && memchr(" \t\r\n", *cursor->at, 4)) {
        cursor->at++;
    }
}

static bool take(struct cursor *cursor, char wanted)
{
    skip_space(cursor);
    if (cursor->at == cursor->end || *cursor->at != wanted) {
        return false;
    }
    cursor->at++;
    return true;
}

/* A string as it is written: escapes are skipped over, not decoded. */
static bool string(struct cursor *cursor, const char **begin, size_t *length)
{
    if (!take(cursor, '"')) {
        return false;
    }
    *begin = cursor->at;
    while (cursor->at < cursor->end && *cursor->at != '"') {
        if ((unsigned char)*cursor->at < 0x20) {
            return false;
        }
        cursor->at += *cursor->at == '\\' && cursor->end - cursor->at > 1 ? 2 : 1;
    }
    *length = (size_t)(cursor->at - *begin);
    return take(cursor, '"');
}

static bool is_key(const char *begin, size_t length, const char *name)
{
    return strlen(name) == length && memcmp(begin, name, length) == 0;
}

static bool object(struct cursor *cursor, enum place place, unsigned depth, struct wanted *wanted)
{
    if (take(cursor, '}')) {
        return true;
    }
    do {
        const char *key;
        size_t length;
        if (!string(cursor, &key, &length) || !take(cursor, ':')) {
            return false;
        }
        const enum place inner = place == TOP && is_key(key, length, "capabilities") ? CAPABILITIES
                                 : place == CAPABILITIES && is_key(key, length, wanted->name)
                                     ? WANTED
                                     : ELSEWHERE;
        if (!value(cursor, inner, depth + 1, wanted)) {
            return false;
        }
    } while (take(cursor, ','));
    return take(cursor, '}');
}

static bool array(struct cursor *cursor, unsigned depth, struct wanted *wanted)
{
    if (take(cursor, ']')) {
        return true;
    }
    do {
        if (!value(cursor, ELSEWHERE, depth + 1, wanted)) {
            return false;
        }
    } while (take(cursor, ','));
    return take(cursor, ']');
}

/* A number or true, false, null: letters, digits and signs up to what cannot belong to it. */
static bool word(struct cursor *cursor, enum place place, struct wanted *wanted)
{
    static const char letters[] = "0123456789+-.eEtrufalsn";
    const char *begin = cursor->at;
    uint64_t number = 0;
    bool whole = true;
    while (cursor->at < cursor->end && memchr(letters, *cursor->at, sizeof letters - 1)) {
        const char letter = *cursor->at++;
        whole = whole && letter >= '0' && letter <= '9' &&
                !__builtin_mul_overflow(number, 10u, &number) &&
                !__builtin_add_overflow(number, (uint64_t)(letter - '0'), &number);
    }
    if (place == WANTED) {
        if (!whole) {
            return false;
        }
        wanted->value = number;
        wanted->found = true;
    }
    return cursor->at != begin;
}

static bool value(struct cursor *cursor, enum place place, unsigned depth, struct wanted *wanted)
{
    const char *begin;
    size_t length;
    if (depth > DEPTH_MOST) {
        return false;
    }
    if (take(cursor, '{')) {
        return object(cursor, place, depth, wanted);
    }
    if (place == TOP || place == CAPABILITIES) {
        return false;
    }
    if (take(cursor, '[')) {
        return place != WANTED && array(cursor, depth, wanted);
    }
    if (cursor->at < cursor->end && *cursor->at == '"') {
        return place != WANTED && string(cursor, &begin, &length);
    }
    return word(cursor, place, wanted);
}

bool tepi_json_capability(const char *text, size_t length, const char *name, uint64_t otherwise,
                          uint64_t *out)
{
    struct cursor cursor = {text, text + length};
    struct wanted wanted = {.name = name};
    const bool sound = value(&cursor, TOP, 0, &wanted);
    skip_space(&cursor);
    *out = wanted.found ? wanted.value : otherwise;
    return sound && cursor.at == cursor.end;
}
