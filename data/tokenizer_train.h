/* data/tokenizer_train.h - trains a SentencePiece BPE model on a sample of text. */
#ifndef ISOMOE_DATA_TOKENIZER_TRAIN_H
#define ISOMOE_DATA_TOKENIZER_TRAIN_H

#include <stddef.h>

#include "base/err.h"

enum {
    TOKENIZER_META = 260,     /* unknown, BOS, EOS, newline, 256 bytes */
    TOKENIZER_VOCAB_MIN = 272,
    TOKENIZER_VOCAB_MAX = 1 << 18
};

/* A piece of valid UTF-8; borrowed. */
typedef struct TrainText {
    const char *text;
    size_t size;
} TrainText;

/* Whether vocab_size is one that can be trained; sets the message if not. */
int tokenizer_check_vocab(int vocab_size, Err *e);

/* Trains on n texts and writes the model file atomically. Exactly vocab_size pieces, or an error
 * that names the largest size which the text allows. The result is a function of the texts and
 * vocab_size: not of threads, machine load or time. */
int tokenizer_train(const TrainText *texts, int n, int vocab_size, const char *path, Err *e);

#endif
