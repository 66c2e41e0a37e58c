/* tests/test_base.c - base/: errors, sizes, hashes, Philox, logging and the memory plan. Published
 * vectors stand for hash and Philox: Random123's kat_vectors and xxHash's own sanity check.
 * Files are in test_io.c, configurations in test_conf.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/err.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/philox.h"
#include "base/size.h"

static void test_err_message_hint_context(void **state)
{
    (void)state;
    Err e = {0};
    assert_int_equal(err_hint(&e, "lost"), -1);
    assert_int_equal(err_context(&e, "lost"), -1);
    assert_int_equal(e.set, 0);
    assert_int_equal(err_set(&e, "row %d", 3), -1);
    assert_int_equal(e.set, 1);
    assert_int_equal(err_hint(&e, "try %s", "4"), -1);
    assert_int_equal(err_context(&e, "file %s", "x"), -1);
    assert_string_equal(e.message, "file x: row 3\nhint: try 4");
    assert_int_equal(err_set(&e, "again"), -1);
    assert_string_equal(e.message, "again");
    errno = ENOENT;
    assert_int_equal(err_errno(&e, "open %s", "y"), -1);
    assert_string_equal(e.message, "open y: No such file or directory");
    errno = ENOENT;
    assert_int_equal(err_set(NULL, "a") & err_hint(NULL, "a") & err_errno(NULL, "a"), -1);
    assert_int_equal(err_context(NULL, "a"), -1);
}

static void test_err_long_messages_are_cut(void **state)
{
    (void)state;
    char text[2 * ERR_MESSAGE_MAX];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = 0;
    Err e = {0};
    err_set(&e, "%s", text);
    assert_int_equal(strlen(e.message), ERR_MESSAGE_MAX - 1);
    err_hint(&e, "%s", text);
    err_context(&e, "name");
    assert_int_equal(strncmp(e.message, "name: xxx", 9), 0);
    assert_int_equal(strlen(e.message), ERR_MESSAGE_MAX - 1);
    err_context(&e, "%s", text);
    assert_int_equal(strlen(e.message), ERR_MESSAGE_MAX - 1);
    err_set(&e, "%.*s", ERR_MESSAGE_MAX - 5, text);
    err_hint(&e, "no room");
    assert_true(strlen(e.message) < ERR_MESSAGE_MAX);
    err_errno(&e, "%s", text);
    assert_int_equal(strlen(e.message), ERR_MESSAGE_MAX - 1);
}

/* Runs `act` in a child with stderr in a pipe; its text into out, its wait status returned. */
static int run_child(void (*act)(void), char *out, size_t size)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], 2);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    ssize_t n;
    while (used + 1 < size && (n = read(ends[0], out + used, size - used - 1)) > 0)
        used += (size_t)n;
    out[used] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void broken_check(void) { CHECK(1 + 1 == 3, "left %d right %d", 2, 3); }
static void good_check(void) { CHECK(1 + 1 == 2, "never printed"); }

static void test_check_aborts_with_values(void **state)
{
    (void)state;
    char text[1024];
    int status = run_child(broken_check, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "test_base.c:"));
    assert_non_null(strstr(text, "CHECK(1 + 1 == 3) failed: left 2 right 3\n"));
    status = run_child(good_check, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(text, "");
}

static void talk(void)
{
    log_info("step %d", 1);
    log_warn("slow %s", "disk");
    log_error("bad");
    log_set_quiet(1);
    log_info("hidden");
    log_warn("seen");
    log_set_quiet(0);
    log_info("back");
}

static void test_log_lines(void **state)
{
    (void)state;
    char text[1024];
    assert_int_equal(run_child(talk, text, sizeof text), 0);
    assert_string_equal(text, "isomoe: step 1\nisomoe: warning: slow disk\nisomoe: error: bad\n"
                              "isomoe: warning: seen\nisomoe: back\n");
    double before = log_seconds();
    usleep(2000);
    double passed = log_seconds() - before;
    assert_true(passed >= 0.002 && passed < 60);
}

static void test_size_overflow(void **state)
{
    (void)state;
    int64_t out = 7;
    assert_false(size_mul(INT64_MAX, 2, &out));
    assert_false(size_mul(-1, 2, &out));
    assert_false(size_mul(2, -1, &out));
    assert_false(size_mul(1LL << 32, 1LL << 31, &out));
    assert_false(size_add(INT64_MAX, 1, &out));
    assert_false(size_add(-1, 1, &out));
    assert_false(size_add(1, -1, &out));
    assert_int_equal(out, 7);
    assert_true(size_mul(1LL << 31, 1LL << 31, &out));
    assert_true(out == 1LL << 62);
    assert_true(size_mul(0, INT64_MAX, &out));
    assert_true(out == 0);
    assert_true(size_add(INT64_MAX - 1, 1, &out));
    assert_true(out == INT64_MAX);
}

static void test_size_rounding(void **state)
{
    (void)state;
    assert_int_equal(size_ceil_div(0, 8), 0);
    assert_int_equal(size_ceil_div(1, 8), 1);
    assert_int_equal(size_ceil_div(8, 8), 1);
    assert_int_equal(size_ceil_div(9, 8), 2);
    assert_true(size_ceil_div(INT64_MAX, 1) == INT64_MAX);
    assert_true(size_ceil_div(INT64_MAX, 2) == 1LL << 62);
    assert_int_equal(size_round_up(0, 64), 0);
    assert_int_equal(size_round_up(1, 64), 64);
    assert_int_equal(size_round_up(64, 64), 64);
    assert_int_equal(size_min(-2, 3), -2);
    assert_int_equal(size_max(-2, 3), 3);
}

/* xxHash's sanity buffer and vectors (tests/sanity_test, XXH3 64 bits, seed 0). */
static void test_hash_published_vectors(void **state)
{
    (void)state;
    static const struct {
        size_t size;
        uint64_t hash;
    } vectors[] = {{0, 0x2D06800538D394C2}, {1, 0xC44BDFF4074EECDB}, {6, 0x27B56A84CD2D7325},
                   {12, 0xA713DAF0DFBB77E7}, {24, 0xA3FE70BF9D3510EB}, {48, 0x397DA259ECBA1F11},
                   {80, 0xBCDEFBBB2C47C90A}, {195, 0xCD94217EE362EC3A}, {403, 0xCDEB804D65C6DEA4},
                   {512, 0x617E49599013CB6B}, {2048, 0xDD59E2C3A5F038E0},
                   {2240, 0x6E73A90539CF2948}, {2367, 0xCB37AEB9E5D361ED}};
    unsigned char buffer[2367];
    uint64_t generator = 2654435761u;
    for (size_t i = 0; i < sizeof buffer; i++) {
        buffer[i] = (unsigned char)(generator >> 56);
        generator *= 11400714785074694797u;
    }
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
        assert_true(hash_bytes(buffer, vectors[i].size) == vectors[i].hash);
        assert_true(hash_more(0, buffer, vectors[i].size) == vectors[i].hash);
    }
    assert_true(hash_more(11400714785074694797u, buffer, 0) == 0xA8A6B918B2F0364A);
    assert_true(hash_more(11400714785074694797u, buffer, 1) == 0x032BE332DD766EF8);
    char hex[HASH_HEX];
    hash_hex(0x0123456789abcdefu, hex);
    assert_string_equal(hex, "0123456789abcdef");
    hash_hex(0, hex);
    assert_string_equal(hex, "0000000000000000");
}

static void test_philox_published_vectors(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        philox4x32(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].out, sizeof out);
    }
}

/* The third published vector again, through the layout that philox.h promises; checkpoints and
 * every seeded result stand on it. */
static void test_philox_stream_layout(void **state)
{
    (void)state;
    PhiloxKey key = {0x299f31d0a4093822u, 0x5, 0x85a308d3, 0};
    key.position = (uint64_t)(0x03707344u ^ 0x5u << 24) << 32 | 0x13198a2e;
    uint32_t out[4];
    philox_block(&key, 0x243f6a88, out);
    assert_int_equal(out[0], 0xd16cfe09);
    assert_int_equal(out[3], 0x24126ea1);
    for (uint64_t word = 0; word < 4; word++)
        assert_int_equal(philox_u32(&key, 4 * (uint64_t)0x243f6a88 + word), out[word]);
    double uniform = philox_uniform(&key, 4 * (uint64_t)0x243f6a88);
    assert_true(uniform == (0xd16cfe09 + 0.5) / 4294967296.0);
}

static void test_philox_streams_differ(void **state)
{
    (void)state;
    const PhiloxKey base = {1, RNG_INIT, 2, 3};
    PhiloxKey other[] = {base, base, base, base, base};
    other[0].seed += 1ull << 32;
    other[1].purpose = RNG_RECYCLE;
    other[2].stream++;
    other[3].position++;
    other[4].position += 1ull << 32;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        int same = 0;
        for (uint64_t j = 0; j < 256; j++)
            same += philox_u32(&base, j) == philox_u32(&other[i], j);
        assert_int_equal(same, 0);
    }
}

enum { DRAWS = 200000 };

/* Bounds are five standard errors of each moment over DRAWS independent draws. */
static void test_philox_uniform_moments(void **state)
{
    (void)state;
    PhiloxKey key = {42, RNG_TEST, 0, 0};
    double sum = 0, squares = 0, neighbours = 0, last = 0;
    int buckets[64] = {0};
    for (uint32_t i = 0; i < DRAWS; i++) {
        double u = philox_uniform(&key, i) - 0.5;
        assert_true(u > -0.5 && u < 0.5);
        sum += u;
        squares += u * u;
        neighbours += u * last;
        last = u;
        buckets[(int)((u + 0.5) * 64)]++;
    }
    assert_true(fabs(sum / DRAWS) < 5 * sqrt(1.0 / 12 / DRAWS));
    assert_true(fabs(squares / DRAWS - 1.0 / 12) < 5 * sqrt(1.0 / 180 / DRAWS));
    assert_true(fabs(neighbours / DRAWS) < 5.0 / 12 / sqrt(DRAWS));
    double chi = 0, expected = DRAWS / 64.0;
    for (int i = 0; i < 64; i++) chi += pow(buckets[i] - expected, 2) / expected;
    assert_true(fabs(chi - 63) < 5 * sqrt(2 * 63.0));
}

static void test_philox_normal_moments(void **state)
{
    (void)state;
    PhiloxKey key = {43, RNG_TEST, 0, 0};
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0;
    int beyond2 = 0;
    for (uint32_t i = 0; i < DRAWS; i++) {
        double x = philox_normal(&key, i);
        assert_true(isfinite(x));
        m1 += x;
        m2 += x * x;
        m3 += x * x * x;
        m4 += x * x * x * x;
        beyond2 += fabs(x) > 2;
    }
    assert_true(fabs(m1 / DRAWS) < 5 * sqrt(1.0 / DRAWS));
    assert_true(fabs(m2 / DRAWS - 1) < 5 * sqrt(2.0 / DRAWS));
    assert_true(fabs(m3 / DRAWS) < 5 * sqrt(15.0 / DRAWS));
    assert_true(fabs(m4 / DRAWS - 3) < 5 * sqrt(96.0 / DRAWS));
    double tail = erfc(2 / sqrt(2.0));
    assert_true(fabs((double)beyond2 / DRAWS - tail) < 5 * sqrt(tail / DRAWS));
}

static void test_arena_offsets(void **state)
{
    (void)state;
    ArenaPlan plan = {0};
    assert_int_equal(arena_total(&plan), 0);
    assert_int_equal(arena_reserve(&plan, "weights/a", 1), 0);
    assert_int_equal(arena_reserve(&plan, "weights/b", 64), 64);
    assert_int_equal(arena_reserve(&plan, "weights/none", 0), 128);
    assert_int_equal(arena_reserve(&plan, "gradients/a", 65), 128);
    assert_int_equal(arena_total(&plan), 256);
    for (int i = 0; i < 1000; i++) assert_int_equal(arena_reserve(&plan, "x", 100), 256 + 128 * i);
    assert_int_equal(arena_total(&plan), 256 + 128 * 1000);
    assert_int_equal(arena_check(&plan, NULL), 0);
    assert_string_equal(plan.rows[3].name, "gradients/a");
    assert_int_equal(plan.rows[3].bytes, 65);
    arena_clear(&plan);
    assert_null(plan.rows);
    assert_int_equal(arena_total(&plan), 0);
}

static void test_arena_overflow(void **state)
{
    (void)state;
    static const int64_t too_large[] = {-1, INT64_MAX, INT64_MAX - 64, INT64_MAX - 128};
    for (size_t i = 0; i < sizeof too_large / sizeof *too_large; i++) {
        ArenaPlan plan = {0};
        Err e = {0};
        assert_int_equal(arena_reserve(&plan, "first", 100), 0);
        assert_int_equal(arena_reserve(&plan, "group/big", too_large[i]), -1);
        assert_int_equal(arena_reserve(&plan, "later", 8), -1); /* one failure is enough */
        assert_int_equal(arena_check(&plan, &e), -1);
        assert_non_null(strstr(e.message, "memory plan: group/big: "));
        assert_non_null(strstr(e.message, "does not fit in 64 bits\nhint: a dimension"));
        assert_int_equal(plan.count, 1);
        arena_clear(&plan);
        assert_int_equal(arena_check(&plan, &e), 0);
    }
    ArenaPlan plan = {0};
    assert_int_equal(arena_reserve(&plan, "all", INT64_MAX - 64), 0);
    assert_true(arena_total(&plan) == INT64_MAX - 63);
    arena_clear(&plan);
}

static void test_arena_human_units(void **state)
{
    (void)state;
    static const struct {
        int64_t bytes;
        const char *text;
    } cases[] = {{0, "0 B"}, {1023, "1023 B"}, {1024, "1.00 KiB"}, {1536, "1.50 KiB"},
                 {10239, "10.0 KiB"}, {102400, "100 KiB"}, {1023 * 1024, "1023 KiB"},
                 {1024 * 1024 - 1, "1.00 MiB"}, {12LL << 30, "12.0 GiB"}, {1LL << 40, "1.00 TiB"},
                 {INT64_MAX, "8.00 EiB"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[ARENA_HUMAN];
        assert_string_equal(arena_human(out, cases[i].bytes), cases[i].text);
    }
}

/* arena_print's text in `text`. */
static void print_plan(const ArenaPlan *plan, int detail, char *text, size_t size)
{
    FILE *out = fmemopen(text, size, "w");
    assert_non_null(out);
    arena_print(plan, out, "device memory", detail);
    fclose(out);
}

static void test_arena_print_and_json(void **state)
{
    (void)state;
    ArenaPlan plan = {0};
    char text[1024];
    print_plan(&plan, 0, text, sizeof text);
    assert_string_equal(text, "device memory\n          rows       size  share\n"
                              "  total      0        0 B 100.0%\n");
    arena_reserve(&plan, "weights/a", 2048);
    arena_reserve(&plan, "state", 4096);
    arena_reserve(&plan, "weights/b", 2048);
    print_plan(&plan, 0, text, sizeof text);
    assert_string_equal(text, "device memory\n            rows       size  share\n"
                              "  weights      2   4.00 KiB  50.0%\n"
                              "  state        1   4.00 KiB  50.0%\n"
                              "  total        3   8.00 KiB 100.0%\n");
    print_plan(&plan, 1, text, sizeof text);
    assert_non_null(strstr(text, "  weights/b      1   2.00 KiB  25.0%\n"));
    json_t *json = arena_json(&plan);
    char *dumped = json_dumps(json, JSON_COMPACT);
    assert_string_equal(dumped, "{\"bytes\":8192,\"rows\":["
                                "{\"name\":\"weights/a\",\"offset\":0,\"bytes\":2048},"
                                "{\"name\":\"state\",\"offset\":2048,\"bytes\":4096},"
                                "{\"name\":\"weights/b\",\"offset\":6144,\"bytes\":2048}]}");
    free(dumped);
    json_decref(json);
    arena_clear(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_err_message_hint_context),
        cmocka_unit_test(test_err_long_messages_are_cut),
        cmocka_unit_test(test_check_aborts_with_values),
        cmocka_unit_test(test_log_lines),
        cmocka_unit_test(test_size_overflow),
        cmocka_unit_test(test_size_rounding),
        cmocka_unit_test(test_hash_published_vectors),
        cmocka_unit_test(test_philox_published_vectors),
        cmocka_unit_test(test_philox_stream_layout),
        cmocka_unit_test(test_philox_streams_differ),
        cmocka_unit_test(test_philox_uniform_moments),
        cmocka_unit_test(test_philox_normal_moments),
        cmocka_unit_test(test_arena_offsets),
        cmocka_unit_test(test_arena_overflow),
        cmocka_unit_test(test_arena_human_units),
        cmocka_unit_test(test_arena_print_and_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
