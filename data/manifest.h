/* data/manifest.h - prepare.json: which files a folder of prepared data consists of.
 *
 * It is renamed into the folder last. A folder without it is not complete, and is refused.
 */
#ifndef ISOMOE_DATA_MANIFEST_H
#define ISOMOE_DATA_MANIFEST_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"
#include "data/shard.h"

enum { MANIFEST_FORMAT = 1, MANIFEST_NAME = 64, MANIFEST_SHARDS_MAX = 1 << 20 };

#define MANIFEST_FILE "prepare.json"
#define MANIFEST_TOKENIZER "tokenizer.model"

typedef struct ManifestShard {
    char file[MANIFEST_NAME]; /* in the same folder: "train-00000.h5" */
    char split[SHARD_SPLIT];
    int64_t tokens, documents, bytes;
    uint64_t tokens_checksum, docs_checksum;
} ManifestShard;

typedef struct Manifest {
    uint64_t tokenizer_hash;
    int64_t vocab_size, bos, eos;
    int64_t skipped;      /* bad documents that were left out */
    ManifestShard *shard; /* (count) owned; in order of their names */
    int count;
    json_t *filters;      /* owned; noted for people, not read back; NULL: no filters */
} Manifest;

/* "<split>-<number, five digits or more>.h5" */
void manifest_shard_name(char name[MANIFEST_NAME], const char *split, int number);

/* Appends a row for a committed shard. */
int manifest_add(Manifest *manifest, const char *file, const ShardInfo *info, Err *e);

/* Writes folder/prepare.json atomically; inputs (n) are noted for people. */
int manifest_write(const Manifest *manifest, const char *folder, const char *const *inputs, int n,
                   Err *e);

/* Reads and checks it. The caller frees it with manifest_free. */
int manifest_read(Manifest *manifest, const char *folder, Err *e);
void manifest_free(Manifest *manifest);

/* Whether an open shard is the one that the row describes. */
int manifest_check(const ManifestShard *row, const Shard *shard, Err *e);

#endif
