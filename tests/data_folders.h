/* tests/data_folders.h - folders of shards with known tokens, and loaders over them: for the tests
 * of data/loader.h. */
#ifndef ISOMOE_TESTS_DATA_FOLDERS_H
#define ISOMOE_TESTS_DATA_FOLDERS_H

#include "tests/test_data.h"

#include "data/loader.h"
#include "data/manifest.h"
#include "data/shard.h"

enum { VOCAB = 500, EOS = 2 };

/* A folder of shards; tokens tell where they stand: document d's are 3 + (d + position) % 497. */
static void make_folder(const char *name, uint64_t hash, int shards, int docs, int longest)
{
    Err e = {0};
    Dice d = dice_make((uint64_t)(shards * 1000 + docs));
    Manifest m = {.tokenizer_hash = hash, .vocab_size = VOCAB, .bos = 1, .eos = EOS};
    ShardInfo info = {.tokenizer_hash = hash, .vocab_size = VOCAB, .bos = 1, .eos = EOS};
    assert_ok(io_make_dirs(in_dir(name), &e), e);
    int32_t *ids = malloc((size_t)longest * sizeof *ids);
    for (int split = 0; split < 2; split++) {
        snprintf(info.split, sizeof info.split, "%s", split ? "val" : "train");
        for (int s = 0; s < (split ? 1 : shards); s++) {
            char file[MANIFEST_NAME], path[600];
            manifest_shard_name(file, info.split, s);
            snprintf(path, sizeof path, "%s/%s", in_dir(name), file);
            ShardInfo done;
            ShardWriter *w = shard_create(path, &info, &e);
            for (int i = 0; i < docs; i++) {
                int n = (int)roll(&d, (uint32_t)longest);
                for (int k = 0; k < n; k++) ids[k] = 3 + (i * 7 + k) % (VOCAB - 3);
                assert_ok(shard_add(w, ids, n, 2 * n, &e), e);
            }
            assert_ok(shard_commit(&w, &done, &e), e);
            assert_ok(manifest_add(&m, file, &done, &e), e);
        }
    }
    assert_ok(manifest_write(&m, in_dir(name), NULL, 0, &e), e);
    manifest_free(&m);
    free(ids);
}

__attribute__((unused)) static int folders_make(void **state)
{
    if (test_dir_make(state)) return -1;
    make_folder("a", 5, 3, 60, 90);
    make_folder("b", 5, 1, 40, 50);
    make_folder("other", 6, 1, 40, 50);
    return 0;
}

__attribute__((unused)) static LoaderOptions options(int n, int64_t T)
{
    static char path[3][512];
    static const double weight[3] = {0.5, 0.3, 0.2};
    static const char *const name[3] = {"a", "b", "b/train-00000.h5"};
    LoaderOptions o = {.n_sources = n, .split = "train", .seq_len = T, .vocab_size = VOCAB,
                       .seed = 77, .shuffle = true};
    for (int i = 0; i < n; i++) {
        snprintf(path[i], sizeof path[i], "%s/%s", test_dir, name[i]);
        o.source[i] = (LoaderSource){path[i], weight[i]};
    }
    return o;
}

__attribute__((unused)) static Loader *open_loader(const LoaderOptions *o)
{
    Err e = {0};
    Loader *l = loader_open(o, &e);
    if (!l) fail_msg("%s", e.message);
    return l;
}

/* A copy of B sequences, row after row: tokens, targets, doc_start (3, B, T). */
__attribute__((unused)) static int32_t *copy_batch(Loader *l, int64_t index, int64_t B,
                                                   int32_t *out)
{
    Err e = {0};
    Batch b;
    int64_t counted = 0;
    assert_ok(loader_batch(l, index, B, &b, &e), e);
    assert_int_equal(b.B, B);
    for (int64_t i = 0; i < B; i++) {
        size_t row = (size_t)b.T * sizeof *out;
        memcpy(out, b.tokens + i * b.T, row);
        memcpy(out + b.T, b.targets + i * b.T, row);
        memcpy(out + 2 * b.T, b.doc_start + i * b.T, row);
        for (int64_t t = 0; t < b.T; t++) counted += out[b.T + t] >= 0;
        out += 3 * b.T;
    }
    assert_int_equal(counted, b.n_targets);
    return out;
}

/* All tokens of a split, read through the shards themselves. */
__attribute__((unused)) static int32_t *all_tokens(const char *name, int shards, int64_t *n,
                                                   int64_t *starts)
{
    Err e = {0};
    int32_t *all = NULL;
    *n = 0;
    for (int i = 0; i < shards; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/train-%05d.h5", in_dir(name), i);
        Shard *s = shard_open(path, &e);
        const ShardInfo *info = shard_info(s);
        all = realloc(all, (size_t)(*n + info->n_tokens) * sizeof *all);
        assert_ok(shard_read(s, 0, info->n_tokens, all + *n, &e), e);
        for (int64_t k = 0; k < info->n_tokens; k++) {
            bool begins = all[*n + k] == 1;
            starts[*n + k] = begins ? *n + k : starts[*n + k - 1];
        }
        *n += info->n_tokens;
        shard_close(&s);
    }
    return all;
}

#endif
