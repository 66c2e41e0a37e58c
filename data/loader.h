/* data/loader.h - batches of token sequences, a pure function of (configuration, index).
 *
 * A source is a folder of shards of one split; its token stream is cut into windows of T inputs
 * (stride T; targets are the inputs moved by one). Sequence number i of the run comes from the
 * source that error diffusion over the weights gives to i, and is that source's next window in a
 * keyed permutation (one per epoch). So the data position is one number, whatever the number of
 * ranks or the size of a micro-batch.
 */
#ifndef ISOMOE_DATA_LOADER_H
#define ISOMOE_DATA_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { LOADER_MAX_SOURCES = 16 };

typedef struct LoaderSource {
    const char *path; /* folder with shards, or one shard file */
    double weight;    /* > 0; share of the sequences */
} LoaderSource;

typedef struct LoaderOptions {
    LoaderSource source[LOADER_MAX_SOURCES];
    int n_sources;
    const char *split;    /* "train" | "val": which shards of a folder */
    int64_t seq_len;      /* T */
    int64_t vocab_size;   /* tokens at or above it are an error naming shard and position */
    uint64_t seed;        /* keys the permutation */
    bool shuffle;         /* false: windows in file order (held-out sets) */
    bool prefetch;        /* a thread reads the next batch while this one is used */
} LoaderOptions;

/* Host arrays of one batch, all (B, T), owned by the loader, valid until the next call. */
typedef struct Batch {
    int64_t B, T;
    const int32_t *tokens;
    const int32_t *targets;   /* -1: not counted (the target after an EOS) */
    const int32_t *doc_start; /* index in the sequence of the first token of the token's document;
                                 0 if the document began before the sequence */
    int64_t n_targets;        /* targets >= 0 */
} Batch;

typedef struct Loader Loader;

Loader *loader_open(const LoaderOptions *options, Err *e); /* NULL on error */
void loader_close(Loader **loader);

/* Sequences index .. index+B-1 of the run; any index >= 0 costs the same. Sequential calls (the
 * next index is this index + B, B the same) are served by the prefetch thread, with the same bits;
 * its error is that of the call which asks for its batch. The thread never calls HDF5. */
int loader_batch(Loader *loader, int64_t index, int64_t B, Batch *out, Err *e);

int64_t loader_windows(const Loader *loader);       /* windows in one epoch over all sources */
int64_t loader_tokens(const Loader *loader);        /* tokens in all sources */
int64_t loader_bytes(const Loader *loader);         /* UTF-8 bytes of their documents' text */
uint64_t loader_tokenizer_hash(const Loader *loader);
uint64_t loader_data_hash(const Loader *loader);    /* of the sources' checksums */

/* Epochs begun of source s when `index` sequences have been served. */
double loader_epochs(const Loader *loader, int s, int64_t index);

#endif
