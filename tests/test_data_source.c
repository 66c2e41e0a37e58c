/* tests/test_data_source.c - every kind of input gives its documents; every bad one is named. */
#include "tests/test_data.h"

#include <sys/stat.h>
#include <zlib.h>
#include <zstd.h>

#include "base/log.h"
#include "data/inputs.h"
#include "data/reservoir.h"
#include "data/source.h"

/* ---- packing ------------------------------------------------------------------------------- */

static size_t pack_gzip(const char *data, size_t size, char *out, size_t room)
{
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)data;
    z.avail_in = (unsigned)size;
    z.next_out = (unsigned char *)out;
    z.avail_out = (unsigned)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static size_t pack_zstd(const char *data, size_t size, char *out, size_t room)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
    size_t n = ZSTD_compress2(context, out, room, data, size);
    assert_false(ZSTD_isError(n));
    ZSTD_freeCCtx(context);
    return n;
}

typedef size_t (*Pack)(const char *, size_t, char *, size_t);

/* ---- reading all documents ----------------------------------------------------------------- */

typedef struct All {
    char *text; /* all documents, one after the other */
    size_t size;
    int count;
    size_t first, largest; /* bytes of the first and the largest document */
    int64_t skipped;
    int rc;
    Err e;
} All;

static All read_all(const char *const *names, int n, BadPolicy policy)
{
    All all = {.text = calloc(1, 1)};
    InputList list;
    if (inputs_expand(names, n, &list, &all.e)) {
        all.rc = -1;
        return all;
    }
    Source *s = source_open(&list, NULL, policy, &all.e);
    Document d;
    int more;
    while ((more = source_next(s, &d, &all.e)) > 0) {
        assert_true(d.size > 0);
        assert_int_equal(utf8_valid_prefix(d.text, d.size), d.size);
        all.text = realloc(all.text, all.size + d.size + 1);
        memcpy(all.text + all.size, d.text, d.size);
        all.size += d.size;
        all.text[all.size] = 0;
        if (!all.count++) all.first = d.size;
        if (d.size > all.largest) all.largest = d.size;
    }
    all.rc = more;
    all.skipped = source_skipped(s);
    source_close(&s);
    inputs_free(&list);
    return all;
}

static All read_one(const char *name, BadPolicy policy) { return read_all(&name, 1, policy); }

/* The file gives these documents, put together, and their number. */
static void expect(const char *name, const char *text, size_t size, int count)
{
    All all = read_one(name, BAD_FAILS);
    if (all.rc) fail_msg("%s", all.e.message);
    assert_int_equal(all.count, count);
    assert_int_equal(all.size, size);
    assert_memory_equal(all.text, text, size);
    free(all.text);
}

/* The file fails with these texts in the message; with skipping, `left` documents remain. */
#define expect_bad(name, left, bad, ...)                                                           \
    do {                                                                                           \
        All all_ = read_one(name, BAD_FAILS);                                                      \
        assert_int_equal(all_.rc, -1);                                                             \
        assert_message(all_.e, name, "--skip-bad", __VA_ARGS__);                                   \
        free(all_.text);                                                                           \
        all_ = read_one(name, BAD_QUIET);                                                          \
        assert_int_equal(all_.rc, 0);                                                              \
        assert_int_equal(all_.count, left);                                                        \
        assert_int_equal(all_.skipped, bad);                                                       \
        free(all_.text);                                                                           \
    } while (0)

/* ---- text ---------------------------------------------------------------------------------- */

static void test_text(void **state)
{
    (void)state;
    const char *a = in_dir("a.txt");
    put_file(a, "x\0y\n\n\fz", 7);
    expect(a, "x\0y\n\n\fz", 7, 1); /* zero bytes, blank lines, form feeds: one document */
    put_text(in_dir("noname"), "plain");
    expect(in_dir("noname"), "plain", 5, 1);
}

static void test_large_text_is_cut(void **state)
{
    (void)state;
    const char *path = in_dir("large.txt");
    char *text = made_text(7, 2500000);
    size_t size = strlen(text);
    put_text(path, text);
    expect(path, text, size, 3);
    All all = read_one(path, BAD_FAILS);
    assert_true(all.largest <= SOURCE_TEXT_MAX && all.first > SOURCE_TEXT_MAX / 2);
    assert_memory_equal(text + all.first - 2, "\n\n", 2); /* after a blank line */
    free(all.text);
    for (size_t i = 0; i < size; i++) /* only single newlines */
        if (text[i] == '\n' && i && text[i - 1] == '\n') text[i] = ' ';
    put_text(path, text);
    all = read_one(path, BAD_FAILS);
    assert_int_equal(text[all.first - 1], '\n');
    assert_int_equal(all.size, size);
    free(all.text);
    for (size_t i = 0; i + 1 < size; i += 2) memcpy(text + i, "\xC3\xA9", 2); /* no newline */
    text[0] = 'x'; /* so that the limit is inside a character */
    text[1] = 'x';
    text[2] = 'x';
    for (size_t i = 3; i + 1 < size; i += 2) memcpy(text + i, "\xC3\xA9", 2);
    size -= (size - 3) % 2;
    put_file(path, text, size);
    expect(path, text, size, 3);
    all = read_one(path, BAD_FAILS);
    assert_int_equal(all.first, SOURCE_TEXT_MAX - 1);
    free(all.text);
    free(text);
}

static void test_exact_limit(void **state)
{
    (void)state;
    const char *path = in_dir("limit.txt");
    char *text = malloc(SOURCE_TEXT_MAX + 1);
    memset(text, 'a', SOURCE_TEXT_MAX + 1);
    text[SOURCE_TEXT_MAX * 3 / 4] = '\n'; /* where it would be cut */
    put_file(path, text, SOURCE_TEXT_MAX);
    expect(path, text, SOURCE_TEXT_MAX, 1);
    put_file(path, text, SOURCE_TEXT_MAX + 1);
    expect(path, text, SOURCE_TEXT_MAX + 1, 2);
    free(text);
}

static void test_bad_text(void **state)
{
    (void)state;
    const char *path = in_dir("bad.txt");
    put_file(path, "", 0);
    expect_bad(path, 0, 1, "empty document");
    put_file(path, "abc\n\xC3(", 6);
    expect_bad(path, 0, 1, "byte 4", "not UTF-8 (0xc3)");
    char *text = made_text(8, 2500000);
    size_t size = strlen(text);
    text[1800000] = '\xFF'; /* one document of three */
    put_file(path, text, size);
    expect_bad(path, 2, 1, "byte 1800000", "not UTF-8 (0xff)");
    free(text);
    Err e = {0};
    const char *none = in_dir("none.txt");
    InputList list;
    assert_int_equal(inputs_expand(&none, 1, &list, &e), -1);
    assert_message(e, none, "No such file");
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

static void test_jsonl(void **state)
{
    (void)state;
    const char *path = in_dir("a.jsonl");
    put_text(path, "{\"text\": \"one\\u0000\\n\"}\r\n\n  \t\n"
                   "{\"id\":1,\"text\":\"\xC3\xA9\\uD83D\\uDE00\\uFFFF\"}\n{\"text\":\"last\"}");
    expect(path, "one\0\n\xC3\xA9\xF0\x9F\x98\x80\xEF\xBF\xBFlast", 18, 3);
}

static void test_bad_jsonl(void **state)
{
    (void)state;
    const char *path = in_dir("bad.jsonl");
    static const struct { const char *line, *wanted; } row[] = {
        {"{\"text\": \"x\"", "bad JSON at byte"},
        {"nonsense", "bad JSON at byte"},
        {"[1, 2]", "bad JSON: not an object"},
        {"{\"txt\": \"x\"}", "member \"text\" is missing"},
        {"{\"text\": 5}", "member \"text\" is not a string"},
        {"{\"text\": \"\"}", "empty document"},
        {"{\"text\": \"\\uD800\"}", "bad JSON at byte"},
        {"{\"text\": \"a\xFF\"}", "byte 28: not UTF-8 (0xff)"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        char text[200], where[300];
        snprintf(text, sizeof text, "{\"text\":\"good\"}\n\n%s\n{\"text\":\"fine\"}\n",
                 row[i].line);
        snprintf(where, sizeof where, "%s:3: ", path);
        put_text(path, text);
        expect_bad(path, 2, 1, where, row[i].wanted);
    }
}

static void test_text_key(void **state)
{
    (void)state;
    Err e = {0};
    const char *path = in_dir("key.jsonl");
    put_text(path, "{\"text\": \"no\", \"body\": \"yes\"}\n");
    InputList list;
    Document d;
    assert_ok(inputs_expand(&path, 1, &list, &e), e);
    Source *s = source_open(&list, "body", BAD_FAILS, &e);
    assert_int_equal(source_next(s, &d, &e), 1);
    assert_string_equal(d.text, "yes");
    assert_int_equal(source_next(s, &d, &e), 0);
    source_close(&s);
    inputs_free(&list);
}

/* ---- packed files -------------------------------------------------------------------------- */

static void check_packed(const char *suffix, Pack pack)
{
    char name[32], *text = made_text(9, 700000), *packed = malloc(1 << 20), *twice;
    size_t size = strlen(text), half = size / 2;
    snprintf(name, sizeof name, "p.txt%s", suffix);
    const char *path = in_dir(name);
    size_t n = pack(text, half, packed, 1 << 20);
    n += pack(text + half, size - half, packed + n, (1 << 20) - n); /* two members */
    put_file(path, packed, n);
    expect(path, text, size, 1);
    static const double part[] = {0, 0.0001, 0.3, 0.9, 0.999999};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
        put_file(path, packed, (size_t)((double)n * part[i]));
        expect_bad(path, 0, 1, "cut short", "of the packed file");
    }
    packed[n - 20000] ^= 0x55;
    put_file(path, packed, n);
    All all = read_one(path, BAD_FAILS); /* corrupt data, or a wrong checksum at the end */
    assert_int_equal(all.rc, -1);
    assert_message(all.e, path, "corrupt", "byte");
    free(all.text);
    put_text(path, "this is no packed file at all");
    expect_bad(path, 0, 1, "byte", "corrupt");
    twice = malloc(64);
    snprintf(name, sizeof name, "p.jsonl%s", suffix);
    const char *json = in_dir(name);
    n = pack("{\"text\":\"a\"}\n{\"te", 17, packed, 1 << 20);
    n += pack("xt\":\"b\"}\n", 9, packed + n, 1 << 20);
    put_file(json, packed, n);
    expect(json, "ab", 2, 2);
    put_file(json, packed, n - 3); /* the first document stays */
    expect_bad(json, 2, 1, "cut short");
    free(twice);
    free(packed);
    free(text);
}

static void test_gzip(void **state)
{
    (void)state;
    check_packed(".gz", pack_gzip);
    char packed[200];
    size_t n = pack_gzip("tail", 4, packed, sizeof packed);
    memset(packed + n, 0, 20); /* padding, as tapes and some copiers leave */
    put_file(in_dir("pad.txt.gz"), packed, n + 20);
    expect(in_dir("pad.txt.gz"), "tail", 4, 1);
}

static void test_zstd(void **state)
{
    (void)state;
    check_packed(".zst", pack_zstd);
}

/* ---- folders, standard input --------------------------------------------------------------- */

static void test_folders(void **state)
{
    (void)state;
    Err e = {0};
    const char *root = in_dir("tree");
    assert_ok(io_make_dirs(in_dir("tree/b/c"), &e), e);
    assert_ok(io_make_dirs(in_dir("tree/.hidden"), &e), e);
    put_text(in_dir("tree/z.txt"), "4");
    put_text(in_dir("tree/a.jsonl"), "{\"text\":\"1\"}");
    put_text(in_dir("tree/b/x.txt"), "3");
    put_text(in_dir("tree/b/c/y.txt"), "2");
    put_text(in_dir("tree/b/readme.md"), "no");
    put_text(in_dir("tree/.hidden/x.txt"), "no");
    put_text(in_dir("tree/pic.gz"), "no");
    expect(root, "1234", 4, 4);
    InputList list;
    assert_ok(inputs_expand(&root, 1, &list, &e), e);
    assert_int_equal(list.ignored, 3);
    inputs_free(&list);
    assert_ok(io_make_dirs(in_dir("empty"), &e), e);
    const char *empty = in_dir("empty");
    assert_int_equal(inputs_expand(&empty, 1, &list, &e), -1);
    assert_message(e, empty, "nothing to read", "hint:", ".jsonl");
    assert_int_equal(symlink("..", in_dir("tree/b/c/loop")), 0);
    assert_int_equal(inputs_expand(&root, 1, &list, &e), -1);
    assert_message(e, "loop");
}

static void test_standard_input(void **state)
{
    (void)state;
    put_text(in_dir("in.txt"), "from a pipe");
    int keep = dup(STDIN_FILENO);
    assert_non_null(freopen(in_dir("in.txt"), "r", stdin));
    expect("-", "from a pipe", 11, 1);
    put_text(in_dir("in.txt"), "\xFF");
    assert_non_null(freopen(in_dir("in.txt"), "r", stdin));
    All all = read_one("-", BAD_FAILS);
    assert_int_equal(all.rc, -1);
    assert_message(all.e, "standard input: byte 0: not UTF-8");
    free(all.text);
    dup2(keep, STDIN_FILENO);
    close(keep);
}

/* ---- the sample ---------------------------------------------------------------------------- */

static void test_sample_is_even(void **state)
{
    (void)state;
    Err e = {0};
    enum { DOCS = 4000, SIZE = 100 };
    Sample *s = sample_create(40000); /* one tenth */
    char doc[SIZE];
    for (int i = 0; i < DOCS; i++) {
        memset(doc, 'a' + i * 8 / DOCS, SIZE);
        assert_ok(sample_add(s, doc, SIZE, &e), e);
    }
    TrainText *texts;
    int n, part[8] = {0};
    assert_ok(sample_texts(s, &texts, &n, &e), e);
    assert_int_equal(n, 400);
    for (int i = 0; i < n; i++) {
        part[texts[i].text[0] - 'a']++;
        assert_true(i == 0 || texts[i].text[0] >= texts[i - 1].text[0]); /* in order */
    }
    for (int k = 0; k < 8; k++) assert_in_range(part[k], 25, 80); /* 50 expected */
    free(texts);
    sample_destroy(&s);
    s = sample_create(1 << 20); /* everything fits; long documents are cut at characters */
    char *text = made_text(10, 300000);
    assert_ok(sample_add(s, text, strlen(text), &e), e);
    assert_ok(sample_texts(s, &texts, &n, &e), e);
    size_t total = 0;
    for (int i = 0; i < n; i++) {
        assert_memory_equal(texts[i].text, text + total, texts[i].size);
        assert_int_equal(utf8_valid_prefix(texts[i].text, texts[i].size), texts[i].size);
        total += texts[i].size;
    }
    assert_int_equal(total, strlen(text));
    free(text);
    free(texts);
    sample_destroy(&s);
}

int main(void)
{
    log_set_quiet(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),          cmocka_unit_test(test_large_text_is_cut),
        cmocka_unit_test(test_exact_limit),   cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_jsonl),         cmocka_unit_test(test_bad_jsonl),
        cmocka_unit_test(test_text_key),      cmocka_unit_test(test_gzip),
        cmocka_unit_test(test_zstd),          cmocka_unit_test(test_folders),
        cmocka_unit_test(test_standard_input), cmocka_unit_test(test_sample_is_even),
    };
    return cmocka_run_group_tests_name("data source", tests, test_dir_make, test_dir_remove);
}
