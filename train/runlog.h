/* train/runlog.h - the run record <run>/log.jsonl: one JSON object a line, one line a step, and
 * lines with a member "event". Numbers read back bit-exactly; a number that is not finite is null.
 *
 * A step's line: step (steps done, so the first is 1), loss, aux, z, entropy, cv, choices (experts
 * chosen a token, mean), lr, grad_norm, skipped (0, or why: docs/FORMATS.md), tokens, seconds, flops
 * (all three summed since the run began; model FLOPs), step_seconds, tokens_per_s, flops_per_s (of
 * this step), load_max, recycled, unplaced, overflow, and for at most 64 experts their shares of the
 * first choices, load; for experts of own widths active_width (of the experts that a token was
 * placed at: sum of widths, mean over tokens and layers). Events, each with step: start and resume
 * (what runs, where), length (steps that fit into train.minutes), eval (loss, targets), checkpoint
 * (folder), and how it ended: stopped (signal), diverged (reason), final (totals and val_loss).
 */
#ifndef ISOMOE_TRAIN_RUNLOG_H
#define ISOMOE_TRAIN_RUNLOG_H

#include <jansson.h>
#include <stdint.h>

#include "base/io.h"

typedef struct RunLog {
    char path[IO_PATH_MAX];
    int fd;            /* -1: closed; RunLog starts as {.fd = -1} */
    int64_t last_eval; /* step of the last eval line, -1: none; kept by runlog_write too */
} RunLog;

/* A new, empty record; an old one under this name is replaced. */
int runlog_create(RunLog *log, const char *folder, Err *e);

/* Goes on with the record of `folder` at `step`: later lines, the final one and a torn last line
 * are dropped by writing the file anew (atomically). No record: a new one, with a warning. */
int runlog_resume(RunLog *log, const char *folder, int64_t step, Err *e);

/* Appends one line by one write; takes the reference. NULL is out of memory. */
int runlog_write(RunLog *log, json_t *record, Err *e);

/* On disk when this returns. */
int runlog_sync(RunLog *log, Err *e);

void runlog_close(RunLog *log);

/* The last line of `folder`'s record with this event, as a new reference; NULL if there is none. */
json_t *runlog_last(const char *folder, const char *event);

#endif
