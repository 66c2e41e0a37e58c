/* train/progress.c - see progress.h. */
#include "train/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "train/json_out.h"
#include "train/run_stage.h"

enum { LOAD_MAX = 64 };

/* A step's numbers by name; the report reads the same names. */
static int add_numbers(json_t *out, const Run *r, const StepResult *s)
{
    double tokens = (double)(r->stage.batch * r->stage.seq_len);
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"loss", s->loss},
        {"aux", s->stats.aux},
        {"z", s->stats.z},
        {"entropy", s->stats.entropy},
        {"cv", s->stats.cv},
        {"choices", s->stats.choices},
        {"lr", s->lr},
        {"grad_norm", s->grad_norm},
        {"tokens", r->state.tokens},
        {"flops", r->state.flops},
        {"seconds", r->state.seconds},
        {"step_seconds", s->seconds},
        {"tokens_per_s", tokens / s->seconds},
        {"flops_per_s", s->flops / s->seconds},
        {"load_max", s->stats.max_load},
        {"recycled", s->stats.recycled},
        {"unplaced", s->stats.unplaced},
        {"overflow", s->stats.overflow},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        rc |= json_object_set_new(out, numbers[i].key, json_out_real(numbers[i].value));
    return rc;
}

/* The experts' learning rates, and every log_every steps each expert's factor. */
static int add_rates(json_t *out, const Run *r, const StepResult *s)
{
    const OptimConfig *c = &r->config.optim;
    ExpertRates *rates = optimizer_rates(r->optimizer);
    ExpertRateView v = {.layers = 0};
    double least = 1, most = 1, sum = 0, lr = s->lr * optimizer_expert_ratio(r->optimizer);
    if (rates) v = expert_rates_view(rates);
    int64_t n = v.layers * v.experts;
    for (int64_t i = 0; i < n; i++) {
        least = i ? fmin(least, v.factor[i]) : v.factor[i];
        most = i ? fmax(most, v.factor[i]) : v.factor[i];
        sum += v.factor[i];
    }
    json_t *range = json_pack("{s:o, s:o, s:o}", "min", json_out_real(lr * least), "mean",
                              json_out_real(lr * (n ? sum / (double)n : 1)), "max",
                              json_out_real(lr * most));
    int rc = json_object_set_new(out, "expert_lr", range);
    if (!rates) return rc;
    rc |= json_object_set_new(out, "b_noise",
                              v.noise_tokens > 0 ? json_real(v.noise_tokens) : json_null());
    if (c->expert.mode != EXPERT_LR_LOAD || r->state.step % r->config.train.log_every) return rc;
    json_t *layers = json_array();
    for (int64_t i = 0; i < n; i++) {
        if (i % v.experts == 0) rc |= json_array_append_new(layers, json_array());
        json_t *layer = json_array_get(layers, json_array_size(layers) - 1);
        rc |= json_array_append_new(layer, json_integer(llround(1e4 * v.factor[i])));
    }
    return rc | json_object_set_new(out, "expert_rates", layers);
}

json_t *progress_record(const Run *r, const StepResult *s)
{
    int64_t experts = r->config.model.n_experts;
    json_t *out = json_pack("{s:I, s:i}", "step", (json_int_t)r->state.step, "skipped", s->skipped);
    int rc = add_numbers(out, r, s);
    if (model_has_own_widths(&r->config.model))
        rc |= json_object_set_new(out, "active_width", json_out_real(s->stats.active_width));
    if (experts > 0 && experts <= LOAD_MAX) {
        json_t *load = json_array();
        for (int64_t i = 0; i < experts; i++)
            rc |= json_array_append_new(load, json_out_real(s->stats.load[i]));
        rc |= json_object_set_new(out, "load", load);
    }
    if (experts > 0) rc |= add_rates(out, r, s);
    if (r->config.data.n_sources && r->state.step % r->config.train.log_every == 0)
        rc |= json_object_set_new(out, "sources", run_stage_sources(r));
    if (r->config.optim.skip_zscore > 0) {
        rc |= json_object_set_new(out, "z_norm", json_out_real(s->z_norm));
        rc |= json_object_set_new(out, "z_loss", json_out_real(s->z_loss));
    }
    if (!rc) return out;
    json_decref(out);
    return NULL;
}

const char *progress_time(char out[PROGRESS_TIME], double seconds)
{
    long long s = isfinite(seconds) && seconds > 0 ? (long long)fmin(seconds + 0.5, 1e15) : 0;
    if (s < 60)
        snprintf(out, PROGRESS_TIME, "%lld s", s);
    else if (s < 3600)
        snprintf(out, PROGRESS_TIME, "%lld min %02lld s", s / 60, s % 60);
    else
        snprintf(out, PROGRESS_TIME, "%lld h %02lld min", s / 3600, s / 60 % 60);
    return out;
}

void progress_add(Progress *p, const Run *r, const StepResult *s)
{
    p->seconds += s->seconds;
    p->flops += s->flops;
    p->tokens += (double)(r->stage.batch * r->stage.seq_len);
    p->step_seconds = p->step_seconds > 0 ? 0.95 * p->step_seconds + 0.05 * s->seconds : s->seconds;
}

void progress_print(Progress *p, const Run *r, const StepResult *s, bool evaluated)
{
    char val[48] = "", experts[96] = "", eta[PROGRESS_TIME], share[32] = "";
    double rate = p->flops / fmax(p->seconds, 1e-9);
    if (evaluated) snprintf(val, sizeof val, "  val %.4f", r->val_loss);
    if (r->matrix_peak > 0)
        snprintf(share, sizeof share, " (%.1f %% of peak)", 100 * rate / r->matrix_peak);
    if (r->config.model.n_experts)
        snprintf(experts, sizeof experts, "  load %.2f  recycled %.1f %%  unplaced %.2f %%",
                 s->stats.max_load, 100 * s->stats.recycled, 100 * s->stats.unplaced);
    progress_time(eta, p->step_seconds * (double)(run_steps(r) - r->state.step));
    log_info("step %" PRId64 "/%" PRId64 "  loss %.4f%s%s  %.0f tok/s  %.1f GFLOP/s%s%s  lr %.2e"
             "  norm %.2f  ETA %s",
             r->state.step, run_steps(r), s->loss, s->skipped ? " (skipped)" : "", val,
             p->tokens / fmax(p->seconds, 1e-9), rate / 1e9, share, experts, s->lr, s->grad_norm,
             eta);
    p->seconds = p->flops = p->tokens = 0;
}
