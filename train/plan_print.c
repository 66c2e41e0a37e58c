/* train/plan_print.c - a Plan (plan.h) as a text for people and as JSON. */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "base/size.h"
#include "model/mup.h"
#include "train/idle.h"
#include "train/json_out.h"
#include "train/plan.h"
#include "train/row_decay.h"
#include "train/run_data.h"
#include "train/stages.h"

static const char *scaled(char out[PLAN_COUNT], double value, const char *const units[7])
{
    int unit = 0;
    while (fabs(value) >= 999.995 && unit < 6) {
        value /= 1000;
        unit++;
    }
    if (unit == 0 && value == floor(value))
        snprintf(out, PLAN_COUNT, "%.0f", value);
    else
        snprintf(out, PLAN_COUNT, "%.2f%s", value, units[unit]);
    return out;
}

const char *plan_count(char out[PLAN_COUNT], double value)
{
    static const char *const units[] = {"", " K", " M", " B", " T", " Qa", " Qi"};
    return scaled(out, value, units);
}

const char *plan_flops(char out[PLAN_COUNT], double value)
{
    static const char *const units[] = {"", " k", " M", " G", " T", " P", " E"};
    return scaled(out, value, units);
}

/* Rows of the parameter table: what a part holds, and what of it a token uses. */
typedef struct Part {
    const char *name;
    int64_t total, active;
} Part;

enum { PARTS = 9 };

static void list_parts(const Plan *p, Part part[PARTS])
{
    const ParamCount *n = &p->params;
    const ModelConfig *c = &p->config.model;
    int64_t used = c->n_experts ? n->experts / c->n_experts * c->top_k : 0;
    const Part list[PARTS] = {
        {"embedding", n->embed, n->embed},       {"head", n->head, n->head},
        {"attention", n->attention, n->attention}, {"router", n->router, n->router},
        {"shared experts", n->shared, n->shared}, {"experts", n->experts, used},
        {"norms", n->norms, n->norms},           {"total", n->total, n->active},
        {"without embedding", n->total_no_embed, n->active_no_embed},
    };
    memcpy(part, list, sizeof list);
}

static void print_params(const Plan *p, FILE *out)
{
    Part part[PARTS];
    char total[PLAN_COUNT], active[PLAN_COUNT];
    list_parts(p, part);
    fprintf(out, "parameters %19s %12s\n", "total", "activated");
    for (int i = 0; i < PARTS; i++)
        if (part[i].total)
            fprintf(out, "  %-17s %10s %12s\n", part[i].name,
                    plan_count(total, (double)part[i].total),
                    plan_count(active, (double)part[i].active));
}

static void print_widths(const Plan *p, FILE *out)
{
    const ModelConfig *c = &p->config.model;
    if (!model_has_own_widths(c)) return;
    fprintf(out, "  experts are");
    for (int64_t i = 0; i < c->n_experts; i++) fprintf(out, " %d", c->own_widths[i]);
    fprintf(out, " wide, %lld on average: activated counts and FLOPs are those of a uniform "
            "choice\n", (long long)c->expert_width);
}

static double forward_sum(const Plan *p)
{
    double sum = 0;
    for (int i = 0; i < (int)FLOP_PARTS; i++) sum += (double)p->flops[i];
    return sum;
}

static double train_per_token(const Plan *p)
{
    return (double)p->flops_train / (double)p->shape.T;
}

/* Training FLOPs a token over 6 N. */
static double ratio_6n(const Plan *p, int64_t N)
{
    return N ? train_per_token(p) / (6 * (double)N) : 0;
}

static void print_flops(const Plan *p, FILE *out)
{
    char n[PLAN_COUNT];
    double sum = forward_sum(p), T = (double)p->shape.T;
    fprintf(out, "\nFLOPs a token at T = %lld %5s %12s\n", (long long)p->shape.T, "", "share");
    for (int i = 0; i < (int)FLOP_PARTS; i++)
        if (p->flops[i])
            fprintf(out, "  %-17s %10s %11.1f%%\n", flop_part_name((FlopPart)i),
                    plan_flops(n, (double)p->flops[i] / T), 100 * (double)p->flops[i] / sum);
    fprintf(out, "  %-17s %10s\n", "forward", plan_flops(n, sum / T));
    fprintf(out, "  %-17s %10s %9.3f x 6N, N activated\n", "training",
            plan_flops(n, train_per_token(p)), ratio_6n(p, p->params.active));
    fprintf(out, "  %-17s %10s %9.3f x 6N, N activated without embedding\n", "", "",
            ratio_6n(p, p->params.active_no_embed));
}

/* Where the rate falls in a last phase of its own; false: nowhere. */
static bool last_phase(const RunConfig *c, int64_t *steps, double *share)
{
    OptimConfig optim = stages_optim(c);
    bool falls = optim.schedule != SCHEDULE_COSINE && optim.schedule != SCHEDULE_CONSTANT;
    *steps = falls ? optim.decay_steps : 0;
    *share = stages_tail_share(c, *steps);
    return *steps > 0;
}

static void print_last_phase(const RunConfig *c, FILE *out)
{
    int64_t steps;
    double share;
    Err e = {0};
    if (last_phase(c, &steps, &share))
        fprintf(out, "  the rate's last phase: %lld steps, %.3g%% of the tokens\n",
                (long long)steps, 100 * share);
    if (stages_tied(c, &e)) fprintf(out, "  warning: %s\n", e.message);
}

static void print_warning(const char *message, void *out)
{
    fprintf(out, "  warning: %s\n", message);
}

static void print_run(const Plan *p, FILE *out)
{
    char tokens[PLAN_COUNT], flops[PLAN_COUNT];
    const RunConfig *c = &p->config;
    fprintf(out, "\nrun: %lld steps", (long long)c->train.steps);
    if (!c->n_stages)
        fprintf(out, " of %lld sequences of %lld tokens", (long long)c->train.batch,
                (long long)p->shape.T);
    fprintf(out, ": %s tokens, %s FLOPs, %.1f tokens an activated parameter\n",
            plan_count(tokens, p->run_tokens), plan_flops(flops, p->run_flops),
            p->run_tokens / (double)p->params.active);
    print_last_phase(c, out);
    idle_keys(c, print_warning, out);
}

/* "web 0.25, long 0.75": the sources that a stage takes from. */
static void print_weights(const RunConfig *c, const Stage *s, FILE *out)
{
    double sum = 0;
    bool first = true;
    for (int i = 0; i < run_data_sources(c); i++) sum += s->weight[i];
    for (int i = 0; i < run_data_sources(c); i++) {
        if (s->weight[i] == 0) continue;
        fprintf(out, "%s%s %.3g", first ? "" : ", ", run_data_name(c, i), s->weight[i] / sum);
        first = false;
    }
    fputc('\n', out);
}

static void print_stages(const Plan *p, FILE *out)
{
    const RunConfig *c = &p->config;
    if (!p->is_run || !c->n_stages) return;
    fprintf(out, "\nstages %17s %8s %7s %9s %10s %10s  %s\n", "steps", "T", "batch", "micro",
            "tokens", "RoPE base", "sources");
    for (int i = 0; i < stages_count(c); i++) {
        Stage s = stages_get(c, i);
        char tokens[PLAN_COUNT];
        double sum = (double)s.steps * (double)s.batch * (double)s.seq_len;
        fprintf(out, "  %-12.12s %9lld %8lld %7lld %9lld %10s %10g  ", s.name, (long long)s.steps,
                (long long)s.seq_len, (long long)s.batch, (long long)s.micro_batch,
                plan_count(tokens, sum), s.rope_theta);
        print_weights(c, &s, out);
    }
    fprintf(out, "  stage '%s' needs the most memory\n", stages_get(c, p->stage).name);
}

/* What becomes of a choice that finds no room. */
static const char *const lost[] = {[ROUTE_RECYCLE] = "recycled", [ROUTE_DROP] = "dropped"};

static void print_capacity(const Plan *p, FILE *out)
{
    const ModelConfig *c = &p->config.model;
    fprintf(out, "  capacity C = %lld rows an expert and group (factor %g, multiple of %lld)\n",
            (long long)p->capacity, c->capacity_factor, (long long)c->capacity_multiple);
    if (c->routing == ROUTE_EXPERT_CHOICE) {
        fprintf(out, "  every expert takes the %lld tokens of a group that score it highest: %.4g "
                "experts a token on average, at most %lld; %.2f%% of the rows are empty\n"
                "  held-out loss is that of dropless top-%lld routing; no text can be generated\n",
                (long long)size_min(p->capacity, c->routing_group_tokens),
                (double)count_group_rows(c) / (double)c->routing_group_tokens,
                (long long)c->n_experts, 100 * p->empty_rows, (long long)c->top_k);
        return;
    }
    fprintf(out, "  empty rows with every choice placed: %.2f%%\n"
            "  choices beyond C with an even router: %.2f%% expected; they are %s\n",
            100 * p->empty_rows, 100 * p->overflow_even, lost[c->routing]);
}

static void print_routing(const Plan *p, FILE *out)
{
    const ModelConfig *c = &p->config.model;
    if (!c->n_experts) {
        fprintf(out, "\nrouting: none, a dense model\n");
        return;
    }
    fprintf(out, "\nrouting: %s, top %lld of %lld experts, groups of %lld tokens\n",
            model_routing_name(c->routing), (long long)c->top_k, (long long)c->n_experts,
            (long long)c->routing_group_tokens);
    if (c->top_p > 0)
        fprintf(out, "  a token takes experts until their probabilities sum to %g: all counts here "
                "are those of the most, %lld\n", c->top_p, (long long)c->top_k);
    if (p->capacity)
        print_capacity(p, out);
    else
        fprintf(out, "  expert buffers are sized for the worst case: %lld rows a token\n",
                (long long)c->top_k);
}

/* Width transfer: factors on what the configuration says. */
static void print_width(const Plan *p, FILE *out)
{
    const ModelConfig *c = &p->config.model;
    double m = model_width_ratio(c);
    if (!c->mup_base_width) return;
    fprintf(out, "\nwidth transfer (muP): %.4g times the base width %lld\n"
            "  hidden matrices: init / %.4g, AdamW's rate / %.4g, Muon's / %.4g\n"
            "  router: init / %.4g, AdamW's rate / %.4g; logits / %.4g; attention scale %.5g\n", m,
            (long long)c->mup_base_width, sqrt(m), m, sqrt(m), m, m, m, model_attention_scale(c));
}

static json_t *width_json(const Plan *p)
{
    const ModelConfig *c = &p->config.model;
    if (!c->mup_base_width) return json_null();
    return json_pack("{s:I, s:f, s:f, s:f}", "base_width", (json_int_t)c->mup_base_width, "ratio",
                     model_width_ratio(c), "logit_scale", model_logit_scale(c), "attention_scale",
                     model_attention_scale(c));
}

static void print_memory(const Plan *p, FILE *out)
{
    char title[128], human[ARENA_HUMAN];
    snprintf(title, sizeof title, "\nmemory, %s, micro-batches of %lld x %lld tokens",
             dtype_name(p->shape.type), (long long)p->shape.B, (long long)p->shape.T);
    arena_print(&p->arenas, out, title, 0);
    fprintf(out, "  (a device's own scratch and packed weights come on top; of a GPU: --gpu)\n");
    fprintf(out, "\nKV cache: %lld bytes a token in bf16 (%s); plain multi-head attention: %lld "
            "(%.1f x)\n", (long long)p->kv_bytes, arena_human(human, p->kv_bytes),
            (long long)p->kv_bytes_mha, (double)p->kv_bytes_mha / (double)p->kv_bytes);
}

void plan_print(const Plan *p, FILE *out)
{
    fprintf(out, "%s (%s)\n\n", p->path, p->is_run ? "a run" : "a model");
    print_params(p, out);
    print_widths(p, out);
    print_flops(p, out);
    plan_flops_print(&p->by_product, out);
    if (p->is_run) print_run(p, out);
    print_stages(p, out);
    print_routing(p, out);
    print_width(p, out);
    if (p->is_run) row_decay_print(&p->config, out);
    print_memory(p, out);
    if (p->estimate.gpu) {
        gpu_memory_print(&p->beside, p->estimate.gpu->name, out);
        int64_t bytes = arena_total(&p->arenas) + gpu_memory_total(&p->beside);
        estimate_print(&p->estimate, bytes, out);
    }
    if (p->estimate.gpu && p->is_run && p->config.n_stages)
        fprintf(out, "  a step of stage '%s'\n", stages_get(&p->config, p->stage).name);
}

static json_t *params_json(const Plan *p)
{
    const ModelConfig *c = &p->config.model;
    Part part[PARTS];
    list_parts(p, part);
    json_t *parts = json_object();
    for (int i = 0; i < PARTS - 2; i++)
        json_object_set_new(parts, part[i].name,
                            json_pack("{s:I, s:I}", "total", (json_int_t)part[i].total,
                                      "activated", (json_int_t)part[i].active));
    json_t *widths = model_has_own_widths(c) ? json_array() : NULL;
    for (int64_t i = 0; widths && i < c->n_experts; i++)
        json_array_append_new(widths, json_integer(c->own_widths[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o*}", "total", (json_int_t)p->params.total,
                     "total_without_embedding", (json_int_t)p->params.total_no_embed, "activated",
                     (json_int_t)p->params.active, "activated_without_embedding",
                     (json_int_t)p->params.active_no_embed, "parts", parts,
                     "expert_widths", widths);
}

static json_t *flops_json(const Plan *p)
{
    json_t *parts = json_object();
    double T = (double)p->shape.T;
    for (int i = 0; i < (int)FLOP_PARTS; i++)
        json_object_set_new(parts, flop_part_name((FlopPart)i),
                            json_real((double)p->flops[i] / T));
    return json_pack("{s:I, s:f, s:f, s:f, s:f, s:o}", "seq_len", (json_int_t)p->shape.T,
                     "forward", forward_sum(p) / T, "training", train_per_token(p),
                     "training_over_6n", ratio_6n(p, p->params.active),
                     "training_over_6n_without_embedding", ratio_6n(p, p->params.active_no_embed),
                     "forward_parts", parts);
}

static json_t *run_json(const Plan *p)
{
    const RunConfig *c = &p->config;
    if (!p->is_run) return json_null();
    json_t *stages = json_array();
    for (int i = 0; i < (int)c->n_stages; i++) {
        Stage s = stages_get(c, i);
        json_array_append_new(
            stages, json_pack("{s:s, s:I, s:I, s:I, s:I, s:f}", "name", s.name, "steps",
                              (json_int_t)s.steps, "seq_len", (json_int_t)s.seq_len, "batch",
                              (json_int_t)s.batch, "micro_batch", (json_int_t)s.micro_batch,
                              "rope_theta", s.rope_theta));
    }
    int64_t steps;
    double share;
    last_phase(c, &steps, &share);
    return json_pack("{s:I, s:I, s:f, s:f, s:o, s:i, s:I, s:f, s:o}", "steps",
                     (json_int_t)c->train.steps, "batch", (json_int_t)c->train.batch, "tokens",
                     p->run_tokens, "flops", p->run_flops, "stages", stages, "largest_stage",
                     p->stage, "last_phase_steps", (json_int_t)steps, "last_phase_token_share",
                     share, "weight_decay", row_decay_json(c));
}

/* The rows of the plan and their sums by group, in bytes. */
static json_t *memory_json(const Plan *p)
{
    json_t *groups = json_object(), *memory = arena_json(&p->arenas);
    for (int i = 0; i < p->arenas.count; i++) {
        const ArenaRow *row = &p->arenas.rows[i];
        char name[ARENA_NAME];
        snprintf(name, sizeof name, "%.*s", (int)strcspn(row->name, "/"), row->name);
        json_int_t sum = json_integer_value(json_object_get(groups, name)) + row->bytes;
        json_object_set_new(groups, name, json_integer(sum));
    }
    if (memory) json_object_set_new(memory, "groups", groups);
    return memory;
}

json_t *plan_json(const Plan *p)
{
    const ModelConfig *c = &p->config.model;
    json_t *routing = json_null(), *shape;
    if (c->n_experts)
        routing = json_pack("{s:s, s:f, s:I, s:I, s:f, s:f}", "mode",
                            model_routing_name(c->routing), "rows_per_token",
                            (double)count_group_rows(c) / (double)c->routing_group_tokens,
                            "group_tokens", (json_int_t)c->routing_group_tokens, "capacity",
                            (json_int_t)p->capacity, "empty_rows", p->empty_rows,
                            "overflow_even_router", p->overflow_even);
    shape = json_pack("{s:s, s:I, s:I, s:I}", "type", dtype_name(p->shape.type), "micro_batch",
                      (json_int_t)p->shape.B, "seq_len", (json_int_t)p->shape.T, "micro_batches",
                      (json_int_t)p->shape.micro_batches);
    return json_pack("{s:o, s:s, s:o, s:o, s:o*, s:o, s:o, s:o, s:o, s:o, s:{s:I, s:I}, s:o*, "
                     "s:o*}", "config", json_out_text(p->path, strlen(p->path)), "kind",
                     p->is_run ? "run" : "model", "parameters", params_json(p), "flops_per_token",
                     flops_json(p), "flops", plan_flops_json(&p->by_product), "run", run_json(p),
                     "routing", routing, "width_transfer", width_json(p), "shape", shape, "memory",
                     memory_json(p), "kv_cache_bytes_per_token", "bf16", (json_int_t)p->kv_bytes,
                     "bf16_multi_head", (json_int_t)p->kv_bytes_mha, "estimate",
                     estimate_json(&p->estimate), "gpu_memory",
                     p->estimate.gpu ? gpu_memory_json(&p->beside) : NULL);
}
