/* train/loop.c - see loop.h. */
#include "train/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "train/command.h"
#include "train/dynamic.h"
#include "train/heldout.h"
#include "train/json_out.h"
#include "train/length.h"
#include "train/progress.h"
#include "train/run_folder.h"
#include "train/run_stage.h"
#include "train/signals.h"

enum { WARM_STEPS = 2, TIMED_STEPS = 8, TIMED_MIN = 2 };
#define TIMED_SECONDS 5.0
#define EMA 0.98

typedef struct Loop {
    Run *r;
    OptimConfig schedule;   /* for the length in force */
    Progress progress;
    double clock;           /* up to where state.seconds counts */
    int64_t saved;          /* step of the newest checkpoint; -1: none */
    int64_t first;          /* step this process began with */
    double timed_from;      /* of the steps timed for train.minutes */
    int skipped, high;      /* bad steps in a row */
    StepResult now;
} Loop;

/* Moves the run's time up to now. */
static void count_time(Loop *l)
{
    double now = log_seconds();
    l->r->state.seconds += now - l->clock;
    l->clock = now;
}

/* ---- A step -----------------------------------------------------------------------------------*/

/* Forward and backward of all micro-batches. Routing groups are numbered within the step. */
static void train_micros(Loop *l, const Batch *b)
{
    Run *r = l->r;
    const RunConfig *c = &r->config;
    int64_t T = b->T, micro = r->stage.micro_batch, n = b->B / micro;
    int64_t R = c->model.n_experts ? c->model.routing_group_tokens : b->B * T;
    ExpertRates *rates = optimizer_rates(l->r->optimizer);
    for (int64_t i = 0; i < n; i++) {
        int64_t at = i * micro * T;
        MicroBatch m = {.B = micro, .tokens = b->tokens + at, .targets = b->targets + at,
                        .doc_start = c->data.mask_documents ? b->doc_start + at : NULL,
                        .group0 = at / R, .index = (int)i};
        if (r->replay) m.routing = routing_file_get(r->replay, at, micro * T);
        model_train_micro(r->model, &m, b->B * T / R, b->B * T);
        run_folder_sign(r->lock);
        if (rates) expert_rates_micro(rates, (i + 1) * micro);
        if (!r->record) continue;
        model_read_routing(r->model, routing_file_part(r->record));
        routing_file_put(r->record, at, micro * T);
    }
}

/* From zero gradients to new weights: one graph, where no choices are read back on the way. */
static int update(Loop *l, const Batch *b, Err *e)
{
    Run *r = l->r;
    Device *d = model_device(r->model);
    int64_t step = r->state.step + 1;
    bool graph = !r->record;
    if (graph) dev_graph_begin(d, (uint64_t)r->stage.index);
    model_zero_grads(r->model);
    train_micros(l, b);
    optimizer_step(r->optimizer, NULL);
    if (graph) dev_graph_end(d);
    return r->record ? routing_file_write(r->record, step, e) : 0;
}

/* The smoothed training loss before this step; before the first, that of an even guess. */
static double loss_before(const Run *r)
{
    return r->state.step ? r->state.loss_ema : log((double)r->config.model.vocab_size);
}

static int train_step(Loop *l, Err *e)
{
    Run *r = l->r;
    const RunConfig *c = &r->config;
    TrainState *s = &r->state;
    double began = log_seconds();
    Batch b;
    StepVars vars;
    StepResult *now = &l->now;
    ExpertRates *rates = optimizer_rates(r->optimizer);
    int stage = stages_at(c, s->step);
    if (stage != r->stage.index && run_stage_enter(r, stage, e)) return -1;
    if (loader_batch(r->train, s->sequence, r->stage.batch, &b, e)) return -1;
    now->lr = schedule_lr(&l->schedule, s->step, run_steps(r));
    optimizer_begin(r->optimizer, (uint64_t)c->train.seed, s->step, now->lr, s->updates,
                    (double)b.n_targets);
    if (rates)
        expert_rates_begin(rates, optimizer_expert_rates(r->optimizer), b.B, b.T, loss_before(r));
    if (update(l, &b, e)) return -1;
    optimizer_read_vars(r->optimizer, &vars);
    int n_micro = (int)(b.B / r->stage.micro_batch);
    model_end_step(r->model, n_micro);
    if (rates) expert_rates_end(rates, n_micro, vars.skip ? NAN : vars.grad_norm, b.targets);
    model_stats(r->model, n_micro, &now->stats);
    now->loss = now->stats.targets > 0 ? now->stats.loss_sum / now->stats.targets : 0;
    now->grad_norm = vars.grad_norm;
    now->skipped = (int)vars.skip;
    now->z_norm = vars.z_norm;
    now->z_loss = vars.z_loss;
    now->flops = (double)count_flops_train(&c->model, b.T) * (double)b.B;
    now->seconds = log_seconds() - began;
    if (isfinite(now->loss) && now->stats.targets > 0)
        s->loss_ema = s->loss_ema == 0 ? now->loss : EMA * s->loss_ema + (1 - EMA) * now->loss;
    s->step++;
    s->updates += now->skipped == SKIP_NO;
    s->sequence += b.B;
    s->tokens += (double)(b.B * b.T);
    s->flops += now->flops;
    count_time(l);
    progress_add(&l->progress, r, now);
    return runlog_write(&r->log, progress_record(r, now), e);
}

/* A loss that no model has that learns: above it a run counts as diverged. */
static double loss_limit(const Run *r) { return 3 * log((double)r->config.model.vocab_size); }

/* Counts bad steps in a row; nonzero, with e filled, when there were too many. */
static int check_divergence(Loop *l, Err *e)
{
    double limit = loss_limit(l->r);
    bool bad = l->now.skipped == SKIP_NOT_FINITE || !isfinite(l->now.loss);
    l->skipped = bad ? l->skipped + 1 : 0;
    l->high = !bad && l->now.loss > limit ? l->high + 1 : bad ? l->high : 0;
    if (l->skipped >= LOOP_SKIPPED_MAX)
        err_set(e, "diverged at step %" PRId64 ": %d steps in a row had no finite gradient",
                l->r->state.step, l->skipped);
    else if (l->high >= LOOP_HIGH_MAX)
        err_set(e, "diverged at step %" PRId64 ": %d steps in a row had a loss above %.1f "
                "(3 ln vocab_size)", l->r->state.step, l->high, limit);
    else
        return 0;
    return err_hint(e, "lower optim.lr or lengthen optim.warmup_steps");
}

/* ---- Held-out loss ----------------------------------------------------------------------------*/

/* The first sequences of the held-out set in file order; a signal ends it without a result. */
static int evaluate(Loop *l, bool *done, Err *e)
{
    Run *r = l->r;
    double began = log_seconds();
    HeldOut h;
    HeldOutOptions options = {.sequences = r->eval_sequences,
                              .use_documents = r->config.data.mask_documents, .sign = r->lock};
    *done = false;
    if (heldout_measure(&h, r->model, r->val, NULL, &options, e)) return -1;
    if (h.sequences < r->eval_sequences) return 0;
    r->val_loss = h.loss;
    r->eval_targets = h.targets;
    *done = true;
    count_time(l);
    if (r->log.last_eval == r->state.step) return 0; /* its line has stood since before a resume */
    return runlog_write(&r->log,
                        json_pack("{s:s, s:I, s:o, s:I, s:o}", "event", "eval", "step",
                                  (json_int_t)r->state.step, "loss", json_out_real(r->val_loss),
                                  "targets", (json_int_t)r->eval_targets, "seconds",
                                  json_out_real(log_seconds() - began)),
                        e);
}

static bool is_due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

/* ---- Checkpoints ------------------------------------------------------------------------------*/

/* The record is on disk before the checkpoint that goes on from it. */
static int save(Loop *l, Err *e)
{
    Run *r = l->r;
    char folder[64];
    if (l->saved == r->state.step) return 0;
    double began = log_seconds();
    count_time(l);
    run_folder_sign(r->lock);
    if (runlog_sync(&r->log, e) || (r->record && routing_file_sync(r->record, e))) return -1;
    if (checkpoint_save(r->folder, r->model, r->optimizer, &r->config, &r->state, e)) {
        err_context(e, "step %" PRId64 ": no checkpoint could be written", r->state.step);
        return -1;
    }
    l->saved = r->state.step;
    count_time(l);
    snprintf(folder, sizeof folder, "checkpoints/step-%09" PRId64, r->state.step);
    return runlog_write(&r->log,
                        json_pack("{s:s, s:I, s:s, s:o}", "event", "checkpoint", "step",
                                  (json_int_t)r->state.step, "folder", folder, "seconds",
                                  json_out_real(log_seconds() - began)),
                        e);
}

/* ---- Length -----------------------------------------------------------------------------------*/

static void set_length(Loop *l)
{
    OptimConfig optim = stages_optim(&l->r->config);
    l->schedule = length_schedule(&optim, l->r->config.train.steps, run_steps(l->r));
}

/* Once enough steps are timed: the number that fits into train.minutes. */
static int fit_length(Loop *l, Err *e)
{
    Run *r = l->r;
    const TrainConfig *t = &r->config.train;
    int64_t done = r->state.step - l->first;
    double now = log_seconds(), spent = now - l->timed_from;
    if (r->state.steps_total) return 0;
    if (done <= WARM_STEPS) {
        l->timed_from = now;
        if (r->state.step < t->steps) return 0;
        spent = l->now.seconds; /* the run is as short as that */
    }
    int64_t timed = size_max(done - WARM_STEPS, 1);
    bool enough = timed >= TIMED_STEPS || (timed >= TIMED_MIN && spent >= TIMED_SECONDS);
    if (!enough && r->state.step < t->steps) return 0;
    Pace pace = {.step = spent / (double)timed, .left = t->minutes * 60 - r->state.seconds};
    pace.eval = pace.step / 3 * (double)r->eval_sequences / (double)r->stage.batch;
    r->state.steps_total = length_fit(t, r->state.step, pace);
    set_length(l);
    log_info("%.3f s a step: %" PRId64 " of %" PRId64 " steps fit into %g minutes; decay over the "
             "last %" PRId64, pace.step, r->state.steps_total, t->steps, t->minutes,
             l->schedule.decay_steps);
    return runlog_write(&r->log,
                        json_pack("{s:s, s:I, s:I, s:I, s:o, s:I}", "event", "length", "step",
                                  (json_int_t)r->state.step, "steps", (json_int_t)t->steps,
                                  "steps_total", (json_int_t)r->state.steps_total, "step_seconds",
                                  json_out_real(pace.step), "decay_steps",
                                  (json_int_t)l->schedule.decay_steps),
                        e);
}

/* ---- The end ----------------------------------------------------------------------------------*/

/* B_noise in tokens, or NULL: not measured. */
static json_t *noise_record(const Run *r)
{
    ExpertRates *rates = optimizer_rates(r->optimizer);
    double noise = rates ? expert_rates_view(rates).noise_tokens : 0;
    return noise > 0 ? json_real(noise) : NULL;
}

/* What every closing record says. */
static json_t *closing_record(const Loop *l, const char *event)
{
    const Run *r = l->r;
    const TrainState *s = &r->state;
    double rate = s->seconds > 0 ? s->flops / s->seconds : 0;
    return json_pack("{s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:I,"
                     " s:I, s:o*, s:o*}",
                     "event", event, "step", (json_int_t)s->step, "steps_total",
                     (json_int_t)run_steps(r), "run", json_out_hash(s->run_id), "loss",
                     json_out_real(l->now.loss), "loss_ema", json_out_real(s->loss_ema), "val_loss",
                     json_out_real(r->val_loss), "val_targets", (json_int_t)r->eval_targets,
                     "tokens", json_out_real(s->tokens), "flops", json_out_real(s->flops),
                     "seconds", json_out_real(s->seconds), "tokens_per_s",
                     json_out_real(s->seconds > 0 ? s->tokens / s->seconds : 0), "flops_per_s",
                     json_out_real(rate), "matrix_peak", json_out_real(r->matrix_peak), "params",
                     (json_int_t)r->params.total, "params_active", (json_int_t)r->params.active,
                     "sources", r->config.data.n_sources ? run_stage_sources(r) : NULL, "b_noise",
                     noise_record(r));
}

/* The choices of the next step, of a run that replays; before anything of it is done, so that the
 * steps made are kept in a checkpoint where there are none. */
static int load_choices(Loop *l, Err *e)
{
    Run *r = l->r;
    Err late = {0};
    if (!r->replay || !routing_file_load(r->replay, r->state.step + 1, e)) return 0;
    if (r->state.step == l->first) return -1;
    if (save(l, &late)) log_warn("%s", late.message);
    else log_info("a checkpoint of step %" PRId64 " is written: the run goes on from it with a "
                  "whole record", r->state.step);
    return -1;
}

/* A run too short for check_divergence, or one that went wrong in its last steps, is judged by what
 * it came to; nonzero, with e filled, when that is no model. */
static int check_end(const Loop *l, Err *e)
{
    const Run *r = l->r;
    double loss = r->val_loss, limit = loss_limit(r);
    if (r->state.step > 0 && !r->state.updates)
        err_set(e, "diverged: none of %" PRId64 " steps had a finite gradient", r->state.step);
    else if (r->eval_targets > 0 && !isfinite(loss))
        err_set(e, "diverged: the held-out loss at step %" PRId64 " is not finite", r->state.step);
    else if (r->eval_targets > 0 && loss > limit)
        err_set(e, "diverged: the held-out loss at step %" PRId64 " is %.4g, above %.1f (3 ln "
                "vocab_size)", r->state.step, loss, limit);
    else
        return 0;
    return err_hint(e, "lower optim.lr or lengthen optim.warmup_steps");
}

/* Writes the closing record and hands it on. */
static int close_run(Loop *l, json_t *record, json_t **last, Err *e)
{
    *last = json_incref(record);
    if (runlog_write(&l->r->log, record, e)) return -1;
    return runlog_sync(&l->r->log, e);
}

static int finish(Loop *l, json_t **last, Err *e)
{
    Run *r = l->r;
    char time[PROGRESS_TIME];
    if (save(l, e) || close_run(l, closing_record(l, "final"), last, e)) return EXIT_FAILED;
    log_info("done: %" PRId64 " steps, %.2f M tokens in %s; held-out loss %.4f (%" PRId64
             " targets)", r->state.step, r->state.tokens / 1e6,
             progress_time(time, r->state.seconds), r->val_loss, r->eval_targets);
    return EXIT_DONE;
}

static int stop(Loop *l, json_t **last, Err *e)
{
    Run *r = l->r;
    int number = signals_stop();
    if (save(l, e)) return EXIT_FAILED;
    json_t *record = closing_record(l, "stopped");
    if (record) json_object_set_new(record, "signal", json_integer(number));
    if (close_run(l, record, last, e)) return EXIT_FAILED;
    log_info("stopped by signal %d at step %" PRId64 "; a checkpoint is written, the same command "
             "goes on from it", number, r->state.step);
    return EXIT_STOPPED;
}

static int diverge(Loop *l, json_t **last, Err *e)
{
    Err log_error = {0};
    json_t *record = closing_record(l, "diverged");
    if (record) json_object_set_new(record, "reason", json_string(e->message));
    if (close_run(l, record, last, &log_error)) log_warn("%s", log_error.message);
    return EXIT_DIVERGED;
}

/* ---- All together -----------------------------------------------------------------------------*/

/* What is due after a step; *evaluated: r->val_loss is new. */
static int after_step(Loop *l, Err *e)
{
    Run *r = l->r;
    const TrainConfig *t = &r->config.train;
    int64_t step = r->state.step;
    bool evaluated = false, last = step >= run_steps(r);
    if ((last || is_due(step, t->eval_every)) && evaluate(l, &evaluated, e)) return -1;
    if (dynamic_update(r, e)) return -1;
    count_time(l);
    if (last || is_due(step, t->log_every) || evaluated)
        progress_print(&l->progress, r, &l->now, evaluated);
    if (is_due(step, t->checkpoint_every) && !l->skipped && !l->high) return save(l, e);
    return 0;
}

/* What was due where the run was stopped, a held-out loss or new weights, is made up for. */
static int before_first(Loop *l, Err *e)
{
    Run *r = l->r;
    bool done, last = r->state.step > 0 && r->state.step >= run_steps(r);
    if (dynamic_update(r, e)) return -1;
    bool due = last || (r->state.step > 0 && is_due(r->state.step, r->config.train.eval_every));
    if (!due || (r->log.last_eval == r->state.step && !last)) return 0;
    return evaluate(l, &done, e);
}

int loop_train(Run *r, json_t **last, Err *e)
{
    Loop l = {.r = r, .clock = log_seconds(), .first = r->state.step,
              .saved = r->resumed[0] ? r->state.step : -1};
    *last = NULL;
    l.now.loss = NAN;
    set_length(&l);
    if (before_first(&l, e)) return EXIT_FAILED;
    while (r->state.step < run_steps(r)) {
        if (signals_stop()) return stop(&l, last, e);
        if (load_choices(&l, e) || train_step(&l, e)) return EXIT_FAILED;
        if (check_divergence(&l, e)) return diverge(&l, last, e);
        if (fit_length(&l, e) || after_step(&l, e)) return EXIT_FAILED;
    }
    if (signals_stop() && r->log.last_eval != r->state.step) return stop(&l, last, e);
    if (check_end(&l, e)) return diverge(&l, last, e);
    return finish(&l, last, e);
}
