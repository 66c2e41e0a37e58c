/* train/run_folder.h - a run's folder and its lock: one process trains into a folder at a time.
 *
 * <run>/config.yaml   the resolved configuration
 * <run>/log.jsonl     the record (train/runlog.h)
 * <run>/checkpoints/  (train/checkpoint.h)
 * <run>/lock          held by flock while a process trains; its number is inside, and its time is
 *                     that of the last sign of progress
 */
#ifndef ISOMOE_TRAIN_RUN_FOLDER_H
#define ISOMOE_TRAIN_RUN_FOLDER_H

#include <stdbool.h>

#include "base/err.h"

/* Makes the folder and takes the lock; *lock (a descriptor) ends with run_folder_unlock or with the
 * process, however it ends. fresh: a folder that holds anything is refused. */
int run_folder_lock(const char *folder, bool fresh, int *lock, Err *e);
void run_folder_unlock(int *lock);

/* The time of the lock's file becomes now: something was done (a micro-batch, a batch of held-out
 * text, a part of the start). Who watches the run knows from it that it lives. */
void run_folder_sign(int lock);

#endif
