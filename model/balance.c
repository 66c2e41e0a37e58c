/* model/balance.c - what the router carries from step to step: the shares of choices of the whole
 * previous step (model.balance global) and the loss-free bias (model.bias_rate).
 *
 * route_f (L, E): choices of the expert / tokens, of all micro-batches of the last step; before the
 * first one k / E, as of an even router. route_bias (L, E): added to the scores when experts are
 * chosen, in training, evaluation and generation; after a step it moves by bias_rate towards the
 * experts that had less than the mean (DeepSeek-V3). The counts are those before capacity.
 */
#include "model/pass.h"

void balance_init(Model *m)
{
    double share = (double)m->c.top_k / (double)m->c.n_experts;
    if (tensor_given(m->w.route_f)) dev_fill(m->device, m->w.route_f, share);
    if (tensor_given(m->w.route_bias)) dev_fill(m->device, m->w.route_bias, 0);
}

int model_state(Model *m, StateTensor out[STATE_MAX])
{
    int n = 0;
    if (tensor_given(m->w.route_f)) out[n++] = (StateTensor){"route_f", m->w.route_f};
    if (tensor_given(m->w.route_bias)) out[n++] = (StateTensor){"route_bias", m->w.route_bias};
    return n;
}

void model_end_step(Model *m, int n_micro)
{
    const WorkTensors *w = &m->w;
    if (!tensor_given(w->route_total)) return;
    CHECK(n_micro >= 1 && n_micro <= m->shape.micro_batches, "%d micro-batches of %lld", n_micro,
          (long long)m->shape.micro_batches);
    double tokens = (double)n_micro * (double)(m->shape.B * m->shape.T);
    dev_fill(m->device, w->route_total, 0);
    dev_count_sum(m->device, w->route_total, tensor_slice(w->count, 0, n_micro));
    dev_balance_update(m->device, w->route_f, w->route_bias, w->route_total, tokens,
                       m->c.bias_rate);
}
