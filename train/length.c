/* train/length.c - see length.h. */
#include "train/length.h"

#include <math.h>

#include "base/size.h"

int64_t length_fit(const TrainConfig *c, int64_t done, Pace pace)
{
    double per_step = pace.step, fit;
    if (c->eval_every > 0) per_step += pace.eval / (double)c->eval_every;
    fit = floor((pace.left - pace.eval) / fmax(per_step, 1e-9));
    if (!(fit >= 1)) fit = 1;
    if (fit >= (double)(c->steps - done)) return c->steps;
    return done + (int64_t)fit;
}

OptimConfig length_schedule(const OptimConfig *c, int64_t steps, int64_t total)
{
    OptimConfig out = *c;
    if (total >= steps) return out;
    int64_t decay = schedule_decay_steps(c, steps);
    out.decay_steps = llround((double)decay * (double)total / (double)steps);
    if (c->schedule == SCHEDULE_THREE_PHASE) out.decay_steps = size_max(out.decay_steps, 1);
    out.decay_steps = size_min(out.decay_steps, total);
    out.warmup_steps = size_min(c->warmup_steps, total - out.decay_steps);
    return out;
}
