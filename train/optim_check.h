/* train/optim_check.h - combinations of the optim section that cannot be, and keys that would do
 * nothing. Used by run_config.c. */
#ifndef ISOMOE_TRAIN_OPTIM_CHECK_H
#define ISOMOE_TRAIN_OPTIM_CHECK_H

#include "train/run_config.h"

/* lines, path: as conf_read left them, for the messages. Called before train.micro_batch 0 is
 * resolved. */
int optim_check(const RunConfig *c, const int *lines, const char *path, Err *e);

/* B_noise is measured in the run. */
bool optim_measures_noise(const RunConfig *c);

#endif
