/* data/encode.c - see encode.h. Documents are gathered into batches; a batch is encoded by all
 * threads and then written by one. */
#include "data/encode.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"

enum { BATCH_DOCS = 1024, BATCH_BYTES = 1 << 24 };

const char *const SPLIT_NAME[SPLITS] = {"train", "val"};

typedef struct Item {
    size_t at, size; /* the text, in the batch's bytes */
    int split;
    int32_t *ids; /* (count) */
    int64_t count;
} Item;

typedef struct Output {
    ShardWriter *writer; /* NULL: no shard begun */
    char name[MANIFEST_NAME];
    int shards; /* begun so far */
} Output;

typedef struct Encoder {
    const EncodePlan *plan;
    Manifest *manifest;
    char *text; /* of the batch */
    size_t used, capacity;
    Item item[BATCH_DOCS];
    int count;
    Output output[SPLITS];
    TokenizerCache **cache; /* (threads) */
    int threads;
} Encoder;

bool encode_is_val(const Document *document, double val_fraction)
{
    uint64_t hash = hash_bytes(document->text, document->size);
    return (double)(hash >> 11) * 0x1p-53 < val_fraction;
}

static int add_item(Encoder *x, const Document *document, Err *e)
{
    if (x->used + document->size > x->capacity) {
        size_t capacity = (x->used + document->size) * 3 / 2;
        char *grown = realloc(x->text, capacity);
        if (!grown) return err_set(e, "out of memory for %zu bytes of text", capacity);
        x->text = grown;
        x->capacity = capacity;
    }
    memcpy(x->text + x->used, document->text, document->size);
    x->item[x->count++] = (Item){.at = x->used, .size = document->size,
                                 .split = encode_is_val(document, x->plan->val_fraction)};
    x->used += document->size;
    return 0;
}

static int encode_batch(Encoder *x, Err *e)
{
    int failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(x->threads)
    for (int i = 0; i < x->count; i++) {
        Item *item = &x->item[i];
        Err why = {0};
        if (tokenizer_encode_cached(x->plan->tokenizer, x->cache[omp_get_thread_num()],
                                    x->text + item->at, item->size, &item->ids, &item->count,
                                    &why)) {
#pragma omp critical
            {
                failed = 1;
                if (e) *e = why;
            }
        }
    }
    return failed ? -1 : 0;
}

static int begin_shard(Encoder *x, int split, Err *e)
{
    Output *o = &x->output[split];
    const Tokenizer *t = x->plan->tokenizer;
    char path[IO_PATH_MAX];
    ShardInfo info = {.tokenizer_hash = tokenizer_hash(t), .vocab_size = tokenizer_vocab(t),
                      .bos = tokenizer_bos(t), .eos = tokenizer_eos(t)};
    snprintf(info.split, sizeof info.split, "%s", SPLIT_NAME[split]);
    snprintf(info.source, sizeof info.source, "%s", x->plan->about);
    manifest_shard_name(o->name, SPLIT_NAME[split], o->shards++);
    if (io_join(path, x->plan->folder, o->name, e)) return -1;
    o->writer = shard_create(path, &info, e);
    return o->writer ? 0 : -1;
}

static int end_shard(Encoder *x, int split, Err *e)
{
    Output *o = &x->output[split];
    ShardInfo info;
    if (!o->writer) return 0;
    return shard_commit(&o->writer, &info, e) || manifest_add(x->manifest, o->name, &info, e);
}

static int write_batch(Encoder *x, Err *e)
{
    for (int i = 0; i < x->count; i++) {
        Item *item = &x->item[i];
        Output *o = &x->output[item->split];
        if (!o->writer && begin_shard(x, item->split, e)) return -1;
        if (shard_add(o->writer, item->ids, item->count, (int64_t)item->size, e)) return -1;
        if (shard_writer_tokens(o->writer) >= x->plan->shard_tokens &&
            end_shard(x, item->split, e))
            return -1;
    }
    return 0;
}

static int flush_batch(Encoder *x, Err *e)
{
    int rc = encode_batch(x, e) || write_batch(x, e);
    for (int i = 0; i < x->count; i++) free(x->item[i].ids);
    x->count = 0;
    x->used = 0;
    return rc;
}

static int encode_source(Encoder *x, Err *e)
{
    Document document;
    int more, rc = 0;
    while (!rc && (more = sieve_next(x->plan->sieve, &document, e)) != 0) {
        rc = more < 0 ? -1 : add_item(x, &document, e);
        if (!rc && (x->count == BATCH_DOCS || x->used >= BATCH_BYTES)) rc = flush_batch(x, e);
    }
    if (!rc) rc = flush_batch(x, e);
    for (int split = 0; split < SPLITS && !rc; split++) rc = end_shard(x, split, e);
    return rc ? -1 : 0;
}

int encode_all(const EncodePlan *plan, Manifest *manifest, Err *e)
{
    Encoder *x = calloc(1, sizeof *x);
    if (!x) return err_set(e, "out of memory");
    x->plan = plan;
    x->manifest = manifest;
    x->threads = omp_get_max_threads();
    x->cache = calloc((size_t)x->threads, sizeof *x->cache);
    for (int i = 0; x->cache && i < x->threads; i++) x->cache[i] = tokenizer_cache_create();
    int rc = x->cache ? encode_source(x, e) : err_set(e, "out of memory");
    for (int split = 0; split < SPLITS; split++) shard_abandon(&x->output[split].writer);
    for (int i = 0; x->cache && i < x->threads; i++) tokenizer_cache_destroy(&x->cache[i]);
    for (int i = 0; i < x->count; i++) free(x->item[i].ids);
    free(x->cache);
    free(x->text);
    free(x);
    return rc;
}
