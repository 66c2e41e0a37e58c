/* train/checkpoint_folder.h - names in <run>/checkpoints: step-000000123, and temporary ones.
 * Used by checkpoint.c and checkpoint_read.c. */
#ifndef ISOMOE_TRAIN_CHECKPOINT_FOLDER_H
#define ISOMOE_TRAIN_CHECKPOINT_FOLDER_H

#include <stdint.h>

#include "base/io.h"

enum { CHECKPOINT_NAME = 64 };

/* "step-000000123"; returns out. */
const char *checkpoint_name(int64_t step, char out[CHECKPOINT_NAME]);

/* The step of such a name; -1: not one. */
int64_t checkpoint_name_step(const char *name);

/* Is it the temporary name of a checkpoint in the making (step-000000123.tmp.4711)? */
int checkpoint_name_temporary(const char *name);

/* Steps with a folder that holds a manifest, newest first; a folder without one is passed over with
 * a warning if warn. The caller frees *steps. A missing folder is an empty list. */
int checkpoint_list(const char *run_folder, int warn, int64_t **steps, int *count, Err *e);

/* <run>/checkpoints/<name of step> */
int checkpoint_path(char out[IO_PATH_MAX], const char *run_folder, int64_t step, Err *e);

#endif
