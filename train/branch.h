/* train/branch.h - a new run that goes on from another run's checkpoint (train.from): a cooldown
 * from the trunk of a warmup-stable-decay run. It takes over weights, moments, all state, data
 * position and step, and is bit for bit the run that had been trained alone with its configuration.
 * Used by run.c. */
#ifndef ISOMOE_TRAIN_BRANCH_H
#define ISOMOE_TRAIN_BRANCH_H

#include "train/checkpoint.h"

/* Opens c->train.from, a checkpoint folder or a run folder (then its newest checkpoint), which is
 * only read. *s becomes the new run's state, with the other run's id and step in from_run and
 * from_step; folder (IO_PATH_MAX bytes) the checkpoint to load. -1 with the reason: another
 * configuration than resume.h allows; a checkpoint at which one of the two schedules has begun to
 * fall, so that the steps before would have had other rates. */
int branch_open(const RunConfig *c, TrainState *s, char *folder, Err *e);

#endif
