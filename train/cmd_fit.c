/* train/cmd_fit.c - `isomoe fit`: a scaling law from finished runs, and what to train with it. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "scaling/ledger.h"
#include "train/command.h"
#include "train/fit_answer.h"
#include "train/json_out.h"
#include "train/published_answer.h"
#include "train/rates_answer.h"

enum {
    OPT_METHOD, OPT_DELTA, OPT_FORM, OPT_COLUMNS, OPT_WHERE, OPT_BUDGET, OPT_FIXED_E, OPT_COST,
    OPT_FORCE, OPT_AT, OPT_BOOTSTRAP, OPT_RESAMPLE, OPT_INTERVAL, OPT_LEVEL, OPT_BACKTEST,
    OPT_SEED, OPT_THREADS, OPT_RATES, OPT_WEIGHTS, OPT_PUBLISHED, OPT_JSON
};

/* The whole of text as a finite number. */
static int number_of(const char *text, double *out)
{
    char *end;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) return -1;
    *out = strtod(text, &end);
    return *end || !isfinite(*out) ? -1 : 0;
}

static int read_cost(const char *text, FitRequest *r, Err *e)
{
    char first[64];
    const char *comma = strchr(text, ',');
    CostLaw *out = &r->cost;
    r->cost_from = !strcmp(text, "exact")  ? ANSWER_COST_EXACT
                   : !strcmp(text, "runs") ? ANSWER_COST_RUNS
                                           : ANSWER_COST_NAMED;
    if (r->cost_from != ANSWER_COST_NAMED) return 0;
    if (!strcmp(text, "6nd")) {
        *out = cost_law_6nd();
        return 0;
    }
    if (!strcmp(text, "hunyuan")) {
        *out = cost_law_hunyuan();
        return 0;
    }
    *out = (CostLaw){.high = INFINITY};
    if (comma && (size_t)(comma - text) < sizeof first) {
        memcpy(first, text, (size_t)(comma - text));
        first[comma - text] = 0;
        if (!number_of(first, &out->a) && !number_of(comma + 1, &out->b) && out->a > 0) {
            snprintf(out->name, sizeof out->name, "%.8g N D + %.8g D", out->a, out->b);
            return 0;
        }
    }
    err_set(e, "--cost '%.100s'", text);
    return err_hint(e, "exact, runs, 6nd, hunyuan, or A,B for C = A N D + B D with A > 0");
}

static int read_form(const char *name, const Law **out, Err *e)
{
    char list[512] = "";
    size_t used = 0;
    *out = law_find(name);
    if (*out) return 0;
    for (int i = 0; law_at(i) && used < sizeof list - 40; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 law_at(i)->name);
    err_set(e, "--form '%.100s': no such form", name);
    return err_hint(e, "%s", list);
}

/* "experts=8,sparsity=0.5" */
static int read_at(const char *text, LawPoint *out, Err *e)
{
    char *copy = strdup(text), *rest = copy, *word;
    int rc = copy ? 0 : err_set(e, "out of memory");
    while (!rc && (word = strsep(&rest, ","))) {
        char *value = strchr(word, '=');
        if (value) *value++ = 0;
        int c = run_column_find(word);
        double number = NAN;
        if (!value || c < 0 || c == RUN_LOSS || number_of(value, &number) ||
            !run_value_fits((RunColumn)c, number)) {
            err_set(e, "--at '%.100s'", text);
            rc = err_hint(e, "for example experts=8,granularity=2");
        } else {
            out->x[c] = number;
        }
    }
    free(copy);
    return rc;
}

/* An option that the method does not look at is a misunderstanding. */
static int check_method(const Arguments *a, const FitRequest *r, Err *e)
{
    static const int of_laws[] = {OPT_FORM, OPT_FIXED_E,  OPT_COST,
                                  OPT_AT,   OPT_RESAMPLE, OPT_INTERVAL};
    bool curves = r->method == ANSWER_PARABOLA || r->method == ANSWER_AKIMA;
    const char *method = answer_method_name(r->method);
    for (size_t i = 0; curves && i < sizeof of_laws / sizeof *of_laws; i++)
        if (a->text[of_laws[i]])
            return err_set(e, "%s does nothing with --method %s",
                           command_fit.option[of_laws[i]].name, method);
    if (curves && a->number[OPT_BACKTEST])
        return err_set(e, "--backtest does nothing with --method %s", method);
    if (a->text[OPT_DELTA] && r->method != ANSWER_HUBER)
        return err_set(e, "--delta does nothing with --method %s", method);
    const unsigned told = 1u << RUN_N | 1u << RUN_D | 1u << RUN_C | 1u << RUN_LOSS;
    const unsigned held = 1u << RUN_D & ~r->law->columns;
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (!isnan(r->at.x[c]) && !(((r->law->columns & ~told) | held) >> c & 1))
            return err_set(e, "--at %s does nothing with --form %s",
                           run_column_name((RunColumn)c), r->law->name);
    return 0;
}

static int check_options(const Arguments *a, const FitRequest *r, Err *e)
{
    if (!(r->delta > 0)) return err_set(e, "--delta %g: must be above 0", r->delta);
    if (a->text[OPT_BUDGET] && !(r->budget > 0))
        return err_set(e, "--budget %g: must be above 0", r->budget);
    if (r->fixed_e < 0) return err_set(e, "--fixed-e %g: must not be negative", r->fixed_e);
    if (!(r->level > 0 && r->level < 1))
        return err_set(e, "--level %g: must lie between 0 and 1", r->level);
    if (r->replicates < 0 || r->replicates == 1 || r->replicates > 100000)
        return err_set(e, "--bootstrap %s: 0 (no intervals) or 2 to 100000",
                       a->text[OPT_BOOTSTRAP]);
    if (a->number[OPT_THREADS] < 0 || a->number[OPT_THREADS] > 1024)
        return err_set(e, "--threads %lld: 0 (all) to 1024", a->number[OPT_THREADS]);
    if (a->number[OPT_BACKTEST] && !r->replicates)
        return err_set(e, "--backtest needs --bootstrap: what is predicted are intervals");
    for (int i = OPT_RESAMPLE; i <= OPT_INTERVAL; i++)
        if (a->text[i] && !r->replicates)
            return err_set(e, "%s does nothing with --bootstrap 0", command_fit.option[i].name);
    if (a->text[OPT_RESAMPLE] && r->resample == ANSWER_RESIDUALS && r->noise_weights) {
        err_set(e, "--resample residuals: with --weights noise they are of unequal noise, and no "
                "one pool to draw from");
        return err_hint(e, "noise, cases, cases-within-budgets");
    }
    return 0;
}

/* --resample, --interval */
static int read_intervals(const Arguments *a, FitRequest *r, Err *e)
{
    const char *resample = a->text[OPT_RESAMPLE], *interval = a->text[OPT_INTERVAL];
    int of = resample ? answer_resample_find(resample) : (int)r->resample;
    int by = interval ? interval_find(interval) : (int)r->interval;
    if (of < 0) {
        err_set(e, "--resample '%.100s'", resample);
        return err_hint(e, "residuals, cases, cases-within-budgets, noise");
    }
    if (by < 0) {
        err_set(e, "--interval '%.100s'", interval);
        return err_hint(e, "student, percentile, bca");
    }
    r->resample = (AnswerResample)of;
    r->interval = (IntervalMethod)by;
    return 0;
}

/* source: the file or the folder; kept. */
static int read_request(const Arguments *a, const char *source, FitRequest *r, Err *e)
{
    *r = fit_request_defaults(source);
    int method = answer_method_find(a->text[OPT_METHOD]);
    if (method < 0) {
        err_set(e, "--method '%.100s': no such method", a->text[OPT_METHOD]);
        return err_hint(e, "varpro, huber, parabola, akima");
    }
    r->method = (AnswerMethod)method;
    r->mapping = a->text[OPT_COLUMNS];
    r->where = a->text[OPT_WHERE];
    if (a->text[OPT_DELTA]) r->delta = a->real[OPT_DELTA];
    r->budget = a->real[OPT_BUDGET];
    if (a->text[OPT_FIXED_E]) r->fixed_e = a->real[OPT_FIXED_E];
    r->force = a->number[OPT_FORCE];
    long long asked = a->number[OPT_BOOTSTRAP];
    if (a->text[OPT_BOOTSTRAP]) r->replicates = asked > 0 && asked < INT_MAX ? (int)asked : -1;
    if (a->text[OPT_BOOTSTRAP] && !asked) r->replicates = 0;
    r->level = a->real[OPT_LEVEL];
    r->backtest = a->number[OPT_BACKTEST];
    r->seed = (uint64_t)a->number[OPT_SEED];
    r->threads = (int)a->number[OPT_THREADS];
    r->noise_weights = a->text[OPT_WEIGHTS] && !strcmp(a->text[OPT_WEIGHTS], "noise");
    if (a->text[OPT_WEIGHTS] && !r->noise_weights) {
        err_set(e, "--weights '%.100s'", a->text[OPT_WEIGHTS]);
        return err_hint(e, "noise, or without it all the same");
    }
    if ((a->text[OPT_COST] && read_cost(a->text[OPT_COST], r, e)) ||
        (a->text[OPT_FORM] && read_form(a->text[OPT_FORM], &r->law, e)) ||
        (a->text[OPT_AT] && read_at(a->text[OPT_AT], &r->at, e)) || read_intervals(a, r, e))
        return -1;
    return check_options(a, r, e) || check_method(a, r, e) ? -1 : 0;
}

/* Refuses options that are not among `read` (bits). One that was not given has its row's text. */
static int check_read(const Arguments *a, unsigned read, const char *with, Err *e)
{
    for (int i = 0; command_fit.option[i].name; i++) {
        const OptionRow *o = &command_fit.option[i];
        bool given = o->kind == OPTION_FLAG ? a->number[i] != 0 : a->text[i] != o->initial;
        if (given && !(read >> i & 1))
            return err_set(e, "%s does nothing with %s", o->name, with);
    }
    return 0;
}

/* --rates: laws of the rate and the batch in place of the loss's. */
static int run_rates(const Arguments *a, const char *source, Err *e)
{
    const char *n = a->text[OPT_RATES];
    int code = EXIT_FAILED;
    if (strcmp(n, "N") && strcmp(n, "N_total")) {
        err_set(e, "--rates '%.100s'", n);
        err_hint(e, "N (activated parameters) or N_total");
        return EXIT_MISUSE;
    }
    const unsigned read = 1u << OPT_COLUMNS | 1u << OPT_WHERE | 1u << OPT_RATES | 1u << OPT_JSON;
    if (check_read(a, read, "--rates", e)) return EXIT_MISUSE;
    RatesAnswer *answer = calloc(1, sizeof *answer);
    if (!answer) {
        err_set(e, "out of memory");
        return EXIT_FAILED;
    }
    if (!rates_answer_make(answer, source, a->text[OPT_COLUMNS], a->text[OPT_WHERE],
                           !strcmp(n, "N_total"), e)) {
        if (a->number[OPT_JSON]) {
            code = json_out_print(rates_answer_json(answer), e);
        } else {
            rates_answer_print(answer, stdout);
            code = stdout_finish(e);
        }
    }
    rates_answer_clear(answer);
    free(answer);
    return code;
}

/* --published: a law that needs no runs. */
static int run_published(const Arguments *a, Err *e)
{
    const unsigned read = 1u << OPT_PUBLISHED | 1u << OPT_BUDGET | 1u << OPT_JSON;
    const PublishedLaw *p = published_find(a->text[OPT_PUBLISHED]);
    double budget = a->real[OPT_BUDGET];
    if (!p) {
        err_set(e, "--published '%.100s': no such law", a->text[OPT_PUBLISHED]);
        err_hint(e, "hunyuan");
    } else if (a->n_free) {
        err_set(e, "--published reads no runs, but is given '%.200s'", a->free[0]);
        err_hint(e, "isomoe fit --published %s --budget C", p->name);
    } else if (!a->text[OPT_BUDGET]) {
        err_set(e, "--published needs --budget, in FLOPs");
    } else if (!(budget > 0)) {
        err_set(e, "--budget %g: must be above 0", budget);
    } else if (!check_read(a, read, "--published", e)) {
        if (a->number[OPT_JSON]) return json_out_print(published_answer_json(p, budget), e);
        published_answer_print(p, budget, stdout);
        return stdout_finish(e);
    }
    return EXIT_MISUSE;
}

typedef struct Told { /* what stderr has been told */
    bool any;
    double at;
} Told;

static const double worth_telling = 20, tell_every = 10; /* seconds */

/* Fits that take long are not made in silence. */
static void tell(void *self, double share, double seconds)
{
    Told *t = self;
    double now = log_seconds();
    bool minutes = seconds >= 100;
    if (t->any ? now < t->at + tell_every : seconds < worth_telling) return;
    fprintf(stderr, "isomoe: resampled fits: %.0f %%, about %.0f %s left\n", 100 * share,
            minutes ? seconds / 60 : seconds, minutes ? "min" : "s");
    t->any = true;
    t->at = now;
}

static int run(const Arguments *a, Err *e)
{
    FitRequest r;
    Told told = {0};
    char source[IO_PATH_MAX];
    int code = EXIT_FAILED;
    if (a->text[OPT_PUBLISHED]) return run_published(a, e);
    if (!a->n_free) {
        err_set(e, "fit: needs a file or a sweep's folder");
        err_hint(e, "isomoe fit %s, or isomoe fit --published hunyuan --budget C",
                 command_fit.usage);
        return EXIT_MISUSE;
    }
    if (ledger_folder(a->free[0], source, sizeof source, e)) return EXIT_FAILED;
    if (a->text[OPT_RATES]) return run_rates(a, source, e);
    if (read_request(a, source, &r, e)) return EXIT_MISUSE;
    r.progress = tell;
    r.progress_self = &told;
    FitAnswer *answer = calloc(1, sizeof *answer);
    if (!answer) {
        err_set(e, "out of memory");
        return EXIT_FAILED;
    }
    if (!fit_answer_make(answer, &r, e)) {
        if (a->number[OPT_JSON]) {
            code = json_out_print(fit_answer_json(answer), e);
        } else {
            fit_answer_print(answer, stdout);
            code = stdout_finish(e);
        }
    }
    fit_answer_clear(answer);
    free(answer);
    return code;
}

const CommandRow command_fit = {
    "fit", "FILE|FOLDER",
    "a scaling law from the runs of a CSV file or a sweep, with intervals; the best N and D", 0, 1,
    {{"--method", OPTION_TEXT, "varpro", "varpro, huber, parabola or akima"},
     {"--delta", OPTION_FLOAT, NULL, "where huber's loss becomes linear, in ln L (default 1e-3)"},
     {"--form", OPTION_TEXT, NULL, "the law (default chinchilla); an unknown name lists them"},
     {"--columns", OPTION_TEXT, NULL, "N=NAME,D=NAME*1e9,loss=NAME,..: the file's columns"},
     {"--where", OPTION_TEXT, NULL, "NAME=VALUE,..: only rows of the file in which these hold; of a"
      " sweep variant=NAME"},
     {"--budget", OPTION_FLOAT, NULL, "FLOPs to forecast for (default: those of the largest run)"},
     {"--fixed-e", OPTION_FLOAT, NULL, "hold E at this value, nats a token"},
     {"--cost", OPTION_TEXT, NULL, "exact (the family's, of runs with N_no_embed), runs (the line "
      "through their C), 6nd, hunyuan, or A,B: C = A N D + B D (default: the first that is"
      " known)"},
     {"--force", OPTION_FLAG, NULL, "use a cost law outside of its range of N"},
     {"--at", OPTION_TEXT, NULL, "experts=8,..: of the forecast (default: the largest run's);"
      " D=TOKENS of a form without D"},
     {"--bootstrap", OPTION_INT, NULL, "resampled fits for intervals (default 1000); 0: none"},
     {"--resample", OPTION_TEXT, NULL, "what they are of: residuals (default), cases,"
      " cases-within-budgets, or noise (where it is known; the default with --weights noise)"},
     {"--interval", OPTION_TEXT, NULL, "student (default), percentile or bca"},
     {"--level", OPTION_FLOAT, "0.9", "of the intervals"},
     {"--backtest", OPTION_FLAG, NULL, "predict large budgets from small ones"},
     {"--seed", OPTION_INT, "0", "of starts and of resampling"},
     {"--threads", OPTION_INT, "0", "0: all; they change no digit"},
     {"--rates", OPTION_TEXT, NULL, "N or N_total: laws of the peak rate and the batch over it, and"
      " B_crit(L), instead of the loss"},
     {"--weights", OPTION_TEXT, NULL, "noise: runs weigh 1 / noise^2, of the column noise or of"
      " runs that differ by their seed alone (default: all the same)"},
     {"--published", OPTION_TEXT, NULL, "hunyuan: the best N and D of --budget by that law alone;"
      " no FILE"},
     {"--json", OPTION_FLAG, NULL, "print JSON"}},
    run,
};
