/* train/run_stage.c - see run_stage.h. */
#include "train/run_stage.h"

#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/size.h"
#include "data/mixture.h"
#include "data/reweight.h"
#include "train/dynamic.h"
#include "train/json_out.h"
#include "train/run_data.h"

/* The held-out text in sequences of T. */
static int begin_val(Run *r, int64_t T, Err *e)
{
    LoaderSegment segment = loader_segment(r->val, 0, T);
    return loader_begin(r->val, &segment, e) || dynamic_begin(r, T, e) ? -1 : 0;
}

/* Errors about a stage name it, where the run has a list of them. */
static int in_stage(const Run *r, const Stage *stage, Err *e)
{
    return r->config.n_stages ? err_context(e, "stage '%s'", stage->name) : -1;
}

static int check_stages(Run *r, Err *e)
{
    for (int i = 0; i < stages_count(&r->config); i++) {
        Stage stage = stages_get(&r->config, i);
        LoaderSegment segment = stages_segment(&stage);
        if (loader_begin(r->train, &segment, e) || begin_val(r, stage.seq_len, e))
            return in_stage(r, &stage, e);
    }
    return 0;
}

/* What a checkpoint says about the place in the data could only be wrong if it was edited. */
static int check_state(const Run *r, Err *e)
{
    const TrainState *s = &r->state;
    const int64_t most = (int64_t)1 << 60;
    bool good = s->stage == stages_at(&r->config, size_max(0, s->step - 1)) &&
                s->segment.T == r->stage.seq_len && s->segment.first <= s->sequence &&
                s->sequence <= most;
    for (int i = 0; i < LOADER_MAX_SOURCES; i++)
        good = good && s->segment.served[i] <= most && s->segment.phase[i] < MIXTURE_PHASES;
    if (good) return 0;
    return err_set(e, "%s: its place in the data is not one of this configuration",
                   r->resumed[0] ? r->resumed : r->from);
}

static void count_eval(Run *r)
{
    int64_t wanted = r->config.train.eval_sequences;
    r->eval_sequences = size_min(wanted, loader_windows(r->val));
    if (r->eval_sequences < wanted)
        log_warn("%s: has %" PRId64 " held-out sequences of %" PRId64 " tokens, fewer than "
                 "train.eval_sequences %" PRId64, run_data_path(&r->config, "val"),
                 r->eval_sequences, r->stage.seq_len, wanted);
    int64_t mixed = loader_whole_mixture(r->val);
    if (mixed < r->eval_sequences)
        log_warn("%s: after %" PRId64 " of %" PRId64 " held-out sequences a source is used up; the "
                 "rest are the others'", run_data_path(&r->config, "val"), mixed,
                 r->eval_sequences);
    loader_spread(r->val, r->eval_sequences);
}

int run_stage_open(Run *r, Err *e)
{
    if (check_stages(r, e)) return -1;
    TrainState *s = &r->state;
    if (!r->resumed[0] && !r->from[0]) {
        r->stage = stages_get(&r->config, 0);
        s->segment = stages_segment(&r->stage);
    } else {
        r->stage = stages_get(&r->config, (int)s->stage);
        if (check_state(r, e)) return -1;
    }
    if (loader_begin(r->train, &s->segment, e) || begin_val(r, r->stage.seq_len, e)) return -1;
    count_eval(r);
    return 0;
}

int run_stage_enter(Run *r, int i, Err *e)
{
    Stage next = stages_get(&r->config, i);
    LoaderSegment segment = loader_segment(r->train, r->state.sequence, next.seq_len);
    ModelShape shape = stages_shape(&r->config, &next);
    if (next.own_weights || r->config.data.dynamic == REWEIGHT_OFF)
        memcpy(segment.weight, next.weight, sizeof segment.weight);
    if (loader_begin(r->train, &segment, e) || begin_val(r, next.seq_len, e) ||
        model_reshape(r->model, &shape, next.rope_theta, e))
        return in_stage(r, &next, e);
    bool other_length = next.seq_len != r->stage.seq_len;
    r->stage = next;
    r->state.stage = i;
    r->state.segment = segment;
    if (other_length) count_eval(r);
    else loader_spread(r->val, r->eval_sequences);
    log_info("stage '%s': %" PRId64 " steps of %" PRId64 " sequences of %" PRId64
             " tokens, base of the rotation %g", next.name, next.steps, next.batch, next.seq_len,
             next.rope_theta);
    return run_stage_log(r, e);
}

json_t *run_stage_sources(const Run *r)
{
    const LoaderSegment *now = &r->state.segment;
    json_t *out = json_object();
    double sum = 0;
    for (int s = 0; s < loader_sources(r->train); s++) sum += now->weight[s];
    for (int s = 0; s < loader_sources(r->train); s++) {
        double epochs = loader_epochs(r->train, s, r->state.sequence);
        json_object_set_new(out, run_data_name(&r->config, s),
                            json_pack("{s:o, s:o}", "weight", json_out_real(now->weight[s] / sum),
                                      "epochs", json_out_real(epochs)));
    }
    return out;
}

/* Its step is the first that is made in the stage: a resume at the border drops the line, and the
 * stage is begun again. */
int run_stage_log(Run *r, Err *e)
{
    const Stage *s = &r->stage;
    if (!r->config.n_stages) return 0;
    return runlog_write(&r->log,
                        json_pack("{s:s, s:I, s:i, s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "event",
                                  "stage", "step", (json_int_t)r->state.step + 1, "stage", s->index,
                                  "name", s->name, "steps", (json_int_t)s->steps, "seq_len",
                                  (json_int_t)s->seq_len, "batch", (json_int_t)s->batch,
                                  "micro_batch", (json_int_t)s->micro_batch, "rope_theta",
                                  json_out_real(s->rope_theta), "sources", run_stage_sources(r)),
                        e);
}
