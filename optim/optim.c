/* optim/optim.c - see optim.h. */
#include "optim/optim.h"

#include <math.h>
#include <stdlib.h>

struct Optimizer {
    Model *m;
    OptimConfig c;
    Tensor moment1, moment2; /* f32 flat */
    Tensor sum;              /* (1) f64: squared gradient norm */
    void *block;
};

static void layout(Optimizer *o, int64_t elements, ArenaPlan *plan, char *base)
{
    int64_t bytes = elements * 4;
    uintptr_t m = (uintptr_t)arena_reserve(plan, "optimizer/first moment f32", bytes);
    uintptr_t v = (uintptr_t)arena_reserve(plan, "optimizer/second moment f32", bytes);
    uintptr_t s = (uintptr_t)arena_reserve(plan, "optimizer/norm", 8);
    o->moment1 = tensor_1d((void *)((uintptr_t)base + m), DT_F32, elements);
    o->moment2 = tensor_1d((void *)((uintptr_t)base + v), DT_F32, elements);
    o->sum = tensor_1d((void *)((uintptr_t)base + s), DT_F64, 1);
}

int optimizer_plan(const ModelConfig *c, ArenaPlan *plan, Err *e)
{
    ParamTable table;
    Optimizer rehearsal;
    if (params_build(&table, c, e)) return -1;
    layout(&rehearsal, table.elements, plan, NULL);
    params_free(&table);
    return arena_check(plan, e);
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
    layout(o, model_params(m)->elements, &plan, NULL);
    o->block = dev_alloc(model_device(m), arena_total(&plan), "the optimizer", e);
    arena_clear(&plan);
    if (!o->block) {
        optimizer_destroy(&o);
        return NULL;
    }
    layout(o, model_params(m)->elements, &plan, o->block);
    arena_clear(&plan);
    dev_fill(model_device(m), o->moment1, 0);
    dev_fill(model_device(m), o->moment2, 0);
    return o;
}

void optimizer_destroy(Optimizer **o)
{
    if (!*o) return;
    dev_free(model_device((*o)->m), (*o)->block);
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

void optimizer_step(Optimizer *o, StepVars *vars)
{
    Model *m = o->m;
    Device *d = model_device(m);
    Tensor weights = model_weights(m);
    dev_fill(d, o->sum, 0);
    dev_sqsum(d, o->sum, model_grads(m));
    dev_clip(d, model_vars(m), o->sum, o->c.clip);
    for (int i = 0; i < model_params(m)->count; i++) {
        const ParamRow *row = &model_params(m)->row[i];
        AdamwTensors t = {.master = params_view(row, model_master(m).data, DT_F32),
                          .grad = params_view(row, model_grads(m).data, DT_F32),
                          .m = params_view(row, o->moment1.data, DT_F32),
                          .v = params_view(row, o->moment2.data, DT_F32)};
        if (weights.data) t.weight = params_view(row, weights.data, DT_BF16);
        AdamwOpt opt = {.beta1 = o->c.beta1, .beta2 = o->c.beta2, .eps = o->c.eps,
                        .weight_decay = row->decay ? o->c.weight_decay : 0,
                        .lr_ratio = row->kind == PARAM_EXPERT ? o->c.expert_lr_ratio : 1};
        dev_adamw(d, t, &opt, model_vars(m));
    }
    dev_weights_changed(d);
    Tensor view = tensor_1d(model_vars(m), DT_F64, sizeof *vars / 8);
    dev_download(d, vars, view);
}

int optimizer_state(Optimizer *o, StateTensor out[STATE_MAX])
{
    (void)o;
    (void)out;
    return 0;
}

Tensor optimizer_m(Optimizer *o) { return o->moment1; }
Tensor optimizer_v(Optimizer *o) { return o->moment2; }
