/* train/branch.c - see branch.h. */
#include "train/branch.h"

#include <inttypes.h>

#include "train/length.h"
#include "train/resume.h"

/* Steps of both runs have had the same rates up to the checkpoint's. */
static int check_rates(const RunConfig *trunk, const TrainState *s, const RunConfig *c,
                       const char *folder, Err *e)
{
    int64_t steps = s->steps_total ? s->steps_total : trunk->train.steps, step = s->step;
    OptimConfig before = length_schedule(&trunk->optim, trunk->train.steps, steps);
    int64_t old_fall = schedule_settled(&before, steps);
    int64_t new_fall = schedule_settled(&c->optim, c->train.steps);
    if (before.warmup_steps != c->optim.warmup_steps)
        return err_set(e, "%s: cannot be branched from: that run was cut to %" PRId64 " steps of "
                       "warm-up, here they are %" PRId64, folder, before.warmup_steps,
                       c->optim.warmup_steps);
    if (step > old_fall) {
        err_set(e, "%s: cannot be branched from: step %" PRId64 " lies inside the decay of that "
                "run, which begins behind step %" PRId64, folder, step, old_fall);
        return err_hint(e, "take an earlier checkpoint of it");
    }
    if (step >= c->train.steps || step > new_fall) {
        err_set(e, "%s: cannot be branched from: it is at step %" PRId64 ", but a run of %" PRId64
                " steps has its decay behind step %" PRId64, folder, step, c->train.steps,
                new_fall);
        return err_hint(e, "raise train.steps, lower optim.decay_steps, or take an earlier "
                           "checkpoint");
    }
    return 0;
}

int branch_open(const RunConfig *c, TrainState *s, char *folder, Err *e)
{
    RunConfig trunk;
    TrainState state;
    if (checkpoint_open(c->train.from, &trunk, &state, folder, e))
        return err_context(e, "train.from");
    if (resume_check_branch(&trunk, c, folder, e)) return -1;
    if (check_rates(&trunk, &state, c, folder, e)) return -1;
    *s = state;
    s->from_run = state.run_id;
    s->from_step = state.step;
    s->steps_total = c->train.steps;
    return 0;
}
