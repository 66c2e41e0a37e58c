/* data/encode.h - the pass over all documents that writes the shards (used by prepare.c). */
#ifndef ISOMOE_DATA_ENCODE_H
#define ISOMOE_DATA_ENCODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "data/manifest.h"
#include "data/sieve.h"
#include "data/tokenizer.h"

/* The splits of a prepared folder. */
enum { SPLIT_TRAIN, SPLIT_VAL, SPLITS };
extern const char *const SPLIT_NAME[SPLITS];

typedef struct EncodePlan {
    const Tokenizer *tokenizer;
    Sieve *sieve;         /* a reading has begun */
    const char *folder;   /* where the shards are made */
    const char *about;    /* noted in every shard */
    double val_fraction;
    int64_t shard_tokens; /* a shard that has so many is complete */
} EncodePlan;

/* Is the document held out? Decided by the hash of its text: copies of a document stay together. */
bool encode_is_val(const Document *document, double val_fraction);

/* Encodes all documents, in parallel, and writes them in the order of the sieve; appends the
 * shards to *manifest, which the caller frees. The result does not depend on the threads. */
int encode_all(const EncodePlan *plan, Manifest *manifest, Err *e);

#endif
