/* train/run.c - see run.h. */
#include "train/run.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/size.h"
#include "train/branch.h"
#include "train/dynamic.h"
#include "train/estimate.h"
#include "train/idle.h"
#include "train/json_out.h"
#include "train/resume.h"
#include "train/run_data.h"
#include "train/run_folder.h"
#include "train/run_stage.h"
#include "train/version.h"

#define PEAK_SECONDS 0.3

int64_t run_steps(const Run *r)
{
    return r->state.steps_total ? r->state.steps_total : r->config.train.steps;
}

/* ---- Where it starts --------------------------------------------------------------------------*/

/* A run that has its last checkpoint and its final record has nothing left to do. */
static bool is_complete(const Run *r)
{
    if (!r->state.steps_total || r->state.step < r->state.steps_total) return false;
    json_t *final = runlog_last(r->folder, "final");
    bool complete = json_integer_value(json_object_get(final, "step")) == r->state.step;
    json_decref(final);
    return final && complete;
}

/* Finds the newest checkpoint, if any, and takes its state over; else that of train.from. */
static int find_start(Run *r, const RunOptions *options, Err *e)
{
    const TrainConfig *t = &r->config.train;
    RunConfig saved;
    r->state.steps_total = t->minutes > 0 ? 0 : t->steps;
    if (checkpoint_newest(r->folder, r->resumed, e)) return -1;
    if (!r->resumed[0]) {
        if (!options->must_resume)
            return t->from[0] ? branch_open(&r->config, &r->state, r->from, e) : 0;
        err_set(e, "%s: holds no checkpoint to resume from", r->folder);
        return err_hint(e, "without --resume required the run starts from the beginning");
    }
    int64_t total = r->state.steps_total;
    if (checkpoint_open(r->resumed, &saved, &r->state, r->resumed, e)) return -1;
    if (resume_check(&saved, &r->config, r->folder, e)) return -1;
    if (saved.train.steps != t->steps || saved.train.minutes != t->minutes)
        r->state.steps_total = total;
    r->complete = is_complete(r);
    return 0;
}

/* The checkpoint to load; empty: none. */
static const char *origin(const Run *r) { return r->resumed[0] ? r->resumed : r->from; }

/* ---- What it needs ----------------------------------------------------------------------------*/

/* The data's hashes are the checkpoint's (0: not known yet), or become the run's. */
static int check_hash(const Run *r, const char *what, uint64_t *saved, uint64_t now, Err *e)
{
    char before[HASH_HEX], after[HASH_HEX];
    if (!origin(r)[0] || !*saved) *saved = now;
    if (*saved == now) return 0;
    hash_hex(*saved, before);
    hash_hex(now, after);
    err_set(e, "%s: cannot be resumed on other data: the %s's hash was %s, now it is %s", r->folder,
            what, before, after);
    return err_hint(e, "point data.train or data.sources, and data.val, at the data the run began "
                       "with, or choose another run folder with train.out=...");
}

static int open_data(Run *r, Err *e)
{
    const RunConfig *c = &r->config;
    LoaderOptions options = run_data_options(c, "train");
    r->train = loader_open(&options, e);
    if (!r->train) return -1;
    options = run_data_options(c, "val");
    r->val = loader_open(&options, e);
    if (!r->val || dynamic_open(r, e)) return -1;
    uint64_t val_hash = dynamic_hash(r, loader_data_hash(r->val));
    if (check_hash(r, "tokenizer", &r->state.tokenizer_hash, loader_tokenizer_hash(r->train), e) ||
        check_hash(r, "training data", &r->state.data_hash, loader_data_hash(r->train), e) ||
        check_hash(r, "held-out data", &r->state.val_hash, val_hash, e))
        return -1;
    if (loader_tokenizer_hash(r->val) != r->state.tokenizer_hash)
        return err_set(e, "%s: made with another tokenizer than %s", run_data_path(c, "val"),
                       run_data_path(c, "train"));
    return run_stage_open(r, e);
}

static const double GB = 1e9;

/* Of a step: counted on a device that computes nothing. */
static int count_launches(const Run *r, double *launches, Err *e)
{
    const RunConfig *c = &r->config;
    Estimate step;
    ModelShape shape = stages_shape(c, &r->stage);
    if (estimate_step(&step, &c->model, &c->optim, &shape, cost_gpu("H100"), NULL, e)) return -1;
    *launches = gpu_memory_launches(&step.cost);
    return 0;
}

/* What a GPU holds beside the tensors; attention's library gets the room that is left for it. */
static int plan_gpu(Run *r, int64_t room, Err *e)
{
    GpuMemory *g = &r->beside;
    GpuRoom have = {.gpu = device_gpu(r->device), .room = room, .tensors = r->memory};
    if (!r->config.train.deterministic && !have.gpu.library) {
        err_set(e, "%s: train.deterministic: false has no effect on device %s: attention is run by "
                "%s, whose sums have one order", r->config.train.out, device_name(r->device),
                device_attention(r->device));
        return err_hint(e, "leave train.deterministic out");
    }
    if (!have.gpu.sm) return 0;
    if (count_launches(r, &have.launches, e)) return -1;
    gpu_memory_run(g, &r->config, &have);
    device_limit_attention(r->device, size_max(g->most, 0));
    return 0;
}

/* Refuses before anything is allocated what cannot fit. */
static int check_memory(Run *r, Err *e)
{
    int64_t room = device_memory_room(r->device);
    if (plan_gpu(r, room < 0 ? INT64_MAX : room, e)) return -1;
    int64_t need = r->memory + gpu_memory_known(&r->beside);
    if (room < 0 || need + r->beside.graph <= room) return 0;
    if (need <= room) {
        log_warn("memory may run out: %.2f GB by plan, and about %.2f GB for the recorded step (an "
                 "estimate), where the device has %.2f GB", (double)need / GB,
                 (double)r->beside.graph / GB, (double)room / GB);
        return 0;
    }
    err_set(e, "%s: the run needs %.2f GB of memory by plan, device %s has room for %.2f GB",
            r->config.train.out, (double)need / GB, device_name(r->device), (double)room / GB);
    return err_hint(e, "`isomoe plan` shows what needs it; smaller: train.micro_batch, "
                       "data.seq_len, the model, optim.moments");
}

static int open_model(Run *r, Err *e)
{
    const RunConfig *c = &r->config;
    ModelShape shape = stages_shape(c, &r->stage);
    ModelConfig model = c->model;
    ArenaPlan plan = {0};
    int rc = -1, largest = 0;
    model.rope_theta = r->stage.rope_theta;
    if (count_params(&c->model, &r->params, e)) goto done;
    if (stages_reserve(c, &shape.reserve, &largest, e)) goto done;
    if (optimizer_plan(&c->model, &c->optim, &plan, e)) goto done;
    r->memory = shape.reserve + arena_total(&plan);
    if (check_memory(r, e)) goto done;
    r->model = model_create(r->device, &model, &shape, e);
    if (!r->model) goto done;
    r->optimizer = optimizer_create(r->model, &c->optim, e);
    if (!r->optimizer || device_reserve_scratch(r->device, r->beside.scratch, e)) goto done;
    if (origin(r)[0])
        rc = checkpoint_load(origin(r), r->model, r->optimizer, e);
    else
        rc = 0;
    if (!rc && !origin(r)[0]) model_init(r->model, (uint64_t)c->train.seed);
done:
    arena_clear(&plan);
    return rc;
}

/* ---- What it says -----------------------------------------------------------------------------*/

static json_t *start_record(const Run *r, const char *event, const char *config)
{
    const RunConfig *c = &r->config;
    const TrainState *s = &r->state;
    int64_t T = r->stage.seq_len;
    json_t *out = json_pack(
        "{s:s, s:I, s:o, s:s, s:s, s:o, s:o, s:o, s:I, s:s, s:s, s:i, s:s}", "event", event, "step",
        (json_int_t)s->step, "run", json_out_hash(s->run_id), "code", version_text(), "config",
        config, "tokenizer", json_out_hash(s->tokenizer_hash), "data", json_out_hash(s->data_hash),
        "val", json_out_hash(s->val_hash), "seed", (json_int_t)c->train.seed, "device",
        device_name(r->device), "variant", device_variant(r->device), "threads",
        device_threads(r->device), "precision", c->train.precision ? "f32" : "bf16");
    json_t *more = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I}", "params", (json_int_t)r->params.total,
        "params_no_embed", (json_int_t)r->params.total_no_embed, "params_active",
        (json_int_t)r->params.active, "params_active_no_embed",
        (json_int_t)r->params.active_no_embed, "memory", (json_int_t)r->memory, "steps",
        (json_int_t)run_steps(r), "tokens_per_step", (json_int_t)(r->stage.batch * T),
        "flops_per_token", (json_int_t)(count_flops_train(&c->model, T) / T), "matrix_peak",
        json_out_real(r->matrix_peak), "time", (json_int_t)time(NULL));
    if (s->from_run) {
        json_object_set_new(out, "from_run", json_out_hash(s->from_run));
        json_object_set_new(out, "from_step", json_integer(s->from_step));
    }
    if (!out || !more || json_object_update(out, more)) {
        json_decref(out);
        out = NULL;
    }
    json_decref(more);
    return out;
}

static void warn(const char *message, void *user)
{
    (void)user;
    log_warn("%s", message);
}

static void print_start(const Run *r)
{
    const RunConfig *c = &r->config;
    char human[ARENA_HUMAN];
    log_info("model: %.2f M parameters, %.2f M activated (%.2f M without embedding); memory %s",
             (double)r->params.total / 1e6, (double)r->params.active / 1e6,
             (double)r->params.active_no_embed / 1e6, arena_human(human, r->memory));
    if (r->beside.scratch)
        log_info("attention: %s%s%s; up to %s of scratch", r->beside.library
                 ? device_attention(r->device) : "own kernels: ",
                 r->beside.library ? "" : r->beside.why_own,
                 !r->beside.library || r->beside.ordered ? "" : ", adding up in any order",
                 arena_human(human, r->beside.scratch));
    if (*device_why_cpu(r->device)) log_info("%s", device_why_cpu(r->device));
    log_info("device: %s (%s), %d threads, %s; matrix peak %.1f GFLOP/s", device_name(r->device),
             device_variant(r->device), device_threads(r->device),
             c->train.precision ? "f32" : "bf16", r->matrix_peak / 1e9);
    log_info("data: %.2f M tokens, %" PRId64 " sequences of %" PRId64 "; %" PRId64
             " tokens a step (micro-batches: %" PRId64 "), at most %" PRId64 " steps",
             (double)loader_tokens(r->train) / 1e6, loader_windows(r->train), r->stage.seq_len,
             r->stage.batch * r->stage.seq_len, r->stage.batch / r->stage.micro_batch,
             run_steps(r));
    if (model_check_causal(&c->model, NULL))
        log_info("held-out losses are those of dropless top-%" PRId64 " routing: expert choice "
                 "would look at later tokens", c->model.top_k);
    Err untied = {0};
    if (stages_tied(c, &untied)) log_warn("%s", untied.message);
    idle_keys(c, warn, NULL);
    if (!origin(r)[0]) return;
    log_info("%s at step %" PRId64 " from %s", r->resumed[0] ? "resumed" : "branched",
             r->state.step, origin(r));
    if (strcmp(r->state.variant, device_variant(r->device)))
        log_warn("the checkpoint was made on %s, this is %s: the last bits of all results differ",
                 r->state.variant, device_variant(r->device));
}

static int open_record(Run *r, Err *e)
{
    char path[IO_PATH_MAX], *config = conf_write(run_config_table(), &r->config);
    int rc = config ? 0 : err_set(e, "out of memory");
    if (!rc && !r->resumed[0])
        r->state.run_id = hash_more(hash_bytes(config, strlen(config)), &r->state.data_hash,
                                    sizeof r->state.data_hash);
    if (!rc) rc = io_join(path, r->folder, "config.yaml", e);
    if (!rc) rc = io_write_atomic(path, config, strlen(config), e);
    if (!rc)
        rc = r->resumed[0] ? runlog_resume(&r->log, r->folder, r->state.step, e)
                           : runlog_create(&r->log, r->folder, e);
    if (!rc)
        rc = runlog_write(&r->log, start_record(r, r->resumed[0] ? "resume" : "start", config), e);
    bool begins = !r->resumed[0] || r->state.step == r->state.from_step; /* no step made yet */
    bool border = r->stage.index != stages_at(&r->config, r->state.step);
    if (!rc && begins && !border) rc = run_stage_log(r, e);
    free(config);
    return rc;
}

/* A run replays one record from its first step on, wherever the file lies, or none. Without it the
 * router decides. */
static int check_replayed(Run *r, Err *e)
{
    TrainState *s = &r->state;
    char before[HASH_HEX], now[HASH_HEX];
    uint64_t run = r->replay ? routing_file_run(r->replay) : 0;
    if (s->step == s->from_step) s->replay_run = run; /* no step made yet */
    if (s->replay_run == run) return 0;
    hash_hex(s->replay_run, before);
    hash_hex(run, now);
    if (!run) {
        log_warn("the steps up to %" PRId64 " replayed the record of run %s; without "
                 "train.routing_replay the router decides from here on", s->step, before);
        return 0;
    }
    if (s->replay_run)
        err_set(e, "%s: is the record of run %s, but the steps up to %" PRId64 " replayed that of "
                "run %s", r->config.train.routing_replay, now, s->step, before);
    else
        err_set(e, "%s: the steps up to %" PRId64 " replayed no record",
                r->config.train.routing_replay, s->step);
    return err_hint(e, "a branch may replay another: train.from=%s with its own train.out",
                    r->folder);
}

/* The record must reach to the run's end; with train.minutes that is not known before. */
static int open_replay(Run *r, Err *e)
{
    const TrainConfig *t = &r->config.train;
    RoutingOrigin origin = {r->state.data_hash, r->state.run_id};
    int64_t first = r->state.step + 1, last = r->state.steps_total ? run_steps(r) : first;
    if (t->routing_replay[0]) {
        r->replay = routing_file_replay(t->routing_replay, &r->config, origin, first, last, e);
        if (!r->replay) return -1;
    }
    return check_replayed(r, e);
}

/* After open_record: the run has its number. */
static int open_routing(Run *r, Err *e)
{
    const TrainConfig *t = &r->config.train;
    RoutingOrigin origin = {r->state.data_hash, r->state.run_id};
    if (!t->routing_record[0]) return 0;
    r->record = routing_file_record(t->routing_record, &r->config, origin, r->state.step + 1, e);
    return r->record ? 0 : -1;
}

/* ---- Open and close ---------------------------------------------------------------------------*/

int run_open(Run *r, const RunOptions *options, Err *e)
{
    *r = (Run){.lock = -1, .log.fd = -1, .val_loss = NAN};
    if (run_config_read(&r->config, options->path, options->overrides, options->n_overrides, e))
        return -1;
    r->folder = r->config.train.out;
    if (run_folder_lock(r->folder, options->fresh, &r->lock, e)) return -1;
    if (find_start(r, options, e)) return -1;
    if (r->complete) return 0;
    run_folder_sign(r->lock);
    if (open_data(r, e)) return -1;
    run_folder_sign(r->lock);
    DeviceOptions device = {.threads = (int)r->config.train.threads};
    r->device = device_create(r->config.train.device, &device, e);
    if (!r->device || open_model(r, e)) return -1;
    run_folder_sign(r->lock);
    DType type = r->config.train.precision ? DT_F32 : DT_BF16;
    r->matrix_peak = device_matrix_peak(r->device, type, PEAK_SECONDS);
    if (open_replay(r, e) || open_record(r, e) || open_routing(r, e)) return -1;
    print_start(r);
    return 0;
}

void run_close(Run *r)
{
    routing_file_close(&r->record);
    routing_file_close(&r->replay);
    runlog_close(&r->log);
    optimizer_destroy(&r->optimizer);
    model_destroy(&r->model);
    dynamic_close(r);
    loader_close(&r->val);
    loader_close(&r->train);
    device_destroy(&r->device);
    run_folder_unlock(&r->lock);
}
