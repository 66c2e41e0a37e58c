/* tests/test_data.h - what the tests of data/ share: temporary folders, seeded random text, and
 * assertions about messages. Included once by each test program. */
#ifndef ISOMOE_TESTS_TEST_DATA_H
#define ISOMOE_TESTS_TEST_DATA_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* after the above */
#include <cmocka.h>

#include "base/err.h"
#include "base/io.h"
#include "base/philox.h"
#include "base/utf8.h"

static char test_dir[64]; /* a fresh folder of this program */

static inline int test_dir_make(void **state)
{
    (void)state;
    static const char *const root[] = {"/dev/shm", "/tmp"}; /* memory: syncing costs nothing */
    for (int i = 0; i < 2; i++) {
        snprintf(test_dir, sizeof test_dir, "%s/isomoe-test-XXXXXX", root[i]);
        if (mkdtemp(test_dir)) return 0;
    }
    return -1;
}

static inline int test_dir_remove(void **state)
{
    (void)state;
    return io_remove_tree(test_dir, NULL);
}

/* test_dir/name, in one of 32 buffers that take turns. */
static inline const char *in_dir(const char *name)
{
    static char path[32][512];
    static int turn;
    char *out = path[turn++ % 32];
    snprintf(out, 512, "%s/%s", test_dir, name);
    return out;
}

static inline void put_file(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb"); /* no fsync: tests write many files */
    if (!file || fwrite(data, 1, size, file) != size || fclose(file))
        fail_msg("%s: not written", path);
}

static inline void put_text(const char *path, const char *text)
{
    put_file(path, text, strlen(text));
}

static inline char *get_file(const char *path, size_t *size)
{
    Err e = {0};
    char *data;
    if (io_read_all(path, 1 << 30, &data, size, &e)) fail_msg("%s", e.message);
    return data;
}

/* The call must have succeeded. */
#define assert_ok(call, e)                                                                         \
    do {                                                                                           \
        if (call) fail_msg("%s: %s", #call, (e).message);                                          \
    } while (0)

/* The message must be set and hold every one of the texts. */
#define assert_message(e, ...)                                                                     \
    do {                                                                                           \
        const char *wanted_[] = {__VA_ARGS__};                                                     \
        if (!(e).set) fail_msg("no error message, wanted \"%s\"", wanted_[0]);                     \
        for (size_t i_ = 0; i_ < sizeof wanted_ / sizeof *wanted_; i_++)                           \
            if (!strstr((e).message, wanted_[i_]))                                                 \
                fail_msg("wanted \"%s\" in the message:\n%s", wanted_[i_], (e).message);           \
        (e) = (Err){0};                                                                            \
    } while (0)

/* Random numbers of one test, numbered draw by draw. */
typedef struct Dice {
    PhiloxKey key;
    uint64_t next;
} Dice;

static inline Dice dice_make(uint64_t seed) { return (Dice){{seed, RNG_TEST, 0, 0}, 0}; }

/* Below n. */
static inline uint32_t roll(Dice *d, uint32_t n) { return philox_u32(&d->key, d->next++) % n; }

/* Appends a random character of a random kind; returns its bytes. */
static inline int random_char(Dice *d, char out[4])
{
    static const uint32_t special[] = {0x2581, 0x2585, 0xFFFF, 0xFFFD, 0xFEFF, 0xE000, 0x10FFFF,
                                       0x2028, 0x85,   0xA0,   0x7F,   0,      '\r',   '\t',
                                       '\n',   ' ',    0x3000, 0x301,  0x200D, 0x1F600};
    uint32_t code;
    switch (roll(d, 8)) {
    case 0: code = special[roll(d, sizeof special / sizeof *special)]; break;
    case 1: code = roll(d, UTF8_CODES); break;
    case 2: code = roll(d, 0x800); break;
    case 3: code = 0x4E00 + roll(d, 0x5000); break;
    case 4: code = ' '; break;
    default: code = 0x20 + roll(d, 0x5F); break;
    }
    if (code >= 0xD800 && code < 0xE000) code = 'x'; /* no surrogates in UTF-8 */
    return utf8_encode(code, out);
}

/* Up to `characters` random characters; the caller frees the text. */
static inline char *random_text(Dice *d, uint32_t characters, size_t *size)
{
    char *text = malloc(4 * (size_t)characters + 1);
    uint32_t n = roll(d, characters + 1);
    *size = 0;
    for (uint32_t i = 0; i < n; i++) *size += (size_t)random_char(d, text + *size);
    text[*size] = 0;
    return text;
}

/* Appends zero-terminated text at out; returns its bytes. */
static inline size_t put_at(char *out, const char *text)
{
    size_t n = strlen(text);
    memcpy(out, text, n + 1);
    return n;
}

/* Appends a made-up word: the rank decides its letters, low ranks are common. */
static inline size_t made_word(Dice *d, char *out)
{
    static const char *const part[] = {"ka", "to", "mi", "ren", "sol", "ta", "in", "ver",
                                       "con", "er", "st", "al", "pro", "e", "lu", "ing"};
    uint32_t rank = roll(d, 1 + roll(d, 1 + roll(d, 4000)));
    size_t n = 0;
    do {
        n += put_at(out + n, part[rank % 16]);
        rank /= 16;
    } while (rank);
    return n;
}

/* About `size` bytes of text that looks like prose and code; zero-terminated, caller frees. */
static inline char *made_text(uint64_t seed, size_t size)
{
    static const char *const between[] = {".\n", ";\n        ", "\n\n\t", " 2024 ",
                                          " \xC3\xA9t\xC3\xA9 "};
    Dice d = dice_make(seed);
    char *text = malloc(size + 256);
    size_t n = 0;
    while (n < size) {
        n += made_word(&d, text + n);
        uint32_t kind = roll(&d, 24);
        if (kind < 5) n += put_at(text + n, between[kind]);
        else if (kind == 5) n += (size_t)snprintf(text + n, 16, " = %u, ", roll(&d, 1000));
        else text[n++] = ' ';
    }
    text[n] = 0;
    return text;
}

#endif
