/* tests/test_train_arguments.c - command lines: what is taken, what is refused and how, help. */
#include "tests/train_help.h"
#include "train/arguments.h"

static const CommandRow row = {
    .name = "try",
    .usage = "FILE [FILE]",
    .help = "tries things",
    .min_free = 1,
    .max_free = 2,
    .option = {{"--json", OPTION_FLAG, NULL, "for programs"},
               {"--out", OPTION_TEXT, NULL, "where to"},
               {"--tokens", OPTION_INT, "256", "how many"},
               {"--temperature", OPTION_FLOAT, "0.8", "how warm"},
               {"--tasks", OPTION_LIST, NULL, "which"}},
};
enum { JSON, OUT, TOKENS, TEMPERATURE, TASKS };

static int parse(Arguments *a, Err *e, const char *const *words)
{
    int n = 0;
    while (words[n]) n++;
    *e = (Err){0};
    return arguments_parse(&row, n, (char **)(void *)words, a, e);
}
#define PARSE(a, e, ...) parse(a, e, (const char *const[]){__VA_ARGS__, NULL})

static void test_accepts(void **state)
{
    (void)state;
    Arguments a;
    Err e;
    assert_int_equal(PARSE(&a, &e, "file"), 0);
    assert_int_equal(a.n_free, 1);
    assert_int_equal(a.number[TOKENS], 256);
    assert_true(a.real[TEMPERATURE] == 0.8);
    assert_null(a.text[OUT]);
    assert_int_equal(a.number[JSON], 0);

    assert_int_equal(PARSE(&a, &e, "--tokens", "-3", "a", "--json", "--out=b=c",
                           "--temperature=1e-1", "d=e"), 0);
    assert_int_equal(a.number[TOKENS], -3);
    assert_int_equal(a.number[JSON], 1);
    assert_string_equal(a.text[OUT], "b=c");
    assert_true(a.real[TEMPERATURE] == 0.1);
    assert_int_equal(a.n_free, 2);
    assert_string_equal(a.free[1], "d=e");

    assert_int_equal(PARSE(&a, &e, "-", "--", "--json"), 0);
    assert_int_equal(a.n_free, 2);
    assert_string_equal(a.free[0], "-");
    assert_string_equal(a.free[1], "--json");
    assert_int_equal(a.number[JSON], 0);

    assert_int_equal(PARSE(&a, &e, "--tasks", "x", "f", "--tasks=y=z", "--tasks", "x"), 0);
    assert_int_equal(a.n_listed, 3);
    assert_string_equal(a.listed[0].text, "x");
    assert_string_equal(a.listed[1].text, "y=z");
    assert_string_equal(a.listed[2].text, "x");
    assert_int_equal(a.listed[1].option, TASKS);

    assert_int_equal(PARSE(&a, &e, "--help"), 1);
    assert_int_equal(PARSE(&a, &e, "--nonsense", "-h"), 1);
}

static void test_refuses(void **state)
{
    static const struct {
        const char *words[5], *message;
    } cases[] = {
        {{"a", "--tasks"}, "try: --tasks needs a value"},
        {{"a", "--jsno"}, "try: unknown option --jsno; did you mean --json?\nhint: isomoe try --h"},
        {{"a", "--temprature=1"}, "unknown option --temprature; did you mean --temperature?"},
        {{"a", "--zzzzzz"}, "try: unknown option --zzzzzz\nhint"},
        {{"a", "-j"}, "try: unknown option -j"},
        {{"a", "--json=1"}, "try: --json takes no value, but has '1'"},
        {{"a", "--out"}, "try: --out needs a value"},
        {{"a", "--out", "--json"}, "try: --out needs a value"},
        {{"a", "--tokens", "12k"}, "try: --tokens needs an integer, not '12k'"},
        {{"a", "--tokens="}, "try: --tokens needs an integer, not ''"},
        {{"a", "--tokens", "99999999999999999999"}, "--tokens needs an integer"},
        {{"a", "--tokens", " 1"}, "--tokens needs an integer"},
        {{"a", "--temperature", "nan"}, "try: --temperature needs a finite number, not 'nan'"},
        {{"a", "--temperature", "0x1p3"}, "--temperature needs a finite number"},
        {{"a", "--temperature=1e999"}, "--temperature needs a finite number"},
        {{"--json"}, "try: needs at least 1 argument, got 0\nhint: isomoe try FILE [FILE]"},
        {{"a", "b", "c"}, "try: one argument too many: 'c'"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Arguments a;
        Err e;
        assert_int_equal(parse(&a, &e, cases[i].words), -1);
        assert_has(e.message, cases[i].message);
    }
}

static void test_help(void **state)
{
    char *text;
    size_t size;
    (void)state;
    FILE *out = open_memstream(&text, &size);
    arguments_help(&row, out);
    fclose(out);
    assert_string_equal(text, "usage: isomoe try [options] FILE [FILE]\n\ntries things\n\n"
                              "options:\n"
                              "  --json                   for programs\n"
                              "  --out TEXT               where to\n"
                              "  --tokens N               how many (default: 256)\n"
                              "  --temperature X          how warm (default: 0.8)\n"
                              "  --tasks TEXT             which\n"
                              "  --help                   this text\n");
    free(text);
}

static void test_nearest(void **state)
{
    static const char *const list[] = {"prepare", "train", "plan", "eval", "generate", "--out"};
    (void)state;
    assert_string_equal(arguments_nearest(list, 6, "trian"), "train");
    assert_string_equal(arguments_nearest(list, 6, "plna"), "plan");
    assert_string_equal(arguments_nearest(list, 6, "-out"), "--out");
    assert_null(arguments_nearest(list, 6, "xyzzyxyzzy"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests(tests, help_begin, help_end);
}
