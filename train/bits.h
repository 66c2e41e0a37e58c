/* train/bits.h - how well a trained model predicts documents, one by one: the filter of `isomoe
 * prepare` that keeps documents by bits a byte.
 *
 * bits a byte = sum over the document's tokens of -log2 p(token | BOS, the tokens before it) /
 * bytes of the document. EOS is not counted. The model sees windows of its training length T: token
 * i (from 0) is predicted from those of its window alone, which begins at input floor(i / T) T of
 * BOS, token 0, token 1, ... Routing is dropless: other documents make no difference.
 */
#ifndef ISOMOE_TRAIN_BITS_H
#define ISOMOE_TRAIN_BITS_H

#include "data/filter.h"

typedef struct Bits Bits;

/* A run or checkpoint folder; the tokenizer of `data` (a folder of prepared data; NULL: the run's),
 * which must be the one that it was trained with. NULL on error. */
Bits *bits_open(const char *checkpoint, const char *data, Err *e);
void bits_close(Bits **bits);

/* A FilterScore; the context is a Bits. */
int bits_score(void *bits, const Document *documents, int n, double *out, Err *e);

#endif
