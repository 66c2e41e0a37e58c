/* scaling/sweep_config.c - see sweep_config.h. */
#include "scaling/sweep_config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 160 };

static const char *const reuses[] = {"off", "trunk", NULL};
static const char *const schedules[] = {"wsd_sqrt", "wsd", NULL};
static const char *const checks[] = {"off", "fit", NULL};
static const char *const priors[] = {"hunyuan", "ratio", "power", NULL};
static const char *const counts[] = {"active", "active_no_embed", NULL};

#define AT(field) offsetof(SweepConfig, field)
#define BIG 1e15
#define POWER_ROWS(section, field)                                                                 \
    {section ".factor", CONF_FLOAT, AT(field.factor), "1", 1e-6, 1e6, NULL,                        \
     "on what the law says"},                                                                      \
    {section ".value", CONF_FLOAT, AT(field.value), "0", 0, 1e30, NULL,                            \
     "constant: the number; power: the coefficient"},                                              \
    {section ".exp_n", CONF_FLOAT, AT(field.n), "0", -10, 10, NULL,                                \
     "power: exponent of the activated parameters without embedding and head"},                    \
    {section ".exp_d", CONF_FLOAT, AT(field.d), "0", -10, 10, NULL,                                \
     "power: exponent of the tokens of the run"},                                                  \
    {section ".exp_c", CONF_FLOAT, AT(field.c), "0", -10, 10, NULL,                                \
     "power: exponent of the FLOPs"},                                                              \
    {section ".total", CONF_BOOL, AT(field.total), "false", 1, 0, NULL,                            \
     "power: N is all parameters, not the activated ones"}
static const ConfRow own_rows[] = {
    {"sweep.name", CONF_TEXT, AT(name), NULL, 1, 0, NULL, "what reports call the study"},
    {"sweep.out", CONF_TEXT, AT(out), NULL, 1, 0, NULL, "folder of the ledger and of all runs"},
    {"sweep.base", CONF_TEXT, AT(base), NULL, 1, 0, NULL,
     "configuration for isomoe train; cells override some of its keys"},
    {"sweep.budgets", CONF_LONG, AT(budget_text), NULL, 1, 0, NULL,
     "FLOPs of training, rising: \"1e12, 2.5e12\""},
    {"sweep.sizes", CONF_INT, AT(sizes), "5", 1, 64, NULL, "models at each budget"},
    {"sweep.spacing", CONF_FLOAT, AT(spacing), "1.5", 1.01, 100, NULL,
     "parameters of neighbouring sizes are this factor apart"},
    {"sweep.seed", CONF_INT, AT(seed), "1", 0, BIG, NULL, "first seed"},
    {"sweep.seeds", CONF_INT, AT(seeds), "1", 1, 1000, NULL,
     "runs of each budget's middle size, seeds rising by one"},
    {"sweep.adaptive", CONF_INT, AT(adaptive), "4", 0, 64, NULL,
     "sizes added to a budget at most, until its least loss has two on each side"},
    {"sweep.reuse", CONF_ENUM, AT(reuse), "trunk", 1, 0, reuses,
     "trunk: one stable phase a size, from which each budget's cooldown branches | off"},
    {"sweep.schedule", CONF_ENUM, AT(schedule), "wsd_sqrt", 1, 0, schedules,
     "shape of the cooldown: wsd_sqrt | wsd"},
    {"sweep.cooldown", CONF_FLOAT, AT(cooldown), "0.2", 0, 0.9, NULL,
     "last part of a run's steps, in which the rate falls"},
    {"sweep.warmup", CONF_FLOAT, AT(warmup), "0", 0, 0.5, NULL,
     "warm-up as part of the steps of a size's shortest run; 0: the base's optim.warmup_steps"},
    {"sweep.held_out", CONF_FLOAT, AT(held_out), "0", 0, 1e6, NULL,
     "budget of the check behind the fit, over the largest budget; 0: none"},
    {"sweep.check", CONF_ENUM, AT(check_by), "off", 1, 0, checks,
     "fit: at the study's end the held-out budget is run at the N that the fit predicts, and its "
     "loss set beside the forecast | off"},
    {"sweep.check_rates", CONF_TEXT, AT(check_text), "", 1, 0, NULL,
     "factors on the rate for checks beside each budget's middle size: \"0.5, 2\""},
    {"sweep.check_batches", CONF_TEXT, AT(check_batch_text), "", 1, 0, NULL,
     "the same for the batch, each at the point's rate and at all of check_rates: a grid"},
    {"sweep.force", CONF_BOOL, AT(force), "false", 1, 0, NULL,
     "cells are run though a law was bent beyond limits.ratio"},
    {"sweep.measure", CONF_BOOL, AT(measure), "true", 1, 0, NULL,
     "ten steps of each size are timed before the first cell runs, where that is little work"},
    {"sweep.jobs", CONF_INT, AT(jobs), "1", 1, 4096, NULL, "cells at a time"},
    {"sweep.cores", CONF_INT, AT(cores), "1", 1, 4096, NULL, "cores of a cell"},
    {"sweep.tries", CONF_INT, AT(tries), "3", 1, 100, NULL,
     "starts of a cell that fails or is preempted"},
    {"sweep.time_limit", CONF_FLOAT, AT(time_limit), "600", 0, 1e9, NULL,
     "seconds a trainer may take without a sign of progress (and 20 times a step): then it counts "
     "as hanging and is ended; 0: any"},
    {"sweep.retry_rate", CONF_FLOAT, AT(retry_rate), "0.5", 0.01, 1, NULL,
     "factor on the rate of the one more try of a cell that diverged"},

    {"family.width_step", CONF_INT, AT(family.width_step), NULL, 1, 1 << 17, NULL,
     "d_model is a multiple of it"},
    {"family.width_min", CONF_INT, AT(family.width_min), NULL, 1, 1 << 17, NULL, "least d_model"},
    {"family.width_max", CONF_INT, AT(family.width_max), NULL, 1, 1 << 17, NULL, "largest d_model"},
    {"family.layer_step", CONF_INT, AT(family.layer_step), "0", 0, 4096, NULL,
     "n_layers is a multiple of it; 0: of model.cla_share"},
    {"family.layers_min", CONF_INT, AT(family.layers_min), "1", 1, 4096, NULL, "least n_layers"},
    {"family.layers_max", CONF_INT, AT(family.layers_max), "128", 1, 4096, NULL,
     "largest n_layers"},
    {"family.aspect", CONF_FLOAT, AT(family.aspect), NULL, 0.1, 1e6, NULL, "d_model / n_layers"},
    {"family.aspect_slack", CONF_FLOAT, AT(family.aspect_slack), "1.5", 1, 100, NULL,
     "models within this factor of it are taken"},
    {"family.head_dim", CONF_INT, AT(family.head_dim), NULL, 2, 4096, NULL,
     "width of a head; n_heads = d_model / head_dim"},
    {"family.query_group", CONF_INT, AT(family.query_group), "1", 1, 4096, NULL,
     "query heads that share a key and value head, where it divides"},
    {"family.expert_ratio", CONF_FLOAT, AT(family.expert_ratio), "0", 0, 1000, NULL,
     "expert_width / d_model; 0: the base's width"},
    {"family.shared_ratio", CONF_FLOAT, AT(family.shared_ratio), "0", 0, 1000, NULL,
     "shared_width / d_model; 0: the base's width"},
    {"family.ffn_step", CONF_INT, AT(family.ffn_step), "16", 1, 1 << 20, NULL,
     "widths of experts are multiples of it"},

    {"centre.prior", CONF_ENUM, AT(centre.prior), "hunyuan", 1, 0, priors,
     "best N of a budget: hunyuan: 5.9e-3 C^0.5305 | ratio: C = 6 N D, D = tokens_per_param N | "
     "power: factor C^exponent"},
    {"centre.count", CONF_ENUM, AT(centre.count), "active_no_embed", 1, 0, counts,
     "what N counts: activated parameters, with embedding and head or without"},
    {"centre.tokens_per_param", CONF_FLOAT, AT(centre.tokens_per_param), "20", 1e-3, 1e9, NULL,
     "ratio: D / N"},
    {"centre.factor", CONF_FLOAT, AT(centre.factor), "0", 0, 1e30, NULL, "power: coefficient"},
    {"centre.exponent", CONF_FLOAT, AT(centre.exponent), "0.5", 0, 1, NULL, "power: exponent"},

    {"rate.law", CONF_TEXT, AT(rate.name), NULL, 1, 0, NULL,
     "peak rate: constant | power: value N^exp_n D^exp_d C^exp_c | step_law | deepseek | ling_moe "
     "| porian | surge | surge_sgd"},
    {"rate.eps_max", CONF_FLOAT, AT(rate.eps_max), "0", 0, 100, NULL, "surge: the highest rate"},
    {"rate.b_noise", CONF_FLOAT, AT(rate.b_noise), "0", 0, BIG, NULL, "surge: B_noise in tokens"},
    {"rate.b_star", CONF_FLOAT, AT(rate.b_star), "0", 0, BIG, NULL,
     "surge without b_noise: B_noise = b_star / loss^(1/alpha)"},
    {"rate.alpha", CONF_FLOAT, AT(rate.alpha), "0", 0, 100, NULL, "surge: see b_star"},
    {"rate.loss", CONF_FLOAT, AT(rate.loss), "0", 0, 100, NULL, "surge: see b_star; nats"},
    {"batch.law", CONF_TEXT, AT(batch.name), NULL, 1, 0, NULL,
     "tokens a step: as rate.law, but for surge"},
    {"batch.rounding", CONF_FLOAT, AT(rounding), "1.3", 1, 100, NULL,
     "a legal batch is within this factor of the law's, or the cell is left out"},
    POWER_ROWS("rate", rate), POWER_ROWS("batch", batch),

    {"critical.b_star", CONF_FLOAT, AT(critical.b_star), "0", 0, BIG, NULL,
     "B_crit(L) = b_star / L^(1/alpha) tokens, for the C_min of finished cells; 0: by the B_noise "
     "that a run measured, if it did"},
    {"critical.alpha", CONF_FLOAT, AT(critical.alpha), "0", 0, 100, NULL, "see critical.b_star"},

    {"limits.ratio", CONF_FLOAT, AT(limits.ratio), "1.5", 1, 1e6, NULL,
     "rate and batch of a cell are within this factor of what their laws say for it alone"},
    {"limits.memory", CONF_FLOAT, AT(limits.memory), "0", 0, 1e18, NULL,
     "bytes of a cell; 0: no limit"},
    {"limits.min_params", CONF_FLOAT, AT(limits.min_params), "0", 0, 1e18, NULL,
     "least N, as centre.count counts; 0: no limit"},
    {"limits.max_params", CONF_FLOAT, AT(limits.max_params), "0", 0, 1e18, NULL,
     "largest N; 0: no limit"},
    {"limits.min_tokens", CONF_FLOAT, AT(limits.min_tokens), "0", 0, 1e18, NULL,
     "least tokens of a run; 0: no limit"},
    {"limits.max_tokens", CONF_FLOAT, AT(limits.max_tokens), "0", 0, 1e18, NULL,
     "largest tokens of a run; 0: no limit"},
    {"limits.min_per_param", CONF_FLOAT, AT(limits.min_per_param), "0", 0, 1e9, NULL,
     "least tokens a parameter; 0: no limit"},
    {"limits.max_per_param", CONF_FLOAT, AT(limits.max_per_param), "0", 0, 1e12, NULL,
     "largest tokens a parameter; 0: no limit"},
    {"limits.unique_tokens", CONF_FLOAT, AT(limits.unique_tokens), "0", 0, 1e18, NULL,
     "tokens of the training text; 0: no limit"},
    {"limits.epochs", CONF_FLOAT, AT(limits.epochs), "1", 0.01, 1e6, NULL,
     "a run reads the text so often at most"},
};
enum { OWN_ROWS = sizeof own_rows / sizeof *own_rows };

#define IN_VARIANT(field) offsetof(SweepVariant, field)
static const ConfRow variant_rows[] = {
    {"name", CONF_TEXT, IN_VARIANT(name), NULL, 1, 0, NULL, "what reports call it"},
    {"overrides", CONF_TEXT, IN_VARIANT(overrides), "", 1, 0, NULL,
     "keys of the base configuration: \"model.routing=drop optim.clip=2\""},
};
static const ConfList variants = {
    "variants", variant_rows, sizeof variant_rows / sizeof *variant_rows, SWEEP_VARIANTS,
    AT(variant), sizeof(SweepVariant), AT(n_variants),
    "the same cells for each of these sets of keys"};

const ConfTable *sweep_config_table(void)
{
    static ConfRow rows[MAX_ROWS];
    static char keys[MAX_ROWS][CONF_LIST_KEY];
    static ConfTable table;
    if (table.count) return &table;
    memcpy(rows, own_rows, sizeof own_rows);
    int n = OWN_ROWS;
    n += conf_list_rows(&variants, rows + n, MAX_ROWS - n, keys + n);
    table = (ConfTable){rows, n};
    return &table;
}

double sweep_centre(const SweepConfig *s, double C)
{
    const SweepCentre *c = &s->centre;
    if (c->prior == CENTRE_HUNYUAN) return 5.9e-3 * pow(C, 0.5305);
    if (c->prior == CENTRE_RATIO) return sqrt(C / (6 * c->tokens_per_param));
    return c->factor * pow(C, c->exponent);
}

typedef struct Check { /* what conf_fail needs */
    const int *lines;
    const char *path;
    Err *e;
} Check;

#define FAIL(check, key, ...)                                                                      \
    conf_fail(sweep_config_table(), (check).lines, (check).path, key, (check).e, __VA_ARGS__)

/* "1e12, 2.5e12" into out (at most `max`); -1 with what is wrong. */
static int read_list(const char *key, const char *text, double *out, int *n, int max, Check k)
{
    *n = 0;
    for (const char *p = text;;) {
        p += strspn(p, ", \t\n");
        if (!*p) return 0;
        char *end;
        size_t length = strcspn(p, ", \t\n");
        double value = strtod(p, &end);
        if (end != p + length || !isfinite(value) || value <= 0)
            return FAIL(k, key, "'%.*s' is no number above 0", (int)length, p);
        if (*n == max) return FAIL(k, key, "more than %d numbers", max);
        out[(*n)++] = value;
        p = end;
    }
}

static int check_lists(SweepConfig *s, Check k)
{
    if (read_list("sweep.budgets", s->budget_text, s->budget, &s->n_budgets, SWEEP_BUDGETS, k) ||
        read_list("sweep.check_rates", s->check_text, s->check, &s->n_checks, SWEEP_CHECKS, k) ||
        read_list("sweep.check_batches", s->check_batch_text, s->check_batch, &s->n_check_batches,
                  SWEEP_CHECKS, k))
        return -1;
    if (!s->n_budgets) return FAIL(k, "sweep.budgets", "is empty");
    for (int i = 1; i < s->n_budgets; i++)
        if (s->budget[i] <= s->budget[i - 1])
            return FAIL(k, "sweep.budgets", "%g stands behind %g: they must rise", s->budget[i],
                        s->budget[i - 1]);
    if (s->budget[s->n_budgets - 1] > 1e30)
        return FAIL(k, "sweep.budgets", "%g is above 1e30", s->budget[s->n_budgets - 1]);
    if (s->held_out && s->held_out <= 1)
        return FAIL(k, "sweep.held_out", "%g times the largest budget is not beyond it",
                    s->held_out);
    if ((s->critical.b_star > 0) != (s->critical.alpha > 0))
        return FAIL(k, s->critical.b_star > 0 ? "critical.b_star" : "critical.alpha",
                    "critical.b_star and critical.alpha have an effect only together");
    if (s->check_by == CHECK_FIT && !s->held_out)
        return FAIL(k, "sweep.check", "needs sweep.held_out, the budget that is checked");
    return 0;
}

static int check_family(const SweepConfig *s, Check k)
{
    const SweepFamily *f = &s->family;
    long long step = f->width_step, head = f->head_dim;
    if (head % 2) return FAIL(k, "family.head_dim", "%lld is odd: rotation takes pairs", head);
    if (step % head)
        return FAIL(k, "family.width_step", "%lld is no multiple of family.head_dim %lld", step,
                    head);
    if (f->width_min > f->width_max)
        return FAIL(k, "family.width_min", "%lld is above family.width_max %lld",
                    (long long)f->width_min, (long long)f->width_max);
    if (f->width_max / step * step < f->width_min)
        return FAIL(k, "family.width_step", "no multiple of %lld lies between family.width_min and "
                    "family.width_max", step);
    if (f->layers_min > f->layers_max)
        return FAIL(k, "family.layers_min", "%lld is above family.layers_max %lld",
                    (long long)f->layers_min, (long long)f->layers_max);
    return 0;
}

/* A law's own keys have no effect with another; resolves l->law. */
static int check_law(SweepLaw *l, const char *section, unsigned asked, Check k)
{
    const RateLaw *found = rate_law_find(l->name);
    char key[CONF_LIST_KEY], names[256] = "";
    snprintf(key, sizeof key, "%s.law", section);
    for (int i = 0; rate_law_at(i) && !found; i++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", rate_law_at(i)->name);
    }
    if (!strcmp(l->name, "fitted")) {
        FAIL(k, key, "a fitted law is one of power, with its numbers in this file");
        return err_hint(k.e, "isomoe fit FOLDER --rates N prints the section to paste: "
                        "%s: {law: power, value: .., exp_n: ..}", section);
    }
    if (!found) return FAIL(k, key, "'%.60s' is none of %s", l->name, names);
    bool constant = !strcmp(l->name, "constant"), power = !strcmp(l->name, "power");
    bool surge = found->kind != RATE_POWER;
    const struct {
        const char *key, *with;
        bool in_force, given;
    } own[] = {
        {"value", "constant or power", constant || power, l->value != 0},
        {"exp_n", "power", power, l->n != 0},          {"exp_d", "power", power, l->d != 0},
        {"exp_c", "power", power, l->c != 0},          {"total", "power", power, l->total},
        {"eps_max", "surge", surge, l->eps_max != 0},  {"b_noise", "surge", surge, l->b_noise != 0},
        {"b_star", "surge", surge, l->b_star != 0},    {"alpha", "surge", surge, l->alpha != 0},
        {"loss", "surge without b_noise", surge && l->b_noise == 0, l->loss != 0},
    };
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (own[i].in_force || !own[i].given) continue;
        snprintf(key, sizeof key, "%s.%s", section, own[i].key);
        return FAIL(k, key, "has an effect only with %s.law %s", section, own[i].with);
    }
    l->law = *found;
    RatePower given = {l->value, l->n, l->d, l->c};
    if (constant || power) {
        l->law.lr = l->law.batch = given;
        l->law.total = l->total;
    }
    if (surge) {
        l->law.eps_max = l->eps_max;
        l->law.b_noise = l->b_noise;
        l->law.b_star = l->b_star;
        l->law.alpha = l->alpha;
    }
    Err reason = {0};
    snprintf(key, sizeof key, "%s.law", section);
    if (rate_law_check(&l->law, asked, &reason)) return FAIL(k, key, "%s", reason.message);
    if (surge && l->b_noise == 0 && l->loss == 0)
        return FAIL(k, key, "%s.loss is needed where b_noise follows from the loss", section);
    return 0;
}

/* Keys that have an effect only with another one. */
static int check_idle(const SweepConfig *s, Check k)
{
    bool power = s->centre.prior == CENTRE_POWER, ratio = s->centre.prior == CENTRE_RATIO;
    const struct {
        const char *key, *with;
        bool in_force;
    } rows[] = {
        {"centre.factor", "centre.prior power", power},
        {"centre.exponent", "centre.prior power", power},
        {"centre.tokens_per_param", "centre.prior ratio", ratio},
        {"limits.epochs", "limits.unique_tokens", s->limits.unique_tokens > 0},
    };
    if (power && s->centre.factor == 0)
        return FAIL(k, "centre.factor", "is needed with centre.prior power");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!rows[i].in_force && !conf_is_default(sweep_config_table(), s, rows[i].key))
            return FAIL(k, rows[i].key, "has an effect only with %s", rows[i].with);
    return 0;
}

static int check_limits(const SweepLimits *l, Check k)
{
    const struct {
        const char *low, *high;
        double min, max;
    } rows[] = {
        {"limits.min_params", "limits.max_params", l->min_params, l->max_params},
        {"limits.min_tokens", "limits.max_tokens", l->min_tokens, l->max_tokens},
        {"limits.min_per_param", "limits.max_per_param", l->min_per_param, l->max_per_param},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].max > 0 && rows[i].min > rows[i].max)
            return FAIL(k, rows[i].low, "%g is above %s %g: no cell could be run", rows[i].min,
                        rows[i].high, rows[i].max);
    return 0;
}

static int check_laws(SweepConfig *s, Check k)
{
    if (check_idle(s, k) || check_limits(&s->limits, k)) return -1;
    if (check_law(&s->rate, "rate", RATE_LR, k) || check_law(&s->batch, "batch", RATE_BATCH, k))
        return -1;
    if (s->reuse == REUSE_TRUNK && s->cooldown == 0)
        return FAIL(k, "sweep.cooldown", "is 0: a budget's run would be its trunk's piece; use "
                    "sweep.reuse off or a part of the steps");
    return 0;
}

static int check_variants(const SweepConfig *s, Check k)
{
    char key[CONF_LIST_KEY];
    for (int i = 0; i < (int)s->n_variants; i++) {
        const char *name = s->variant[i].name;
        snprintf(key, sizeof key, "variants[%d].name", i);
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._");
        if (!n || name[n] || n >= VARIANT_NAME)
            return FAIL(k, key, "'%.60s' is no name of at most %d letters, digits, '.' and '_'",
                        name, VARIANT_NAME - 1);
        for (int j = 0; j < i; j++)
            if (!strcmp(name, s->variant[j].name))
                return FAIL(k, key, "'%s' is the name of variant %d too", name, j);
    }
    return 0;
}

static int check(SweepConfig *s, Check k)
{
    static const char *const texts[] = {"sweep.name", "sweep.out", "sweep.base"};
    const char *value[] = {s->name, s->out, s->base};
    for (int i = 0; i < 3; i++)
        if (!value[i][0]) return FAIL(k, texts[i], "is empty");
    if (check_lists(s, k) || check_family(s, k) || check_laws(s, k)) return -1;
    return check_variants(s, k);
}

int sweep_config_read(SweepConfig *s, const char *path, const char *const *overrides, int n,
                      Err *e)
{
    const ConfTable *table = sweep_config_table();
    int *lines = calloc((size_t)table->count, sizeof *lines);
    if (!lines) return err_set(e, "%s: out of memory", path);
    memset(s, 0, sizeof *s);
    int rc = conf_read(table, s, path, overrides, n, lines, e);
    if (!rc) rc = check(s, (Check){lines, path, e});
    free(lines);
    return rc;
}
