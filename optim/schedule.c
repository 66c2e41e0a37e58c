/* optim/schedule.c - learning rate by step. */
#include <math.h>

#include "optim/optim.h"

double schedule_lr(const OptimConfig *c, int64_t step, int64_t steps)
{
    double peak = c->lr, end = c->lr * c->final_lr_ratio;
    if (step < c->warmup_steps) return peak * (double)(step + 1) / (double)c->warmup_steps;
    double done = (double)step + 1, x;
    switch ((ScheduleKind)c->schedule) {
    case SCHEDULE_CONSTANT:
        return peak;
    case SCHEDULE_COSINE:
        x = (done - (double)c->warmup_steps) / fmax(1, (double)(steps - c->warmup_steps));
        return end + (peak - end) * 0.5 * (1 + cos(M_PI * fmin(x, 1)));
    case SCHEDULE_WSD:
    case SCHEDULE_WSD_SQRT:
        x = (done - (double)(steps - c->decay_steps)) / fmax(1, (double)c->decay_steps);
        if (x <= 0) return peak;
        x = fmin(x, 1);
        return end + (peak - end) * (c->schedule == SCHEDULE_WSD ? 1 - x : 1 - sqrt(x));
    }
    CHECK(0, "schedule %d", c->schedule);
    return 0;
}
