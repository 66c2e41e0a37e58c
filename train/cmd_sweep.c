/* train/cmd_sweep.c - `isomoe sweep`: plans a study and runs it; `isomoe sweep status`, `retry` and
 * `cancel` for one that runs or has ended. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#include "train/command.h"
#include "train/json_out.h"
#include "train/sweep_answer.h"
#include "train/sweep_check.h"
#include "train/sweep_print.h"

enum { OPT_DRY_RUN, OPT_JSON, OPT_MEASURE, OPT_JOBS, OPT_LAUNCH, OPT_FORCE, OPT_HELD_OUT,
       OPT_NO_MEASURE, OPTIONS };
enum { SWEEP_JOBS = 4096 };

/* What is asked for; masks. */
enum { DO_RUN = 1, DO_PLAN = 2, DO_STATUS = 4, DO_CHANGE = 8 };

/* N of --held-out; 0: the fit's, or not given; NaN: no number above 0. */
static double held_out_size(const Arguments *a)
{
    const char *text = a->text[OPT_HELD_OUT];
    char *end;
    if (!text || !strcmp(text, "fit")) return 0;
    double N = strtod(text, &end);
    bool number = *text && strspn(text, "+.0123456789eE") == strlen(text) && !*end;
    return number && N > 0 && isfinite(N) ? N : NAN;
}

static bool held_out_by_fit(const Arguments *a)
{
    return a->text[OPT_HELD_OUT] && !strcmp(a->text[OPT_HELD_OUT], "fit");
}

/* An option without effect is refused, and so is a value that means nothing. */
static int check_options(const Arguments *a, int what, Err *e)
{
    static const struct {
        int in;
        const char *where;
    } rows[OPTIONS] = {
        [OPT_DRY_RUN] = {DO_PLAN, "a study"},
        [OPT_JSON] = {DO_PLAN | DO_STATUS, "--dry-run and status"},
        [OPT_MEASURE] = {DO_PLAN, "--dry-run"},
        [OPT_JOBS] = {DO_RUN | DO_PLAN, "a study"},
        [OPT_LAUNCH] = {DO_RUN | DO_PLAN, "a study"},
        [OPT_FORCE] = {DO_RUN | DO_PLAN, "a study"},
        [OPT_HELD_OUT] = {DO_RUN | DO_PLAN, "a study"},
        [OPT_NO_MEASURE] = {DO_RUN, "a study that is run"},
    };
    const char *launch = a->text[OPT_LAUNCH];
    for (int i = 0; i < OPTIONS; i++) {
        if ((!a->text[i] && !a->number[i]) || rows[i].in & what) continue;
        return err_set(e, "sweep: %s has an effect only with %s", command_sweep.option[i].name,
                       rows[i].where);
    }
    if (a->text[OPT_JOBS] && (a->number[OPT_JOBS] < 1 || a->number[OPT_JOBS] > SWEEP_JOBS))
        return err_set(e, "sweep: --jobs %lld is no number from 1 to %d", a->number[OPT_JOBS],
                       SWEEP_JOBS);
    if (a->text[OPT_HELD_OUT] && !(held_out_size(a) >= 0))
        return err_set(e, "sweep: --held-out %s is neither fit nor a number of parameters above 0",
                       a->text[OPT_HELD_OUT]);
    if (!launch || launch_mode_find(launch)) return 0;
    err_set(e, "sweep: --launch %s is unknown", launch);
    return err_hint(e, "known are local, mpi, srun, sbatch");
}

static int print_plan(const SweepConfig *s, const CellList *l, SweepHeldOut held_out, bool json,
                      Err *e)
{
    if (json) return json_out_print(sweep_json(s, l, held_out), e);
    sweep_print(s, l, held_out, stdout);
    return stdout_finish(e);
}

/* The check of a dry run: at the N of the option, by the fit of what is done, else the prior's. */
static int plan_held_out(const SweepRun *r, const Arguments *a, CellList *out, Err *e)
{
    const SweepConfig *s = r->s;
    SweepForecast ignored;
    if (!s->held_out && !a->text[OPT_HELD_OUT]) return 0;
    if (held_out_by_fit(a)) return sweep_forecast(r, &ignored, out, e);
    return sweep_held_out(s, r->inspector, held_out_size(a), out, e);
}

static int dry_run(const SweepRun *r, CellList *cells, const Arguments *a, Err *e)
{
    const SweepConfig *s = r->s;
    CellList held_out = {0};
    char program[IO_PATH_MAX];
    int code = EXIT_FAILED;
    bool wrong = plan_held_out(r, a, &held_out, e);
    if (!wrong && a->number[OPT_MEASURE])
        wrong = sweep_program(program, e) || sweep_measure(s, program, cells, e);
    else if (!wrong)
        wrong = sweep_times_kept(s, cells, e);
    if (!wrong) sweep_warn(s, cells);
    if (!wrong)
        code = print_plan(s, cells,
                          (SweepHeldOut){held_out.count ? held_out.cell : NULL,
                                         held_out_by_fit(a) ? NAN : held_out_size(a)},
                          a->number[OPT_JSON] != 0, e);
    cell_list_clear(&held_out);
    return code;
}

/* The study, and behind it the check that it asks for. */
static int run_study(SweepRun *r, const CellList *cells, Err *e)
{
    int code = sweep_run(r, cells, e);
    if (r->s->check_by != CHECK_FIT || !r->adapt) return code;
    if (code != EXIT_DONE) {
        if (code == EXIT_FAILED)
            log_info("the held-out budget is not checked: the study is not whole");
        return code;
    }
    r->adapt = false;
    return sweep_check(r, e);
}

/* With --held-out the check behind the fit alone, else the study; or a print of either. */
static int plan_and_run(SweepRun *r, const Arguments *a, Err *e)
{
    bool dry = a->number[OPT_DRY_RUN], check = a->text[OPT_HELD_OUT] && !dry;
    CellList cells = {0};
    int code = EXIT_FAILED;
    r->adapt = !check;
    if (check && held_out_by_fit(a)) return sweep_answer(r, sweep_check(r, e), e);
    int rc = check ? sweep_held_out(r->s, r->inspector, held_out_size(a), &cells, e)
                   : sweep_cells_of(r->s, r->inspector, r->record->have, r->record->n, &cells, e);
    if (!rc && check) cell_be_recorded(&cells.cell[0], r->record->have, r->record->n);
    if (!rc) code = dry ? dry_run(r, &cells, a, e) : run_study(r, &cells, e);
    if (!rc && !dry) code = sweep_answer(r, code, e);
    cell_list_clear(&cells);
    return code;
}

/* `status`, `retry`, `cancel`: -1 where the first word is none of them. */
static int ask(const Arguments *a, Err *e)
{
    static const char *const words[] = {"status", "retry", "cancel"};
    int word = 0;
    while (word < 3 && strcmp(a->free[0], words[word])) word++;
    if (word == 3) return -1;
    if (a->n_free < 2 || a->n_free > 3 || (word == 0 && a->n_free > 2)) {
        err_set(e, "sweep %s: needs FOLDER%s", words[word], word ? " [CELL]" : " and nothing else");
        return EXIT_MISUSE;
    }
    if (check_options(a, word ? DO_CHANGE : DO_STATUS, e)) return EXIT_MISUSE;
    const char *folder = a->free[1], *which = a->n_free > 2 ? a->free[2] : NULL;
    if (word == 0) return sweep_status(folder, a->number[OPT_JSON] != 0, e);
    return word == 1 ? sweep_retry(folder, which, e) : sweep_cancel(folder, which, e);
}

typedef struct Study { /* what a call works with */
    SweepConfig s;
    SweepSource source;
    SweepRecord record;
} Study;

static int run_sweep(Study *y, const Arguments *a, Err *e)
{
    SweepConfig *s = &y->s;
    Err ignored = {0};
    const char *launch = a->text[OPT_LAUNCH] ? a->text[OPT_LAUNCH] : "local";
    if (sweep_config_read(s, a->free[0], a->free + 1, a->n_free - 1, e)) return EXIT_FAILED;
    if (a->number[OPT_FORCE]) s->force = true;
    if (a->number[OPT_NO_MEASURE]) s->measure = false;
    if (a->text[OPT_JOBS]) s->jobs = a->number[OPT_JOBS];
    y->source.base = s->base;
    /* a plan is printed whatever became of an earlier one's record */
    bool dry = a->number[OPT_DRY_RUN] != 0;
    if (sweep_record_read(&y->record, s->out, dry ? &ignored : e) && !dry)
        return EXIT_FAILED;
    CellInspector i = sweep_inspector(&y->source);
    SweepRun r = {.s = s, .source = &y->source, .record = &y->record, .inspector = &i,
                  .mode = launch_mode_find(launch)};
    return plan_and_run(&r, a, e);
}

static int run(const Arguments *a, Err *e)
{
    int code = ask(a, e);
    if (code >= 0) return code;
    if (check_options(a, a->number[OPT_DRY_RUN] ? DO_PLAN : DO_RUN, e)) return EXIT_MISUSE;
    Study *y = calloc(1, sizeof *y);
    if (!y) {
        err_set(e, "out of memory");
        return EXIT_FAILED;
    }
    code = run_sweep(y, a, e);
    free(y->record.have);
    free(y);
    return code;
}

const CommandRow command_sweep = {
    "sweep", "SWEEP.yaml [key=value ...] | status FOLDER | retry|cancel FOLDER [CELL]",
    "run a scaling-law study, or go on with it", 1, COMMAND_MAX_ARGUMENTS,
    {{"--dry-run", OPTION_FLAG, NULL, "print every cell and run none"},
     {"--json", OPTION_FLAG, NULL, "print JSON (--dry-run, status)"},
     {"--measure", OPTION_FLAG, NULL, "--dry-run: train ten steps of each size for the times"},
     {"--jobs", OPTION_INT, NULL, "cells at a time, in place of sweep.jobs"},
     {"--launch", OPTION_TEXT, NULL, "how cells are started: local (default), mpi, srun or sbatch"},
     {"--force", OPTION_FLAG, NULL, "run cells that bend a law beyond limits.ratio"},
     {"--held-out", OPTION_TEXT, NULL, "fit: fit the study, run the check at sweep.held_out with "
      "the best model and set its loss beside the forecast; or so many activated parameters"},
     {"--no-measure", OPTION_FLAG, NULL, "do not time steps of each size before the first cell"}},
    run,
};
