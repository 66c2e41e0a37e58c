/* train/run_stage.h - which stage a run is in: its part of the data, the model's shape and
 * rotation, and what records say about the sources. */
#ifndef ISOMOE_TRAIN_RUN_STAGE_H
#define ISOMOE_TRAIN_RUN_STAGE_H

#include "train/run.h"

/* Sees that every stage finds a window in each of its sources, then puts the data where the state
 * says, or at the beginning. Fills r->stage, r->eval_sequences and the state's segment. */
int run_stage_open(Run *r, Err *e);

/* Goes over to stage i at the state's place in the data: data, shape and rotation of the model. */
int run_stage_enter(Run *r, int i, Err *e);

/* The record's line for a stage that begins: {"event": "stage", ...}. */
int run_stage_log(Run *r, Err *e);

/* {"web": {"weight": share in force, "epochs": so far}, ...}; a new reference. */
json_t *run_stage_sources(const Run *r);

#endif
