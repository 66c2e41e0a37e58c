/* train/study.h - a sweep as a report: what is gathered from its ledger, its runs' records and the
 * fit of `isomoe fit` (study.c, study_beside.c), the page (study_html.c, study_tables.c), the
 * charts (study_charts.c) and the same as JSON (study_json.c). Files: docs/FORMATS.md. */
#ifndef ISOMOE_TRAIN_STUDY_H
#define ISOMOE_TRAIN_STUDY_H

#include "scaling/ledger.h"
#include "train/fit_answer.h"
#include "train/svg_plot.h"

enum { STUDY_BUDGETS = 64, STUDY_HELD = 16, STUDY_WHY = 512 };

typedef struct StudyBudget { /* the best run for a budget, as the law has it */
    double C;
    bool measured;     /* runs of the study were made at it */
    bool ok;           /* forecast is filled */
    Forecast forecast;
    double hours;      /* at the pace of the runs of the largest budget; NaN: not known */
} StudyBudget;

typedef struct StudyHeld { /* a run that was not fitted, beside what the fit says of it */
    int cell;
    bool ok;
    Forecast forecast; /* of a run with its N and D */
} StudyHeld;

typedef struct StudyGroup { /* the cells of one variant; of a study without variants all */
    char name[CELL_NAME];   /* of the variant; "": none */
    int points, done;       /* points of it, without what was left out; of them done */
    FitAnswer *answer;      /* NULL: nothing could be fitted. A law, or curves alone */
    char why[STUDY_WHY];    /* why there is no law, or nothing */
    StudyBudget budget[STUDY_BUDGETS]; /* C rising, beyond the largest run at the end */
    int budgets;
    StudyHeld held[STUDY_HELD];
    int helds;
} StudyGroup;

/* Runs that differ in their rate or batch alone (and in their seed): cells order[first ..]. */
typedef struct StudyRates {
    int group, first, count;
    double budget, N;
    int rates, batches;     /* how many different ones */
} StudyRates;

/* Runs of a variant at one budget and size, over seeds, and how they differ from the first
 * variant's there. */
typedef struct StudyCompare {
    int group, base;        /* groups; base: what it is compared with, its own number: with none */
    double budget, N;
    int runs;
    double mean, sd;        /* loss, nats a token; sd over seeds, NaN: one run */
    bool paired;            /* by seed */
    double difference;      /* mean less the base's */
    Interval interval;      /* of the difference, Student's t; NaN: one run of either */
} StudyCompare;

typedef struct Study {
    char folder[512], name[512]; /* name: of the study, or the folder's last
                                    part where the ledger has none */
    LedgerCell *cell;       /* (cells), owned; in the ledger's order */
    json_t **before;        /* (cells), owned: StudyHeld's */
    CriticalBatch critical; /* of C_min */
    int *group_of;          /* (cells), owned */
    int cells, counts[CELL_STATES], left_out;
    double spent, alone;    /* FLOPs of done cells; of done points and checks, each trained alone */
    double seconds;         /* of done cells, added up; NaN: not known of any */
    double pace;            /* FLOP/s of a run of the largest budget; NaN: not known */
    StudyGroup *group;      /* (groups), owned */
    int groups;
    int *order;             /* (cells), owned: what StudyRates refer to */
    StudyRates *rates;      /* (n_rates), owned */
    int n_rates;
    StudyCompare *compare;  /* (compares), owned */
    int compares;
    json_t *origin;         /* {"code": {"v1.0": 12, ..}, ..}: what runs' records say, and how many
                               of them */
    json_t *answer;         /* owned: what the sweep's end kept about just these points: the model
                               to train, brackets (sweep_answer.h); NULL: nothing */
    double level;           /* of all intervals */
    uint64_t hash;          /* of the numbers of all done points, in canonical order */
} Study;

/* request: settings of the fits; its source is the sweep's folder. Err: no ledger there, what the
 * ledger says, no memory; fits that fail are part of the report. study_clear ends it, always. */
int study_read(Study *s, const FitRequest *request, Err *e);
void study_clear(Study *s);

/* The page; the same as JSON (new reference; NULL: no memory). */
void study_html(FILE *out, const Study *s);
json_t *study_json(const Study *s);

/* report.html, report.json and plots/ into the folder `to`, and a line about them to stdout:
 * cmd_report.c. */
int study_write(const Study *s, const char *to, Err *e);

/* ---- Charts -----------------------------------------------------------------------------------*/

enum { STUDY_CHARTS = 8 };

/* Writes chart number i (0 .. STUDY_CHARTS-1) of a group as an <svg> element. 0, 1: it has nothing
 * to show, -1: no memory. */
int study_chart(FILE *out, const Study *s, int group, int i);

/* "isoflop", "n-opt", .. */
const char *study_chart_name(int i);

/* The table of colours of rates[i]; 1: its batch or its rate never changes. */
int study_rates_grid(FILE *out, const Study *s, int i);

/* Writes FOLDER/NAME.svg and .png of all charts, and removes those of an earlier report that have
 * nothing to show any more. *made: charts; *images: of them PNG. Without rsvg-convert one line says
 * so. */
int study_files(const Study *s, const char *folder, int *made, int *images, Err *e);

/* ---- Private to study*.c ----------------------------------------------------------------------*/

const char *study_kind(const Cell *c);          /* "trunk", "point", "check" */
double study_rate(const LedgerCell *c);         /* peak rate of the try in force */
double study_batch(const LedgerCell *c);        /* tokens a step */
bool study_same(double a, double b);            /* within 1 % */
bool study_is_held_out(const Study *s, int cell); /* a check at a budget without points */

/* Curves of a group and whether there are any: those of its answer, by a method. */
const Profile *study_profile(const StudyGroup *g, AnswerMethod method);

/* Fills order, rates, compare, origin: study_beside.c. */
int study_beside(Study *s, Err *e);

/* Tables of the page: study_tables.c. */
void study_ledger_table(FILE *out, const Study *s);
void study_fit_tables(FILE *out, const Study *s, int group);
void study_beside_tables(FILE *out, const Study *s);
void study_train_section(FILE *out, const Study *s); /* the model to train */

#endif
