/* train/sweep_check.h - the held-out budget of a study: what its fit says of it, made without the
 * run there; the run at the best model; and how the two compare. */
#ifndef ISOMOE_TRAIN_SWEEP_CHECK_H
#define ISOMOE_TRAIN_SWEEP_CHECK_H

#include <jansson.h>

#include "scaling/forecast.h"
#include "train/sweep_run.h"

typedef struct SweepForecast { /* of one run */
    char id[17], name[CELL_NAME];
    double C, N, D;
    double loss, level;   /* nats a token; of the interval */
    Interval run;         /* that this one run's loss should fall into */
    int64_t runs;         /* that were fitted */
    uint64_t data_hash;   /* of them */
    Forecast optimum;     /* of the budget, by the cost law */
    bool has_optimum;
    bool identified;      /* by the fit's certificate */
    char warnings[256];   /* kinds of the fit's, each once: "edge, disagree" */
} SweepForecast;

/* Fits the study of r->s->out (`isomoe fit` without options; of a study with variants the first)
 * and puts the best model's cell for the held-out budget into *cell. Err: no ledger, what the fit
 * says, no forecast. */
int sweep_forecast(const SweepRun *r, SweepForecast *out, CellList *cell, Err *e);

/* Key and text of the ledger's note in which a forecast stands. */
enum { SWEEP_FORECAST_KEY = 40 };
void sweep_forecast_key(char out[SWEEP_FORECAST_KEY], const char *id);
char *sweep_forecast_text(const SweepForecast *f); /* the caller's to free; NULL: no memory */

/* Forecasts, runs (r->adapt false, everything else filled) and prints both beside each other. A
 * forecast that stands in the ledger beside the finished run is kept. Returns an ExitCode. */
int sweep_check(SweepRun *r, Err *e);

#endif
