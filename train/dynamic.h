/* train/dynamic.h - weights of the sources that follow their held-out losses (data/reweight.h):
 * every data.dynamic_every steps each source is measured on its own held-out text, and a new
 * segment of the data begins with the new weights. */
#ifndef ISOMOE_TRAIN_DYNAMIC_H
#define ISOMOE_TRAIN_DYNAMIC_H

#include "train/run.h"

/* Opens each source's held-out text, where data.dynamic asks for it. */
int dynamic_open(Run *r, Err *e);
void dynamic_close(Run *r);

/* `hash` of the held-out text, with what dynamic_open opened counted in. */
uint64_t dynamic_hash(const Run *r, uint64_t hash);

/* Held-out text in sequences of T from here on. */
int dynamic_begin(Run *r, int64_t T, Err *e);

/* Measures and begins the new segment if the state's step asks for it and it has not been done: a
 * signal ends it without a change, and it is made up for after the resume. */
int dynamic_update(Run *r, Err *e);

#endif
