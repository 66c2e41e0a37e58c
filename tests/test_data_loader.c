/* tests/test_data_loader.c - batches are a pure function of configuration and index. */
#include "tests/data_folders.h"

#include <math.h>

#include "data/corpus.h"
#include "data/shard.h"

static void test_windows_in_file_order(void **state)
{
    (void)state;
    static const int64_t lengths[] = {1, 7, 64, 1000}; /* windows across documents and shards */
    int64_t *starts = malloc(100000 * sizeof *starts), n;
    int32_t *all = all_tokens("a", 3, &n, starts);
    for (size_t k = 0; k < 4; k++) {
        int64_t T = lengths[k], windows = (n - 1) / T;
        LoaderOptions o = options(1, T);
        o.shuffle = false;
        Loader *l = open_loader(&o);
        assert_int_equal(loader_windows(l), windows);
        assert_int_equal(loader_tokens(l), n);
        int32_t *got = malloc((size_t)T * 3 * sizeof *got);
        for (int64_t w = 0; w < windows + 3; w++) { /* the next epoch begins at the front */
            int64_t first = w % windows * T;
            copy_batch(l, w, 1, got);
            assert_memory_equal(got, all + first, (size_t)T * sizeof *got);
            for (int64_t t = 0; t < T; t++) {
                bool end = all[first + t] == EOS;
                int64_t start = starts[first + t] - first;
                assert_int_equal(got[T + t], end ? -1 : all[first + t + 1]);
                assert_int_equal(got[2 * T + t], start < 0 ? 0 : start);
            }
        }
        assert_true(loader_epochs(l, 0, windows) == 1.0);
        free(got);
        loader_close(&l);
    }
    free(all);
    free(starts);
}

/* Shuffled: every window once an epoch, another order each epoch and seed. */
static void test_epochs_are_permutations(void **state)
{
    (void)state;
    enum { T = 16 };
    LoaderOptions o = options(1, T);
    o.shuffle = false;
    Loader *plain = open_loader(&o);
    o.shuffle = true;
    Loader *mixed = open_loader(&o);
    int64_t n = loader_windows(plain), moved = 0, differ = 0;
    size_t row = 3 * T * sizeof(int32_t);
    int32_t *order = malloc((size_t)n * row), *epoch[2];
    for (int64_t w = 0; w < n; w++) copy_batch(plain, w, 1, order + w * 3 * T);
    for (int k = 0; k < 2; k++) {
        char *seen = calloc((size_t)n, 1);
        epoch[k] = malloc((size_t)n * row);
        copy_batch(mixed, k * n, n, epoch[k]);
        for (int64_t w = 0; w < n; w++) {
            int64_t at = 0;
            while (at < n && (seen[at] || memcmp(order + at * 3 * T, epoch[k] + w * 3 * T, row)))
                at++;
            assert_true(at < n);
            seen[at] = 1;
            moved += at != w;
        }
        free(seen);
    }
    for (int64_t w = 0; w < n; w++)
        differ += memcmp(epoch[0] + w * 3 * T, epoch[1] + w * 3 * T, row) != 0;
    assert_true(moved > 2 * n * 9 / 10 && differ > n * 9 / 10);
    free(order);
    free(epoch[0]);
    free(epoch[1]);
    loader_close(&plain);
    loader_close(&mixed);
}

/* However the sequences are cut into batches, read ahead or jumped to: the same bits. */
static void test_batches_do_not_matter(void **state)
{
    (void)state;
    enum { T = 33, N = 400 };
    LoaderOptions o = options(3, T);
    Loader *l = open_loader(&o);
    int32_t *whole = malloc(N * 3 * T * sizeof *whole), *parts = malloc(N * 3 * T * sizeof *parts);
    copy_batch(l, 0, N, whole);
    for (int prefetch = 0; prefetch < 2; prefetch++) {
        loader_close(&l);
        o.prefetch = prefetch;
        l = open_loader(&o);
        int32_t *at = parts;
        Dice d = dice_make(21);
        for (int64_t i = 0; i < N;) { /* sizes change and sequences are asked for again */
            int64_t B = 1 + roll(&d, 9);
            if (i + B > N) B = N - i;
            if (roll(&d, 4) == 0) copy_batch(l, roll(&d, N), B, at);
            at = copy_batch(l, i, B, at);
            i += B;
        }
        assert_memory_equal(whole, parts, N * 3 * T * sizeof *whole);
        for (int64_t i = 0; i < N; i += 8) copy_batch(l, i, 8, parts + i * 3 * T); /* steady */
        assert_memory_equal(whole, parts, N * 3 * T * sizeof *whole);
    }
    copy_batch(l, 8, 8, parts);
    copy_batch(l, 8, 3, parts + 8 * 3 * T);
    copy_batch(l, 11, 5, parts + 11 * 3 * T);
    assert_memory_equal(parts, parts + 8 * 3 * T, 8 * 3 * T * sizeof *whole);
    loader_close(&l);
    o.seed = 78;
    o.prefetch = false;
    l = open_loader(&o);
    copy_batch(l, 0, N, parts);
    assert_memory_not_equal(whole, parts, N * 3 * T * sizeof *whole);
    loader_close(&l);
    free(whole);
    free(parts);
}

/* A run that stops and goes on later, far along, without replaying what came before. */
static void test_resume_anywhere(void **state)
{
    (void)state;
    enum { T = 20, B = 4 };
    Err e = {0};
    LoaderOptions o = options(3, T);
    o.prefetch = true;
    Loader *l = open_loader(&o);
    int32_t *first = malloc(2 * B * 3 * T * sizeof *first);
    int32_t *again = malloc(B * 3 * T * sizeof *again);
    copy_batch(l, 1000, B, first);
    copy_batch(l, 1000 + B, B, first + B * 3 * T);
    loader_close(&l);
    l = open_loader(&o);
    copy_batch(l, 1000 + B, B, again);
    assert_memory_equal(first + B * 3 * T, again, B * 3 * T * sizeof *again);
    Batch b;
    assert_ok(loader_batch(l, (int64_t)1 << 59, B, &b, &e), e); /* no slower than the first */
    assert_int_equal(b.doc_start[0] >= 0, 1);
    double share = 0;
    for (int s = 0; s < 3; s++) assert_true(loader_epochs(l, s, 10000) > 1);
    int64_t windows_a = 0;
    o.n_sources = 1;
    Loader *a = open_loader(&o);
    windows_a = loader_windows(a);
    share = loader_epochs(l, 0, 10000) * (double)windows_a / 10000;
    assert_true(fabs(share - 0.5) < 2e-4);
    loader_close(&a);
    loader_close(&l);
    free(first);
    free(again);
}

static void test_hashes(void **state)
{
    (void)state;
    LoaderOptions o = options(2, 16);
    Loader *l = open_loader(&o), *one;
    assert_int_equal(loader_tokenizer_hash(l), 5);
    uint64_t both = loader_data_hash(l);
    o.n_sources = 1;
    one = open_loader(&o);
    assert_true(loader_data_hash(one) != both);
    assert_true(loader_bytes(l) > loader_bytes(one) && loader_bytes(one) > 0);
    loader_close(&l);
    o.split = "val";
    o.shuffle = false;
    l = open_loader(&o);
    assert_true(loader_data_hash(l) != loader_data_hash(one));
    loader_close(&one);
    one = open_loader(&o);
    assert_true(loader_data_hash(l) == loader_data_hash(one));
    loader_close(&one);
    loader_close(&l);
}

static void refuse(const LoaderOptions *o, const char *first, const char *second)
{
    Err e = {0};
    Loader *l = loader_open(o, &e);
    assert_null(l);
    assert_message(e, first, second);
}

static void test_refusals(void **state)
{
    (void)state;
    Err e = {0};
    LoaderOptions o = options(2, 16);
    char other[512], empty[512];
    snprintf(other, sizeof other, "%s/other", test_dir);
    o.source[1].path = other;
    refuse(&o, other, "another tokenizer than");
    o = options(1, 16);
    o.vocab_size = VOCAB - 1;
    refuse(&o, "vocabulary of 500, but the model has 499", "hint: set the model's vocab_size");
    o = options(1, 1 << 20);
    refuse(&o, "not enough for one sequence of 1048576", "hint: choose seq_len <= ");
    o = options(1, 0);
    refuse(&o, "seq_len 0", "from 1");
    o = options(1, 16);
    o.n_sources = 0;
    refuse(&o, "0 data sources", "from 1");
    o = options(1, 16);
    o.split = "test";
    refuse(&o, "no shards of split \"test\"", "/a: ");
    o = options(2, 16);
    o.source[1].weight = -1;
    refuse(&o, "source 1", "from 0 up");
    snprintf(empty, sizeof empty, "%s/empty", test_dir);
    assert_ok(io_make_dirs(empty, &e), e);
    o = options(1, 16);
    o.source[0].path = empty;
    refuse(&o, "no prepare.json", "hint: run isomoe prepare");
    o.source[0].path = "/nonexistent/data";
    refuse(&o, "/nonexistent/data", "No such file");
}

/* One token of a shard is damaged: small corpora are verified when they are opened. Missing and
 * foreign files are found by the manifest. */
static void test_damaged_folders(void **state)
{
    (void)state;
    make_folder("damaged", 5, 2, 20, 40);
    size_t size, other_size;
    char *path = strdup(in_dir("damaged/train-00001.h5"));
    char *bytes = get_file(path, &size), *other = get_file(in_dir("b/train-00000.h5"), &other_size);
    LoaderOptions o = options(1, 16);
    const char *folder = strdup(in_dir("damaged"));
    o.source[0].path = folder;
    uint64_t offset;
    memcpy(&offset, bytes + 24, 8);
    bytes[offset + 11] ^= 1;
    put_file(path, bytes, size);
    refuse(&o, path, "wrong checksum of the tokens");
    put_file(path, other, other_size);
    refuse(&o, path, "not the file that prepare.json describes");
    unlink(path);
    refuse(&o, path, "No such file");
    free((char *)folder);
    free(path);
    free(bytes);
    free(other);
}

/* What goes wrong in the prefetch thread is the error of the call that asks for that batch; other
 * batches can still be had, and closing is clean. */
static void test_prefetch_errors(void **state)
{
    (void)state;
    enum { T = 16 };
    Err e = {0};
    Batch b;
    make_folder("live", 5, 1, 400, 90);
    char *path = strdup(in_dir("live/train-00000.h5")), *folder = strdup(in_dir("live"));
    size_t size;
    char *bytes = get_file(path, &size);
    LoaderOptions o = options(1, T);
    o.source[0].path = folder;
    o.shuffle = false;
    o.prefetch = true;
    Loader *l = open_loader(&o);
    assert_ok(loader_batch(l, 0, 2, &b, &e), e);
    usleep(20000); /* batch 2 is read ahead, from the whole file */
    assert_int_equal(truncate(path, (off_t)size / 2), 0);
    assert_ok(loader_batch(l, 2, 2, &b, &e), e);
    int64_t last = loader_windows(l) - 2;
    int rc = loader_batch(l, last, 2, &b, &e); /* behind the cut */
    assert_int_equal(rc, -1);
    assert_message(e, path, "cut short");
    assert_ok(loader_batch(l, last - 4 - loader_windows(l) * 3 / 4, 2, &b, &e), e);
    int64_t i = loader_windows(l) / 4;
    while (!(rc = loader_batch(l, i, 2, &b, &e))) i += 2; /* the thread meets the cut */
    assert_message(e, path, "cut short");
    assert_true(i > loader_windows(l) / 3 && i < loader_windows(l) * 2 / 3);
    put_file(path, bytes, size); /* whole again: the same call now succeeds */
    assert_ok(loader_batch(l, i, 2, &b, &e), e);
    loader_close(&l);
    free(bytes);
    free(path);
    free(folder);
}

/* A token outside the vocabulary names shard and position (a corpus too large to verify at once is
 * played by a file that changes afterwards). */
static void test_token_out_of_range(void **state)
{
    (void)state;
    Err e = {0};
    Batch b;
    make_folder("range", 5, 1, 50, 60);
    char *path = strdup(in_dir("range/train-00000.h5")), *folder = strdup(in_dir("range"));
    size_t size;
    uint64_t offset;
    char *bytes = get_file(path, &size);
    LoaderOptions o = options(1, 16);
    o.source[0].path = folder;
    o.shuffle = false;
    Loader *l = open_loader(&o);
    assert_ok(loader_batch(l, 0, 1, &b, &e), e); /* the file is open from here on */
    memcpy(&offset, bytes + 24, 8);
    FILE *f = fopen(path, "r+b");
    fseek(f, (long)offset + 2 * 100 + 1, SEEK_SET);
    fputc(0x70, f);
    fclose(f);
    assert_int_equal(loader_batch(l, 100 / 16, 1, &b, &e), -1);
    assert_message(e, path, "token 100 is", "outside the vocabulary of 500");
    loader_close(&l);
    free(bytes);
    free(path);
    free(folder);
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

/* More shards than files that stay open. */
static void test_many_shards(void **state)
{
    (void)state;
    enum { SHARDS = CORPUS_OPEN_MAX + 30, T = 8 };
    make_folder("many", 5, SHARDS, 2, 20);
    char *folder = strdup(in_dir("many"));
    LoaderOptions o = options(1, T);
    o.source[0].path = folder;
    Loader *l = open_loader(&o);
    int64_t *starts = malloc(100000 * sizeof *starts), n, windows = loader_windows(l);
    int32_t *all = all_tokens("many", SHARDS, &n, starts), got[3 * T];
    assert_int_equal(loader_tokens(l), n);
    loader_close(&l);
    o.shuffle = false;
    l = open_loader(&o);
    Dice d = dice_make(22);
    int files = count_entries("/proc/self/fd");
    for (int i = 0; i < 2000; i++) {
        int64_t w = roll(&d, (uint32_t)windows);
        copy_batch(l, w, 1, got);
        assert_memory_equal(got, all + w * T, T * sizeof *got);
    }
    assert_in_range(count_entries("/proc/self/fd"), files + 1, files + CORPUS_OPEN_MAX);
    loader_close(&l);
    assert_int_equal(count_entries("/proc/self/fd"), files);
    free(starts);
    free(all);
    free(folder);
}

static void test_open_and_close(void **state)
{
    (void)state;
    Err e = {0};
    Batch b;
    LoaderOptions o = options(2, 64);
    o.prefetch = true;
    int threads = count_entries("/proc/self/task");
    for (int i = 0; i < 30; i++) { /* closed while the thread reads, or before it ever did */
        Loader *l = open_loader(&o);
        if (i % 3) assert_ok(loader_batch(l, i, 40, &b, &e), e);
        assert_int_equal(count_entries("/proc/self/task"), threads + 1);
        loader_close(&l);
        assert_null(l);
    }
    usleep(1000); /* the kernel may list a joined thread for a moment */
    assert_int_equal(count_entries("/proc/self/task"), threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_windows_in_file_order),
        cmocka_unit_test(test_epochs_are_permutations),
        cmocka_unit_test(test_batches_do_not_matter),
        cmocka_unit_test(test_resume_anywhere),
        cmocka_unit_test(test_hashes),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_damaged_folders),
        cmocka_unit_test(test_prefetch_errors),
        cmocka_unit_test(test_token_out_of_range),
        cmocka_unit_test(test_many_shards),
        cmocka_unit_test(test_open_and_close),
    };
    return cmocka_run_group_tests_name("data loader", tests, folders_make, test_dir_remove);
}
