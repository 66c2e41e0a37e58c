/* data/shard.h - one HDF5 file of tokens, written once and then only read.
 *
 * Behind the seal (seal.h): dataset "tokens" (n_tokens) uint16 or uint32, contiguous; "doc_offset"
 * (n_docs + 1) int64, the token index where each document begins, and n_tokens; "doc_bytes"
 * (n_docs) int64, UTF-8 bytes of each document's text; attributes of the root group: see ShardInfo.
 * All little-endian. A document is BOS, its tokens, EOS. docs/FORMATS.md says it byte by byte.
 */
#ifndef ISOMOE_DATA_SHARD_H
#define ISOMOE_DATA_SHARD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum { SHARD_FORMAT = 1, SHARD_SPLIT = 16, SHARD_SOURCE = 256 };

typedef struct ShardInfo {
    uint64_t tokenizer_hash;
    int64_t vocab_size; /* tokens are below it; <= 65536: two bytes each, else four */
    int64_t bos, eos;
    char split[SHARD_SPLIT];   /* "train" | "val" */
    char source[SHARD_SOURCE]; /* where the text came from, for people */
    /* Known when the shard is complete: */
    int64_t n_tokens, n_docs;
    int64_t n_bytes;                        /* of the documents' text */
    uint64_t tokens_checksum, docs_checksum; /* XXH3-64 of the datasets' bytes */
} ShardInfo;

/* ---- writing ---- */

typedef struct ShardWriter ShardWriter;

/* Begins a shard that will be at `path`; the first six fields of `info` describe it. Until
 * shard_commit only temporary files beside it exist. NULL on error. */
ShardWriter *shard_create(const char *path, const ShardInfo *info, Err *e);

/* Adds a document: `count` ids without BOS and EOS, of `bytes` bytes of text. */
int shard_add(ShardWriter *writer, const int32_t *ids, int64_t count, int64_t bytes, Err *e);

int64_t shard_writer_tokens(const ShardWriter *writer);

/* Writes, syncs and renames the file into place; *info (may be NULL) receives what it says. Frees
 * the writer in any case. A shard without documents is an error. */
int shard_commit(ShardWriter **writer, ShardInfo *info, Err *e);

/* Drops the shard and its temporary files. */
void shard_abandon(ShardWriter **writer);

/* ---- reading ---- */

typedef struct Shard Shard;

/* Opens a shard and checks everything but the tokens themselves. NULL on error. */
Shard *shard_open(const char *path, Err *e);
void shard_close(Shard **shard);

const ShardInfo *shard_info(const Shard *shard);
const char *shard_path(const Shard *shard);
const int64_t *shard_doc_offset(const Shard *shard); /* (n_docs + 1) */

/* Reads tokens first .. first+count-1 into out (count) by pread: no HDF5, but one thread at a time
 * for each shard. A token outside the vocabulary is an error naming shard and position. */
int shard_read(Shard *shard, int64_t first, int64_t count, int32_t *out, Err *e);

/* A shard holds a file descriptor from its first read on; this gives it back until the next. */
void shard_rest(Shard *shard);
bool shard_resting(const Shard *shard);

/* Reads all tokens and checks them against checksum, vocabulary and document table. */
int shard_verify(Shard *shard, Err *e);

#endif
