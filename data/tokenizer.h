/* data/tokenizer.h - text to tokens and back, without loss: decode(encode(x)) == x for all UTF-8.
 *
 * SentencePiece (BPE or unigram) with identity normalisation, no whitespace collapsing, no dummy
 * prefix, digits split, byte fallback, newline as a symbol. Ids: 0 unknown (never produced), 1 BOS,
 * 2 EOS, 3.. newline, bytes, pieces. SentencePiece writes a space as U+2581; a real U+2581 in the
 * text is therefore encoded as its three bytes, and decoding walks our own table of pieces.
 */
#ifndef ISOMOE_DATA_TOKENIZER_H
#define ISOMOE_DATA_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef struct Tokenizer Tokenizer;

/* Opens a SentencePiece model file (hostile until checked). NULL on error. */
Tokenizer *tokenizer_open(const char *path, Err *e);
void tokenizer_close(Tokenizer **tokenizer);

int tokenizer_vocab(const Tokenizer *tokenizer);
int tokenizer_bos(const Tokenizer *tokenizer);
int tokenizer_eos(const Tokenizer *tokenizer);
uint64_t tokenizer_hash(const Tokenizer *tokenizer); /* of the model file's bytes */

/* Encodes size bytes of valid UTF-8 into a fresh array (caller frees *ids); no BOS, no EOS.
 * Not UTF-8: an error naming the byte offset. */
int tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t size, int32_t **ids,
                     int64_t *count, Err *e);

/* The same with a cache of words, which makes it many times faster and changes no result. A cache
 * belongs to one thread at a time and to one tokenizer; NULL: no cache. */
typedef struct TokenizerCache TokenizerCache;
TokenizerCache *tokenizer_cache_create(void); /* NULL when out of memory; about 5 MB */
void tokenizer_cache_destroy(TokenizerCache **cache);
int tokenizer_encode_cached(const Tokenizer *tokenizer, TokenizerCache *cache, const char *text,
                            size_t size, int32_t **ids, int64_t *count, Err *e);

/* Bytes of one token (not zero-terminated; may be a part of a UTF-8 character). Control pieces
 * (BOS, EOS) have none; the unknown piece, which encoding never gives, is U+FFFD. NULL for an id
 * outside the vocabulary. Valid while the tokenizer is open. */
const char *tokenizer_piece(const Tokenizer *tokenizer, int32_t id, int *size);

/* Decodes into a fresh zero-terminated buffer (caller frees *text). An id outside the vocabulary is
 * an error naming id and position. */
int tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, int64_t count, char **text,
                     size_t *size, Err *e);

#endif
