/* tests/test_data_prepare.c - from text files to a folder that trains: whole, repeatable, or not
 * touched at all. */
#include "tests/test_data.h"

#include <fcntl.h>
#include <omp.h>
#include <sys/file.h>
#include <zlib.h>

#include "base/log.h"
#include "data/encode.h"
#include "data/loader.h"
#include "data/manifest.h"
#include "data/prepare.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "data/tokenizer_train.h"

enum { VOCAB = 400, DOCS = 60, JSON_DOCS = 20 };

/* The documents of the input folder "in", in reading order. */
static char *doc[DOCS + JSON_DOCS];
static size_t doc_size[DOCS + JSON_DOCS];

static void put_gzip(const char *path, const char *text, size_t size)
{
    gzFile file = gzopen(path, "wb");
    assert_true(gzwrite(file, text, (unsigned)size) == (int)size);
    gzclose(file);
}

static int setup(void **state)
{
    Err e = {0};
    if (test_dir_make(state)) return -1;
    char name[64];
    Dice d = dice_make(30);
    assert_ok(io_make_dirs(in_dir("in"), &e), e);
    for (int i = 0; i < DOCS; i++) {
        doc[i] = made_text((uint64_t)(100 + i), 200 + roll(&d, 2500));
        doc_size[i] = strlen(doc[i]);
        if (i == 5) memcpy(doc[i] + 20, "\0 \xE2\x96\x81", 5); /* zero byte, real U+2581 */
        snprintf(name, sizeof name, "in/a%03d.txt%s", i, i % 3 ? "" : ".gz");
        if (i % 3) put_file(in_dir(name), doc[i], doc_size[i]);
        else put_gzip(in_dir(name), doc[i], doc_size[i]);
    }
    FILE *json = fopen(in_dir("in/b.jsonl"), "wb");
    for (int i = DOCS; i < DOCS + JSON_DOCS; i++) {
        doc[i] = malloc(400);
        doc_size[i] = 0;
        fprintf(json, "{\"id\": %d, \"text\": \"", i);
        for (int k = 0; k < 12; k++) {
            char word[64];
            size_t n = made_word(&d, word);
            word[n] = 0;
            memcpy(doc[i] + doc_size[i], word, n);
            memcpy(doc[i] + doc_size[i] + n, " \0\n", 3);
            doc_size[i] += n + 3;
            fprintf(json, "%s \\u0000\\n", word);
        }
        fprintf(json, "\"}\n");
    }
    fclose(json);
    return 0;
}

static int teardown(void **state)
{
    for (int i = 0; i < DOCS + JSON_DOCS; i++) free(doc[i]);
    return test_dir_remove(state);
}

/* Options that read `input` into a folder `out` of the test's. */
static PrepareOptions plan(const char **input, const char *out)
{
    return (PrepareOptions){.inputs = input, .n_inputs = 1, .out = out, .vocab_size = VOCAB,
                            .val_fraction = 0.25, .shard_tokens = 10000};
}

static PrepareResult prepare(const char *input, const char *out)
{
    Err e = {0};
    PrepareResult r;
    PrepareOptions o = plan(&input, out);
    o.overwrite = true;
    assert_ok(prepare_run(&o, &r, &e), e);
    return r;
}

/* Hash of the names and contents of all files in a folder. */
static uint64_t folder_hash(const char *folder)
{
    Err e = {0};
    char **names, path[600];
    int n;
    uint64_t sum = 0;
    assert_ok(io_list_dir(folder, &names, &n, &e), e);
    for (int i = 0; i < n; i++) {
        size_t size;
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        char *data = get_file(path, &size);
        for (const char *c = names[i]; *c; c++) sum = (sum ^ (unsigned char)*c) * 0x100000001B3u;
        for (size_t k = 0; k < size; k++) sum = (sum ^ (unsigned char)data[k]) * 0x100000001B3u;
        free(data);
    }
    io_free_names(names, n);
    return sum;
}

static int count_entries(const char *folder)
{
    Err e = {0};
    char **names;
    int n;
    assert_ok(io_list_dir(folder, &names, &n, &e), e);
    io_free_names(names, n);
    return n;
}

/* Decodes every document of the shards of one split, which must be the input's, in order. */
static int check_split(const Manifest *m, const char *folder, int split, const Tokenizer *t)
{
    Err e = {0};
    int next = 0, found = 0;
    for (int i = 0; i < m->count; i++) {
        if (strcmp(m->shard[i].split, SPLIT_NAME[split])) continue;
        char path[600];
        snprintf(path, sizeof path, "%s/%s", folder, m->shard[i].file);
        Shard *s = shard_open(path, &e);
        if (!s) fail_msg("%s", e.message);
        const int64_t *offset = shard_doc_offset(s);
        for (int64_t k = 0; k < shard_info(s)->n_docs; k++, next++, found++) {
            int64_t n = offset[k + 1] - offset[k];
            int32_t *ids = malloc((size_t)n * sizeof *ids);
            char *text;
            size_t size;
            assert_ok(shard_read(s, offset[k], n, ids, &e), e);
            assert_true(ids[0] == 1 && ids[n - 1] == 2);
            assert_ok(tokenizer_decode(t, ids, n, &text, &size, &e), e);
            while (next < DOCS + JSON_DOCS &&
                   encode_is_val(&(Document){doc[next], doc_size[next]}, 0.25) != split)
                next++;
            assert_true(next < DOCS + JSON_DOCS);
            assert_int_equal(size, doc_size[next]);
            assert_memory_equal(text, doc[next], size);
            free(text);
            free(ids);
        }
        shard_close(&s);
    }
    return found;
}

static void test_end_to_end(void **state)
{
    (void)state;
    Err e = {0};
    const char *input = in_dir("in"), *out = in_dir("out");
    PrepareOptions o = plan(&input, out);
    PrepareResult r, verified;
    assert_ok(prepare_run(&o, &r, &e), e);
    int64_t bytes = 0;
    for (int i = 0; i < DOCS + JSON_DOCS; i++) bytes += (int64_t)doc_size[i];
    assert_int_equal(r.documents, DOCS + JSON_DOCS);
    assert_int_equal(r.bytes, bytes);
    assert_int_equal(r.skipped, 0);
    assert_true(r.train_shards > 1 && r.val_shards >= 1 && r.val_bytes > 0);
    assert_int_equal(count_entries(out), r.train_shards + r.val_shards + 2); /* nothing else */
    assert_ok(prepare_verify(out, &verified, &e), e);
    assert_memory_equal(&r, &verified, sizeof r);
    Manifest m;
    assert_ok(manifest_read(&m, out, &e), e);
    Tokenizer *t = tokenizer_open(in_dir("out/tokenizer.model"), &e);
    assert_int_equal(tokenizer_vocab(t), VOCAB);
    int train = check_split(&m, out, SPLIT_TRAIN, t), val = check_split(&m, out, SPLIT_VAL, t);
    assert_int_equal(train + val, DOCS + JSON_DOCS);
    assert_true(val >= 8);
    for (int i = 0; i + 1 < r.train_shards; i++)
        assert_in_range(m.shard[i].tokens, 10000, 13000);
    LoaderOptions l = {.n_sources = 1, .source = {{out, 1}}, .split = "val", .seq_len = 32,
                       .vocab_size = VOCAB};
    Loader *loader = loader_open(&l, &e);
    if (!loader) fail_msg("%s", e.message);
    assert_int_equal(loader_tokens(loader), r.val_tokens);
    assert_int_equal(loader_bytes(loader), r.val_bytes);
    assert_true(loader_tokenizer_hash(loader) == tokenizer_hash(t));
    loader_close(&loader);
    tokenizer_close(&t);
    manifest_free(&m);
}

static void test_same_bits_for_any_threads(void **state)
{
    (void)state;
    int threads = omp_get_max_threads();
    const char *out = in_dir("bits");
    omp_set_num_threads(1);
    prepare(in_dir("in"), out);
    uint64_t one = folder_hash(out);
    omp_set_num_threads(5);
    prepare(in_dir("in"), out);
    assert_true(folder_hash(out) == one);
    omp_set_num_threads(threads);
}

static void test_given_tokenizer(void **state)
{
    (void)state;
    Err e = {0};
    prepare(in_dir("in"), in_dir("first"));
    const char *input = in_dir("in"), *out = in_dir("given");
    PrepareOptions o = plan(&input, out);
    PrepareResult r;
    o.tokenizer = in_dir("first/tokenizer.model");
    o.vocab_size = 0;
    assert_ok(prepare_run(&o, &r, &e), e);
    assert_true(folder_hash(out) == folder_hash(in_dir("first")));
    put_text(in_dir("broken.model"), "no model");
    o.tokenizer = in_dir("broken.model");
    o.out = in_dir("given2");
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "broken.model", "not a SentencePiece model");
    assert_int_equal(count_entries(o.out), 0);
}

/* The held-out share is that of the documents, whatever their size; copies stay together. */
static void test_val_share(void **state)
{
    (void)state;
    Dice d = dice_make(32);
    int held = 0, odd = 0;
    for (int i = 0; i < 8000; i++) {
        char text[64];
        size_t size = (size_t)snprintf(text, sizeof text, "%d%*s", i, (int)roll(&d, 40), "");
        bool val = encode_is_val(&(Document){text, size}, 0.25);
        char *copy = malloc(size + 1);
        memcpy(copy, text, size);
        assert_int_equal(encode_is_val(&(Document){copy, size}, 0.25), val);
        assert_false(encode_is_val(&(Document){text, size}, 0));
        assert_true(!val || encode_is_val(&(Document){text, size}, 0.3)); /* grows, never moves */
        held += val;
        odd += val && size % 2;
        free(copy);
    }
    assert_in_range(held, 1850, 2150); /* 2000, 4 sigma = 155 */
    assert_in_range(odd, 800, 1200);
}

/* ---- what is there is safe ----------------------------------------------------------------- */

static void test_overwrite(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *input = in_dir("in"), *out = in_dir("keep"), *bad = in_dir("bad.jsonl");
    PrepareResult old = prepare(input, out);
    uint64_t before = folder_hash(out);
    PrepareOptions o = plan(&input, out);
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, out, "already holds prepare.json", "hint:", "--overwrite");
    o.overwrite = true; /* a run that fails late leaves the old data whole */
    const char *both[2] = {input, bad};
    put_text(bad, "{\"text\": \"fine\"}\n{\"text\": 1}\n");
    o.inputs = both;
    o.n_inputs = 2;
    o.tokenizer = in_dir("keep/tokenizer.model");
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "bad.jsonl:2: member \"text\" is not a string");
    assert_true(folder_hash(out) == before);
    put_text(in_dir("keep/notes.md"), "not ours"); /* stays */
    put_text(in_dir("keep/train-1.h5"), "not ours");
    o.inputs = &input;
    o.n_inputs = 1;
    o.shard_tokens = 1 << 20; /* fewer shards: the old ones must go */
    assert_ok(prepare_run(&o, &r, &e), e);
    assert_true(old.train_shards > 1);
    assert_int_equal(r.train_shards, 1);
    assert_int_equal(count_entries(out), 4 + 2);
    assert_ok(prepare_verify(out, &r, &e), e);
}

/* An interrupted run leaves no manifest: nothing reads the folder, and a new run must be told. */
static void test_incomplete_folder(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *input = in_dir("in"), *out = in_dir("partial");
    prepare(input, out);
    unlink(in_dir("partial/prepare.json"));
    assert_ok(io_make_dirs(in_dir("partial/.prepare.tmp/old"), &e), e); /* of a killed run */
    put_text(in_dir("partial/.prepare.tmp/train-00000.h5.tmp.1"), "x");
    assert_int_equal(prepare_verify(out, &r, &e), -1);
    assert_message(e, out, "no prepare.json", "hint:");
    PrepareOptions o = plan(&input, out);
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, out, "already holds", "--overwrite");
    o.overwrite = true;
    assert_ok(prepare_run(&o, &r, &e), e);
    assert_false(io_exists(in_dir("partial/.prepare.tmp")));
    assert_ok(prepare_verify(out, &r, &e), e);
}

static void test_one_at_a_time(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *input = in_dir("in"), *out = in_dir("locked");
    assert_ok(io_make_dirs(out, &e), e);
    int lock = open(out, O_RDONLY | O_DIRECTORY);
    assert_int_equal(flock(lock, LOCK_EX), 0);
    PrepareOptions o = plan(&input, out);
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, out, "another isomoe prepare");
    close(lock);
    assert_ok(prepare_run(&o, &r, &e), e);
}

static void test_verify_finds_damage(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *out = in_dir("verify");
    static const char *const files[] = {"tokenizer.model", "train-00000.h5", "train-00001.h5",
                                        "val-00000.h5"};
    prepare(in_dir("in"), out);
    Dice d = dice_make(31);
    for (int i = 0; i < 40; i++) {
        char path[600];
        size_t size;
        snprintf(path, sizeof path, "%s/%s", out, files[i % 4]);
        char *data = get_file(path, &size);
        size_t at = roll(&d, (uint32_t)size);
        data[at] ^= 4;
        put_file(path, data, size);
        assert_int_equal(prepare_verify(out, &r, &e), -1);
        assert_message(e, path);
        data[at] ^= 4;
        put_file(path, data, size);
        free(data);
    }
    assert_ok(prepare_verify(out, &r, &e), e);
}

/* ---- bad input ----------------------------------------------------------------------------- */

static void test_bad_documents(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    char *text = made_text(40, 20000);
    assert_ok(io_make_dirs(in_dir("mixed"), &e), e);
    put_text(in_dir("mixed/a.txt"), text);
    put_text(in_dir("mixed/b.txt"), "ab\xFF");
    put_text(in_dir("mixed/c.jsonl"), "{\"text\": \"good\"}\n{\"no\": 1}\nnonsense\n");
    put_text(in_dir("mixed/d.txt.gz"), "no gzip");
    put_text(in_dir("mixed/e.txt"), "");
    put_text(in_dir("mixed/f.md"), "ignored");
    free(text);
    const char *input = in_dir("mixed"), *out = in_dir("mixed-out");
    PrepareOptions o = plan(&input, out);
    o.val_fraction = 0;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "mixed/b.txt: byte 2: not UTF-8 (0xff)", "--skip-bad");
    assert_int_equal(count_entries(out), 0);
    o.skip_bad = true;
    assert_ok(prepare_run(&o, &r, &e), e);
    assert_int_equal(r.documents, 2);
    assert_int_equal(r.skipped, 5);
    assert_int_equal(r.val_shards, 0);
    Manifest m;
    assert_ok(manifest_read(&m, out, &e), e);
    assert_int_equal(m.skipped, 5);
    manifest_free(&m);
}

static void test_bad_options(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    const char *input = in_dir("in"), *tiny = in_dir("tiny.txt");
    const char *out = in_dir("refused");
    PrepareOptions o = plan(&input, out);
    o.val_fraction = 1;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "val_fraction 1");
    o = plan(&input, out);
    o.shard_tokens = 0;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "shard_tokens 0");
    o = plan(&input, out);
    o.vocab_size = 100;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "vocab_size 100");
    assert_false(io_exists(out));
    put_text(tiny, "few words");
    o = plan(&tiny, out);
    o.val_fraction = 0;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "too small for a vocabulary of 400", "hint: ask for at most");
    prepare(input, in_dir("tok"));
    o.tokenizer = in_dir("tok/tokenizer.model");
    o.val_fraction = 0.9999999;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "all 1 documents were held out", "hint:");
    put_file(tiny, "", 0);
    o.skip_bad = true;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "no documents (1 bad ones skipped)");
    assert_int_equal(count_entries(out), 0);
}

static void test_standard_input(void **state)
{
    (void)state;
    Err e = {0};
    PrepareResult r;
    char *text = made_text(41, 30000);
    put_text(in_dir("stdin"), text);
    int keep = dup(STDIN_FILENO);
    const char *names[2] = {"-", "-"};
    PrepareOptions o = plan(names, in_dir("piped"));
    o.val_fraction = 0;
    for (int given = 0; given < 2; given++) { /* training reads it twice, through a file */
        assert_non_null(freopen(in_dir("stdin"), "r", stdin));
        assert_ok(prepare_run(&o, &r, &e), e);
        assert_int_equal(r.bytes, strlen(text));
        assert_int_equal(r.documents, 1);
        o.tokenizer = in_dir("piped/tokenizer.model");
        o.out = in_dir("piped2");
    }
    o.n_inputs = 2;
    o.overwrite = true;
    assert_int_equal(prepare_run(&o, &r, &e), -1);
    assert_message(e, "standard input", "more than once");
    dup2(keep, STDIN_FILENO);
    close(keep);
    free(text);
}

int main(void)
{
    log_set_quiet(1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_end_to_end),
        cmocka_unit_test(test_same_bits_for_any_threads),
        cmocka_unit_test(test_given_tokenizer),
        cmocka_unit_test(test_val_share),
        cmocka_unit_test(test_overwrite),
        cmocka_unit_test(test_incomplete_folder),
        cmocka_unit_test(test_one_at_a_time),
        cmocka_unit_test(test_verify_finds_damage),
        cmocka_unit_test(test_bad_documents),
        cmocka_unit_test(test_bad_options),
        cmocka_unit_test(test_standard_input),
    };
    return cmocka_run_group_tests_name("data prepare", tests, setup, teardown);
}
