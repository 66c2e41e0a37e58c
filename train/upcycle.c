/* train/upcycle.c - see upcycle.h. */
#include "train/upcycle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "data/reweight.h"
#include "model/count.h"
#include "train/importance.h"
#include "train/open_run.h"
#include "train/run_data.h"
#include "train/run_folder.h"
#include "train/runlog.h"
#include "train/split.h"
#include "train/stages.h"

const char *const upcycle_name[UPCYCLE_METHODS] = {"random", "clustered", "inner", "inter", "copy"};

typedef struct Upcycle {
    const UpcycleOptions *o;
    OpenRun dense;
    RunConfig config;
    bool scale_configured;
    int lock;
    Loader *train, *val, *text; /* text: what importance is measured on */
    Model *model;
    Optimizer *optimizer;
    double *importance;        /* (L, E, S), or NULL */
    Split split;               /* of the layer in hand */
    float *gate_up, *down;     /* (2S, D), (D, S) of the dense layer */
    float *new_gate_up, *new_down; /* of the new layer's experts, then of its shared ones */
} Upcycle;

static bool is_copy(const Upcycle *u) { return u->o->method == UPCYCLE_COPY; }

static bool needs_text(const Upcycle *u)
{
    return u->o->method == UPCYCLE_INNER || u->o->method == UPCYCLE_INTER;
}

/* ---- do the two models fit? ---------------------------------------------------------------- */

/* Keys that shape what is copied, or what it means. */
static const char *const same_keys[] = {
    "model.vocab_size", "model.d_model",    "model.n_layers",   "model.n_heads",
    "model.n_kv_heads", "model.head_dim",   "model.rope_theta", "model.rope_alpha",
    "model.qk_norm",    "model.attn_bias",  "model.cla_share",  "model.tie_embeddings",
    "model.norm_eps",   "model.mup_base_width", "model.mup_base_head_dim", NULL};

static bool is_same_key(const char *key)
{
    for (int i = 0; same_keys[i]; i++)
        if (!strcmp(same_keys[i], key)) return true;
    return false;
}

static int check_same(const Upcycle *u, Err *e)
{
    const ConfTable *table = run_config_table();
    for (int i = 0; i < table->count; i++) {
        ConfTable row = {&table->rows[i], 1};
        if (!is_same_key(row.rows->key)) continue;
        char *before = conf_write(&row, &u->dense.config), *after = conf_write(&row, &u->config);
        int rc = before && after ? 0 : err_set(e, "out of memory");
        if (!rc && strcmp(before, after))
            rc = err_set(e, "%s: %s is not that of the dense model %s", u->o->config,
                         row.rows->key, u->dense.checkpoint);
        free(before);
        free(after);
        if (rc) return -1;
    }
    return 0;
}

/* The widths that the method can make of S neurons. */
static int check_widths(const Upcycle *u, Err *e)
{
    const ModelConfig *c = &u->config.model;
    long long S = u->split.neurons, E = c->n_experts, F = c->expert_width;
    long long shared = u->split.shared;
    const char *name = upcycle_name[u->o->method];
    switch (u->o->method) {
    case UPCYCLE_RANDOM:
        if (E * F + shared == S) return 0;
        return err_set(e, "random: %lld experts of %lld and %lld shared neurons are not the %lld "
                       "of the dense layer", E, F, shared, S);
    case UPCYCLE_CLUSTERED:
        if (E * F == S && !shared) return 0;
        return err_set(e, "clustered: %lld experts of %lld neurons%s are not the %lld of the dense "
                       "layer", E, F, shared ? " and shared ones" : "", S);
    case UPCYCLE_INTER:
        if (shared && F + shared <= S) return 0;
        return err_set(e, "inter: needs shared neurons (%lld), and no more than %lld with those of "
                       "an expert (%lld)", shared, S, F);
    default:
        if (!shared && (is_copy(u) ? F == S : F <= S)) return 0;
        return err_set(e, "%s: needs experts of %s %lld neurons (not %lld), and no shared ones "
                       "(%lld)", name, is_copy(u) ? "exactly" : "at most", S, F, shared);
    }
}

static int check_models(Upcycle *u, Err *e)
{
    const ModelConfig *dense = &u->dense.config.model, *c = &u->config.model;
    if (dense->n_experts) {
        err_set(e, "%s: has experts already (model.n_experts %lld)", u->dense.checkpoint,
                (long long)dense->n_experts);
        return err_hint(e, "upcycle starts from a dense model: model.n_experts 0");
    }
    if (!c->n_experts)
        return err_set(e, "%s: model.n_experts is 0: the new model needs experts", u->o->config);
    if (model_has_own_widths(c))
        return err_set(e, "%s: model.expert_widths: a dense layer is split into equal experts only",
                       u->o->config);
    if (u->config.train.from[0])
        return err_set(e, "%s: train.from: an upcycled run begins with its own checkpoint",
                       u->o->config);
    if (check_same(u, e)) return -1;
    u->split = (Split){.neurons = model_shared_width(dense), .experts = c->n_experts,
                       .width = c->expert_width, .shared = model_shared_width(c),
                       .seed = (uint64_t)u->config.train.seed};
    return check_widths(u, e) ? err_context(e, "%s", u->o->config) : 0;
}

/* ---- the scale of the output --------------------------------------------------------------- */

/* The sum of a token's weights under a router that likes all experts alike: 1, unless they are the
 * scores themselves, a softmax's 1/E or a sigmoid's 1/2 each. */
static double weight_sum(const ModelConfig *c)
{
    if (c->router_weight == WEIGHT_RENORM) return 1;
    double score = c->router_score == SCORE_SIGMOID ? 0.5 : 1 / (double)c->n_experts;
    return score * (double)c->top_k;
}

/* Neurons of the dense layer over those that a token uses in the new one: LLaMA-MoE's N / k, its
 * residual blocks counted among both (7 experts and 1 block, one chosen: 8 / 2); over the sum of
 * the weights. */
static double auto_scale(const Upcycle *u)
{
    int64_t used = u->config.model.top_k * u->split.width + u->split.shared;
    double weights = weight_sum(&u->config.model);
    if (is_copy(u) || used >= u->split.neurons) return 1 / weights;
    return (double)u->split.neurons / (double)used / weights;
}

/* model.routed_scale of the run that is made; `given`: its configuration has the key. */
static int rescale(Upcycle *u, bool given, Err *e)
{
    static const char key[] = "model.routed_scale";
    double *scale = &u->config.model.routed_scale, wanted = auto_scale(u);
    UpcycleRescale kind = u->o->rescale;
    if (kind == UPCYCLE_RESCALE_NONE || (kind == UPCYCLE_RESCALE_DEFAULT && given)) return 0;
    if (kind == UPCYCLE_RESCALE_VALUE) wanted = u->o->rescale_value;
    if (given && *scale != wanted) {
        err_set(e, "%s: %s is %g, but --rescale %s asks for %g", u->o->config, key, *scale,
                kind == UPCYCLE_RESCALE_AUTO ? "auto" : "with a number", wanted);
        return err_hint(e, "take the key out of the configuration, or leave --rescale out");
    }
    *scale = wanted;
    return 0;
}

/* ---- what it needs ------------------------------------------------------------------------- */

/* The configuration's data; path: in its place, or NULL. */
static Loader *open_loader(const Upcycle *u, const char *split, const char *path, int64_t T, Err *e)
{
    LoaderOptions options = run_data_options(&u->config, split);
    options.seq_len = T;
    options.prefetch = false;
    if (path) options.n_sources = 1;
    if (path) options.source[0] = (LoaderSource){path, 1};
    return loader_open(&options, e);
}

static int check_tokenizer(const Upcycle *u, const Loader *loader, const char *path, Err *e)
{
    uint64_t trained = u->dense.state.tokenizer_hash;
    if (!trained || loader_tokenizer_hash(loader) == trained) return 0;
    return err_set(e, "%s: not made with the tokenizer that %s was trained with", path,
                   u->dense.checkpoint);
}

static int open_data(Upcycle *u, Err *e)
{
    const RunConfig *c = &u->config;
    int64_t T = c->data.seq_len;
    u->train = open_loader(u, "train", NULL, T, e);
    u->val = u->train ? open_loader(u, "val", NULL, T, e) : NULL;
    if (!u->val || check_tokenizer(u, u->train, run_data_path(c, "train"), e) ||
        check_tokenizer(u, u->val, run_data_path(c, "val"), e))
        return -1;
    if (!needs_text(u)) return 0;
    const char *path = u->o->data ? u->o->data : run_data_path(c, "train");
    u->text = open_loader(u, "train", u->o->data, u->dense.config.data.seq_len, e);
    if (!u->text) return -1;
    int64_t wanted = u->o->sequences * u->split.experts, there = loader_windows(u->text);
    if (wanted > there)
        return err_set(e, "%s: has %lld sequences; %lld for each of %lld experts are wanted", path,
                       (long long)there, (long long)u->o->sequences, (long long)u->split.experts);
    return check_tokenizer(u, u->text, path, e);
}

static int open_models(Upcycle *u, Err *e)
{
    const RunConfig *dense = &u->dense.config;
    ModelShape shape = {.type = DT_F32, .B = 1, .T = dense->data.seq_len, .micro_batches = 1,
                        .train = needs_text(u)};
    if (open_run_model(&u->dense, &shape, e)) return -1;
    shape = run_config_shape(&u->config);
    u->model = model_create(u->dense.device, &u->config.model, &shape, e);
    if (!u->model) return -1;
    u->optimizer = optimizer_create(u->model, &u->config.optim, e);
    if (!u->optimizer) return -1;
    model_init(u->model, (uint64_t)u->config.train.seed);
    return 0;
}

static int open_buffers(Upcycle *u, Err *e)
{
    Split *s = &u->split;
    size_t D = (size_t)u->config.model.d_model, S = (size_t)s->neurons;
    size_t made = (size_t)(s->experts * s->width + s->shared);
    s->expert = malloc((size_t)(s->experts * s->width) * sizeof *s->expert);
    s->common = malloc(((size_t)s->shared + 1) * sizeof *s->common);
    u->gate_up = malloc(2 * S * D * sizeof *u->gate_up);
    u->down = malloc(S * D * sizeof *u->down);
    u->new_gate_up = malloc(2 * made * D * sizeof *u->new_gate_up);
    u->new_down = malloc(made * D * sizeof *u->new_down);
    if (s->expert && s->common && u->gate_up && u->down && u->new_gate_up && u->new_down) return 0;
    return err_set(e, "out of memory for a layer of %zu neurons", made);
}

static int measure(Upcycle *u, Err *e)
{
    const RunConfig *dense = &u->dense.config;
    const Split *s = &u->split;
    ImportancePlan plan = {.groups = (int)s->experts, .sequences = u->o->sequences * s->experts,
                           .documents = dense->data.mask_documents, .seed = s->seed};
    if (!needs_text(u)) return 0;
    size_t n = (size_t)(dense->model.n_layers * s->experts * s->neurons);
    u->importance = malloc(n * sizeof *u->importance);
    if (!u->importance) return err_set(e, "out of memory for neurons' importance");
    return importance_measure(u->dense.model, u->text, &plan, u->importance, e);
}

/* ---- the weights --------------------------------------------------------------------------- */

static void name_of(char name[PARAM_NAME], int64_t layer, const char *what)
{
    snprintf(name, PARAM_NAME, "layers.%" PRId64 ".%s", layer, what);
}

static Tensor view_of(Model *m, int64_t layer, const char *what)
{
    char name[PARAM_NAME];
    name_of(name, layer, what);
    const ParamRow *row = params_find(model_params(m), name);
    CHECK(row, "no parameter %s", name);
    return params_view(row, model_master(m).data, DT_F32);
}

/* Everything that both models have under one name, but for the shared expert. */
static int copy_common(const Upcycle *u, Err *e)
{
    const ParamTable *from = model_params(u->dense.model), *to = model_params(u->model);
    for (int i = 0; i < from->count; i++) {
        const ParamRow *row = &from->row[i], *same = params_find(to, row->name);
        if (row->kind == PARAM_SHARED) continue;
        CHECK(same && same->elements == row->elements, "%s", row->name);
        float *values = malloc((size_t)row->elements * sizeof *values);
        if (!values) return err_set(e, "out of memory for %s", row->name);
        dev_download(u->dense.device, values,
                     params_view(row, model_master(u->dense.model).data, DT_F32));
        dev_upload(u->dense.device, params_view(same, model_master(u->model).data, DT_F32), values);
        free(values);
    }
    return 0;
}

/* One feed-forward of the n listed neurons (NULL: all): gate_up (2n, D) = [gate | up], down (D, n).
 */
static void gather(const Upcycle *u, const int32_t *list, int64_t n, float *gate_up, float *down)
{
    int64_t D = u->config.model.d_model, S = u->split.neurons;
    for (int64_t i = 0; i < n; i++) {
        int64_t s = list ? list[i] : i;
        memcpy(gate_up + i * D, u->gate_up + s * D, (size_t)D * sizeof *gate_up);
        memcpy(gate_up + (n + i) * D, u->gate_up + (S + s) * D, (size_t)D * sizeof *gate_up);
        for (int64_t d = 0; d < D; d++) down[d * n + i] = u->down[d * S + s];
    }
}

static int split_layer(Upcycle *u, int64_t layer, Err *e)
{
    Split *s = &u->split;
    int64_t D = u->config.model.d_model;
    const double *importance =
        u->importance ? u->importance + layer * s->experts * s->neurons : NULL;
    s->layer = (int)layer;
    switch (u->o->method) {
    case UPCYCLE_RANDOM: return split_random(s, e);
    case UPCYCLE_CLUSTERED: return split_clustered(s, u->gate_up + s->neurons * D, D, e);
    case UPCYCLE_INNER: return split_inner(s, importance, e);
    case UPCYCLE_INTER: return split_inter(s, importance, e);
    default: return 0; /* copies */
    }
}

static int make_layer(Upcycle *u, int64_t layer, Err *e)
{
    Device *d = u->dense.device;
    const Split *s = &u->split;
    int64_t D = u->config.model.d_model, F = s->width, E = s->experts;
    dev_download(d, u->gate_up, view_of(u->dense.model, layer, "shared.gate_up.weight"));
    dev_download(d, u->down, view_of(u->dense.model, layer, "shared.down.weight"));
    if (split_layer(u, layer, e)) return -1;
    for (int64_t x = 0; x < E; x++)
        gather(u, is_copy(u) ? NULL : s->expert + x * F, F, u->new_gate_up + x * 2 * F * D,
               u->new_down + x * F * D);
    dev_upload(d, view_of(u->model, layer, "experts.gate_up.weight"), u->new_gate_up);
    dev_upload(d, view_of(u->model, layer, "experts.down.weight"), u->new_down);
    if (!s->shared) return 0;
    gather(u, s->common, s->shared, u->new_gate_up, u->new_down);
    dev_upload(d, view_of(u->model, layer, "shared.gate_up.weight"), u->new_gate_up);
    dev_upload(d, view_of(u->model, layer, "shared.down.weight"), u->new_down);
    return 0;
}

static int make_weights(Upcycle *u, Err *e)
{
    if (copy_common(u, e)) return -1;
    for (int64_t l = 0; l < u->config.model.n_layers; l++)
        if (make_layer(u, l, e)) return -1;
    model_refresh_weights(u->model);
    return 0;
}

/* ---- the run folder ------------------------------------------------------------------------ */

static json_t *record_of(const Upcycle *u)
{
    return json_pack("{s:s, s:i, s:s, s:s, s:I, s:f}", "event", "upcycle", "step", 0, "method",
                     upcycle_name[u->o->method], "from", u->dense.checkpoint, "from_step",
                     (json_int_t)u->dense.state.step, "routed_scale",
                     u->config.model.routed_scale);
}

static int save(Upcycle *u, Err *e)
{
    const RunConfig *c = &u->config;
    const char *folder = c->train.out;
    char path[IO_PATH_MAX], *text = conf_write(run_config_table(), c);
    RunLog log = {.fd = -1};
    Stage first = stages_get(c, 0);
    bool dynamic = c->data.dynamic != REWEIGHT_OFF; /* its text counts too: left to the first run */
    TrainState s = {.segment = stages_segment(&first),
                    .steps_total = c->train.minutes > 0 ? 0 : c->train.steps,
                    .tokenizer_hash = loader_tokenizer_hash(u->train),
                    .data_hash = loader_data_hash(u->train),
                    .val_hash = dynamic ? 0 : loader_data_hash(u->val)};
    int rc = text ? 0 : err_set(e, "out of memory");
    if (!rc)
        s.run_id = hash_more(hash_bytes(text, strlen(text)), &u->dense.state.run_id,
                             sizeof u->dense.state.run_id);
    if (!rc) rc = io_join(path, folder, "config.yaml", e);
    if (!rc) rc = io_write_atomic(path, text, strlen(text), e);
    if (!rc) rc = runlog_create(&log, folder, e);
    if (!rc) rc = runlog_write(&log, record_of(u), e);
    if (!rc) rc = checkpoint_save(folder, u->model, u->optimizer, c, &s, e);
    runlog_close(&log);
    free(text);
    return rc;
}

static int fill_result(const Upcycle *u, UpcycleResult *r, Err *e)
{
    ParamCount before, after;
    const ModelConfig *c = &u->config.model;
    if (count_params(&u->dense.config.model, &before, e) || count_params(c, &after, e)) return -1;
    snprintf(r->out, sizeof r->out, "%s", u->config.train.out);
    r->params_dense = before.total;
    r->params = after.total;
    r->routed_scale = c->routed_scale;
    r->scale_auto = auto_scale(u);
    r->scale_configured = u->scale_configured;
    return 0;
}

static int run(Upcycle *u, UpcycleResult *result, Err *e)
{
    const UpcycleOptions *o = u->o;
    RunGiven scale = {.key = "model.routed_scale"};
    if (open_run(&u->dense, o->dense, e)) return -1;
    if (run_config_read_given(&u->config, o->config, o->overrides, o->n_overrides, &scale, e))
        return -1;
    if (check_models(u, e) || rescale(u, scale.given, e) || open_data(u, e)) return -1;
    u->scale_configured = scale.given;
    if (run_folder_lock(u->config.train.out, true, &u->lock, e)) return -1;
    if (open_models(u, e) || open_buffers(u, e) || measure(u, e)) return -1;
    if (make_weights(u, e) || fill_result(u, result, e)) return -1;
    return save(u, e);
}

int upcycle_run(const UpcycleOptions *o, UpcycleResult *result, Err *e)
{
    Upcycle *u = calloc(1, sizeof *u);
    if (!u) return err_set(e, "out of memory");
    u->o = o;
    u->lock = -1;
    int rc = run(u, result, e);
    optimizer_destroy(&u->optimizer);
    model_destroy(&u->model);
    open_run_close(&u->dense);
    if (u->text) loader_close(&u->text);
    if (u->val) loader_close(&u->val);
    if (u->train) loader_close(&u->train);
    run_folder_unlock(&u->lock);
    free(u->importance);
    free(u->split.expert);
    free(u->split.common);
    free(u->gate_up);
    free(u->down);
    free(u->new_gate_up);
    free(u->new_down);
    free(u);
    return rc;
}
