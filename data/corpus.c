/* data/corpus.c - see corpus.h. */
#include "data/corpus.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/size.h"
#include "data/manifest.h"

struct Corpus {
    Shard **shard;  /* (count) */
    int64_t *first; /* (count + 1) token index where each shard begins */
    int count;
    ShardInfo info; /* tokenizer of all, sums of all */
    uint64_t hash;
    int open[CORPUS_OPEN_MAX]; /* shards with an open file, oldest overwritten first; -1: none */
    int next_open;
};

static int add_shard(Corpus *c, const char *path, const ManifestShard *row, Err *e)
{
    Shard *shard = shard_open(path, e);
    if (!shard) return -1;
    c->shard[c->count++] = shard;
    if (row && manifest_check(row, shard, e)) return -1;
    const ShardInfo *info = shard_info(shard);
    ShardInfo *all = &c->info;
    if (c->count == 1) {
        *all = *info;
        all->n_tokens = all->n_docs = all->n_bytes = 0;
    }
    if (info->tokenizer_hash != all->tokenizer_hash || info->vocab_size != all->vocab_size ||
        info->bos != all->bos || info->eos != all->eos) {
        err_set(e, "%s: made with another tokenizer than %s", path, shard_path(c->shard[0]));
        return err_hint(e, "prepare all data with the same tokenizer.model");
    }
    if (!size_add(all->n_tokens, info->n_tokens, &all->n_tokens) ||
        !size_add(all->n_bytes, info->n_bytes, &all->n_bytes))
        return err_set(e, "%s: too many tokens", path);
    all->n_docs += info->n_docs;
    c->first[c->count] = all->n_tokens;
    c->hash = hash_more(c->hash, &info->tokens_checksum, sizeof info->tokens_checksum);
    c->hash = hash_more(c->hash, &info->docs_checksum, sizeof info->docs_checksum);
    return 0;
}

static int reserve_shards(Corpus *c, int n, const char *path, Err *e)
{
    c->shard = calloc((size_t)n + 1, sizeof *c->shard);
    c->first = calloc((size_t)n + 1, sizeof *c->first);
    return c->shard && c->first ? 0 : err_set(e, "%s: out of memory", path);
}

static int add_folder(Corpus *c, const char *folder, const char *split, Err *e)
{
    Manifest manifest;
    char path[IO_PATH_MAX];
    if (manifest_read(&manifest, folder, e)) return -1;
    int rc = reserve_shards(c, manifest.count, folder, e);
    for (int i = 0; i < manifest.count && !rc; i++) {
        if (strcmp(manifest.shard[i].split, split)) continue;
        rc = io_join(path, folder, manifest.shard[i].file, e) ||
             add_shard(c, path, &manifest.shard[i], e);
    }
    if (!rc && c->count == 0) {
        rc = err_set(e, "%s: no shards of split \"%s\" among %d", folder, split, manifest.count);
        err_hint(e, "isomoe prepare with a val_fraction above 0 makes \"train\" and \"val\"");
    }
    manifest_free(&manifest);
    return rc;
}

static int verify_small(Corpus *c, Err *e)
{
    int rc = 0;
    if (c->info.n_tokens > CORPUS_VERIFY_MAX) return 0;
    for (int i = 0; i < c->count && !rc; i++) {
        rc = shard_verify(c->shard[i], e);
        shard_rest(c->shard[i]);
    }
    return rc;
}

Corpus *corpus_open(const char *path, const char *split, Err *e)
{
    Corpus *c = calloc(1, sizeof *c);
    if (!c) {
        err_set(e, "%s: out of memory", path);
        return NULL;
    }
    for (int i = 0; i < CORPUS_OPEN_MAX; i++) c->open[i] = -1;
    int rc = io_is_dir(path) ? add_folder(c, path, split, e)
                             : reserve_shards(c, 1, path, e) || add_shard(c, path, NULL, e);
    if (rc || verify_small(c, e)) corpus_close(&c);
    return c;
}

void corpus_close(Corpus **corpus)
{
    Corpus *c = *corpus;
    if (!c) return;
    for (int i = 0; i < c->count; i++) shard_close(&c->shard[i]);
    free(c->shard);
    free(c->first);
    free(c);
    *corpus = NULL;
}

const ShardInfo *corpus_info(const Corpus *corpus) { return &corpus->info; }
uint64_t corpus_hash(const Corpus *corpus) { return corpus->hash; }

/* ---- windows ------------------------------------------------------------------------------- */

/* Reads from one shard; if that opens its file, the one opened longest ago is closed. */
static int read_tokens(Corpus *c, int i, int64_t first, int64_t count, int32_t *out, Err *e)
{
    if (shard_resting(c->shard[i])) {
        int *place = &c->open[c->next_open];
        c->next_open = (c->next_open + 1) % CORPUS_OPEN_MAX;
        if (*place >= 0) shard_rest(c->shard[*place]);
        *place = i;
    }
    return shard_read(c->shard[i], first, count, out, e);
}

/* The last k in [0, n) with row[k] <= value; row ascends and row[0] <= value. */
static int64_t find_last(const int64_t *row, int64_t n, int64_t value)
{
    int64_t low = 0, high = n;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (row[middle] <= value) low = middle;
        else high = middle;
    }
    return low;
}

/* doc_start of `count` tokens from token `first` of the shard on, which stand at index `at` of the
 * window. */
static void find_starts(const Shard *shard, int64_t first, int64_t count, int64_t at,
                        int32_t *doc_start)
{
    const int64_t *offset = shard_doc_offset(shard);
    int64_t doc = find_last(offset, shard_info(shard)->n_docs, first);
    for (int64_t i = 0; i < count; i++) {
        if (first + i == offset[doc + 1]) doc++;
        doc_start[at + i] = (int32_t)size_max(0, at + offset[doc] - first);
    }
}

int corpus_window(Corpus *corpus, int64_t first, int64_t T, int32_t *tokens, int32_t *doc_start,
                  Err *e)
{
    Corpus *c = corpus;
    CHECK(first >= 0 && T >= 1 && first < c->info.n_tokens - T, "window %lld + %lld of %lld tokens",
          (long long)first, (long long)T, (long long)c->info.n_tokens);
    int i = (int)find_last(c->first, c->count, first);
    for (int64_t at = 0; at < T + 1; i++) {
        int64_t inside = first + at - c->first[i];
        int64_t n = size_min(T + 1 - at, c->first[i + 1] - c->first[i] - inside);
        if (read_tokens(c, i, inside, n, tokens + at, e)) return -1;
        find_starts(c->shard[i], inside, size_min(n, T - at), at, doc_start);
        at += n;
    }
    return 0;
}
