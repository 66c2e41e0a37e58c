/* train/heldout.h - how well a model predicts held-out text: nats a token, bits a byte.
 *
 * loss = sum of the negative log-likelihoods of all counted targets / their number; bits per byte =
 * that sum / ln 2 / bytes of text that those targets stand for. EOS and BOS stand for no bytes, but
 * their likelihoods count: a model must also know where a document ends.
 */
#ifndef ISOMOE_TRAIN_HELDOUT_H
#define ISOMOE_TRAIN_HELDOUT_H

#include <stdio.h>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "model/model.h"

typedef struct HeldOut {
    int64_t sequences, targets, bytes;
    double nll; /* nats, sum over the targets */
    double loss, perplexity, bits_per_byte;
} HeldOut;

typedef struct SequenceSum { /* of one window */
    double nll;
    int64_t targets, bytes;
} SequenceSum;

typedef struct HeldOutOptions {
    int64_t sequences;    /* the first so many of the loader (see loader_spread) */
    bool use_documents;   /* the model is told where documents begin */
    FILE *text;           /* receives the bytes of the counted targets in order; or NULL */
    SequenceSum *each;    /* (sequences) written; or NULL */
    int sign;             /* run_folder_sign's descriptor, signed for each batch; 0: none */
} HeldOutOptions;

/* Dropless, no gradients. Without a tokenizer (NULL) there are no bytes. A caught stop signal ends
 * it early: out->sequences tells how many were measured. */
int heldout_measure(HeldOut *out, Model *m, Loader *loader, const Tokenizer *tokenizer,
                    const HeldOutOptions *options, Err *e);

/* Fills loss, perplexity and bits_per_byte from the sums. */
void heldout_finish(HeldOut *h);

/* Bytes that `xz -9` makes of the file's content (read from its start). */
int xz_size(FILE *text, int64_t *bytes, Err *e);

#endif
