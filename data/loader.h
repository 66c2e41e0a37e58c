/* data/loader.h - batches of token sequences, a pure function of (configuration, segment, index).
 *
 * A source is a folder of shards of one split; its token stream is cut into windows of T inputs
 * (stride T; targets are the inputs moved by one). A run is a row of segments, each with its T and
 * its weights. Sequence number i of the run comes from the source that error diffusion over the
 * weights gives to i - first, and is that source's next window in a keyed permutation (one per
 * epoch); both go on over segments. So the data position is one number and the segment's few,
 * whatever the number of ranks or the size of a micro-batch.
 */
#ifndef ISOMOE_DATA_LOADER_H
#define ISOMOE_DATA_LOADER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { LOADER_MAX_SOURCES = 16 };

typedef struct LoaderSource {
    const char *path; /* folder with shards, or one shard file */
    double weight;    /* >= 0; share of the sequences of the first segment */
} LoaderSource;

typedef struct LoaderOptions {
    LoaderSource source[LOADER_MAX_SOURCES];
    int n_sources;
    const char *split;    /* "train" | "val": which shards of a folder */
    int64_t seq_len;      /* T of the first segment */
    int64_t vocab_size;   /* tokens at or above it are an error naming shard and position */
    uint64_t seed;        /* keys the permutation */
    bool shuffle;         /* false: windows in file order (held-out sets) */
    bool once;            /* no source gives a window twice before all gave all of theirs (held-out
                             sets of several sources); then there is one segment, from 0 on */
    bool prefetch;        /* a thread reads the next batch while this one is used */
} LoaderOptions;

/* A stretch of the run with one T and one set of weights. */
typedef struct LoaderSegment {
    int64_t first;                       /* number of its first sequence */
    int64_t T;
    double weight[LOADER_MAX_SOURCES];   /* >= 0, one above 0; their ratios count */
    int64_t served[LOADER_MAX_SOURCES];  /* windows of T that each source gave before `first` */
    int64_t phase[LOADER_MAX_SOURCES];   /* what the diffusion owes at `first` (data/mixture.h) */
} LoaderSegment;

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

/* The loader goes over to this segment (it begins with: first 0, the options' T and weights,
 * nothing served). On error (a source with a weight that has no window of T) the old one stays. */
int loader_begin(Loader *loader, const LoaderSegment *segment, Err *e);

/* The segment that begins with sequence `index` (not before the one in force) when T becomes this:
 * the same weights, and where each source and the diffusion have arrived. While T stays, sources
 * go on in their permutations: no window comes twice in an epoch. When T changes, a source
 * that has given p of its m windows of the old length in the epoch goes on at place
 * min(ceil(p T_old / T), m_new) of the permutation of its new windows: as many tokens are left of
 * the epoch, but the new windows are other pieces of text, so some of it comes again and some not
 * at all before the epoch ends. */
LoaderSegment loader_segment(const Loader *loader, int64_t index, int64_t T);

/* Of a loader without shuffle: sequences 0 .. count-1 are windows evenly spread over each source,
 * in file order, not its first ones: the i-th of the n that a source of m windows gives is window
 * floor(i m / n). count <= loader_windows. Holds until loader_begin. */
void loader_spread(Loader *loader, int64_t count);

/* The first token, in its source, of sequence `index` of the segment; *source: which one. */
int64_t loader_where(const Loader *loader, int64_t index, int *source);

/* Of a loader with `once`: sequences until the first source is used up and the shares change. */
int64_t loader_whole_mixture(const Loader *loader);

int loader_sources(const Loader *loader);
int64_t loader_windows(const Loader *loader);       /* windows of T in all sources with a weight */
int64_t loader_tokens(const Loader *loader);        /* tokens in all sources */
int64_t loader_bytes(const Loader *loader);         /* UTF-8 bytes of their documents' text */
uint64_t loader_tokenizer_hash(const Loader *loader);
uint64_t loader_data_hash(const Loader *loader);    /* of the sources' checksums */

/* Epochs of source s when sequences up to `index` (not before the segment) have been served. */
double loader_epochs(const Loader *loader, int s, int64_t index);

#endif
