/* train/branch.c - see branch.h. */
#include "train/branch.h"

#include <inttypes.h>
#include <string.h>

#include "base/size.h"
#include "train/length.h"
#include "train/resume.h"
#include "train/stages.h"

/* Steps of both runs have had the same rates up to the checkpoint's. */
static int check_rates(const RunConfig *trunk, const TrainState *s, const RunConfig *c,
                       const char *folder, Err *e)
{
    int64_t steps = s->steps_total ? s->steps_total : trunk->train.steps, step = s->step;
    OptimConfig old = stages_optim(trunk), new = stages_optim(c);
    OptimConfig before = length_schedule(&old, trunk->train.steps, steps);
    int64_t old_fall = schedule_settled(&before, steps);
    int64_t new_fall = schedule_settled(&new, c->train.steps);
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

static bool same_stage(const Stage *a, const Stage *b)
{
    return a->seq_len == b->seq_len && a->batch == b->batch && a->rope_theta == b->rope_theta &&
           a->own_weights == b->own_weights && !memcmp(a->weight, b->weight, sizeof a->weight);
}

/* The steps made so far were made in the same stages; what comes behind is the branch's own. */
static int check_stages(const RunConfig *trunk, const RunConfig *c, int64_t step,
                        const char *folder, Err *e)
{
    int last = stages_at(trunk, size_max(0, step - 1));
    bool same = last == stages_at(c, size_max(0, step - 1));
    for (int i = 0; i <= last && same; i++) {
        Stage before = stages_get(trunk, i), now = stages_get(c, i);
        same = same_stage(&before, &now) && (i == last || before.steps == now.steps);
    }
    if (same) return 0;
    err_set(e, "%s: cannot be branched from with other stages up to its step %" PRId64, folder,
            step);
    return err_hint(e, "a branch may change the stages that begin behind that step, and the end of "
                       "the one that it is in");
}

int branch_open(const RunConfig *c, TrainState *s, char *folder, Err *e)
{
    RunConfig trunk;
    TrainState state;
    if (checkpoint_open(c->train.from, &trunk, &state, folder, e))
        return err_context(e, "train.from");
    if (resume_check_branch(&trunk, c, folder, e)) return -1;
    if (check_stages(&trunk, c, state.step, folder, e)) return -1;
    if (check_rates(&trunk, &state, c, folder, e)) return -1;
    *s = state;
    s->from_run = state.run_id;
    s->from_step = state.step;
    s->replay_run = 0;
    s->steps_total = c->train.steps;
    return 0;
}
