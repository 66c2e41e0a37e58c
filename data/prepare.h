/* data/prepare.h - text to a tokenizer and token shards (the command `isomoe prepare`). */
#ifndef ISOMOE_DATA_PREPARE_H
#define ISOMOE_DATA_PREPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "data/sieve.h"

typedef struct PrepareOptions {
    const char *const *inputs; /* .txt .jsonl .gz .zst, folders, "-" for stdin */
    int n_inputs;
    const char *out;           /* folder: tokenizer.model, train-00000.h5.., val-00000.h5.. */
    const char *tokenizer;     /* an existing model to use; NULL: train one */
    int vocab_size;            /* of a trained tokenizer */
    double val_fraction;       /* share of documents held out, by hash of the document */
    int64_t shard_tokens;      /* a new shard begins after so many */
    const char *text_key;      /* .jsonl: the member that holds the text; default "text" */
    bool skip_bad;             /* count bad documents and go on instead of failing */
    bool overwrite;
    bool dry_run;              /* run the filters and count; nothing is made, `out` is not used */
    FilterOptions filter;      /* all zero: none */
} PrepareOptions;

typedef struct PrepareResult {
    int64_t documents, skipped, bytes, train_tokens, val_tokens, val_bytes;
    int train_shards, val_shards;
    SieveResult filter; /* all zero without filters; else its documents = those above + removed */
} PrepareResult;

/* Filters look at the documents in input order, before anything else does: the tokenizer is trained
 * on, and the held-out share is taken of, what they keep.
 * Fails with file and position (line, byte); nothing already complete in `out` is lost: shards are
 * written under temporary names and renamed; a manifest (prepare.json) is renamed in last. */
int prepare_run(const PrepareOptions *options, PrepareResult *result, Err *e);

/* Checks a prepared folder from end to end: manifest, tokenizer, every shard's checksums and
 * tokens. *result receives its counts. */
int prepare_verify(const char *folder, PrepareResult *result, Err *e);

#endif
