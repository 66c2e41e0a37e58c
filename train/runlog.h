/* train/runlog.h - the run record <run>/log.jsonl: one JSON object a line, one line a step, and
 * lines with a member "event". Numbers read back bit-exactly; a number that is not finite is null.
 *
 * A line without an event is a step: loss, rates, speed, routing (members: docs/FORMATS.md).
 * Events, each with step: start and resume (what runs, where), length (steps that fit into
 * train.minutes), eval (loss, targets), checkpoint (folder), and how it ended: stopped (signal),
 * diverged (reason), final (totals and val_loss).
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
