/* optim/optim.c - see optim.h. */
#include "optim/optim.h"

#include <math.h>
#include <stdlib.h>

#include "base/size.h"
#include "model/mup.h"
#include "optim/decay.h"
#include "optim/moments.h"

struct Optimizer {
    Model *m;
    OptimConfig c;
    Moments moments;
    Tensor sum;              /* (1) f64: squared gradient norm */
    Tensor history;          /* (1 + 2 window) f64 of dev_clip, or none */
    Tensor expert_rates;     /* (L, E) f32, or none */
    ExpertRates *rates;      /* writes them; or NULL */
    AdamwRow *rows;          /* [parameters], room for those of AdamW */
    void *block;
};

static Tensor take(ArenaPlan *plan, char *base, const char *name, DType type, int64_t n)
{
    int64_t bytes;
    if (!size_mul(n, (int64_t)dtype_size(type), &bytes)) bytes = -1;
    uintptr_t at = (uintptr_t)arena_reserve(plan, name, bytes);
    return tensor_1d((void *)((uintptr_t)base + at), type, n);
}

static void layout(Optimizer *o, const ModelConfig *model, ArenaPlan *plan, char *base)
{
    int64_t L = model->n_layers, E = model->n_experts;
    moments_layout(&o->moments, plan, base);
    o->sum = take(plan, base, "optimizer/norm", DT_F64, 1);
    if (o->c.skip_zscore > 0)
        o->history = take(plan, base, "optimizer/latest steps", DT_F64, 1 + 2 * o->c.skip_window);
    if (!E) return;
    Tensor rates = take(plan, base, "optimizer/expert rates", DT_F32, L * E);
    o->expert_rates = tensor_2d(rates.data, DT_F32, L, E);
}

int optimizer_plan(const ModelConfig *c, const OptimConfig *optim, ArenaPlan *plan, Err *e)
{
    ParamTable table;
    Optimizer rehearsal = {.c = *optim};
    if (params_build(&table, c, e)) return -1;
    int rc = moments_make(&rehearsal.moments, &table, optim, e);
    if (!rc) layout(&rehearsal, c, plan, NULL);
    moments_free(&rehearsal.moments);
    params_free(&table);
    if (rc || expert_rates_plan(c, &optim->expert, plan, e)) return -1;
    return arena_check(plan, e);
}

/* Zeros everywhere, but for the factors of the rates. */
static void start(Optimizer *o)
{
    Device *d = model_device(o->m);
    dev_fill(d, o->moments.m, 0);
    dev_fill(d, o->moments.v, 0);
    if (tensor_given(o->history)) dev_fill(d, o->history, 0);
    if (tensor_given(o->expert_rates)) dev_fill(d, o->expert_rates, 1);
}

Optimizer *optimizer_create(Model *m, const OptimConfig *c, Err *e)
{
    ArenaPlan plan = {0};
    Optimizer *o = calloc(1, sizeof *o);
    if (!o) {
        err_set(e, "out of memory for the optimizer");
        return NULL;
    }
    o->m = m;
    o->c = *c;
    o->rows = calloc((size_t)model_params(m)->count, sizeof *o->rows);
    if (!o->rows) {
        err_set(e, "out of memory for the optimizer");
        free(o);
        return NULL;
    }
    if (!moments_make(&o->moments, model_params(m), c, e)) {
        layout(o, model_config(m), &plan, NULL);
        if (!arena_check(&plan, e))
            o->block = dev_alloc(model_device(m), arena_total(&plan), "the optimizer", e);
        arena_clear(&plan);
    }
    if (!o->block || expert_rates_create(&o->rates, m, &c->expert, e)) {
        optimizer_destroy(&o);
        return NULL;
    }
    layout(o, model_config(m), &plan, o->block);
    arena_clear(&plan);
    start(o);
    return o;
}

void optimizer_destroy(Optimizer **o)
{
    if (!*o) return;
    expert_rates_destroy(&(*o)->rates);
    dev_free(model_device((*o)->m), (*o)->block);
    moments_free(&(*o)->moments);
    free((*o)->rows);
    free(*o);
    *o = NULL;
}

void optimizer_begin(Optimizer *o, uint64_t seed, int64_t step, double lr, int64_t updates,
                     double targets)
{
    StepVars vars = {.seed = seed, .step = step, .lr = lr, .grad_scale = 1};
    vars.bias1 = 1 - pow(o->c.beta1, (double)(updates + 1));
    vars.bias2 = 1 - pow(o->c.beta2, (double)(updates + 1));
    vars.loss_scale = targets > 0 ? 1 / targets : 0;
    dev_step_begin(model_device(o->m), model_vars(o->m), &vars);
}

/* Factors of the experts that a row holds; none for other rows. */
static Tensor rates_of(const Optimizer *o, const ParamRow *row)
{
    if (row->kind != PARAM_EXPERT) return tensor_none();
    int64_t E = o->expert_rates.dim[1];
    Tensor layer = tensor_1d(tensor_slice(o->expert_rates, row->layer, 1).data, DT_F32, E);
    return row->expert < 0 ? layer : tensor_slice(layer, row->expert, 1);
}

/* Weight decay of a row. What a step takes off is the rate times this: the width's factor on the
 * rate is taken out again, so that decay is the same at every width. */
static double decay_of(const Optimizer *o, const ParamRow *row, double scale)
{
    return decay_of_row(&o->c, row) / scale;
}

/* A row's rate / the schedule's, without the factors of single experts; *width: the part that the
 * transfer to another width has in it. */
static double rate_of(const Optimizer *o, int i, double *width)
{
    const ParamRow *row = &model_params(o->m)->row[i];
    *width = o->moments.row[i].muon ? params_muon_scale(row) : row->lr_scale;
    return o->c.lr_ratio[row->kind] * *width;
}

double optimizer_expert_ratio(const Optimizer *o)
{
    double width;
    const ParamTable *table = model_params(o->m);
    for (int i = 0; i < table->count; i++)
        if (table->row[i].kind == PARAM_EXPERT) return rate_of(o, i, &width);
    return o->c.lr_ratio[PARAM_EXPERT];
}

static AdamwRow adamw_row(const Optimizer *o, int i)
{
    const ParamRow *row = &model_params(o->m)->row[i];
    Tensor weights = model_weights(o->m);
    AdamwTensors t = {.master = params_view(row, model_master(o->m).data, DT_F32),
                      .grad = params_view(row, model_grads(o->m).data, DT_F32),
                      .m = o->moments.row[i].m, .v = o->moments.row[i].v};
    if (weights.data) t.weight = params_view(row, weights.data, DT_BF16);
    double width, ratio = rate_of(o, i, &width);
    AdamwOpt opt = {.beta1 = o->c.beta1, .beta2 = o->c.beta2, .eps = o->c.eps,
                    .weight_decay = decay_of(o, row, width), .lr_ratio = ratio,
                    .lr_each = rates_of(o, row),
                    .rounding = {.stream = (uint32_t)i}};
    return (AdamwRow){t, opt};
}

static void update_muon(Optimizer *o, int i)
{
    const ParamRow *row = &model_params(o->m)->row[i];
    const RowMoments *r = &o->moments.row[i];
    Tensor weights = model_weights(o->m);
    Tensor master = params_view(row, model_master(o->m).data, DT_F32);
    Tensor grad = params_view(row, model_grads(o->m).data, DT_F32);
    MuonTensors t = {.master = tensor_reshape3(master, r->n, r->A, r->B),
                     .grad = tensor_reshape3(grad, r->n, r->A, r->B),
                     .m = tensor_reshape3(r->m, r->n, r->A, r->B), .work = o->moments.work};
    if (weights.data)
        t.weight = tensor_reshape3(params_view(row, weights.data, DT_BF16), r->n, r->A, r->B);
    double width, ratio = rate_of(o, i, &width);
    MuonOpt opt = {.momentum = o->c.muon_momentum, .weight_decay = decay_of(o, row, width),
                   .lr_ratio = ratio, .lr_each = rates_of(o, row),
                   .rounding = {.stream = (uint32_t)i}};
    dev_muon(model_device(o->m), t, &opt, model_vars(o->m));
}

void optimizer_step(Optimizer *o, StepVars *vars)
{
    Model *m = o->m;
    Device *d = model_device(m);
    ClipOpt clip = {.max_norm = o->c.clip, .z_max = o->c.skip_zscore, .window = o->c.skip_window,
                    .loss = model_loss_sums(m), .history = o->history};
    dev_fill(d, o->sum, 0);
    dev_sqsum(d, o->sum, model_grads(m));
    dev_clip(d, model_vars(m), o->sum, &clip);
    int n = 0;
    for (int i = 0; i < model_params(m)->count; i++) {
        if (o->moments.row[i].muon) update_muon(o, i);
        else o->rows[n++] = adamw_row(o, i);
    }
    dev_adamw_rows(d, o->rows, n, model_vars(m));
    dev_weights_changed(d);
    if (vars) optimizer_read_vars(o, vars);
}

void optimizer_read_vars(Optimizer *o, StepVars *vars)
{
    Tensor view = tensor_1d(model_vars(o->m), DT_F64, sizeof *vars / 8);
    dev_download(model_device(o->m), vars, view);
}

int optimizer_state(Optimizer *o, StateTensor out[STATE_MAX])
{
    int n = 0;
    if (tensor_given(o->history)) out[n++] = (StateTensor){"skip_history", o->history};
    return n + expert_rates_state(o->rates, out + n);
}

Tensor optimizer_expert_rates(Optimizer *o) { return o->expert_rates; }
ExpertRates *optimizer_rates(Optimizer *o) { return o->rates; }
Tensor optimizer_m(Optimizer *o, int row) { return o->moments.row[row].m; }
Tensor optimizer_v(Optimizer *o, int row) { return o->moments.row[row].v; }
