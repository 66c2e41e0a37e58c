/* scaling/cell_build.c - see cell_build.h. */
#include "scaling/cell_build.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/hash.h"
#include "base/size.h"
#include "scaling/cell_law.h"

int study_open(Study *y, const SweepConfig *s, const CellInspector *i, Err *e)
{
    *y = (Study){.s = s, .i = i};
    if (i->inspect(i->self, "", &y->base, e)) return -1;
    if (family_make(&y->family, s, &y->base.model, e)) return err_context(e, "%s", s->name);
    y->N_middle = sweep_centre(s, sqrt(s->budget[0] * s->budget[s->n_budgets - 1]));
    return 0;
}

void study_close(Study *y) { family_clear(&y->family); }

double study_size_wanted(const Study *y, int k) { return y->N_middle * pow(y->s->spacing, k); }

const FamilyModel *study_size(const Study *y, int k)
{
    return family_nearest(&y->family, study_size_wanted(y, k), sqrt(y->s->spacing) * (1 - 1e-9));
}

int study_sizes(const Study *y, double budget, int *low)
{
    double at = log(sweep_centre(y->s, budget) / y->N_middle) / log(y->s->spacing);
    int middle = (int)lround(at), n = (int)y->s->sizes;
    *low = middle - (n - 1) / 2 - (n % 2 == 0 && at < middle);
    return middle;
}

double study_tokens(const Study *y, const FamilyModel *m, double budget)
{
    double T = (double)y->base.seq_len;
    return budget * T / (double)count_flops_train(&m->model, y->base.seq_len);
}

/* Tokens that a batch is a multiple of. */
static int64_t batch_unit(const Study *y)
{
    const ModelConfig *c = &y->base.model;
    int64_t R = c->n_experts ? c->routing_group_tokens : 1;
    return size_max(1, R / y->base.seq_len);
}

CellSetting study_setting(const Study *y, const FamilyModel *m, double D_low, double D_high)
{
    const SweepConfig *s = y->s;
    double D = sqrt(D_low) * sqrt(D_high), T = (double)y->base.seq_len;
    double C = D / T * (double)count_flops_train(&m->model, y->base.seq_len);
    RatePoint at = cell_law_point(&m->params, D, C, NAN);
    CellSetting set = {.batch_wanted = cell_law_batch(s, &at)};
    set.batch = cell_law_legal(set.batch_wanted / T, batch_unit(y));
    at.batch = (double)set.batch * T;
    set.lr = cell_law_round(cell_law_rate(s, &at));
    set.warmup = y->base.warmup;
    if (s->warmup > 0) set.warmup = size_max(1, llround(s->warmup * D_low / at.batch));
    return set;
}

/* The same tokens of warm-up at another batch; the base's own number of steps stays. */
static int64_t warmup_at(const Study *y, const CellSetting *set, int64_t batch)
{
    if (!(y->s->warmup > 0)) return set->warmup;
    return size_max(1, llround((double)set->warmup * (double)set->batch / (double)batch));
}

CellSetting study_at_batch(const Study *y, CellSetting set, double factor)
{
    CellSetting out = set;
    out.batch_wanted = factor * set.batch_wanted;
    out.batch = cell_law_legal(out.batch_wanted / (double)y->base.seq_len, batch_unit(y));
    out.warmup = warmup_at(y, &set, out.batch);
    return out;
}

int64_t cell_fall(const Study *y, int64_t steps)
{
    double cooldown = y->s->cooldown;
    return cooldown > 0 ? steps - size_max(1, llround(cooldown * (double)steps)) : steps;
}

/* "2.5e12" of 2.5e12. */
static const char *short_number(char out[32], double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    char *plus = strstr(text, "e+");
    if (plus) {
        const char *digits = plus + 2 + strspn(plus + 2, "0");
        memmove(plus + 1, digits, strlen(digits) + 1);
    }
    snprintf(out, 32, "%s", text);
    return out;
}

void cell_name(char *out, const CellWish *w)
{
    char number[32], size[64], mark[VARIANT_NAME + 1] = "", end[48] = "", text[256];
    size_t used = 0;
    const ModelConfig *c = &w->m->model;
    snprintf(size, sizeof size, "d%lldx%lld-s%lld", (long long)c->d_model,
             (long long)c->n_layers, (long long)w->seed);
    if (w->variant) snprintf(mark, sizeof mark, "@%.*s", VARIANT_NAME - 1, w->variant->name);
    if (w->alone) snprintf(end, sizeof end, "-alone");
    if (w->batch_factor != 1)
        used = (size_t)snprintf(end, sizeof end, "-b%.4g", w->batch_factor);
    if (w->rate_factor != 1)
        snprintf(end + used, sizeof end - used, "-r%.4g", w->rate_factor);
    const char *front = w->kind == CELL_CHECK && !end[0] ? "check-C" : "C";
    if (w->kind == CELL_TRUNK)
        snprintf(text, sizeof text, "trunk-%s-to%lld%s", size, (long long)w->steps, mark);
    else
        snprintf(text, sizeof text, "%s%s-%s%s%s", front, short_number(number, w->budget), size,
                 end, mark);
    snprintf(out, CELL_NAME, "%.*s", CELL_NAME - 1, text);
}

void cell_leave_out(Cell *c)
{
    size_t n = strlen(c->name);
    snprintf(c->name + n, sizeof c->name - n, " (left out)");
    hash_hex(hash_more(hash_bytes(c->id, strlen(c->id)), c->name, strlen(c->name)), c->id);
}

void cell_variant(const char *name, char *out)
{
    const char *mark = strrchr(name, '@');
    snprintf(out, CELL_NAME, "%s", mark ? mark + 1 : "");
    char *end = strstr(out, " (left out)");
    if (end) *end = 0;
}

/* Words of the variant, one a line. */
static size_t add_variant(char *out, size_t used, const char *text)
{
    for (const char *p = text; *p && used < CELL_OVERRIDES;) {
        p += strspn(p, " \t\n");
        size_t n = strcspn(p, " \t\n");
        if (n)
            used += (size_t)snprintf(out + used, CELL_OVERRIDES - used, "%.*s\n", (int)n, p);
        p += n;
    }
    return used;
}

static int write_overrides(const Study *y, const CellWish *w, int64_t steps, Cell *c, Err *e)
{
    static const char *const schedules[] = {"wsd_sqrt", "wsd"};
    const ModelConfig *m = &w->m->model;
    int64_t decay = w->kind == CELL_TRUNK ? 0 : steps - cell_fall(y, steps);
    size_t n = (size_t)snprintf(
        c->overrides, CELL_OVERRIDES,
        "model.d_model=%" PRId64 "\nmodel.n_layers=%" PRId64 "\nmodel.n_heads=%" PRId64
        "\nmodel.n_kv_heads=%" PRId64 "\nmodel.head_dim=%" PRId64 "\n",
        m->d_model, m->n_layers, m->n_heads, m->n_kv_heads, m->head_dim);
    if (m->n_experts)
        n += (size_t)snprintf(c->overrides + n, CELL_OVERRIDES - n,
                              "model.expert_width=%" PRId64 "\n", m->expert_width);
    if (m->n_shared)
        n += (size_t)snprintf(c->overrides + n, CELL_OVERRIDES - n,
                              "model.shared_width=%" PRId64 "\n", m->shared_width);
    n += (size_t)snprintf(c->overrides + n, CELL_OVERRIDES - n,
                          "optim.lr=%.10g\noptim.schedule=%s\noptim.warmup_steps=%" PRId64
                          "\noptim.decay_steps=%" PRId64 "\ntrain.steps=%" PRId64
                          "\ntrain.batch=%" PRId64 "\ntrain.seed=%" PRId64 "\n",
                          w->set.lr * w->rate_factor, schedules[y->s->schedule], w->set.warmup,
                          decay, steps, w->set.batch, w->seed);
    if (w->variant) n = add_variant(c->overrides, n, w->variant->overrides);
    if (w->kind == CELL_TRUNK && n < CELL_OVERRIDES) /* where nothing falls it may not be given */
        n += (size_t)snprintf(c->overrides + n, CELL_OVERRIDES - n, "optim.final_lr_ratio=0.1\n");
    if (n < CELL_OVERRIDES) return 0;
    return err_set(e, "%s: cell %s: more than %d bytes of overrides", y->s->name, c->name,
                   CELL_OVERRIDES - 1);
}

static void set_id(Cell *c, uint64_t hash)
{
    uint64_t h = hash_more(hash, &(int32_t){(int32_t)c->kind}, sizeof(int32_t));
    h = hash_more(h, c->parent, strlen(c->parent));
    hash_hex(h, c->id);
}

void cell_adopt(Cell *c, const Cell *parent)
{
    uint64_t h = 0;
    sscanf(c->id, "%" SCNx64, &h);
    memcpy(c->parent, parent->id, sizeof c->parent);
    c->own_flops = c->C - parent->C;
    set_id(c, h);
}

static double factor_apart(double ratio) { return fmax(ratio, 1 / ratio); }

void cell_limit(const Study *y, const FamilyModel *m, double D, char *out)
{
    const SweepLimits *l = &y->s->limits;
    double most = l->unique_tokens * l->epochs;
    const struct {
        double value, low, high;
        const char *what, *key; /* limits.min_KEY, limits.max_KEY */
    } rows[] = {{m->N, l->min_params, l->max_params, "parameters", "params"},
                {D, l->min_tokens, l->max_tokens, "tokens", "tokens"},
                {D / m->N, l->min_per_param, l->max_per_param, "tokens a parameter", "per_param"}};
    out[0] = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows && !out[0]; i++) {
        bool low = rows[i].low > 0 && rows[i].value < rows[i].low;
        bool high = rows[i].high > 0 && rows[i].value > rows[i].high;
        if (low || high)
            snprintf(out, 256, "%.4g %s, %s limits.%s_%s %g", rows[i].value, rows[i].what,
                     low ? "below" : "above", low ? "min" : "max", rows[i].key,
                     low ? rows[i].low : rows[i].high);
    }
    if (!out[0] && most > 0 && D > most)
        snprintf(out, 256, "%.4g tokens are more than %g epochs of limits.unique_tokens %.4g", D,
                 l->epochs, l->unique_tokens);
}

void cell_experts(const ModelConfig *m, Cell *c)
{
    bool moe = m->n_experts > 0;
    double E = (double)m->n_experts, k = (double)m->top_k, shared = (double)m->n_shared;
    double used = k * (double)m->expert_width + (double)model_shared_width(m);
    c->experts = moe ? E : 1;
    c->top_k = moe ? k : 1;
    c->granularity = moe ? used / (double)m->expert_width : 1;
    c->sparsity = moe ? (E - k) / (E + shared) : 0;
}

/* Numbers of the cell's configuration; *out: what laws read of it. */
static int fill(const Study *y, const CellFacts *f, Cell *c, RatePoint *out, Err *e)
{
    ParamCount n;
    if (count_params(&f->model, &n, e)) return -1;
    double sequences = (double)f->steps * (double)f->batch;
    c->steps = f->steps;
    c->batch = f->batch;
    c->seq_len = f->seq_len;
    c->N = (double)n.active;
    c->N_no_embed = (double)n.active_no_embed;
    c->N_total = (double)n.total;
    cell_experts(&f->model, c);
    c->D = sequences * (double)f->seq_len;
    c->C = c->own_flops = sequences * (double)count_flops_train(&f->model, f->seq_len);
    c->lr = f->lr;
    c->memory = f->memory;
    c->disk = f->disk;
    RatePoint at = cell_law_point(&n, c->D, c->C, (double)f->batch * (double)f->seq_len);
    c->lr_law_ratio = f->lr / cell_law_rate(y->s, &at);
    c->batch_law_ratio = at.batch / cell_law_batch(y->s, &at);
    *out = at;
    return 0;
}

/* Why a cell with its numbers is not run. The laws are held to the rate and the batch that they
 * gave the size: a variant's own are meant. */
static void judge(const Study *y, const CellWish *w, RatePoint at, Cell *c)
{
    const SweepConfig *s = y->s;
    double deviation = c->C / w->budget - 1, tokens = (double)w->set.batch * (double)c->seq_len;
    double rounded = factor_apart(tokens / w->set.batch_wanted);
    at.batch = tokens;
    double rate = w->set.lr / cell_law_rate(s, &at), batch = tokens / cell_law_batch(s, &at);
    double bent = fmax(factor_apart(rate), factor_apart(batch));
    bool point = w->kind == CELL_POINT;
    char human[ARENA_HUMAN];
    if (w->kind != CELL_TRUNK) cell_limit(y, w->m, c->D, c->left_out);
    if (c->left_out[0]) return;
    if (w->kind != CELL_TRUNK && fabs(deviation) > CELL_DEVIATION)
        snprintf(c->left_out, sizeof c->left_out,
                 "%lld steps of %lld sequences miss the budget by %.2f %%", (long long)c->steps,
                 (long long)c->batch, 100 * deviation);
    else if (rounded > s->rounding)
        snprintf(c->left_out, sizeof c->left_out,
                 "the nearest legal batch has %.4g tokens, the law wants %.4g (batch.rounding %g)",
                 tokens, w->set.batch_wanted, s->rounding);
    else if (point && bent > s->limits.ratio && !s->force)
        snprintf(c->left_out, sizeof c->left_out,
                 "rate %.3g and batch %.3g times what the laws say for it alone: beyond "
                 "limits.ratio %g (sweep.force)", rate, batch, s->limits.ratio);
    else if (s->limits.memory > 0 && (double)c->memory > s->limits.memory)
        snprintf(c->left_out, sizeof c->left_out, "needs %s of memory, above limits.memory",
                 arena_human(human, c->memory));
}

int cell_build(const Study *y, const CellWish *w, Cell *c, Err *e)
{
    *c = (Cell){.kind = w->kind, .budget = w->budget, .seed = w->seed, .seconds = NAN};
    cell_name(c->name, w);
    CellFacts f = {.model = w->m->model, .seq_len = y->base.seq_len, .batch = w->set.batch};
    CellWish same = *w; /* but for the steps of the warm-up */
    RatePoint at;
    for (int pass = 0; pass < 3; pass++) { /* a variant may change what a step costs */
        double step = (double)f.batch * (double)count_flops_train(&f.model, f.seq_len);
        int64_t steps = w->kind == CELL_TRUNK ? w->steps
                                              : size_max(1, llround(w->budget / step));
        if (pass && steps == f.steps) break;
        Err refused = {0};
        same.set.warmup = warmup_at(y, &w->set, f.batch);
        if (write_overrides(y, &same, steps, c, e)) return -1;
        if (y->i->inspect(y->i->self, c->overrides, &f, &refused)) {
            refused.message[strcspn(refused.message, "\n")] = 0;
            snprintf(c->left_out, sizeof c->left_out, "%.255s", refused.message);
            hash_hex(hash_bytes(c->overrides, strlen(c->overrides)), c->id);
            return 0;
        }
    }
    if (fill(y, &f, c, &at, e)) return -1;
    judge(y, w, at, c);
    set_id(c, f.hash);
    return 0;
}

void cell_missing(const Study *y, double budget, int k, Cell *c)
{
    char number[32];
    double wanted = study_size_wanted(y, k);
    *c = (Cell){.kind = CELL_POINT, .budget = budget, .seed = y->s->seed, .seconds = NAN,
                .N = NAN, .N_no_embed = NAN, .N_total = NAN, .D = NAN, .C = NAN, .own_flops = NAN,
                .experts = NAN, .top_k = NAN, .granularity = NAN, .sparsity = NAN};
    snprintf(c->name, sizeof c->name, "C%s-n%.3g", short_number(number, budget), wanted);
    snprintf(c->left_out, sizeof c->left_out,
             "the family has no model within half a spacing of %.4g parameters", wanted);
    hash_hex(hash_bytes(c->name, strlen(c->name)), c->id);
}
