/* train/resume.h - what may differ between a checkpoint and the run that goes on from it. */
#ifndef ISOMOE_TRAIN_RESUME_H
#define ISOMOE_TRAIN_RESUME_H

#include <stdbool.h>

#include "train/run_config.h"

/* May this key differ? The list is in resume.c. */
bool resume_may_change(const char *key);

/* Refuses a configuration that differs from the checkpoint's in any other key: the message names
 * `folder`, every such key and both values. */
int resume_check(const RunConfig *saved, const RunConfig *now, const char *folder, Err *e);

/* The same for a run that branches from another one's checkpoint: the end of the schedule may
 * differ too. */
int resume_check_branch(const RunConfig *saved, const RunConfig *now, const char *folder, Err *e);

#endif
