/* train/run_config.c - see run_config.h. The table is the model's rows and the ones below; what one
 * key alone can't say is checked in check_run. */
#include "train/run_config.h"

#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "train/gpu_memory.h"
#include "train/optim_check.h"
#include "train/row_decay.h"
#include "train/run_data.h"
#include "train/stages.h"

enum { MAX_ROWS = 480, MICRO_TOKENS = 8192 };

static const char *const precisions[] = {"bf16", "f32", NULL};
static const char *const optimizers[] = {"adamw", "muon", NULL};
static const char *const moment_types[] = {"f32", "bf16", NULL};
static const char *const schedules[] = {"wsd", "wsd_sqrt", "cosine", "constant", "three_phase",
                                        NULL};
static const char *const expert_lrs[] = {"ratio", "auto", "load", NULL};
static const char *const noises[] = {"given", "loss", "measured", NULL};

static const char *const dynamics[] = {"off", "sheared_llama", "sheared_llama_paper", NULL};

#define AT(field) offsetof(RunConfig, field)
#define RATIO(group, kind, what)                                                                   \
    {"optim.lr_ratio." group, CONF_FLOAT, AT(optim.lr_ratio[kind]), "1", 0, 1000, NULL,            \
     "rate / the schedule's: " what}
#define DECAY(group, kind, initial)                                                                \
    {"optim.decay." group, CONF_BOOL, AT(optim.decay[kind]), initial, 1, 0, NULL,                  \
     "weight decay applies, see optim.lr_ratio." group}
#define BIG 1e15 /* steps: far from any overflow */
static const ConfRow own_rows[] = {
    {"data.train", CONF_TEXT, AT(data.train), "", 1, 0, NULL,
     "folder made by isomoe prepare, or one shard; empty: data.sources"},
    {"data.val", CONF_TEXT, AT(data.val), "", 1, 0, NULL,
     "the same for the held-out text; empty: the val shards of what is trained on"},
    {"data.seq_len", CONF_INT, AT(data.seq_len), NULL, 1, 1 << 20, NULL,
     "tokens of a sequence (T)"},
    {"data.mask_documents", CONF_BOOL, AT(data.mask_documents), "true", 1, 0, NULL,
     "documents in one sequence do not see each other"},

    {"data.dynamic", CONF_ENUM, AT(data.dynamic), "off", 1, 0, dynamics,
     "weights of data.sources that follow their held-out losses"},
    {"data.dynamic_every", CONF_INT, AT(data.dynamic_every), "340", 1, BIG, NULL,
     "steps between changes of the weights"},
    {"data.dynamic_eta", CONF_FLOAT, AT(data.dynamic_eta), "1.0", 0, 1000, NULL,
     "how strongly a loss above its reference moves its source's weight"},
    {"data.dynamic_smooth", CONF_FLOAT, AT(data.dynamic_smooth), "1e-4", 0, 1, NULL,
     "share that is spread evenly over the sources; of sheared_llama only"},
    {"data.dynamic_sequences", CONF_INT, AT(data.dynamic_sequences), "64", 1, 1e12, NULL,
     "of each source's held-out text, the first ones"},

    {"optim.lr", CONF_FLOAT, AT(optim.lr), "1e-3", 0, 100, NULL, "peak learning rate"},
    {"optim.beta1", CONF_FLOAT, AT(optim.beta1), "0.9", 0, 0.999999, NULL, "decay of the mean"},
    {"optim.beta2", CONF_FLOAT, AT(optim.beta2), "0.95", 0, 0.999999, NULL, "decay of the square"},
    {"optim.eps", CONF_FLOAT, AT(optim.eps), "1e-8", 1e-30, 1, NULL, "added to the root"},
    {"optim.weight_decay", CONF_FLOAT, AT(optim.weight_decay), "0.1", 0, 100, NULL,
     "decoupled, times the rate, for the groups that optim.decay names"},
    {"optim.clip", CONF_FLOAT, AT(optim.clip), "1.0", 0, 1e9, NULL,
     "largest norm of the gradient; 0: no clipping"},
    {"optim.kind", CONF_ENUM, AT(optim.kind), "adamw", 1, 0, optimizers,
     "adamw | muon (attention and experts by Muon, the rest by AdamW)"},
    {"optim.moments", CONF_ENUM, AT(optim.moments), "f32", 1, 0, moment_types,
     "f32 | bf16 (rounded stochastically)"},
    {"optim.muon_momentum", CONF_FLOAT, AT(optim.muon_momentum), "0.95", 0, 0.999999, NULL,
     "of Muon's matrices"},
    {"optim.skip_zscore", CONF_FLOAT, AT(optim.skip_zscore), "0", 0, 1e6, NULL,
     "steps whose norm or loss lies so many standard deviations high are skipped; 0: none"},
    {"optim.skip_window", CONF_INT, AT(optim.skip_window), "128", 2, 1 << 20, NULL,
     "latest steps that they are judged by"},
    RATIO("embed", PARAM_EMBED, "embedding"),
    RATIO("head", PARAM_HEAD, "output head, where it is not the embedding"),
    RATIO("attn", PARAM_ATTN, "attention's matrices"),
    RATIO("norm", PARAM_NORM, "norms"),
    RATIO("bias", PARAM_BIAS, "biases"),
    RATIO("router", PARAM_ROUTER, "routers"),
    RATIO("shared", PARAM_SHARED, "shared experts, or a dense model's FFN"),
    RATIO("expert", PARAM_EXPERT, "specialized experts"),
    DECAY("embed", PARAM_EMBED, "true"), DECAY("head", PARAM_HEAD, "true"),
    DECAY("attn", PARAM_ATTN, "true"), DECAY("norm", PARAM_NORM, "false"),
    DECAY("bias", PARAM_BIAS, "false"), DECAY("router", PARAM_ROUTER, "true"),
    DECAY("shared", PARAM_SHARED, "true"), DECAY("expert", PARAM_EXPERT, "true"),
    {"optim.schedule", CONF_ENUM, AT(optim.schedule), "wsd", 1, 0, schedules,
     "wsd | wsd_sqrt | cosine | constant | three_phase"},
    {"optim.warmup_steps", CONF_INT, AT(optim.warmup_steps), "100", 0, BIG, NULL,
     "steps of the linear warm-up"},
    {"optim.decay_steps", CONF_INT, AT(optim.decay_steps), "0", 0, BIG, NULL,
     "last steps, in which wsd and three_phase fall (three_phase: 0: those of the last 5 % "
     "of the tokens); cut in proportion when train.minutes cuts the run"},
    {"optim.final_lr_ratio", CONF_FLOAT, AT(optim.final_lr_ratio), "0.1", 0, 1, NULL,
     "rate at the end / peak"},
    {"optim.mid_lr_ratio", CONF_FLOAT, AT(optim.mid_lr_ratio), "0.3", 0, 1, NULL,
     "three_phase: rate where the gradual decay ends and the annealing begins / peak"},
    {"optim.expert_lr", CONF_ENUM, AT(optim.expert.mode), "ratio", 1, 0, expert_lrs,
     "further factor on the experts' rate: ratio: none | auto: one, g_n(B / B_noise) with n = "
     "n_experts / top_k | load: one for each expert, n from the tokens it receives (a fixed "
     "factor, such as 0.31: optim.lr_ratio.expert)"},
    {"optim.load_decay", CONF_FLOAT, AT(optim.expert.load_decay), "0.99", 0, 0.999999, NULL,
     "load: of the moving average of an expert's tokens"},
    {"optim.noise", CONF_ENUM, AT(optim.expert.noise), "loss", 1, 0, noises,
     "auto, load: B_noise is given | from the loss: noise_b_star / loss^(1/noise_alpha) | measured "
     "from the gradients"},
    {"optim.noise_tokens", CONF_FLOAT, AT(optim.expert.noise_tokens), "0.0", 0, 1e15, NULL,
     "given: B_noise in tokens"},
    {"optim.noise_b_star", CONF_FLOAT, AT(optim.expert.noise_b_star), "2.1e8", 1, 1e15, NULL,
     "loss: B_noise in tokens at a loss of 1"},
    {"optim.noise_alpha", CONF_FLOAT, AT(optim.expert.noise_alpha), "0.21", 0.01, 100, NULL,
     "loss: exponent"},
    {"optim.noise_unit", CONF_INT, AT(optim.expert.noise_unit), "0", 0, 1 << 20, NULL,
     "measured: sequences of a unit, whose gradients are held against the batch's"},
    {"optim.noise_decay", CONF_FLOAT, AT(optim.expert.noise_decay), "0.99", 0, 0.999999, NULL,
     "measured: of the moving averages of noise and signal"},

    {"train.out", CONF_TEXT, AT(train.out), NULL, 1, 0, NULL, "run folder"},
    {"train.from", CONF_TEXT, AT(train.from), "", 1, 0, NULL,
     "checkpoint or run folder that the run branches from: it goes on there; empty: a run of its "
     "own"},
    {"train.steps", CONF_INT, AT(train.steps), NULL, 1, BIG, NULL, "optimizer steps"},
    {"train.batch", CONF_INT, AT(train.batch), NULL, 1, 1 << 20, NULL,
     "sequences of the global batch"},
    {"train.micro_batch", CONF_INT, AT(train.micro_batch), "0", 0, 1 << 20, NULL,
     "sequences of a micro-batch; 0: chosen"},
    {"train.seed", CONF_INT, AT(train.seed), "1", 0, 9e18, NULL, "of every random draw"},
    {"train.precision", CONF_ENUM, AT(train.precision), "bf16", 1, 0, precisions, "bf16 | f32"},
    {"train.device", CONF_TEXT, AT(train.device), "auto", 1, 0, NULL, "auto | cpu | cuda"},
    {"train.threads", CONF_INT, AT(train.threads), "0", 0, 4096, NULL, "of the CPU device; 0: all"},
    {"train.deterministic", CONF_BOOL, AT(train.deterministic), "true", 1, 0, NULL,
     "the same bits every time; false: attention's gradients on a GPU may add up in any order, "
     "which needs less memory"},
    {"train.eval_every", CONF_INT, AT(train.eval_every), "0", 0, BIG, NULL,
     "steps between held-out losses; 0: only at the end"},
    {"train.eval_sequences", CONF_INT, AT(train.eval_sequences), "64", 1, 1e12, NULL,
     "of the held-out text, the first ones"},
    {"train.checkpoint_every", CONF_INT, AT(train.checkpoint_every), "0", 0, BIG, NULL,
     "steps between checkpoints; 0: only at the end"},
    {"train.keep_checkpoints", CONF_INT, AT(train.keep_checkpoints), "2", 0, 1e9, NULL,
     "newest checkpoints kept; 0: all"},
    {"train.log_every", CONF_INT, AT(train.log_every), "10", 1, BIG, NULL,
     "steps between progress lines"},
    {"train.minutes", CONF_FLOAT, AT(train.minutes), "0.0", 0, 1e7, NULL,
     "steps are cut to what fits in this time; 0: no limit"},
    {"train.routing_record", CONF_TEXT, AT(train.routing_record), "", 1, 0, NULL,
     "file that receives the router's choices of every step"},
    {"train.routing_replay", CONF_TEXT, AT(train.routing_replay), "", 1, 0, NULL,
     "such a file, whose choices are taken instead of the router's"},
};
enum { OWN_ROWS = sizeof own_rows / sizeof *own_rows };

#define IN_SOURCE(field) offsetof(SourceConfig, field)
static const ConfRow source_rows[] = {
    {"name", CONF_TEXT, IN_SOURCE(name), NULL, 1, 0, NULL, "what records call the source"},
    {"path", CONF_TEXT, IN_SOURCE(path), NULL, 1, 0, NULL,
     "folder made by isomoe prepare, or one shard"},
    {"weight", CONF_FLOAT, IN_SOURCE(weight), NULL, 0, 1e6, NULL,
     "share of the sequences; only ratios count"},
    {"ref_loss", CONF_FLOAT, IN_SOURCE(ref_loss), "0", 0, 1000, NULL,
     "held-out loss that data.dynamic steers to, nats a token"},
};
#define IN_DECAY(field) offsetof(DecayRow, field)
static const ConfRow decay_rows[] = {
    {"rows", CONF_TEXT, IN_DECAY(rows), NULL, 1, 0, NULL,
     "parameters by name, '*' for anything: \"layers.*.router.weight\""},
    {"decay", CONF_FLOAT, IN_DECAY(decay), NULL, 0, 100, NULL, "their weight decay; 0: none"},
};
enum { DECAY_ROWS = sizeof decay_rows / sizeof *decay_rows };

#define IN_STAGE(field) offsetof(StageConfig, field)
static const ConfRow stage_rows[] = {
    {"name", CONF_TEXT, IN_STAGE(name), NULL, 1, 0, NULL, "what records call the stage"},
    {"steps", CONF_INT, IN_STAGE(steps), NULL, 0, BIG, NULL,
     "optimizer steps; 0, in the last stage: the rest of train.steps"},
    {"share", CONF_FLOAT, IN_STAGE(share), "0", 0, 0.999, NULL,
     "of the last stage: its part of all tokens (0.05), in place of steps; the stage before takes "
     "the rest"},
    {"weights", CONF_TEXT, IN_STAGE(weights), "", 1, 0, NULL,
     "shares by source, \"web=0.5 code=0.5\", 0 for one not named; empty: those of data.sources, "
     "or with data.dynamic those in force"},
    {"seq_len", CONF_INT, IN_STAGE(seq_len), "0", 0, 1 << 20, NULL,
     "tokens of a sequence; 0: data.seq_len"},
    {"batch", CONF_INT, IN_STAGE(batch), "0", 0, 1 << 20, NULL,
     "sequences of the global batch; 0: train.batch"},
    {"micro_batch", CONF_INT, IN_STAGE(micro_batch), "0", 0, 1 << 20, NULL,
     "sequences of a micro-batch; 0: train.micro_batch where shape and batch are the run's, else "
     "chosen"},
    {"rope_theta", CONF_FLOAT, IN_STAGE(rope_theta), "0", 0, 1e15, NULL,
     "base of the rotary frequencies; 0: model.rope_theta"},
    {"anneal", CONF_BOOL, IN_STAGE(anneal), "false", 1, 0, NULL,
     "the last phase of optim.schedule (wsd, three_phase) begins with this stage, instead of "
     "optim.decay_steps"},
};
enum { STAGE_ROWS = sizeof stage_rows / sizeof *stage_rows };
enum { SOURCE_ROWS = sizeof source_rows / sizeof *source_rows };

static const ConfList lists[] = {
    {"data.sources", source_rows, SOURCE_ROWS, RUN_SOURCES, AT(data.source), sizeof(SourceConfig),
     AT(data.n_sources), "what is trained on, instead of data.train"},
    {"optim.decay_rows", decay_rows, DECAY_ROWS, OPTIM_DECAY_ROWS, AT(optim.decay_row),
     sizeof(DecayRow), AT(optim.n_decay_rows),
     "weight decay of single parameters, in place of what their group has; the last that fits"},
    {"stages", stage_rows, STAGE_ROWS, RUN_STAGES, AT(stage), sizeof(StageConfig), AT(n_stages),
     "parts of the run with their own data, length of sequences and rotation"},
};
enum { LISTS = sizeof lists / sizeof *lists };

const ConfTable *run_config_table(void)
{
    static ConfRow rows[MAX_ROWS];
    static char keys[MAX_ROWS][CONF_LIST_KEY];
    static ConfTable table;
    if (table.count) return &table;
    int n = model_config_rows(rows, MAX_ROWS - OWN_ROWS, offsetof(RunConfig, model));
    memcpy(rows + n, own_rows, sizeof own_rows);
    n += OWN_ROWS;
    for (int i = 0; i < LISTS; i++)
        n += conf_list_rows(&lists[i], rows + n, MAX_ROWS - n, keys + n);
    table = (ConfTable){rows, n};
    return &table;
}

/* Tokens that a micro-batch must hold a multiple of. */
static int64_t group_tokens(const RunConfig *c)
{
    return c->model.n_experts > 0 ? c->model.routing_group_tokens : 1;
}

int64_t run_config_micro(const RunConfig *c, int64_t seq_len, int64_t batch)
{
    int64_t best = 0, T = seq_len;
    int64_t unit = optim_measures_noise(c) ? c->optim.expert.noise_unit : batch;
    for (int64_t micro = 1; micro <= batch; micro++) {
        if (batch % micro || unit % micro || micro * T % group_tokens(c)) continue;
        if (best && micro * T > MICRO_TOKENS) break;
        best = micro;
    }
    return best;
}

#define FAIL(check, key, ...)                                                                      \
    conf_fail(run_config_table(), (check).lines, (check).path, key, (check).e, __VA_ARGS__)

static int check_batch(RunConfig *c, RunCheck k)
{
    long long T = c->data.seq_len, R = group_tokens(c), batch = c->train.batch;
    if (R > 1 && R % T && T % R)
        return FAIL(k, "model.routing_group_tokens",
                    "%lld tokens neither divide a sequence (data.seq_len %lld) nor are a multiple "
                    "of it", R, T);
    if (batch * T % R) {
        FAIL(k, "train.batch",
             "%lld sequences of %lld tokens are not whole routing groups of %lld tokens", batch, T,
             R);
        return err_hint(k.e, "use a multiple of %lld", R / T);
    }
    if (c->train.micro_batch == 0) c->train.micro_batch = run_config_micro(c, T, batch);
    long long micro = c->train.micro_batch;
    if (batch % micro)
        return FAIL(k, "train.micro_batch", "%lld does not divide train.batch %lld", micro, batch);
    if (micro * T % R) {
        FAIL(k, "train.micro_batch",
             "%lld sequences of %lld tokens are not whole routing groups of %lld tokens", micro, T,
             R);
        return err_hint(k.e, "use a multiple of %lld", R / T);
    }
    return 0;
}

static int check_schedule(const RunConfig *c, RunCheck k)
{
    long long steps = c->train.steps, warmup = c->optim.warmup_steps;
    OptimConfig optim = stages_optim(c);
    long long decay = schedule_decay_steps(&optim, steps);
    int schedule = c->optim.schedule;
    bool falls = schedule != SCHEDULE_COSINE && schedule != SCHEDULE_CONSTANT;
    if (warmup > steps)
        return FAIL(k, "optim.warmup_steps", "%lld is more than train.steps %lld", warmup, steps);
    if (falls && warmup + decay > steps && !c->optim.decay_steps)
        return FAIL(k, "optim.warmup_steps", "%lld steps of warm-up, and the rate's last phase "
                    "begins behind step %lld", warmup, steps - decay);
    if (falls && warmup + decay > steps)
        return FAIL(k, "optim.decay_steps", "%lld behind %lld of warm-up is more than train.steps "
                    "%lld", decay, warmup, steps);
    return 0;
}

/* Recording and replaying the router's choices. */
static int check_routing_files(const RunConfig *c, RunCheck k)
{
    const char *record = c->train.routing_record, *replay = c->train.routing_replay;
    const char *key = replay[0] ? "train.routing_replay" : "train.routing_record";
    if (!record[0] && !replay[0]) return 0;
    if (!c->model.n_experts)
        return FAIL(k, key, "there is nothing to choose: model.n_experts is 0");
    if (c->model.routing == ROUTE_EXPERT_CHOICE)
        return FAIL(k, key, "is for tokens that choose experts, not for model.routing "
                    "expert_choice");
    if (!strcmp(record, replay))
        return FAIL(k, key, "train.routing_record is the same file");
    return 0;
}

/* A key for a group of parameters that the model does not have would do nothing. */
static int check_groups(const RunConfig *c, RunCheck k)
{
    const ConfTable *rows = run_config_table();
    ParamTable table;
    bool there[OPTIM_GROUPS] = {false};
    if (params_build(&table, &c->model, k.e)) return -1;
    for (int i = 0; i < table.count; i++) there[table.row[i].kind] = true;
    params_free(&table);
    for (int i = 0; i < rows->count; i++) {
        size_t ratio = (rows->rows[i].offset - AT(optim.lr_ratio)) / sizeof(double);
        size_t decay = rows->rows[i].offset - AT(optim.decay);
        size_t group = ratio < OPTIM_GROUPS ? ratio : decay;
        if (group < OPTIM_GROUPS && !there[group] && !run_config_is_default(c, rows->rows[i].key))
            return FAIL(k, rows->rows[i].key, "the model has no such parameters");
    }
    return 0;
}

static int check_optimizer(const RunConfig *c, RunCheck k)
{
    if (c->optim.kind != OPTIM_MUON && c->optim.muon_momentum != 0.95)
        return FAIL(k, "optim.muon_momentum", "is for optim.kind muon");
    if (c->optim.skip_zscore == 0 && c->optim.skip_window != 128)
        return FAIL(k, "optim.skip_window", "is for optim.skip_zscore above 0");
    return check_groups(c, k) || row_decay_check(c, k) ? -1 : 0;
}

/* Sums in any order: only attention's library on a GPU has them. */
static int check_deterministic(const RunConfig *c, RunCheck k)
{
    const char *key = "train.deterministic";
    char why[GPU_WHY];
    ModelShape shape = run_config_shape(c);
    if (c->train.deterministic) return 0;
    if (!strcmp(c->train.device, "cpu"))
        return FAIL(k, key, "false has no effect on train.device cpu: its sums have one order");
    gpu_attention_fault(why, &c->model, &shape, c->data.mask_documents);
    if (!why[0]) return 0;
    return FAIL(k, key, "false has no effect: attention is run by the own kernels, whose sums have "
                "one order, because %s", why);
}

static int check_run(RunConfig *c, RunCheck k)
{
    if (model_config_check(&c->model, run_config_table(), k.lines, k.path, k.e)) return -1;
    if (!c->train.out[0]) return FAIL(k, "train.out", "is empty");
    if (run_data_check(c, k)) return -1;
    if (!c->data.val[0]) memcpy(c->data.val, c->data.train, sizeof c->data.val);
    const char *device = c->train.device;
    if (strcmp(device, "auto") && strcmp(device, "cpu") && strcmp(device, "cuda"))
        return FAIL(k, "train.device", "'%.60s' is none of auto, cpu, cuda", device);
    if (c->train.from[0] && c->train.minutes > 0)
        return FAIL(k, "train.minutes", "cannot cut a run with train.from: where its decay begins "
                    "must be known from the start");
    if (optim_check(c, k.lines, k.path, k.e) || check_batch(c, k) || stages_fill_share(c, k) ||
        stages_check(c, k) || check_optimizer(c, k) || check_routing_files(c, k) ||
        check_deterministic(c, k))
        return -1;
    return check_schedule(c, k);
}

static int row_of(const char *key)
{
    const ConfTable *table = run_config_table();
    int i = 0;
    while (i < table->count && strcmp(table->rows[i].key, key)) i++;
    CHECK(i < table->count, "no key %s", key);
    return i;
}

int run_config_read_given(RunConfig *c, const char *path, const char *const *overrides, int n,
                          RunGiven *key, Err *e)
{
    int lines[MAX_ROWS];
    memset(c, 0, sizeof *c);
    if (conf_read(run_config_table(), c, path, overrides, n, lines, e)) return -1;
    if (key) key->given = lines[row_of(key->key)] != 0;
    return check_run(c, (RunCheck){lines, path, e});
}

int run_config_read(RunConfig *c, const char *path, const char *const *overrides, int n, Err *e)
{
    return run_config_read_given(c, path, overrides, n, NULL, e);
}

int run_config_read_text(RunConfig *c, const char *text, const char *name, Err *e)
{
    int lines[MAX_ROWS];
    memset(c, 0, sizeof *c);
    if (conf_read_text(run_config_table(), c, text, name, lines, e)) return -1;
    return check_run(c, (RunCheck){lines, name, e});
}

bool run_config_is_default(const RunConfig *c, const char *key)
{
    return conf_is_default(run_config_table(), c, key);
}

ModelShape run_config_shape(const RunConfig *c)
{
    return (ModelShape){.type = c->train.precision ? DT_F32 : DT_BF16,
                        .B = c->train.micro_batch,
                        .T = c->data.seq_len,
                        .micro_batches = c->train.batch / c->train.micro_batch,
                        .train = true,
                        .any_order = !c->train.deterministic};
}
