/* tests/test_data_filter.c - what a filter sees of a document, and the value that each gives: made
 * texts counted by hand, repeats against a plain search over the words themselves, borders, hostile
 * texts. */
#include "tests/test_data.h"

#include <math.h>

#include "data/filter.h"
#include "data/repeat.h"
#include "data/unicode.h"

static DocText read_text(const char *text, size_t size)
{
    Err e = {0};
    DocText t = {0};
    assert_ok(doctext_read(&t, text, size, &e), e);
    return t;
}

static double value_of(const FilterOptions *o, Filter f, const char *text, size_t size)
{
    Err e = {0};
    double value = NAN;
    DocText t = read_text(text, size);
    assert_ok(filter_value(o, f, &t, &value, &e), e);
    doctext_free(&t);
    return value;
}

static void expect(Filter f, const char *text, double wanted)
{
    FilterOptions o = {.scripts = 1u << U_LATIN | 1u << U_GREEK};
    double value = value_of(&o, f, text, strlen(text));
    if (!(fabs(value - wanted) < 1e-12))
        fail_msg("%s of \"%s\": %.9g, expected %.9g", filter_name[f], text, value, wanted);
}

/* ---- characters, words, lines -------------------------------------------------------------- */

static void test_classes(void **state)
{
    (void)state;
    static const struct {
        uint32_t code;
        UnicodeClass class;
    } known[] = {
        {0, U_SYMBOL},         {'\t', U_SPACE},       {'\r', U_SPACE},      {0x1F, U_SYMBOL},
        {' ', U_SPACE},        {'/', U_SYMBOL},       {'0', U_NUMBER},      {'9', U_NUMBER},
        {':', U_SYMBOL},       {'@', U_SYMBOL},       {'A', U_LATIN},       {'Z', U_LATIN},
        {'[', U_SYMBOL},       {'`', U_SYMBOL},       {'a', U_LATIN},       {'z', U_LATIN},
        {'{', U_SYMBOL},       {0x7F, U_SYMBOL},      {0x85, U_SPACE},      {0xA0, U_SPACE},
        {0xAA, U_LATIN},       {0xB2, U_NUMBER},      {0xD7, U_SYMBOL},     {0xE9, U_LATIN},
        {0x1E9E, U_LATIN},     {0xFF21, U_LATIN},     {0x301, U_MARK},      {0x3B1, U_GREEK},
        {0x1F00, U_GREEK},     {0x37E, U_SYMBOL},     {0x416, U_CYRILLIC},  {0x4FF, U_CYRILLIC},
        {0x531, U_OTHER},      {0x5D0, U_HEBREW},     {0x5B0, U_HEBREW},    {0x628, U_ARABIC},
        {0x60C, U_SYMBOL},     {0x660, U_NUMBER},     {0x915, U_DEVANAGARI}, {0x93F, U_DEVANAGARI},
        {0x966, U_NUMBER},     {0xE01, U_THAI},       {0xE31, U_THAI},      {0xE3F, U_SYMBOL},
        {0x1100, U_HANGUL},    {0xAC00, U_HANGUL},    {0xD7A3, U_HANGUL},   {0x2026, U_SYMBOL},
        {0x2028, U_SPACE},     {0x200B, U_SYMBOL},    {0x2581, U_SYMBOL},   {0x3000, U_SPACE},
        {0x3001, U_SYMBOL},    {0x3007, U_HAN},       {0x3005, U_HAN},      {0x3042, U_KANA},
        {0x30AB, U_KANA},      {0xFF71, U_KANA},      {0x4E2D, U_HAN},      {0x9FA5, U_HAN},
        {0x20000, U_HAN},      {0x1F600, U_SYMBOL},   {0xE000, U_SYMBOL},   {0xFFFD, U_SYMBOL},
        {0x10FFFF, U_SYMBOL},  {0xFE0F, U_MARK},      {0x10D0, U_OTHER},    {0xB5, U_OTHER},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (unicode_class(known[i].code) != known[i].class)
            fail_msg("U+%04X: class %d, expected %d", known[i].code,
                     (int)unicode_class(known[i].code), (int)known[i].class);
    int64_t count[U_CLASSES] = {0};
    for (uint32_t code = 0; code < UTF8_CODES; code++) {
        UnicodeClass class = unicode_class(code);
        assert_in_range(class, 0, U_CLASSES - 1);
        count[class]++;
    }
    assert_in_range(count[U_HANGUL], 11172, 12000); /* 11172 syllables, and letters */
    assert_in_range(count[U_SPACE], 25, 25); /* Unicode's White_Space */
    assert_in_range(count[U_HAN], 90000, 105000);
}

static void test_parts(void **state)
{
    (void)state;
    /* Two lines: "ae b." (the e has an accent) and two Han letters, "x", space, a kana letter. */
    const char *text = "  a\xC3\xA9 b.\t\r\n \n\xE4\xB8\xAD\xE6\x96\x87x \xE3\x81\x82";
    DocText t = read_text(text, strlen(text));
    assert_int_equal(t.bytes, strlen(text));
    assert_int_equal(t.chars, 17);
    assert_int_equal(t.words.count, 6);
    assert_int_equal(t.words.chars, 2 + 2 + 1 + 1 + 1 + 1);
    assert_int_equal(t.lines.count, 2);
    assert_int_equal(t.lines.part[0].chars, 5);
    assert_int_equal(t.lines.part[1].chars, 5);
    assert_int_equal(t.lines.chars, 10);
    assert_int_equal(t.class_chars[U_LATIN], 4);
    assert_int_equal(t.class_chars[U_HAN], 2);
    assert_int_equal(t.class_chars[U_KANA], 1);
    assert_int_equal(t.class_chars[U_SYMBOL], 1);
    assert_int_equal(t.class_chars[U_SPACE], 9);
    doctext_free(&t);
}

/* The hash of a text sees everything but how much and what white space there is. */
static void test_white_space_is_one(void **state)
{
    (void)state;
    static const char *const same[] = {"ab c\nd", " ab  c d ", "ab\tc\r\n\r\nd\n",
                                       "\xE3\x80\x80" "ab\xC2\xA0" "c d"};
    static const char *const other[] = {"abc d", "ab c D", "ab c d d", "ab cd",
                                        "b c d", "ab c",   ""};
    DocText first = read_text(same[0], strlen(same[0]));
    for (int i = 1; i < 4; i++) {
        DocText t = read_text(same[i], strlen(same[i]));
        assert_true(t.hash == first.hash);
        doctext_free(&t);
    }
    for (int i = 0; i < 7; i++) {
        DocText t = read_text(other[i], strlen(other[i]));
        assert_true(t.hash != first.hash);
        doctext_free(&t);
    }
    DocText han = read_text("\xE4\xB8\xAD\xE6\x96\x87", 6);
    DocText apart = read_text("\xE4\xB8\xAD \xE6\x96\x87", 7);
    DocText wide = read_text("\xE4\xB8\xAD \n \xE6\x96\x87", 9);
    assert_true(han.hash != apart.hash); /* one run, though two words */
    assert_true(wide.hash == apart.hash);
    doctext_free(&wide);
    doctext_free(&han);
    doctext_free(&apart);
    doctext_free(&first);
}

/* ---- values counted by hand ---------------------------------------------------------------- */

static void test_shares(void **state)
{
    (void)state;
    expect(FILTER_BYTES, "caf\xC3\xA9", 5);
    expect(FILTER_CHARS, "caf\xC3\xA9", 4);
    expect(FILTER_WORDS, "one two\n\n three", 3);
    expect(FILTER_WORDS, " \n ", 0);
    expect(FILTER_SYMBOLS, "a1 #", 0.25);
    expect(FILTER_SYMBOLS, "e\xCC\x81 \xD0\x96", 0); /* e, its accent, space, a letter */
    expect(FILTER_SYMBOLS, "\xE2\x82\xAC\xF0\x9F\x98\x80", 1);
    expect(FILTER_BULLETS, "- a\n  * b\n\xE2\x80\xA2" "c\nd - \n\n", 0.75);
    expect(FILTER_BULLETS, "\n \n", 0);
    expect(FILTER_ELLIPSES, "a...\nb\xE2\x80\xA6  \nc..\nd. . .\n...", 0.6);
    expect(FILTER_ELLIPSES, "a... b\nc", 0);
    expect(FILTER_SCRIPTS, "ab \xCE\xB1 \xD0\x96 12!", 0.75); /* latin and greek of four letters */
    expect(FILTER_SCRIPTS, "12 !?", 0);
    expect(FILTER_LINES, "x\nyy\nx\n\n x \n", 0.5);
    expect(FILTER_LINE_CHARS, "x\nyy\nx\n\n x \n", 2.0 / 5);
    expect(FILTER_LINES, "a\nb\nc", 0);
    expect(FILTER_LINES, "\n\n\n", 0);
}

static void test_runs_of_words(void **state)
{
    (void)state;
    expect(FILTER_TOP_2, "the cat the cat sat", 12.0 / 15); /* "the cat" twice */
    expect(FILTER_TOP_2, "a a a a", 1);                     /* overlaps count once */
    expect(FILTER_TOP_2, "a b c d", 0);
    expect(FILTER_TOP_2, "a", 0);
    expect(FILTER_TOP_2, "a b x a b y long er z long er", 12.0 / 19); /* as common, more letters */
    expect(FILTER_TOP_2, "a b 1 a b 2 c d 3 c d", 4.0 / 11);         /* as many letters too */
    expect(FILTER_TOP_3, "a b c x a b c", 6.0 / 7);
    expect(FILTER_TOP_4, "a b c x a b c", 0);
    expect(FILTER_TOP_4, "q w e r t q w e r", 8.0 / 9);
    expect(FILTER_RUNS_5, "a b c d e a b c d e", 0.5); /* the second time */
    expect(FILTER_RUNS_5, "a b c d e f a b c d", 0);
    expect(FILTER_RUNS_5, "a b c d e f x a b c d e f", 6.0 / 13); /* two runs overlap */
    expect(FILTER_RUNS_10, "1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0", 0.5);
    expect(FILTER_RUNS_9, "", 0);
}

/* ---- repeats, by comparing words ----------------------------------------------------------- */

enum { WORDS = 120, LETTERS = 4 };
typedef char Words[WORDS][LETTERS];

static bool same_run(Words w, int a, int b, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(w[a + i], w[b + i])) return false;
    return true;
}

static double marked(Words w, int count, const bool *mark)
{
    double part = 0, whole = 0;
    for (int i = 0; i < count; i++) {
        whole += (double)strlen(w[i]);
        part += mark[i] ? (double)strlen(w[i]) : 0;
    }
    return whole > 0 ? part / whole : 0;
}

static double plain_runs(Words w, int count, int n)
{
    bool mark[WORDS] = {0};
    for (int i = 0; i + n <= count; i++)
        for (int j = 0; j < i; j++)
            if (same_run(w, i, j, n)) memset(mark + i, 1, (size_t)n);
    return marked(w, count, mark);
}

static double plain_top(Words w, int count, int n)
{
    bool mark[WORDS] = {0};
    int best = -1, most = 1;
    size_t longest = 0;
    for (int i = 0; i + n <= count; i++) {
        int times = 0;
        size_t chars = 0;
        for (int j = 0; j + n <= count; j++) times += same_run(w, i, j, n);
        for (int k = 0; k < n; k++) chars += strlen(w[i + k]);
        if (times < 2 || times < most || (times == most && chars <= longest)) continue;
        best = i;
        most = times;
        longest = chars;
    }
    for (int i = 0; best >= 0 && i + n <= count; i++)
        if (same_run(w, i, best, n)) memset(mark + i, 1, (size_t)n);
    return marked(w, count, mark);
}

static void test_repeats_by_plain_search(void **state)
{
    (void)state;
    Dice d = dice_make(50);
    int seen = 0;
    for (int round = 0; round < 300; round++) {
        Words w;
        char text[WORDS * (LETTERS + 1)] = "";
        size_t size = 0;
        int count = (int)roll(&d, WORDS + 1), kinds = 1 + (int)roll(&d, 12);
        for (int i = 0; i < count; i++) {
            uint32_t kind = roll(&d, (uint32_t)kinds); /* words of one to three letters */
            snprintf(w[i], LETTERS, "%.*s%c", (int)(kind % 3), "zz", (char)('a' + kind));
            size += put_at(text + size, w[i]);
            text[size++] = " \n\t"[roll(&d, 3)];
        }
        FilterOptions o = {0};
        for (int f = FILTER_TOP_2; f <= FILTER_RUNS_10; f++) {
            int n = f <= FILTER_TOP_4 ? f - FILTER_TOP_2 + 2 : f - FILTER_RUNS_5 + 5;
            double value = value_of(&o, (Filter)f, text, size);
            double plain = f <= FILTER_TOP_4 ? plain_top(w, count, n) : plain_runs(w, count, n);
            if (!(fabs(value - plain) < 1e-12))
                fail_msg("round %d, %s: %.9g, expected %.9g", round, filter_name[f], value, plain);
            seen += plain > 0 && plain < 1;
        }
    }
    assert_true(seen > 500);
}

/* ---- limits -------------------------------------------------------------------------------- */

static void test_borders(void **state)
{
    (void)state;
    Err e = {0};
    FilterVerdict v;
    FilterOptions o = {.limit[FILTER_WORDS] = {true, 3, 5},
                       .limit[FILTER_SYMBOLS] = {true, -INFINITY, 0.25}};
    static const struct {
        const char *text;
        Filter by;
        double value;
    } known[] = {{"a b", FILTER_WORDS, 2},        {"a b c", FILTERS, 0},
                 {"a b c d e", FILTERS, 0},       {"a b c d e f", FILTER_WORDS, 6},
                 {"aaaaa## b c", FILTERS, 0},     {"ab ## c", FILTER_SYMBOLS, 2.0 / 7},
                 {"##", FILTER_WORDS, 1} /* the first of two */};
    assert_ok(filter_check(&o, &e), e);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        DocText t = read_text(known[i].text, strlen(known[i].text));
        assert_ok(filter_text(&o, &t, &v, &e), e);
        if (v.by != known[i].by) fail_msg("\"%s\": filter %d", known[i].text, (int)v.by);
        if (v.by != FILTERS) assert_true(fabs(v.value - known[i].value) < 1e-12);
        doctext_free(&t);
    }
    FilterOptions quarter = {.limit[FILTER_SYMBOLS] = {true, 0.25, 0.25}};
    assert_true(filter_keeps(&quarter, FILTER_SYMBOLS, 0.25));
    assert_false(filter_keeps(&quarter, FILTER_SYMBOLS, nextafter(0.25, 1)));
    assert_false(filter_keeps(&quarter, FILTER_SYMBOLS, nextafter(0.25, 0)));
    assert_true(filter_keeps(&quarter, FILTER_WORDS, 1e300)); /* off */
}

static void test_gopher_limits(void **state)
{
    (void)state;
    Err e = {0};
    FilterOptions o = {.limit[FILTER_TOP_3] = {true, -INFINITY, 0.5}};
    static const struct {
        Filter f;
        double high;
    } known[] = {{FILTER_LINES, 0.30},  {FILTER_LINE_CHARS, 0.20}, {FILTER_TOP_2, 0.20},
                 {FILTER_TOP_3, 0.5},   {FILTER_TOP_4, 0.16},      {FILTER_RUNS_5, 0.15},
                 {FILTER_RUNS_6, 0.14}, {FILTER_RUNS_7, 0.13},     {FILTER_RUNS_8, 0.12},
                 {FILTER_RUNS_9, 0.11}, {FILTER_RUNS_10, 0.10}};
    int on = 0;
    filter_gopher(&o);
    assert_ok(filter_check(&o, &e), e);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        assert_true(o.limit[known[i].f].on && o.limit[known[i].f].high == known[i].high);
    for (int f = 0; f < FILTERS; f++) on += o.limit[f].on;
    assert_int_equal(on, 11);
}

static int no_score(void *context, const Document *documents, int n, double *bits, Err *e)
{
    (void)context, (void)documents, (void)n, (void)bits, (void)e;
    return -1;
}

static void test_bad_limits(void **state)
{
    (void)state;
    Err e = {0};
    static const struct {
        FilterOptions o;
        const char *says;
    } bad[] = {
        {{.limit[FILTER_WORDS] = {true, 5, 4}}, "filter words: keeps from 5 to 4: nothing"},
        {{.limit[FILTER_WORDS] = {true, -INFINITY, -1}}, "filter words: a limit of -1"},
        {{.limit[FILTER_BYTES] = {true, -5, 9}}, "filter bytes: a limit of -5"},
        {{.limit[FILTER_SYMBOLS] = {true, -INFINITY, 1.5}}, "filter symbols: a limit of 1.5"},
        {{.limit[FILTER_LINES] = {true, NAN, 1}}, "filter duplicate_lines"},
        {{.limit[FILTER_SCRIPTS] = {true, 2, INFINITY}, .scripts = 1}, "a limit of 2"},
        {{.limit[FILTER_SCRIPTS] = {true, 0.5, INFINITY}}, "filter scripts: none is named"},
        {{.limit[FILTER_BITS] = {true, 0, 2}}, "filter bits_per_byte: there is no model"},
        {{.limit[FILTER_NEAR] = {true, -INFINITY, 0}}, "likeness of 0"},
        {{.limit[FILTER_NEAR] = {true, -INFINITY, 1.1}}, "a limit of 1.1"},
        {{.bands = 100, .rows = 100}, "100 bands of 100 rows"},
        {{.bands = -1}, "-1 bands"},
        {{.dedup_bytes = -1}, "-1 bytes"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(filter_check(&bad[i].o, &e), -1);
        assert_message(e, bad[i].says);
    }
    FilterOptions good = {.limit[FILTER_BITS] = {true, 0, 2}, .score = no_score};
    assert_ok(filter_check(&good, &e), e);
    assert_true(filter_any(&good));
    good = (FilterOptions){0};
    assert_ok(filter_check(&good, &e), e);
    assert_false(filter_any(&good));
}

/* ---- hostile texts ------------------------------------------------------------------------- */

/* Every value is finite, and a share if it is one; a reader that saw other texts gives the same. */
static void check_all(DocText *used, const char *text, size_t size)
{
    Err e = {0};
    FilterOptions o = {.scripts = 1u << U_LATIN};
    DocText fresh = read_text(text, size);
    assert_ok(doctext_read(used, text, size, &e), e);
    for (int f = 0; f < FILTERS_TEXT; f++) {
        double value, again;
        assert_ok(filter_value(&o, (Filter)f, &fresh, &value, &e), e);
        assert_ok(filter_value(&o, (Filter)f, used, &again, &e), e);
        assert_true(value == again && value >= 0);
        assert_true(f <= FILTER_WORDS ? value <= (double)size : value <= 1);
    }
    assert_true(fresh.hash == used->hash);
    doctext_free(&fresh);
}

static void fill(char *text, size_t size, const char *piece)
{
    size_t n = strlen(piece);
    for (size_t i = 0; i < size; i++) text[i] = n ? piece[i % n] : 0;
}

static void test_hostile(void **state)
{
    (void)state;
    enum { BIG = 10 << 20, SMALL = 1 << 16 };
    static const char *const piece[] = {"", "\n", "x", " ", "a ", "a\n", "- \n", "...\n", "\r\n"};
    DocText used = {0};
    char *text = malloc(BIG);
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        fill(text, SMALL, piece[i]);
        check_all(&used, text, SMALL);
        check_all(&used, text, 1);
    }
    fill(text, BIG, "x"); /* one word of 10 MB */
    check_all(&used, text, BIG);
    fill(text, BIG, "abc de f "); /* one line of 10 MB */
    check_all(&used, text, BIG);
    free(text);
    check_all(&used, "", 0);
    Dice d = dice_make(51);
    for (int i = 0; i < 300; i++) {
        size_t size;
        text = random_text(&d, 400, &size);
        check_all(&used, text, size);
        free(text);
    }
    doctext_free(&used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_white_space_is_one),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_runs_of_words),
        cmocka_unit_test(test_repeats_by_plain_search),
        cmocka_unit_test(test_borders),
        cmocka_unit_test(test_gopher_limits),
        cmocka_unit_test(test_bad_limits),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests_name("data filter", tests, NULL, NULL);
}
