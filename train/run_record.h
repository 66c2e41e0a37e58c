/* train/run_record.h - a run's log.jsonl (written by train/runlog.h) read back into arrays, for the
 * report. What cannot be read is counted, not fatal: a run that died leaves a torn last line. */
#ifndef ISOMOE_TRAIN_RUN_RECORD_H
#define ISOMOE_TRAIN_RUN_RECORD_H

#include <jansson.h>
#include <stdint.h>

#include "base/err.h"

/* Members of a step's line, by their names in the file. */
#define STEP_FIELDS(X)                                                                             \
    X(step) X(loss) X(aux) X(z) X(lr) X(grad_norm) X(skipped) X(tokens) X(seconds) X(flops)        \
    X(tokens_per_s) X(flops_per_s) X(load_max) X(recycled) X(unplaced) X(overflow)

typedef enum StepField {
#define STEP_ENUM(name) STEP_##name,
    STEP_FIELDS(STEP_ENUM)
#undef STEP_ENUM
    STEP_FIELD_COUNT
} StepField;

enum { RECORD_EXPERTS = 64 };

typedef struct RunRecord {
    int64_t count;                    /* step lines, steps rising */
    double *field[STEP_FIELD_COUNT];  /* (count); NaN: absent or null */
    int experts;                      /* of `load`; 0: not in the record */
    float *load;                      /* (count, experts): share of the choices */
    int64_t n_evals;
    double *eval_step, *eval_loss;    /* (n_evals) */
    json_t *start, *final, *last;     /* events: the newest start, the final one, the newest that
                                         ended the run (final, stopped, diverged); or NULL */
    int64_t resumes, bad_lines;       /* bad: no JSON object, or no step in it */
    int64_t room, eval_room;          /* of the arrays */
} RunRecord;

/* *r is filled from nothing; run_record_clear ends it, after a failure too. */
int run_record_read(RunRecord *r, const char *path, Err *e);
void run_record_clear(RunRecord *r);

/* Last value of a field, NaN if there is none. */
double run_record_last(const RunRecord *r, StepField field);

#endif
