/* train/stages.c - see stages.h. */
#include "train/stages.h"

#include <stdio.h>
#include <string.h>

#include "base/size.h"
#include "model/count.h"
#include "train/optim_check.h"
#include "train/run_data.h"

#define FAIL(check, key, ...)                                                                      \
    conf_fail(run_config_table(), (check).lines, (check).path, key, (check).e, __VA_ARGS__)

int stages_count(const RunConfig *c) { return c->n_stages ? (int)c->n_stages : 1; }

/* The run's own micro-batch where the shape is the run's, else a chosen one. */
static int64_t micro_of(const RunConfig *c, const StageConfig *from, const Stage *s)
{
    if (from->micro_batch) return from->micro_batch;
    if (s->seq_len == c->data.seq_len && s->batch == c->train.batch) return c->train.micro_batch;
    return run_config_micro(c, s->seq_len, s->batch);
}

Stage stages_get(const RunConfig *c, int i)
{
    static const StageConfig whole; /* all defaults */
    const StageConfig *from = c->n_stages ? &c->stage[i] : &whole;
    CHECK(i >= 0 && i < stages_count(c), "stage %d of %d", i, stages_count(c));
    Stage s = {.index = i, .name = from->name, .steps = from->steps,
               .own_weights = from->weights[0] != 0,
               .seq_len = from->seq_len ? from->seq_len : c->data.seq_len,
               .batch = from->batch ? from->batch : c->train.batch,
               .rope_theta = from->rope_theta > 0 ? from->rope_theta : c->model.rope_theta};
    for (int before = 0; before < i; before++) s.first += c->stage[before].steps;
    if (i == stages_count(c) - 1) s.steps = c->train.steps - s.first;
    s.micro_batch = micro_of(c, from, &s);
    for (int64_t n = 0; n < c->data.n_sources; n++) s.weight[n] = c->data.source[n].weight;
    if (!c->data.n_sources) s.weight[0] = 1;
    Err ignored = {0}; /* stages_check has read it once */
    if (s.own_weights)
        run_data_weights(c, from->weights, "stages", (RunCheck){NULL, "", &ignored}, s.weight);
    return s;
}

LoaderSegment stages_segment(const Stage *stage)
{
    LoaderSegment out = {.T = stage->seq_len};
    memcpy(out.weight, stage->weight, sizeof out.weight);
    return out;
}

int stages_at(const RunConfig *c, int64_t step)
{
    int i = 0;
    while (i + 1 < stages_count(c) && step >= c->stage[i].steps) step -= c->stage[i++].steps;
    return i;
}

ModelShape stages_shape(const RunConfig *c, const Stage *stage)
{
    return (ModelShape){.type = c->train.precision ? DT_F32 : DT_BF16,
                        .B = stage->micro_batch,
                        .T = stage->seq_len,
                        .micro_batches = stage->batch / stage->micro_batch,
                        .train = true,
                        .any_order = !c->train.deterministic};
}

int stages_reserve(const RunConfig *c, int64_t *bytes, int *largest, Err *e)
{
    *bytes = 0;
    for (int i = 0; i < stages_count(c); i++) {
        Stage s = stages_get(c, i);
        ModelShape shape = stages_shape(c, &s);
        ArenaPlan plan = {0};
        int rc = model_plan(&c->model, &shape, &plan, e);
        if (!rc && arena_total(&plan) > *bytes) {
            *bytes = arena_total(&plan);
            *largest = i;
        }
        arena_clear(&plan);
        if (rc) return c->n_stages ? err_context(e, "stage '%s'", s.name) : -1;
    }
    return 0;
}

void stages_totals(const RunConfig *c, double *tokens, double *flops)
{
    *tokens = *flops = 0;
    for (int i = 0; i < stages_count(c); i++) {
        Stage s = stages_get(c, i);
        double sequences = (double)s.steps * (double)s.batch;
        *tokens += sequences * (double)s.seq_len;
        *flops += sequences * (double)count_flops_train(&c->model, s.seq_len);
    }
}

/* ---- The annealing ----------------------------------------------------------------------------*/

typedef unsigned __int128 Wide; /* 2^4 steps of 2^50 times 2^40 tokens do not fit in 64 bits */

static Wide step_tokens(const Stage *s) { return (Wide)s->batch * (Wide)s->seq_len; }

static Wide tail_tokens(const RunConfig *c, int64_t steps)
{
    Wide sum = 0;
    for (int i = stages_count(c) - 1; i >= 0 && steps > 0; i--) {
        Stage s = stages_get(c, i);
        int64_t n = size_min(steps, s.steps);
        sum += (Wide)n * step_tokens(&s);
        steps -= n;
    }
    return sum;
}

double stages_tail_share(const RunConfig *c, int64_t steps)
{
    return (double)tail_tokens(c, steps) / (double)tail_tokens(c, c->train.steps);
}

/* From the last stage back: `left` is ANNEAL_PART times the tokens that are still to be found. */
static int64_t anneal_steps(const RunConfig *c)
{
    Wide left = tail_tokens(c, c->train.steps);
    int64_t steps = 0;
    for (int i = stages_count(c) - 1; i >= 0; i--) {
        Stage s = stages_get(c, i);
        Wide unit = ANNEAL_PART * step_tokens(&s), whole = unit * (Wide)s.steps;
        if (left <= whole) return size_max(1, steps + (int64_t)((left + unit / 2) / unit));
        left -= whole;
        steps += s.steps;
    }
    CHECK(0, "a twentieth of the tokens is more than all");
    return 0;
}

/* The stage that the last phase begins with, or -1. */
static int marked(const RunConfig *c)
{
    int i = (int)c->n_stages - 1;
    while (i >= 0 && !c->stage[i].anneal) i--;
    return i;
}

OptimConfig stages_optim(const RunConfig *c)
{
    OptimConfig out = c->optim;
    int from = marked(c);
    if (from >= 0)
        out.decay_steps = c->train.steps - stages_get(c, from).first;
    else if (out.schedule == SCHEDULE_THREE_PHASE && !out.decay_steps)
        out.decay_steps = anneal_steps(c);
    return out;
}

int stages_tied(const RunConfig *c, Err *e)
{
    int own = -1;
    if (c->optim.schedule != SCHEDULE_THREE_PHASE) return 0;
    int64_t begin = c->train.steps - stages_optim(c).decay_steps;
    for (int i = 1; i < stages_count(c); i++) {
        Stage s = stages_get(c, i);
        if (s.own_weights && s.first == begin) return 0;
        if (s.own_weights) own = i;
    }
    if (own < 0) return 0;
    err_set(e, "the annealing begins behind step %lld, stage '%s' with weights of its own behind "
            "step %lld", (long long)begin, c->stage[own].name,
            (long long)stages_get(c, own).first);
    return err_hint(e, "stages[%d].anneal=true, without optim.decay_steps, lets them begin "
                       "together", own);
}

void stages_settle(RunConfig *c, int i)
{
    Stage s = stages_get(c, i);
    c->data.seq_len = s.seq_len;
    c->train.batch = s.batch;
    c->train.micro_batch = s.micro_batch;
    c->model.rope_theta = s.rope_theta;
}

/* ---- Checks -----------------------------------------------------------------------------------*/

enum { KEY = CONF_LIST_KEY };

static const char *key_of(char out[KEY], int i, const char *name)
{
    snprintf(out, KEY, "stages[%d].%s", i, name);
    return out;
}

/* Whole routing groups in a step and in a micro-batch of the stage. */
static int check_shape(const RunConfig *c, int i, RunCheck k)
{
    Stage s = stages_get(c, i);
    char key[KEY];
    long long R = c->model.n_experts > 0 ? c->model.routing_group_tokens : 1, T = s.seq_len;
    long long batch = s.batch, micro = s.micro_batch;
    if (R > 1 && R % T && T % R)
        return FAIL(k, key_of(key, i, "seq_len"),
                    "stage '%s': model.routing_group_tokens, %lld, neither divides a sequence of "
                    "%lld tokens nor is a multiple of it", s.name, R, T);
    if (batch * T % R) {
        FAIL(k, key_of(key, i, "batch"), "stage '%s': %lld sequences of %lld tokens are not whole "
             "routing groups of %lld tokens", s.name, batch, T, R);
        return err_hint(k.e, "use a multiple of %lld", R / T);
    }
    if (micro < 1 || batch % micro)
        return FAIL(k, key_of(key, i, "micro_batch"), "stage '%s': %lld does not divide its batch "
                    "%lld", s.name, micro, batch);
    if (micro * T % R)
        return FAIL(k, key_of(key, i, "micro_batch"), "stage '%s': %lld sequences of %lld tokens "
                    "are not whole routing groups of %lld tokens", s.name, micro, T, R);
    long long unit = optim_measures_noise(c) ? c->optim.expert.noise_unit : 0;
    if (unit && (batch % unit || batch / unit < 2 || batch / unit > NOISE_UNITS_MAX ||
                 unit % micro || unit * T % R))
        return FAIL(k, key_of(key, i, "batch"), "stage '%s': its %lld sequences are not two or "
                    "more units of optim.noise_unit %lld sequences, of whole micro-batches (%lld) "
                    "and routing groups", s.name, batch, unit, micro);
    return 0;
}

/* The steps of the stages are those of the run. */
static int check_steps(const RunConfig *c, RunCheck k)
{
    long long sum = 0, total = c->train.steps;
    int last = (int)c->n_stages - 1;
    char key[KEY];
    for (int i = 0; i <= last; i++) {
        long long steps = c->stage[i].steps;
        if (steps == 0 && i < last)
            return FAIL(k, key_of(key, i, "steps"), "is 0: only the last stage takes the rest");
        sum += steps;
        if (sum >= total && i < last)
            return FAIL(k, key_of(key, i, "steps"), "stage '%s' ends at step %lld of train.steps "
                        "%lld: nothing is left for the next ones", c->stage[i].name, sum, total);
    }
    if (c->stage[last].steps == 0 || sum == total) return 0;
    FAIL(k, key_of(key, last, "steps"), "the stages have %lld steps, train.steps is %lld", sum,
         total);
    return err_hint(k.e, "steps: 0 gives the last stage the rest");
}

int stages_fill_share(RunConfig *c, RunCheck k)
{
    int last = (int)c->n_stages - 1, before = last - 1;
    char key[KEY];
    double sum = 0; /* tokens of the stages whose steps are given */
    int64_t left = c->train.steps;
    for (int i = 0; i < last; i++)
        if (c->stage[i].share > 0)
            return FAIL(k, key_of(key, i, "share"), "stage '%s' is not the last one",
                        c->stage[i].name);
    if (last < 0 || c->stage[last].share <= 0) return 0;
    double share = c->stage[last].share;
    key_of(key, last, "share");
    if (before < 0) return FAIL(k, key, "there is no other stage to take the rest");
    for (int i = 0; i < before; i++) {
        Stage s = stages_get(c, i);
        sum += (double)s.steps * (double)step_tokens(&s);
        left -= s.steps;
    }
    Stage a = stages_get(c, before), b = stages_get(c, last);
    double ta = (double)step_tokens(&a), tb = (double)step_tokens(&b);
    /* x tb = share (sum + (left - x) ta + x tb) */
    double x = share * (sum + (double)left * ta) / (tb - share * tb + share * ta);
    if (!(x < (double)left - 0.5))
        return FAIL(k, key, "%g of the tokens leave no step for stage '%s'", share,
                    c->stage[before].name);
    int64_t want[2] = {0, size_max(1, (int64_t)(x + 0.5))};
    want[0] = left - want[1];
    if (want[0] < 1) return FAIL(k, key, "train.steps %lld are too few", (long long)c->train.steps);
    for (int i = 0; i < 2; i++) {
        StageConfig *s = &c->stage[before + i];
        if (s->steps && s->steps != want[i])
            return FAIL(k, key_of(key, before + i, "steps"), "stage '%s' has %lld steps by "
                        "stages[%d].share: leave steps 0", s->name, (long long)want[i], last);
        s->steps = want[i];
    }
    return 0;
}

static int check_name(const RunConfig *c, int i, RunCheck k)
{
    char key[KEY];
    const char *name = c->stage[i].name;
    key_of(key, i, "name");
    if (!name[0]) return FAIL(k, key, "is empty");
    for (int before = 0; before < i; before++)
        if (!strcmp(c->stage[before].name, name))
            return FAIL(k, key, "'%.60s' is the name of stages[%d] too", name, before);
    return 0;
}

/* At most one stage says where the rate's last phase begins, and nothing else does. */
static int check_anneal(const RunConfig *c, RunCheck k)
{
    int schedule = c->optim.schedule, at = marked(c);
    char key[KEY];
    if (at < 0) return 0;
    key_of(key, at, "anneal");
    for (int i = 0; i < at; i++)
        if (c->stage[i].anneal)
            return FAIL(k, key, "stages[%d] is marked too: there is one annealing", i);
    if (schedule == SCHEDULE_COSINE || schedule == SCHEDULE_CONSTANT)
        return FAIL(k, key, "has an effect only with optim.schedule wsd, wsd_sqrt or three_phase");
    if (c->optim.decay_steps)
        return FAIL(k, "optim.decay_steps", "stage '%s' says where the rate begins to fall: give "
                    "one of the two", c->stage[at].name);
    return 0;
}

int stages_check(const RunConfig *c, RunCheck k)
{
    char key[KEY];
    double weight[LOADER_MAX_SOURCES];
    if (!c->n_stages) return 0;
    if (c->train.minutes > 0 && c->n_stages > 1)
        return FAIL(k, "train.minutes", "cuts the run to a length that is not known before; with "
                    "more than one stage say train.steps");
    if (check_steps(c, k)) return -1;
    for (int i = 0; i < (int)c->n_stages; i++) {
        const char *weights = c->stage[i].weights;
        if (check_name(c, i, k)) return -1;
        if (weights[0] && run_data_weights(c, weights, key_of(key, i, "weights"), k, weight))
            return -1;
        if (check_shape(c, i, k)) return -1;
    }
    return check_anneal(c, k);
}
