/* train/report.h - a run as one HTML page: what is gathered (report.c), the page (report_html.c)
 * and its charts (report_charts.c). */
#ifndef ISOMOE_TRAIN_REPORT_H
#define ISOMOE_TRAIN_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "model/count.h"
#include "train/run_config.h"
#include "train/run_record.h"

typedef struct ReportCheckpoint {
    int64_t step, bytes;
} ReportCheckpoint;

typedef struct Report {
    const char *folder;
    RunRecord record;
    json_t *eval;       /* <run>/eval.json, or NULL */
    char *sample;       /* <run>/sample.txt, or NULL */
    size_t sample_size;
    char *config_text;  /* <run>/config.yaml, or NULL */
    size_t config_size;
    bool has_config;    /* it could be read: config and params are filled */
    RunConfig config;
    ParamCount params;
    ReportCheckpoint *checkpoint; /* newest first */
    int n_checkpoints;
    double peak;        /* matrix peak measured at the start, FLOP/s; NaN: not in the record */
} Report;

/* Needs <folder>/log.jsonl; everything else may be missing. report_clear ends it, always. */
int report_read(Report *r, const char *folder, Err *e);
void report_clear(Report *r);

/* The whole page. */
void report_html(FILE *out, const Report *r);

/* The figures, inside of the page. */
void report_charts(FILE *out, const Report *r);

/* Tables and figures of eval.json: domains, tasks, routing; nothing where it has none. */
void report_eval(FILE *out, const Report *r);

/* A member of an event or of eval.json: its number, or NaN; its text, or NULL. */
double report_number(const json_t *object, const char *key);
const char *report_string(const json_t *object, const char *key);

#endif
