/* data/corpus.h - the shards of one split, read as one long row of tokens.
 *
 * Every shard begins with a document, so documents never reach from one shard into the next, but
 * windows may. At most CORPUS_OPEN_MAX files are open at a time.
 */
#ifndef ISOMOE_DATA_CORPUS_H
#define ISOMOE_DATA_CORPUS_H

#include <stdint.h>

#include "base/err.h"
#include "data/shard.h"

enum { CORPUS_OPEN_MAX = 64 };

/* A corpus of at most so many tokens is read through and verified when it is opened; a larger one
 * only by prepare_verify. */
static const int64_t CORPUS_VERIFY_MAX = 1 << 24;

typedef struct Corpus Corpus;

/* path: a folder with prepare.json, of which the shards of `split` are taken, or one shard file of
 * any split. All shards must come from one tokenizer. NULL on error. */
Corpus *corpus_open(const char *path, const char *split, Err *e);
void corpus_close(Corpus **corpus);

/* Tokenizer hash, vocabulary, BOS and EOS; n_tokens, n_docs and n_bytes are the sums. */
const ShardInfo *corpus_info(const Corpus *corpus);

uint64_t corpus_hash(const Corpus *corpus); /* of the shards' checksums, in order */

/* Reads tokens first .. first+T into tokens (T+1), and for each of the first T the index in the
 * window of its document's first token, 0 if that lies before the window, into doc_start (T). One
 * thread at a time. */
int corpus_window(Corpus *corpus, int64_t first, int64_t T, int32_t *tokens, int32_t *doc_start,
                  Err *e);

#endif
