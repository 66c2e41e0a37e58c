/* data/reservoir.h - an even, deterministic sample of a stream of text whose length is not known.
 *
 * The text is cut into chunks of at most SAMPLE_CHUNK bytes; every chunk gets a pseudo-random rank
 * from its number, and the chunks of lowest rank that fit are kept. Which they are depends on the
 * order and size of the documents alone.
 */
#ifndef ISOMOE_DATA_RESERVOIR_H
#define ISOMOE_DATA_RESERVOIR_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "data/tokenizer_train.h"

enum { SAMPLE_CHUNK = 1 << 16 };

typedef struct Sample Sample;

Sample *sample_create(int64_t max_bytes); /* NULL when out of memory */
void sample_destroy(Sample **sample);

/* Offers the next document (valid UTF-8; copied where needed). */
int sample_add(Sample *sample, const char *text, size_t size, Err *e);

/* The chosen chunks in the order they came, at most max_bytes together. The array is fresh (the
 * caller frees it), its texts are the sample's. */
int sample_texts(Sample *sample, TrainText **texts, int *n, Err *e);

#endif
