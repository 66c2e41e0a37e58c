/* train/plan.c - see plan.h: the numbers. How they look is in plan_print.c. */
#include "train/plan.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/io.h"
#include "base/size.h"
#include "device/scratch_bytes.h"
#include "train/stages.h"

enum { CONFIG_MAX = 1 << 20, DEFAULT_SEQ_LEN = 2048 };

/* Whether the YAML text has the key `model` at its top and no other. What is not YAML has not: the
 * strict reader says what is wrong with it. */
static bool only_model(const char *text, size_t size)
{
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return false;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    int depth = 0, keys = 0;
    bool done = false, only = true, is_key = true;
    while (!done && only) {
        yaml_event_t v;
        if (!yaml_parser_parse(&parser, &v)) {
            only = false;
            break;
        }
        bool opens = v.type == YAML_MAPPING_START_EVENT || v.type == YAML_SEQUENCE_START_EVENT;
        bool closes = v.type == YAML_MAPPING_END_EVENT || v.type == YAML_SEQUENCE_END_EVENT;
        if (v.type == YAML_SCALAR_EVENT && depth == 1 && is_key) {
            keys++;
            only = !strcmp((const char *)v.data.scalar.value, "model");
        }
        if (depth == 1 && (opens || v.type == YAML_SCALAR_EVENT)) is_key = !is_key;
        depth += opens - closes;
        done = v.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&v);
    }
    yaml_parser_delete(&parser);
    return only && keys > 0;
}

static int read_config(Plan *p, const char *const *overrides, int n, Err *e)
{
    char *text;
    size_t size;
    if (io_read_all(p->path, CONFIG_MAX, &text, &size, e)) return -1;
    p->is_run = !only_model(text, size);
    free(text);
    if (p->is_run) return run_config_read(&p->config, p->path, overrides, n, e);
    const ConfTable *table = model_config_table();
    ModelConfig *model = &p->config.model;
    int *lines = calloc((size_t)table->count, sizeof *lines);
    if (!lines) return err_set(e, "%s: out of memory", p->path);
    int rc = conf_read(table, model, p->path, overrides, n, lines, e);
    if (!rc) rc = model_config_check(model, table, lines, p->path, e);
    free(lines);
    return rc;
}

/* A run's own shape; for a model alone the asked one, by default enough sequences for one routing
 * group. */
static int choose_shape(Plan *p, const PlanOptions *o, Err *e)
{
    const RunConfig *run = &p->config;
    const ModelConfig *c = &run->model;
    if (o->batch < 0 || o->seq_len < 0)
        return err_set(e, "--batch and --seq-len must be positive");
    if (p->is_run) {
        if (o->batch || o->seq_len) {
            err_set(e, "%s: --batch and --seq-len are for files with a model section only",
                    p->path);
            return err_hint(e, "for a run: train.micro_batch=N data.seq_len=T");
        }
        int64_t bytes;
        if (stages_reserve(run, &bytes, &p->stage, e)) return -1;
        Stage largest = stages_get(run, p->stage);
        p->shape = stages_shape(run, &largest);
        stages_totals(run, &p->run_tokens, &p->run_flops);
        return 0;
    }
    int64_t T = o->seq_len ? o->seq_len : DEFAULT_SEQ_LEN;
    int64_t group = c->n_experts ? c->routing_group_tokens : T;
    int64_t B = o->batch ? o->batch : size_max(1, size_ceil_div(group, T));
    p->shape = (ModelShape){.type = DT_BF16, .B = B, .T = T, .micro_batches = 1, .train = true};
    return 0;
}

double plan_overflow(int64_t R, int64_t k, int64_t E, int64_t C)
{
    double n = (double)R, choices = n * (double)k, p = (double)k / (double)E, lost = 0;
    if (C >= R) return 0;
    if (k >= E) return (double)(R - C) * (double)E / choices;
    double mean = n * p, log_odds = log(p) - log1p(-p);
    double log_p = lgamma(n + 1) - lgamma((double)C + 1) - lgamma(n - (double)C + 1) +
                   (double)C * log(p) + (n - (double)C) * log1p(-p);
    for (int64_t x = C + 1; x <= R; x++) {
        log_p += log((double)(R - x + 1)) - log((double)x) + log_odds;
        double term = (double)(x - C) * exp(log_p);
        lost += term;
        if ((double)x > mean && term < 1e-18 * (lost + 1e-300)) break;
    }
    return lost * (double)E / choices;
}

int64_t plan_kv_bytes(const ModelConfig *c)
{
    enum { KEY_AND_VALUE = 2, BF16_BYTES = 2 };
    return KEY_AND_VALUE * BF16_BYTES * c->n_kv_heads * c->head_dim *
           size_ceil_div(c->n_layers, c->cla_share);
}

static void plan_routing(Plan *p)
{
    const ModelConfig *c = &p->config.model;
    if (!model_has_capacity(c)) return;
    int64_t R = c->routing_group_tokens;
    p->capacity = model_capacity(c);
    double rows = (double)p->capacity * (double)c->n_experts;
    if (c->routing == ROUTE_EXPERT_CHOICE) { /* every expert takes C tokens, or all R */
        p->empty_rows = fmax(0, 1 - (double)R / (double)p->capacity);
        return;
    }
    p->empty_rows = fmax(0, 1 - (double)R * (double)c->top_k / rows);
    p->overflow_even = plan_overflow(R, c->top_k, c->n_experts, p->capacity);
}

/* FLOPs are counted in 64 bits: those of so many sequences must fit, with backward and padding. */
static int check_flops(const Plan *p, double sequences, Err *e)
{
    const ModelConfig *c = &p->config.model;
    double T = (double)p->shape.T;
    double scores = (double)c->n_layers * (double)c->n_heads * (double)c->head_dim * T * T;
    double worst = 16 * sequences * ((double)p->params.active * T + scores);
    if (worst < 9e18) return 0;
    err_set(e, "%s: %.3g tokens have more FLOPs than 64 bits count", p->path, sequences * T);
    return err_hint(e, "about %.2g where 9e18 are the most", worst);
}

/* What the GPU holds beside the tensors. */
static void plan_beside(Plan *p)
{
    const GpuSpec *gpu = p->estimate.gpu;
    GpuRoom room = {.gpu = {(int)gpu->capability, (int64_t)gpu->memory, true},
                    .room = (int64_t)gpu->memory, .tensors = arena_total(&p->arenas),
                    .launches = gpu_memory_launches(&p->estimate.cost)};
    room.products = scratch_lt_bytes(room.room);
    if (p->is_run) {
        gpu_memory_run(&p->beside, &p->config, &room);
        return;
    }
    gpu_memory_begin(&p->beside, &room);
    gpu_memory_add(&p->beside, &p->config.model, &p->shape, false, &room);
}

/* A step on the GPU; a model file's has AdamW's update. */
static int plan_gpu(Plan *p, const char *name, Err *e)
{
    static const OptimConfig adamw = {.lr = 1, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8,
                                      .lr_ratio = OPTIM_SAME(1), .decay = OPTIM_MATRICES};
    const GpuSpec *gpu = cost_gpu(name);
    if (!gpu) {
        err_set(e, "--gpu %s is unknown", name);
        return err_hint(e, "known are %s", cost_gpu_names());
    }
    if (check_flops(p, (double)p->shape.B * (double)p->shape.micro_batches, e)) return -1;
    const OptimConfig *optim = p->is_run ? &p->config.optim : &adamw;
    if (estimate_step(&p->estimate, &p->config.model, optim, &p->shape, gpu, NULL, e)) return -1;
    plan_beside(p);
    return 0;
}

static int plan_by_product(Plan *p, const PlanOptions *o, Err *e)
{
    if (!o->flops && !o->convention && !o->family) return 0;
    if (check_flops(p, (double)p->shape.B, e)) return -1;
    return plan_flops_make(&p->by_product, &p->config.model, &p->shape, o->convention, o->family,
                           e);
}

int plan_make(Plan *p, const char *path, const char *const *overrides, int n_overrides,
              const PlanOptions *options, Err *e)
{
    *p = (Plan){.path = path};
    if (read_config(p, overrides, n_overrides, e) || choose_shape(p, options, e)) return -1;
    const ModelConfig *c = &p->config.model;
    if (count_params(c, &p->params, e) || check_flops(p, 1, e)) return -1;
    count_flops_forward(c, p->shape.T, p->flops);
    p->flops_train = count_flops_train(c, p->shape.T);
    ModelConfig plain = *c;
    plain.n_kv_heads = c->n_heads;
    plain.cla_share = 1;
    p->kv_bytes = plan_kv_bytes(c);
    p->kv_bytes_mha = plan_kv_bytes(&plain);
    plan_routing(p);
    if (model_plan(c, &p->shape, &p->arenas, e)) return -1;
    if (p->shape.train && optimizer_plan(c, &p->config.optim, &p->arenas, e)) return -1;
    if (arena_check(&p->arenas, e)) return -1;
    if (plan_by_product(p, options, e)) return -1;
    return options->gpu ? plan_gpu(p, options->gpu, e) : 0;
}

void plan_clear(Plan *p) { arena_clear(&p->arenas); }
