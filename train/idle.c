/* train/idle.c - see idle.h. */
#include "train/idle.h"

#include "data/reweight.h"
#include "optim/noise.h"
#include "train/optim_check.h"

static bool zscore_waits(const RunConfig *c)
{
    return c->optim.skip_zscore > 0 && c->optim.skip_window >= c->train.steps;
}

static bool dynamic_waits(const RunConfig *c)
{
    return c->data.dynamic != REWEIGHT_OFF && c->data.dynamic_every >= c->train.steps;
}

static bool noise_waits(const RunConfig *c)
{
    return optim_measures_noise(c) && c->train.steps <= NOISE_WARM;
}

/* The routing gives every expert as many tokens as every other, whatever the router says. */
static bool loads_are_equal(const RunConfig *c)
{
    const ModelConfig *m = &c->model;
    if (c->optim.expert.mode != EXPERT_LR_LOAD) return false;
    if (m->routing == ROUTE_EXPERT_CHOICE) return true;
    if (m->routing == ROUTE_RECYCLE) /* one choice a token, and no place too many */
        return m->top_k == 1 && m->n_experts * model_capacity(m) == m->routing_group_tokens;
    return m->routing == ROUTE_DROPLESS && m->top_k == m->n_experts && m->top_p == 0;
}

static const struct {
    bool (*idle)(const RunConfig *c);
    const char *message;
} keys[] = {
    {zscore_waits, "optim.skip_zscore: judges no step before optim.skip_window are in, and the "
                   "run has no more: no outlier is skipped"},
    {dynamic_waits, "data.dynamic: the first change of weights is due behind data.dynamic_every "
                    "steps, and the run has no more: the weights stay"},
    {noise_waits, "optim.noise measured: is believed only behind 10 steps, and the run has no "
                  "more: the experts' rates are those of an unknown B_noise"},
    {loads_are_equal, "optim.expert_lr load: with this routing every expert gets the same number "
                      "of tokens, so that its rates are those of auto"},
};
_Static_assert(NOISE_WARM == 10, "the message says so");

void idle_keys(const RunConfig *c, void (*say)(const char *message, void *user), void *user)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (keys[i].idle(c)) say(keys[i].message, user);
}
