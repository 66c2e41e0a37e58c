/* train/idle.h - keys that may be given but do nothing in a run of this length or routing. `plan`
 * and `train` warn about them: another length would make them work, so they are no errors. */
#ifndef ISOMOE_TRAIN_IDLE_H
#define ISOMOE_TRAIN_IDLE_H

#include "train/run_config.h"

/* Calls say(message, user) for each such key; user may be NULL. */
void idle_keys(const RunConfig *c, void (*say)(const char *message, void *user), void *user);

#endif
