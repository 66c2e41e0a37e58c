/* train/progress.c - see progress.h. */
#include "train/progress.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "train/json_out.h"

enum { LOAD_MAX = 64 };

/* A step's numbers by name; the report reads the same names. */
static int add_numbers(json_t *out, const Run *r, const StepResult *s)
{
    double tokens = (double)(r->config.train.batch * r->config.data.seq_len);
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
    p->tokens += (double)(r->config.train.batch * r->config.data.seq_len);
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
