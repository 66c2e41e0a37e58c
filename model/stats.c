/* model/stats.c - what a step's routing did, gathered on the host after the step. */
#include <stdlib.h>
#include <string.h>

#include "model/pass.h"

/* Sums over groups, layers and micro-batches into *out; shares are still sums. */
static void gather(const Model *m, const float *stats, const int32_t *load, int64_t groups,
                   StepStats *out)
{
    int64_t E = m->c.n_experts, R = m->c.routing_group_tokens;
    for (int64_t g = 0; g < groups; g++, stats += STAT_COUNT, load += E) {
        out->aux += stats[STAT_AUX];
        out->z += stats[STAT_Z] / (double)R;
        out->entropy += stats[STAT_ENTROPY] / (double)R;
        out->choices += stats[STAT_CHOICES];
        out->overflow += stats[STAT_OVERFLOW];
        out->recycled += stats[STAT_RECYCLED];
        out->unplaced += stats[STAT_UNPLACED];
        if (stats[STAT_CHOICES] > 0)
            out->max_load += stats[STAT_MAX_LOAD] * (double)E / stats[STAT_CHOICES];
        for (int64_t i = 0; i < E && i < 256; i++) out->load[i] += load[i];
        for (int64_t i = 0; i < E; i++)
            out->active_width += (double)load[i] * (double)model_expert_width(&m->c, i) / (double)R;
    }
}

/* Sum of l_cv over groups, layers and micro-batches. */
static double gather_cv(Model *m, int64_t groups)
{
    double sum = 0;
    if (!tensor_given(m->w.cv)) return 0;
    float *cv = malloc((size_t)tensor_bytes(m->w.cv));
    CHECK(cv, "out of memory for the routing statistics");
    dev_download(m->device, cv, m->w.cv);
    for (int64_t g = 0; g < groups; g++) sum += cv[g];
    free(cv);
    return sum;
}

void model_stats(Model *m, int n_micro, StepStats *out)
{
    double loss[2];
    *out = (StepStats){0};
    dev_download(m->device, loss, m->w.loss);
    out->loss_sum = loss[0];
    out->targets = loss[1];
    if (!m->c.n_experts || n_micro < 1) return;
    float *stats = malloc((size_t)tensor_bytes(m->w.stats));
    int32_t *load = malloc((size_t)tensor_bytes(m->w.load));
    CHECK(stats && load, "out of memory for the routing statistics");
    dev_download(m->device, stats, m->w.stats);
    dev_download(m->device, load, m->w.load);
    int64_t L = m->c.n_layers, per_layer = n_micro * m->w.stats.dim[2], groups = per_layer * L;
    gather(m, stats, load, groups, out);
    double choices = out->choices > 0 ? out->choices : 1, placed = 0;
    out->aux /= (double)per_layer;
    out->z /= (double)per_layer;
    out->entropy /= (double)per_layer;
    out->cv = gather_cv(m, groups) / (double)per_layer;
    out->choices /= (double)groups * (double)m->c.routing_group_tokens;
    out->overflow /= choices;
    out->recycled /= choices;
    out->unplaced /= choices;
    out->max_load /= (double)groups;
    out->active_width /= (double)groups;
    for (int i = 0; i < 256; i++) placed += out->load[i];
    for (int i = 0; i < 256 && placed > 0; i++) out->load[i] /= placed;
    free(stats);
    free(load);
}
