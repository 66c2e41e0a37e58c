/* train/dynamic.c - see dynamic.h. */
#include "train/dynamic.h"

#include <inttypes.h>
#include <math.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/size.h"
#include "data/reweight.h"
#include "train/heldout.h"
#include "train/json_out.h"
#include "train/run_data.h"
#include "train/run_stage.h"

int dynamic_open(Run *r, Err *e)
{
    const RunConfig *c = &r->config;
    if (c->data.dynamic == REWEIGHT_OFF) return 0;
    for (int64_t s = 0; s < c->data.n_sources; s++) {
        LoaderOptions options = run_data_options(c, "val");
        options.n_sources = 1;
        options.source[0] = (LoaderSource){c->data.source[s].path, 1};
        if (!(r->probe[s] = loader_open(&options, e)))
            return err_context(e, "data.dynamic needs held-out text of every source");
    }
    return 0;
}

void dynamic_close(Run *r)
{
    for (int s = 0; s < RUN_SOURCES; s++) loader_close(&r->probe[s]);
}

uint64_t dynamic_hash(const Run *r, uint64_t hash)
{
    for (int s = 0; s < RUN_SOURCES; s++) {
        if (!r->probe[s]) continue;
        uint64_t one = loader_data_hash(r->probe[s]);
        hash = hash_more(hash, &one, sizeof one);
    }
    return hash;
}

int dynamic_begin(Run *r, int64_t T, Err *e)
{
    for (int s = 0; s < RUN_SOURCES; s++) {
        if (!r->probe[s]) continue;
        LoaderSegment segment = loader_segment(r->probe[s], 0, T);
        if (loader_begin(r->probe[s], &segment, e)) return err_context(e, "held-out text");
    }
    return 0;
}

/* Losses of all sources with a share; *complete: no signal came. */
static int measure(Run *r, double *loss, bool *complete, Err *e)
{
    const DataConfig *data = &r->config.data;
    *complete = true;
    for (int s = 0; s < (int)data->n_sources && *complete; s++) {
        HeldOut h;
        loss[s] = 0;
        if (r->state.segment.weight[s] == 0) continue;
        int64_t wanted = size_min(data->dynamic_sequences, loader_windows(r->probe[s]));
        loader_spread(r->probe[s], wanted);
        HeldOutOptions how = {.sequences = wanted, .use_documents = data->mask_documents};
        if (heldout_measure(&h, r->model, r->probe[s], NULL, &how, e)) return -1;
        *complete = h.sequences == wanted;
        loss[s] = h.loss;
    }
    return 0;
}

static int write_record(Run *r, const double *loss, double seconds, Err *e)
{
    json_t *sources = run_stage_sources(r);
    for (int s = 0; s < (int)r->config.data.n_sources; s++) {
        const SourceConfig *source = &r->config.data.source[s];
        if (r->state.segment.weight[s] == 0) continue;
        json_t *row = json_object_get(sources, source->name);
        json_object_set_new(row, "loss", json_out_real(loss[s]));
        json_object_set_new(row, "ref_loss", json_out_real(source->ref_loss));
    }
    return runlog_write(&r->log,
                        json_pack("{s:s, s:I, s:o, s:o}", "event", "mixture", "step",
                                  (json_int_t)r->state.step, "seconds", json_out_real(seconds),
                                  "sources", sources),
                        e);
}

/* The segment with the weights that these losses give. */
static int begin_segment(Run *r, const double *loss, Err *e)
{
    const DataConfig *data = &r->config.data;
    Reweight how = {(ReweightRule)data->dynamic, data->dynamic_eta, data->dynamic_smooth};
    double ref[RUN_SOURCES];
    LoaderSegment next = loader_segment(r->train, r->state.sequence, r->stage.seq_len);
    for (int64_t s = 0; s < data->n_sources; s++) {
        ref[s] = data->source[s].ref_loss;
        if (isfinite(loss[s])) continue;
        log_warn("step %" PRId64 ": the held-out loss of source '%s' is no number; the weights "
                 "stay", r->state.step, data->source[s].name);
        return 0;
    }
    reweight(&how, next.weight, loss, ref, (int)data->n_sources);
    if (loader_begin(r->train, &next, e)) return -1;
    r->state.segment = next;
    return 0;
}

int dynamic_update(Run *r, Err *e)
{
    const DataConfig *data = &r->config.data;
    TrainState *s = &r->state;
    double loss[RUN_SOURCES], began = log_seconds();
    bool complete;
    bool due = data->dynamic != REWEIGHT_OFF && s->step > 0 && s->step % data->dynamic_every == 0 &&
               s->step < run_steps(r) && s->reweighted != s->step;
    if (!due) return 0;
    if (measure(r, loss, &complete, e)) return -1;
    if (!complete) return 0;
    if (begin_segment(r, loss, e)) return -1;
    s->reweighted = s->step;
    return write_record(r, loss, log_seconds() - began, e);
}
