/* tests/test_data_tokenizer.c - encoding loses nothing, whatever the text; no model crashes. */
#include "tests/test_data.h"

#include "data/spm_model.h"
#include "data/tokenizer.h"
#include "data/tokenizer_spm.h"
#include "data/tokenizer_train.h"

enum { VOCAB = 420 };

static char *corpus;     /* what the shared model was trained on */
static Tokenizer *shared;

static int setup(void **state)
{
    Err e = {0};
    if (test_dir_make(state)) return -1;
    corpus = made_text(1, 60000);
    TrainText text = {corpus, strlen(corpus)};
    if (tokenizer_train(&text, 1, VOCAB, in_dir("m.model"), &e) ||
        !(shared = tokenizer_open(in_dir("m.model"), &e))) {
        print_error("%s\n", e.message);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    tokenizer_close(&shared);
    free(corpus);
    return test_dir_remove(state);
}

/* decode(encode(x)) == x, with and without cache; no control piece, no unknown piece. */
static void round_trip(const Tokenizer *t, TokenizerCache *cache, const char *text, size_t size)
{
    Err e = {0};
    int32_t *ids, *plain;
    int64_t count, plain_count;
    char *back;
    size_t back_size;
    assert_ok(tokenizer_encode_cached(t, cache, text, size, &ids, &count, &e), e);
    assert_ok(tokenizer_encode(t, text, size, &plain, &plain_count, &e), e);
    assert_int_equal(count, plain_count);
    assert_memory_equal(ids, plain, (size_t)count * sizeof *ids);
    for (int64_t i = 0; i < count; i++) {
        int n;
        assert_true(ids[i] > 0 && ids[i] < tokenizer_vocab(t));
        assert_true(ids[i] != tokenizer_bos(t) && ids[i] != tokenizer_eos(t));
        assert_non_null(tokenizer_piece(t, ids[i], &n));
        assert_true(n > 0);
    }
    assert_ok(tokenizer_decode(t, ids, count, &back, &back_size, &e), e);
    if (back_size != size || memcmp(back, text, size))
        fail_msg("%zu bytes came back as %zu: \"%.200s\" as \"%.200s\"", size, back_size, text,
                 back);
    assert_int_equal(back[size], 0);
    free(back);
    free(plain);
    free(ids);
}

static void test_layout_of_ids(void **state)
{
    (void)state;
    int n;
    bool seen[256] = {false};
    assert_int_equal(tokenizer_vocab(shared), VOCAB);
    assert_int_equal(tokenizer_bos(shared), 1);
    assert_int_equal(tokenizer_eos(shared), 2);
    assert_non_null(tokenizer_piece(shared, 1, &n));
    assert_int_equal(n, 0);
    assert_non_null(tokenizer_piece(shared, 2, &n));
    assert_int_equal(n, 0);
    assert_memory_equal(tokenizer_piece(shared, 0, &n), "\xEF\xBF\xBD", 3);
    assert_memory_equal(tokenizer_piece(shared, 3, &n), "\n", 1);
    for (int id = 4; id < 260; id++) {
        const char *piece = tokenizer_piece(shared, id, &n);
        assert_int_equal(n, 1);
        seen[(unsigned char)*piece] = true;
    }
    for (int b = 0; b < 256; b++) assert_true(seen[b]);
    for (int id = 260; id < VOCAB; id++) { /* digits stand alone */
        const char *piece = tokenizer_piece(shared, id, &n);
        for (int i = 0; n > 1 && i < n; i++) assert_false(piece[i] >= '0' && piece[i] <= '9');
    }
    assert_null(tokenizer_piece(shared, VOCAB, &n));
    assert_null(tokenizer_piece(shared, -1, &n));
}

static void test_nasty_strings(void **state)
{
    (void)state;
    static const struct { const char *text; size_t size; } nasty[] = {
#define S(x) {x, sizeof x - 1}
        S(""), S(" "), S("  "), S("   x  y   "), S("\n"), S("\n\n \n"), S("\r\n\r\n"), S("\t\t x"),
        S("\0"), S("a\0b\0\0"), S("\0\n\0 \0"), S("<s>"), S("</s>"), S("<unk>"),
        S("a<s>b</s> <unk>"),
        S("<0x41>"), S(" <0x0A><0xE2>"), S("\xE2\x96\x81"), S("\xE2\x96\x81\xE2\x96\x81" "a"),
        S("a \xE2\x96\x81 b\xE2\x96\x81"), S("\xE2\x96\x85"), S("\xE2\x96\x80\xE2\x96\x82"),
        S("\xEF\xBF\xBF"), S("\xEF\xBF\xBD"), S("\xEF\xBB\xBFtext"), S("\xEE\x80\x80"),
        S("\xF4\x8F\xBF\xBF"), S("\xC2\x80"), S("\x7F\x01\x1F"), S("e\xCC\x81"), S("\xEF\xAC\x81"),
        S("\xE3\x80\x80wide\xC2\xA0space"), S("1234567890 12.5e-3"),
        S("if (x) {\n        y++;\n}\n"),
        S("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x92\xBB"),
        S("\xE4\xBD\xA0\xE5\xA5\xBD\xE3\x80\x82"),
#undef S
    };
    TokenizerCache *cache = tokenizer_cache_create();
    for (int turn = 0; turn < 2; turn++) /* the second time out of the cache */
        for (size_t i = 0; i < sizeof nasty / sizeof *nasty; i++)
            round_trip(shared, cache, nasty[i].text, nasty[i].size);
    tokenizer_cache_destroy(&cache);
}

static void test_random_strings(void **state)
{
    (void)state;
    Dice d = dice_make(2);
    TokenizerCache *cache = tokenizer_cache_create();
    for (int i = 0; i < 4000; i++) {
        size_t size;
        char *text = random_text(&d, i % 50 ? 24 : 2000, &size);
        round_trip(shared, cache, text, size);
        free(text);
    }
    tokenizer_cache_destroy(&cache);
}

/* Words longer than what goes to the library at once, and a cut that must not split a character. */
static void test_long_words(void **state)
{
    (void)state;
    enum { SIZE = 30001 };
    char *text = malloc(SIZE + 4);
    static const char *const unit[] = {"a", " ", "\xC3\xA9", "\xE4\xBD\xA0", "\xF0\x9F\x98\x80",
                                       "-"};
    for (size_t u = 0; u < 6; u++) {
        size_t n = strlen(unit[u]), size = 1;
        text[0] = 'x';
        for (; size + n <= SIZE; size += n) memcpy(text + size, unit[u], n);
        round_trip(shared, NULL, text, size);
    }
    free(text);
}

/* Cutting into words is only a way to be fast: the ids are those of the library on whole lines. */
static void test_cuts_change_nothing(void **state)
{
    (void)state;
    Err e = {0};
    char why[SPM_WHY];
    size_t model_size;
    char *model = get_file(in_dir("m.model"), &model_size);
    Spm *spm = spm_load(model, model_size, why);
    assert_non_null(spm);
    int lines = 0;
    for (char *line = corpus; *line && lines < 700; lines++) {
        size_t n = strcspn(line, "\n");
        int32_t *ids, direct[4096];
        int64_t count;
        assert_ok(tokenizer_encode(shared, line, n, &ids, &count, &e), e);
        assert_int_equal(spm_encode(spm, line, n, direct, 4096), count);
        assert_memory_equal(ids, direct, (size_t)count * sizeof *ids);
        free(ids);
        line += n + (line[n] == '\n');
    }
    assert_true(lines > 500);
    spm_free(spm);
    free(model);
}

static void test_pieces_are_useful(void **state)
{
    (void)state;
    Err e = {0};
    int32_t *ids;
    int64_t count;
    assert_ok(tokenizer_encode(shared, corpus, strlen(corpus), &ids, &count, &e), e);
    assert_true(count < (int64_t)strlen(corpus) * 6 / 10); /* pieces, not bytes */
    free(ids);
    assert_ok(tokenizer_encode(shared, "        ", 8, &ids, &count, &e), e);
    assert_int_equal(count, 1); /* a run of spaces, as in code */
    free(ids);
    assert_ok(tokenizer_encode(shared, "1234", 4, &ids, &count, &e), e);
    assert_int_equal(count, 4); /* digits one by one */
    free(ids);
    assert_ok(tokenizer_encode(shared, "\n", 1, &ids, &count, &e), e);
    assert_true(count == 1 && ids[0] == 3);
    free(ids);
}

static void test_bad_arguments(void **state)
{
    (void)state;
    Err e = {0};
    int32_t *ids, wrong[3] = {5, VOCAB, 6};
    int64_t count;
    char *text;
    size_t size;
    static const char *const bad[] = {"ab\xFFz", "ab\xC3", "ab\xC0\x80", "ab\xED\xA0\x80",
                                      "ab\xF4\x90\x80\x80", "ab\x80", "ab\xE2\x96",
                                      "ab\xE0\x80\x80"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(tokenizer_encode(shared, bad[i], strlen(bad[i]), &ids, &count, &e), -1);
        assert_message(e, "byte 2", "not UTF-8");
        assert_null(ids);
    }
    assert_int_equal(tokenizer_decode(shared, wrong, 3, &text, &size, &e), -1);
    assert_message(e, "token 1 is 420", "vocabulary of 420");
}

/* ---- training ------------------------------------------------------------------------------ */

static void test_training_is_deterministic(void **state)
{
    (void)state;
    Err e = {0};
    TrainText text = {corpus, strlen(corpus)};
    void *hole[500];
    for (int i = 0; i < 500; i++) hole[i] = malloc((size_t)(i * 37 % 400 + 1));
    for (int i = 0; i < 500; i += 3) free(hole[i]); /* another heap, the same model */
    assert_ok(tokenizer_train(&text, 1, VOCAB, in_dir("again.model"), &e), e);
    for (int i = 0; i < 500; i++)
        if (i % 3) free(hole[i]);
    size_t a, b;
    char *first = get_file(in_dir("m.model"), &a), *second = get_file(in_dir("again.model"), &b);
    assert_int_equal(a, b);
    assert_memory_equal(first, second, a);
    free(first);
    free(second);
}

static void test_training_errors(void **state)
{
    (void)state;
    Err e = {0};
    TrainText tiny = {"abc abd", 7}, controls = {"\n\t\0\n", 4};
    assert_int_equal(tokenizer_train(&tiny, 1, 4096, in_dir("x.model"), &e), -1);
    assert_message(e, "too small for a vocabulary of 4096", "only 273 pieces",
                   "hint: ask for at most 273");
    assert_int_equal(tokenizer_train(&controls, 1, 300, in_dir("x.model"), &e), -1);
    assert_message(e, "no text to train");
    assert_int_equal(tokenizer_train(&tiny, 0, 300, in_dir("x.model"), &e), -1);
    assert_message(e, "no text to train");
    assert_int_equal(tokenizer_train(&tiny, 1, 200, in_dir("x.model"), &e), -1);
    assert_message(e, "vocab_size 200", "272");
    assert_false(io_exists(in_dir("x.model")));
    assert_int_equal(tokenizer_train(&tiny, 1, 272, in_dir("no/x.model"), &e), -1);
    assert_true(e.set);
}

/* Text of more kinds of characters than the vocabulary has room for, in one line of 400 kB with the
 * trainer's own marks in it: nothing of it is skipped. */
static void test_training_skips_nothing(void **state)
{
    (void)state;
    Err e = {0};
    Dice d = dice_make(3);
    enum { WORDS = 30000 };
    char *text = malloc(WORDS * 40);
    size_t size = 0;
    for (int i = 0; i < WORDS; i++) {
        size += (size_t)utf8_encode(0x4E00 + roll(&d, 4000), text + size);
        size += made_word(&d, text + size);
        size += put_at(text + size, i % 7 ? " " : "zqx\xE2\x96\x85");
    }
    TrainText one = {text, size};
    assert_ok(tokenizer_train(&one, 1, 400, in_dir("cjk.model"), &e), e);
    Tokenizer *t = tokenizer_open(in_dir("cjk.model"), &e);
    assert_non_null(t);
    assert_int_equal(tokenizer_vocab(t), 400);
    int32_t *ids;
    int64_t count;
    assert_ok(tokenizer_encode(t, "zqx", 3, &ids, &count, &e), e);
    assert_int_equal(count, 1);
    free(ids);
    round_trip(t, NULL, text, utf8_boundary(text, 20000));
    tokenizer_close(&t);
    free(text);
}

/* ---- hostile models ------------------------------------------------------------------------ */

static char *model_bytes;
static size_t model_size;

static int load_model(void **state)
{
    (void)state;
    model_bytes = get_file(in_dir("m.model"), &model_size);
    return 0;
}

static int drop_model(void **state)
{
    (void)state;
    free(model_bytes);
    return 0;
}

/* Opening must give an error or a tokenizer that still loses nothing. */
static void open_hostile(const char *bytes, size_t size)
{
    Err e = {0};
    put_file(in_dir("h.model"), bytes, size);
    Tokenizer *t = tokenizer_open(in_dir("h.model"), &e);
    if (!t) {
        assert_message(e, "h.model");
        return;
    }
    round_trip(t, NULL, corpus, 500);
    round_trip(t, NULL, "a\0\xE2\x96\x81 <0x41> </s>\n", 18);
    tokenizer_close(&t);
}

static void test_truncated_model(void **state)
{
    (void)state;
    for (size_t n = 0; n < model_size; n += n < 40 ? 1 : 97) open_hostile(model_bytes, n);
    open_hostile(model_bytes, model_size);
}

static void test_flipped_model(void **state)
{
    (void)state;
    Dice d = dice_make(4);
    char *copy = malloc(model_size);
    for (int i = 0; i < 400; i++) {
        memcpy(copy, model_bytes, model_size);
        for (int flips = 1 + (int)roll(&d, 3); flips > 0; flips--)
            copy[roll(&d, (uint32_t)model_size)] ^= (char)(1 << roll(&d, 8));
        open_hostile(copy, model_size);
    }
    free(copy);
}

static void test_random_model(void **state)
{
    (void)state;
    Dice d = dice_make(5);
    char bytes[300];
    for (int i = 0; i < 300; i++) {
        size_t n = roll(&d, sizeof bytes);
        for (size_t k = 0; k < n; k++) bytes[k] = (char)roll(&d, i % 2 ? 256 : 32);
        open_hostile(bytes, n);
    }
}

/* The model with more fields behind it: protobuf lets the last one win. */
static Tokenizer *open_with(const char *more, size_t size, Err *e)
{
    char *bytes = malloc(model_size + size);
    memcpy(bytes, model_bytes, model_size);
    memcpy(bytes + model_size, more, size);
    put_file(in_dir("w.model"), bytes, model_size + size);
    free(bytes);
    return tokenizer_open(in_dir("w.model"), e);
}

static void test_unusable_models(void **state)
{
    (void)state;
    static const struct { const char *more; size_t size; const char *wanted; } row[] = {
#define S(x) x, sizeof x - 1
        {S("\x1A\x02\x18\x01"), "space before every text"},   /* add_dummy_prefix */
        {S("\x1A\x02\x20\x01"), "drops spaces"},              /* remove_extra_whitespaces */
        {S("\x1A\x02\x28\x00"), "does not escape spaces"},    /* escape_whitespaces */
        {S("\x1A\x03\x12\x01x"), "normalizes text"},          /* precompiled_charsmap */
        {S("\x12\x02\x18\x03"), "neither BPE nor unigram"},   /* model_type WORD */
        {S("\x12\x03\x98\x02\x00"), "byte pieces"},           /* byte_fallback */
        {S("\x12\x03\xC8\x02\x05"), "no usable BOS"},         /* bos_id of a byte piece */
        {S("\x12\x03\xD0\x02\x7F"), "no usable EOS"},         /* eos_id of a byte piece */
        {S("\x12\x06\xC8\x02\xFF\xFF\xFF\x07"), "no usable BOS"}, /* far outside */
        {S("\x12\x0C\xD0\x02\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"), "no usable EOS"}, /* -1 */
        {S("\x0A\x03\x0A\x01\xFF"), "not UTF-8"},
        {S("\x0A\x04\x0A\x02" "a\0"), "zero byte"},
        {S("\x0A\x00"), "empty piece"},
        {S("\x0A\x08\x0A\x01@\x15\0\0\xC0\x7F"), "not finite"},
        {S("\x0A\x05\x0A\x01@\x18\x09"), "unknown type"},
        {S("\x0A\x05\x0A\x01@\x18\x02"), "pieces of type unknown"},
        {S("\x0A\x0A\x0A\x06<0x41>\x18\x06"), "one that was there before"},
        {S("\x0A\x7F"), "longer than what is left"},
        {S("\x2A\x02\x18\x01"), "denormalizer"},
#undef S
    };
    Err e = {0};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_null(open_with(row[i].more, row[i].size, &e));
        assert_message(e, "w.model", row[i].wanted);
    }
    assert_null(tokenizer_open(in_dir("none.model"), &e));
    assert_message(e, "none.model", "No such file");
    put_text(in_dir("t.model"), "a text, no model");
    assert_null(tokenizer_open(in_dir("t.model"), &e));
    assert_message(e, "t.model", "byte", "not a SentencePiece model");
}

/* A model with ordinary pieces that spell a byte piece: the text must not come back as the byte. */
static void test_pieces_that_lie(void **state)
{
    (void)state;
    static const char *const piece[] = {"<0", "<0x", "<0x4", "<0x41", "<0x41>",
                                        "</", "</s", "</s>"};
    char more[256];
    size_t n = 0;
    Err e = {0};
    for (size_t i = 0; i < sizeof piece / sizeof *piece; i++) {
        size_t length = strlen(piece[i]);
        more[n++] = 0x0A;
        more[n++] = (char)(length + 2);
        more[n++] = 0x0A;
        more[n++] = (char)length;
        memcpy(more + n, piece[i], length);
        n += length;
    }
    Tokenizer *t = open_with(more, n, &e);
    if (!t) fail_msg("%s", e.message);
    round_trip(t, NULL, "x<0x41>y </s>", 13);
    round_trip(t, NULL, "<0x41></s>", 10);
    tokenizer_close(&t);
}

/* The same pieces as a unigram model. */
static void test_unigram_model(void **state)
{
    (void)state;
    Err e = {0};
    Dice d = dice_make(6);
    Tokenizer *t = open_with("\x12\x02\x18\x01", 4, &e);
    if (!t) fail_msg("%s", e.message);
    TokenizerCache *cache = tokenizer_cache_create();
    round_trip(t, cache, corpus, 20000);
    for (int i = 0; i < 300; i++) {
        size_t size;
        char *text = random_text(&d, 60, &size);
        round_trip(t, cache, text, size);
        free(text);
    }
    tokenizer_cache_destroy(&cache);
    tokenizer_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_of_ids),
        cmocka_unit_test(test_nasty_strings),
        cmocka_unit_test(test_random_strings),
        cmocka_unit_test(test_long_words),
        cmocka_unit_test(test_cuts_change_nothing),
        cmocka_unit_test(test_pieces_are_useful),
        cmocka_unit_test(test_bad_arguments),
        cmocka_unit_test(test_training_is_deterministic),
        cmocka_unit_test(test_training_errors),
        cmocka_unit_test(test_training_skips_nothing),
        cmocka_unit_test_setup_teardown(test_truncated_model, load_model, drop_model),
        cmocka_unit_test_setup_teardown(test_flipped_model, load_model, drop_model),
        cmocka_unit_test_setup_teardown(test_random_model, load_model, drop_model),
        cmocka_unit_test_setup_teardown(test_unusable_models, load_model, drop_model),
        cmocka_unit_test_setup_teardown(test_pieces_that_lie, load_model, drop_model),
        cmocka_unit_test_setup_teardown(test_unigram_model, load_model, drop_model),
    };
    return cmocka_run_group_tests_name("data tokenizer", tests, setup, teardown);
}
