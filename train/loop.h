/* train/loop.h - the training loop: steps, held-out losses, checkpoints, and how it ends.
 *
 * Diverged means: 20 steps in a row were skipped because the gradient's norm was not finite, or the
 * loss was above 3 ln V (three times that of guessing evenly) for 50 steps in a row. A step of such
 * a row makes no regular checkpoint, and a diverged run makes none at all, so that the newest
 * checkpoint stays a good one.
 *
 * train.minutes: after 2 steps of warming, 8 steps (or those of 5 seconds, at least 2) are timed,
 * and the run's length becomes what fits (train/length.h); it is written into the record and into
 * every later checkpoint. The held-out loss is taken to cost a third of training on as many tokens.
 */
#ifndef ISOMOE_TRAIN_LOOP_H
#define ISOMOE_TRAIN_LOOP_H

#include "train/run.h"

enum { LOOP_SKIPPED_MAX = 20, LOOP_HIGH_MAX = 50 };

/* Trains to the end, a signal, or divergence: EXIT_DONE, EXIT_STOPPED, EXIT_DIVERGED (e says why)
 * or EXIT_FAILED. *last (may be NULL on failure) is the record that closed the run: a new
 * reference. */
int loop_train(Run *r, json_t **last, Err *e);

#endif
