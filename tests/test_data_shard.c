/* tests/test_data_shard.c - shards hold what was put in; damaged ones are errors, never crashes. */
#include "tests/test_data.h"

#include <hdf5.h>

#include "base/hash.h"
#include "base/h5.h"
#include "data/manifest.h"
#include "data/seal.h"
#include "data/shard.h"

static ShardInfo make_info(int64_t vocab)
{
    ShardInfo info = {.tokenizer_hash = 0xFEDCBA9876543210u, .vocab_size = vocab};
    info.bos = 1;
    info.eos = 2;
    put_at(info.split, "train");
    put_at(info.source, "a test, \xC3\xA9");
    return info;
}

/* Writes `docs` documents of random tokens; returns all tokens (caller frees), *n of them. */
static int32_t *write_shard(const char *path, int64_t vocab, int docs, int longest, int64_t *n)
{
    Err e = {0};
    Dice d = dice_make((uint64_t)docs);
    ShardInfo info = make_info(vocab), done;
    unlink(path);
    ShardWriter *w = shard_create(path, &info, &e);
    if (!w) fail_msg("%s", e.message);
    int32_t *all = malloc((size_t)docs * (size_t)(longest + 2) * sizeof *all);
    *n = 0;
    for (int i = 0; i < docs; i++) {
        int count = (int)roll(&d, (uint32_t)longest + 1);
        int32_t *doc = all + *n;
        doc[0] = 1;
        for (int k = 0; k < count; k++) doc[k + 1] = 3 + (int32_t)roll(&d, (uint32_t)vocab - 3);
        doc[count + 1] = 2;
        assert_ok(shard_add(w, doc + 1, count, 10 + i, &e), e);
        *n += count + 2;
        assert_int_equal(shard_writer_tokens(w), *n);
        assert_false(io_exists(path)); /* nothing half-made is ever visible */
    }
    assert_ok(shard_commit(&w, &done, &e), e);
    assert_null(w);
    assert_int_equal(done.n_tokens, *n);
    assert_int_equal(done.n_docs, docs);
    return all;
}

static int count_files(void)
{
    Err e = {0};
    char **names;
    int n;
    assert_ok(io_list_dir(test_dir, &names, &n, &e), e);
    io_free_names(names, n);
    return n;
}

static void check_content(int64_t vocab, const char *name)
{
    Err e = {0};
    int64_t n, sum = 0;
    const char *path = in_dir(name);
    int before = count_files();
    int32_t *all = write_shard(path, vocab, 300, 400, &n);
    assert_int_equal(count_files(), before + 1); /* temporary files are gone */
    Shard *s = shard_open(path, &e);
    if (!s) fail_msg("%s", e.message);
    const ShardInfo *info = shard_info(s);
    assert_int_equal(info->tokenizer_hash, 0xFEDCBA9876543210u);
    assert_int_equal(info->vocab_size, vocab);
    assert_true(info->bos == 1 && info->eos == 2 && info->n_docs == 300 && info->n_tokens == n);
    for (int i = 0; i < 300; i++) sum += 10 + i;
    assert_int_equal(info->n_bytes, sum);
    assert_string_equal(info->split, "train");
    assert_string_equal(info->source, "a test, \xC3\xA9");
    int32_t *back = malloc((size_t)n * sizeof *back);
    assert_true(shard_resting(s));
    assert_ok(shard_read(s, 0, n, back, &e), e);
    assert_memory_equal(back, all, (size_t)n * sizeof *back);
    assert_false(shard_resting(s));
    Dice d = dice_make(11);
    for (int i = 0; i < 200; i++) {
        int64_t first = roll(&d, (uint32_t)n), count = roll(&d, (uint32_t)(n - first) + 1);
        if (i % 7 == 0) shard_rest(s);
        assert_ok(shard_read(s, first, count, back, &e), e);
        assert_memory_equal(back, all + first, (size_t)count * sizeof *back);
    }
    const int64_t *offset = shard_doc_offset(s);
    assert_true(offset[0] == 0 && offset[300] == n);
    for (int i = 0; i < 300; i++) assert_true(all[offset[i]] == 1 && all[offset[i + 1] - 1] == 2);
    assert_ok(shard_verify(s, &e), e);
    shard_close(&s);
    free(back);
    free(all);
}

static void test_two_byte_tokens(void **state)
{
    (void)state;
    check_content(65536, "two.h5");
}

static void test_four_byte_tokens(void **state)
{
    (void)state;
    check_content(65537, "four.h5");
}

/* Any HDF5 program reads the file, seal or not. */
static void test_hdf5_sees_the_same(void **state)
{
    (void)state;
    int64_t n;
    int32_t *all = write_shard(in_dir("plain.h5"), 300, 50, 60, &n);
    int32_t *back = malloc((size_t)n * sizeof *back);
    h5_lock();
    hid_t file = H5Fopen(in_dir("plain.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    hid_t data = H5Dopen2(file, "tokens", H5P_DEFAULT);
    assert_true(H5Dread(data, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, back) >= 0);
    H5Dclose(data);
    H5Fclose(file);
    h5_unlock();
    assert_memory_equal(back, all, (size_t)n * sizeof *back);
    free(back);
    free(all);
}

static void test_same_data_same_file(void **state)
{
    (void)state;
    int64_t n;
    size_t a, b;
    free(write_shard(in_dir("s1.h5"), 300, 40, 50, &n));
    sleep(1); /* no time stamp inside */
    free(write_shard(in_dir("s2.h5"), 300, 40, 50, &n));
    char *first = get_file(in_dir("s1.h5"), &a), *second = get_file(in_dir("s2.h5"), &b);
    assert_int_equal(a, b);
    assert_memory_equal(first, second, a);
    free(first);
    free(second);
}

static void test_writer_errors(void **state)
{
    (void)state;
    Err e = {0};
    ShardInfo info = make_info(300);
    assert_null(shard_create(in_dir("none/x.h5"), &info, &e));
    assert_message(e, "none/x.h5", "No such file");
    ShardWriter *w = shard_create(in_dir("e.h5"), &info, &e);
    assert_int_equal(shard_commit(&w, NULL, &e), -1);
    assert_message(e, "e.h5", "no documents");
    assert_null(w);
    info.eos = 1;
    assert_null(shard_create(in_dir("e.h5"), &info, &e));
    assert_message(e, "BOS 1 and EOS 1");
    info = make_info(300);
    int before = count_files();
    w = shard_create(in_dir("e.h5"), &info, &e);
    int32_t ids[2] = {5, 6};
    assert_ok(shard_add(w, ids, 2, 4, &e), e);
    shard_abandon(&w);
    assert_int_equal(count_files(), before);
}

/* ---- damage -------------------------------------------------------------------------------- */

static char *bytes; /* of a good shard */
static size_t size;
static int32_t *good;
static int64_t n_good;

static int load_good(void **state)
{
    (void)state;
    good = write_shard(in_dir("good.h5"), 300, 25, 30, &n_good);
    bytes = get_file(in_dir("good.h5"), &size);
    return 0;
}

static int drop_good(void **state)
{
    (void)state;
    free(good);
    free(bytes);
    return 0;
}

/* An error that names the file, or the very data that was written, where it may open at all. */
static void open_damaged(const char *data, size_t n, bool may_open)
{
    Err e = {0};
    put_file(in_dir("bad.h5"), data, n);
    Shard *s = shard_open(in_dir("bad.h5"), &e);
    if (s && !shard_verify(s, &e)) {
        int32_t *back = malloc((size_t)n_good * sizeof *back);
        assert_true(may_open);
        assert_int_equal(shard_info(s)->n_tokens, n_good);
        assert_ok(shard_read(s, 0, n_good, back, &e), e);
        assert_memory_equal(back, good, (size_t)n_good * sizeof *back);
        free(back);
    } else {
        assert_message(e, "bad.h5");
    }
    shard_close(&s);
}

static void test_truncated_shard(void **state)
{
    (void)state;
    for (size_t n = 0; n < size; n += n < 600 ? 23 : 61) open_damaged(bytes, n, false);
    open_damaged(bytes, size - 1, false);
    open_damaged(bytes, size, true);
    char *longer = malloc(size + 8);
    memcpy(longer, bytes, size);
    memset(longer + size, 0, 8);
    open_damaged(longer, size + 8, false);
    free(longer);
}

/* Every single bit of the file is covered by some checksum. */
static void test_flipped_shard(void **state)
{
    (void)state;
    Dice d = dice_make(12);
    for (int i = 0; i < 1500; i++) {
        size_t at = i < 512 ? (size_t)i : roll(&d, (uint32_t)size);
        char bit = (char)(1 << roll(&d, 8));
        bytes[at] ^= bit;
        open_damaged(bytes, size, false);
        bytes[at] ^= bit;
    }
    open_damaged(bytes, size, true);
}

static void test_random_files(void **state)
{
    (void)state;
    Dice d = dice_make(13);
    char data[2000];
    for (int i = 0; i < 200; i++) {
        size_t n = roll(&d, sizeof data);
        for (size_t k = 0; k < n; k++) data[k] = (char)roll(&d, 256);
        if (i % 2 && n > 512) memcpy(data, bytes, 512);
        open_damaged(data, n, false);
    }
}

/* Edits the good file by `change` and seals it anew: what HDF5 and our own checks must find. */
static void expect_refused(void (*change)(hid_t file), const char *wanted)
{
    Err e = {0};
    const char *path = in_dir("edit.h5");
    uint64_t u;
    int64_t offset, length;
    put_file(path, bytes, size);
    h5_lock();
    hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    change(file);
    H5Fclose(file);
    h5_unlock();
    memcpy(&u, bytes + 24, 8);
    offset = (int64_t)u;
    memcpy(&u, bytes + 32, 8);
    length = (int64_t)u;
    FILE *f = fopen(path, "r+b");
    assert_ok(seal_write(fileno(f), offset, length, path, &e), e);
    fclose(f);
    Shard *s = shard_open(path, &e);
    if (s && !shard_verify(s, &e)) fail_msg("accepted, wanted \"%s\"", wanted);
    assert_message(e, path, wanted);
    shard_close(&s);
}

static void replace_row(hid_t file, const char *name, hid_t type, int64_t n, bool chunked)
{
    hsize_t dim = (hsize_t)n, two[2] = {(hsize_t)n, 1}, chunk = 4;
    int64_t *zero = calloc((size_t)n, 8);
    H5Ldelete(file, name, H5P_DEFAULT);
    hid_t plan = H5Pcreate(H5P_DATASET_CREATE);
    if (chunked) H5Pset_chunk(plan, 1, &chunk);
    hid_t space = n > 0 ? H5Screate_simple(1, &dim, NULL) : H5Screate_simple(2, two, NULL);
    hid_t data = H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT);
    if (n > 0) H5Dwrite(data, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, zero);
    H5Dclose(data);
    H5Sclose(space);
    H5Pclose(plan);
    free(zero);
}

static void set_number(hid_t file, const char *name, int64_t value)
{
    H5Adelete(file, name);
    h5_put_i64(file, name, value, "test", NULL);
}

static void no_tokens(hid_t f) { H5Ldelete(f, "tokens", H5P_DEFAULT); }
static void chunked(hid_t f) { replace_row(f, "tokens", H5T_STD_U16LE, n_good, true); }
static void moved(hid_t f)
{
    H5Lmove(f, "tokens", f, "old", H5P_DEFAULT, H5P_DEFAULT);
    replace_row(f, "tokens", H5T_STD_U16LE, n_good, false);
}
static void wide(hid_t f) { replace_row(f, "tokens", H5T_STD_U32LE, n_good, false); }
static void big(hid_t f) { replace_row(f, "tokens", H5T_STD_U16BE, n_good, false); }
static void real(hid_t f) { replace_row(f, "tokens", H5T_IEEE_F32LE, n_good, false); }
static void zeros(hid_t f) { replace_row(f, "doc_offset", H5T_STD_I64LE, 26, false); }
static void fewer(hid_t f) { replace_row(f, "doc_bytes", H5T_STD_I64LE, 24, false); }
static void narrow(hid_t f) { replace_row(f, "doc_bytes", H5T_STD_I32LE, 25, false); }
static void other_bytes(hid_t f) { replace_row(f, "doc_bytes", H5T_STD_I64LE, 25, false); }
static void rank_two(hid_t f) { replace_row(f, "doc_offset", H5T_STD_I64LE, 0, false); }
static void no_vocab(hid_t f) { H5Adelete(f, "vocab_size"); }
static void small_vocab(hid_t f) { set_number(f, "vocab_size", 60); }
static void no_vocab_left(hid_t f) { set_number(f, "vocab_size", 0); }
static void same_ends(hid_t f) { set_number(f, "eos", 1); }
static void other_eos(hid_t f) { set_number(f, "eos", 7); }
static void format_nine(hid_t f) { set_number(f, "format", 9); }
static void split_number(hid_t f) { set_number(f, "split", 9); }
static void long_split(hid_t f)
{
    H5Adelete(f, "split");
    h5_put_text(f, "split", "seventeen letters", "test", NULL);
}
static void text_vocab(hid_t f)
{
    H5Adelete(f, "vocab_size");
    h5_put_text(f, "vocab_size", "300", "test", NULL);
}

static void test_contradictions(void **state)
{
    (void)state;
    static const struct { void (*change)(hid_t); const char *wanted; } row[] = {
        {no_tokens, "dataset tokens cannot be opened"},
        {chunked, "not one contiguous row"},
        {moved, "not where the header says"},
        {wide, "tokens of 4 bytes"},
        {big, "not one contiguous row"},
        {real, "not one contiguous row"},
        {zeros, "document table contradicts"},
        {fewer, "26 document offsets for 24 documents"},
        {narrow, "not of 64-bit integers"},
        {other_bytes, "checksum of the document table"},
        {rank_two, "not one contiguous row"},
        {no_vocab, "attribute \"vocab_size\" cannot be read"},
        {text_vocab, "attribute \"vocab_size\" cannot be read"},
        {small_vocab, "outside the vocabulary of 60"},
        {no_vocab_left, "vocabulary of 0"},
        {same_ends, "BOS 1 and EOS 1"},
        {other_eos, "do not fit the document table"},
        {format_nine, "shard format 9"},
        {split_number, "attribute \"split\" cannot be read"},
        {long_split, "attribute \"split\" cannot be read"},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++)
        expect_refused(row[i].change, row[i].wanted);
}

static void test_plain_messages(void **state)
{
    (void)state;
    Err e = {0};
    assert_null(shard_open(in_dir("missing.h5"), &e));
    assert_message(e, "missing.h5", "No such file");
    put_text(in_dir("short.h5"), "x");
    assert_null(shard_open(in_dir("short.h5"), &e));
    assert_message(e, "short.h5", "not a shard", "1 bytes");
    char zero[600] = {0};
    put_file(in_dir("zero.h5"), zero, sizeof zero);
    assert_null(shard_open(in_dir("zero.h5"), &e));
    assert_message(e, "zero.h5", "not a shard made by isomoe prepare", "hint:");
    put_file(in_dir("cut.h5"), bytes, size - 5);
    assert_null(shard_open(in_dir("cut.h5"), &e));
    assert_message(e, "cut.h5", "damaged", "were written", "hint: an interrupted copy?");
    assert_null(shard_open(test_dir, &e));
    assert_message(e, test_dir, "not a file");
}

static void test_file_changed_in_use(void **state)
{
    (void)state;
    Err e = {0};
    int32_t id;
    put_file(in_dir("live.h5"), bytes, size);
    Shard *s = shard_open(in_dir("live.h5"), &e);
    assert_ok(shard_read(s, 0, 1, &id, &e), e);
    shard_rest(s);
    put_file(in_dir("live.h5"), bytes, size - 100);
    assert_int_equal(shard_read(s, 0, 1, &id, &e), -1);
    assert_message(e, "live.h5", "changed while it was in use");
    shard_close(&s);
}

/* ---- the manifest -------------------------------------------------------------------------- */

static void test_manifest_round_trip(void **state)
{
    (void)state;
    Err e = {0};
    Manifest m = {.tokenizer_hash = ~0u, .vocab_size = 300, .bos = 1, .eos = 2, .skipped = 7}, back;
    ShardInfo info = make_info(300);
    info.n_tokens = (int64_t)1 << 60;
    info.n_docs = 5;
    info.tokens_checksum = UINT64_MAX;
    char name[MANIFEST_NAME];
    for (int i = 0; i < 3; i++) {
        manifest_shard_name(name, "train", 99999 + i);
        assert_ok(manifest_add(&m, name, &info, &e), e);
    }
    const char *inputs[] = {"a \"quoted\" name", "\xFF not UTF-8"};
    assert_ok(manifest_write(&m, test_dir, inputs, 2, &e), e);
    assert_ok(manifest_read(&back, test_dir, &e), e);
    assert_int_equal(back.count, 3);
    assert_string_equal(back.shard[1].file, "train-100000.h5");
    assert_true(back.shard[2].tokens == (int64_t)1 << 60);
    assert_true(back.shard[2].tokens_checksum == UINT64_MAX && back.tokenizer_hash == ~0u);
    assert_true(back.skipped == 7 && back.vocab_size == 300 && back.eos == 2);
    manifest_free(&back);
    manifest_free(&m);
    /* Damage: an error or a manifest, no crash. */
    size_t length;
    char *text = get_file(in_dir(MANIFEST_FILE), &length);
    Dice d = dice_make(14);
    for (int i = 0; i < 600; i++) {
        size_t at = roll(&d, (uint32_t)length), n = i % 3 ? length : at;
        char old = text[at];
        text[at] = (char)roll(&d, 256);
        put_file(in_dir(MANIFEST_FILE), text, n);
        if (!manifest_read(&back, test_dir, &e)) manifest_free(&back);
        else assert_message(e, MANIFEST_FILE);
        text[at] = old;
    }
    free(text);
    put_text(in_dir(MANIFEST_FILE), "{\"format\": 2}");
    assert_int_equal(manifest_read(&back, test_dir, &e), -1);
    assert_message(e, MANIFEST_FILE, "format 2");
    unlink(in_dir(MANIFEST_FILE));
    assert_int_equal(manifest_read(&back, test_dir, &e), -1);
    assert_message(e, test_dir, "no prepare.json", "hint:");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_byte_tokens),
        cmocka_unit_test(test_four_byte_tokens),
        cmocka_unit_test(test_hdf5_sees_the_same),
        cmocka_unit_test(test_same_data_same_file),
        cmocka_unit_test(test_writer_errors),
        cmocka_unit_test_setup_teardown(test_truncated_shard, load_good, drop_good),
        cmocka_unit_test_setup_teardown(test_flipped_shard, load_good, drop_good),
        cmocka_unit_test_setup_teardown(test_random_files, load_good, drop_good),
        cmocka_unit_test_setup_teardown(test_contradictions, load_good, drop_good),
        cmocka_unit_test_setup_teardown(test_plain_messages, load_good, drop_good),
        cmocka_unit_test_setup_teardown(test_file_changed_in_use, load_good, drop_good),
        cmocka_unit_test(test_manifest_round_trip),
    };
    return cmocka_run_group_tests_name("data shard", tests, test_dir_make, test_dir_remove);
}
