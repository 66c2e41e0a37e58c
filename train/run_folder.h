/* train/run_folder.h - a run's folder and its lock: one process trains into a folder at a time.
 *
 * <run>/config.yaml   the resolved configuration
 * <run>/log.jsonl     the record (train/runlog.h)
 * <run>/checkpoints/  (train/checkpoint.h)
 * <run>/lock          held by flock while a process trains; its number is inside
 */
#ifndef ISOMOE_TRAIN_RUN_FOLDER_H
#define ISOMOE_TRAIN_RUN_FOLDER_H

#include <stdbool.h>

#include "base/err.h"

/* Makes the folder and takes the lock; *lock (a descriptor) ends with run_folder_unlock or with the
 * process, however it ends. fresh: a folder that holds anything is refused. */
int run_folder_lock(const char *folder, bool fresh, int *lock, Err *e);
void run_folder_unlock(int *lock);

#endif
