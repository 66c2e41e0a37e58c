/* train/cmd_sweep.c - `isomoe sweep`: plans a study and runs it; `isomoe sweep status`, `retry` and
 * `cancel` for one that runs or has ended. */
#include <stdlib.h>
#include <string.h>

#include "train/command.h"
#include "train/json_out.h"
#include "train/sweep_plan.h"
#include "train/sweep_print.h"
#include "train/sweep_run.h"

enum { OPT_DRY_RUN, OPT_JSON, OPT_MEASURE, OPT_JOBS, OPT_LAUNCH, OPT_FORCE, OPT_HELD_OUT, OPTIONS };
enum { SWEEP_JOBS = 4096 };

/* What is asked for; masks. */
enum { DO_RUN = 1, DO_PLAN = 2, DO_STATUS = 4, DO_CHANGE = 8 };

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
    if (a->text[OPT_HELD_OUT] && !(a->real[OPT_HELD_OUT] > 0))
        return err_set(e, "sweep: --held-out %s is no number of parameters above 0",
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

static int dry_run(const SweepConfig *s, const CellInspector *i, CellList *cells,
                   const Arguments *a, Err *e)
{
    CellList held_out = {0};
    char program[IO_PATH_MAX];
    int code = EXIT_FAILED;
    bool check = s->held_out || a->text[OPT_HELD_OUT];
    bool wrong = check && sweep_held_out(s, i, a->real[OPT_HELD_OUT], &held_out, e);
    if (!wrong && a->number[OPT_MEASURE])
        wrong = sweep_program(program, e) || sweep_measure(s, program, cells, e);
    else if (!wrong)
        wrong = sweep_times_kept(s, cells, e);
    if (!wrong) sweep_warn(s, cells);
    if (!wrong)
        code = print_plan(s, cells, (SweepHeldOut){held_out.cell, a->real[OPT_HELD_OUT]},
                          a->number[OPT_JSON] != 0, e);
    cell_list_clear(&held_out);
    return code;
}

/* With --held-out N the check behind the fit alone, else the study. */
static int plan(const SweepConfig *s, const CellInspector *i, const Arguments *a, CellList *cells,
                Err *e)
{
    bool check = a->text[OPT_HELD_OUT] && !a->number[OPT_DRY_RUN];
    if (check) return sweep_held_out(s, i, a->real[OPT_HELD_OUT], cells, e);
    return sweep_cells(s, i, cells, e);
}

static int run_study(const SweepConfig *s, const CellInspector *i, const CellList *cells,
                     const Arguments *a, Err *e)
{
    const char *launch = a->text[OPT_LAUNCH] ? a->text[OPT_LAUNCH] : "local";
    SweepRun r = {.s = s, .inspector = i, .adapt = !a->text[OPT_HELD_OUT],
                  .mode = launch_mode_find(launch)};
    return sweep_run(&r, cells, e);
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

static int run(const Arguments *a, Err *e)
{
    CellList cells = {0};
    int code = ask(a, e);
    if (code >= 0) return code;
    if (check_options(a, a->number[OPT_DRY_RUN] ? DO_PLAN : DO_RUN, e)) return EXIT_MISUSE;
    SweepConfig *s = malloc(sizeof *s);
    if (!s) {
        err_set(e, "out of memory");
        return EXIT_FAILED;
    }
    code = EXIT_FAILED;
    if (!sweep_config_read(s, a->free[0], a->free + 1, a->n_free - 1, e)) {
        if (a->number[OPT_FORCE]) s->force = true;
        if (a->text[OPT_JOBS]) s->jobs = a->number[OPT_JOBS];
        CellInspector i = sweep_inspector(s->base);
        if (!plan(s, &i, a, &cells, e))
            code = a->number[OPT_DRY_RUN] ? dry_run(s, &i, &cells, a, e)
                                          : run_study(s, &i, &cells, a, e);
    }
    cell_list_clear(&cells);
    free(s);
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
     {"--held-out", OPTION_FLOAT, NULL,
      "run the check at sweep.held_out with so many activated parameters, as isomoe fit predicts"}},
    run,
};
