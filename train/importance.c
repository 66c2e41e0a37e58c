/* train/importance.c - see importance.h. */
#include "train/importance.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/cluster.h"

typedef struct Measure {
    Model *m;
    Loader *loader;
    const ImportancePlan *plan;
    int64_t D, S, L;
    int32_t *group;  /* (sequences) */
    double *feature; /* (sequences, D) */
    float *embed;    /* (V, D) */
    float *weight, *grad; /* (D, S) */
} Measure;

static const ParamRow *find_row(Model *m, int64_t layer, const char *what)
{
    char name[PARAM_NAME];
    if (layer < 0) snprintf(name, sizeof name, "%s", what);
    else snprintf(name, sizeof name, "layers.%lld.%s", (long long)layer, what);
    const ParamRow *row = params_find(model_params(m), name);
    CHECK(row, "no parameter %s", name);
    return row;
}

static void fetch(Model *m, Tensor flat, const ParamRow *row, float *out)
{
    dev_download(model_device(m), out, params_view(row, flat.data, DT_F32));
}

/* The mean of the tokens' embeddings, divided by its norm. */
static void find_feature(const Measure *x, const Batch *b, double *out)
{
    double norm = 0;
    memset(out, 0, (size_t)x->D * sizeof *out);
    for (int64_t t = 0; t < b->T; t++)
        for (int64_t d = 0; d < x->D; d++) out[d] += x->embed[b->tokens[t] * x->D + d];
    for (int64_t d = 0; d < x->D; d++) norm += out[d] * out[d];
    for (int64_t d = 0; d < x->D && norm > 0; d++) out[d] /= sqrt(norm);
}

static int group_sequences(Measure *x, Err *e)
{
    Batch b;
    fetch(x->m, model_master(x->m), find_row(x->m, -1, "embed.weight"), x->embed);
    for (int64_t i = 0; i < x->plan->sequences; i++) {
        if (loader_batch(x->loader, i, 1, &b, e)) return -1;
        find_feature(x, &b, x->feature + i * x->D);
    }
    ClusterPoints points = {x->feature, x->plan->sequences, x->D, x->plan->groups, x->plan->seed,
                            UINT32_MAX}; /* no layer's stream */
    return cluster_balanced(&points, x->group, e);
}

/* Gradients of the sequence's mean loss. */
static void backward(const Measure *x, const Batch *b)
{
    StepVars vars = {.loss_scale = 1 / (double)b->n_targets};
    MicroBatch micro = {.B = 1, .tokens = b->tokens, .targets = b->targets,
                        .doc_start = x->plan->documents ? b->doc_start : NULL};
    dev_step_begin(model_device(x->m), model_vars(x->m), &vars);
    model_zero_grads(x->m);
    model_train_micro(x->m, &micro, 1, b->T);
}

static void add_layer(const Measure *x, int64_t layer, double *out)
{
    const ParamRow *row = find_row(x->m, layer, "shared.down.weight");
    fetch(x->m, model_master(x->m), row, x->weight);
    fetch(x->m, model_grads(x->m), row, x->grad);
    for (int64_t s = 0; s < x->S; s++) {
        double sum = 0;
        for (int64_t d = 0; d < x->D; d++)
            sum += (double)x->weight[d * x->S + s] * x->grad[d * x->S + s];
        out[s] += fabs(sum);
    }
}

static int measure(Measure *x, double *out, Err *e)
{
    int64_t groups = x->plan->groups;
    if (group_sequences(x, e)) return -1;
    memset(out, 0, (size_t)(x->L * groups * x->S) * sizeof *out);
    for (int64_t i = 0; i < x->plan->sequences; i++) {
        Batch b;
        if (loader_batch(x->loader, i, 1, &b, e)) return -1;
        if (!b.n_targets) continue;
        backward(x, &b);
        for (int64_t l = 0; l < x->L; l++)
            add_layer(x, l, out + (l * groups + x->group[i]) * x->S);
    }
    return 0;
}

int importance_measure(Model *m, Loader *loader, const ImportancePlan *plan, double *out, Err *e)
{
    const ModelConfig *c = model_config(m);
    Measure x = {.m = m, .loader = loader, .plan = plan, .D = c->d_model, .L = c->n_layers,
                 .S = model_shared_width(c)};
    size_t n = (size_t)plan->sequences, D = (size_t)x.D, layer = D * (size_t)x.S;
    CHECK(!c->n_experts && model_shape(m)->train && model_shape(m)->type == DT_F32,
          "%lld experts", (long long)c->n_experts);
    x.group = malloc(n * sizeof *x.group);
    x.feature = malloc(n * D * sizeof *x.feature);
    x.embed = malloc((size_t)c->vocab_size * D * sizeof *x.embed);
    x.weight = malloc(layer * sizeof *x.weight);
    x.grad = malloc(layer * sizeof *x.grad);
    bool there = x.group && x.feature && x.embed && x.weight && x.grad;
    int rc = there ? measure(&x, out, e) : err_set(e, "out of memory for neurons' importance");
    free(x.group);
    free(x.feature);
    free(x.embed);
    free(x.weight);
    free(x.grad);
    return rc;
}
