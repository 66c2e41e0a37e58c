/* train/sample.c - see sample.h. */
#include "train/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/philox.h"

int sample_check(const SampleOptions *o, Err *e)
{
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        return err_set(e, "--temperature %g: must be 0 or more", o->temperature);
    if (o->top_k < 0) return err_set(e, "--top-k %lld: must be 0 or more", (long long)o->top_k);
    if (!(o->top_p > 0 && o->top_p <= 1))
        return err_set(e, "--top-p %g: must be above 0 and at most 1", o->top_p);
    return 0;
}

static int by_logit(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

/* Number of the sorted candidates that stay; *sum receives the sum of their weights. */
static int64_t cut(const Candidate *c, int64_t count, double top_p, double *sum)
{
    double total = 0;
    for (int64_t i = 0; i < count; i++) total += c[i].p;
    *sum = total;
    if (top_p >= 1) return count;
    double reached = 0;
    for (int64_t i = 0; i < count; i++) {
        reached += c[i].p;
        *sum = reached;
        if (reached >= top_p * total) return i + 1;
    }
    return count;
}

int32_t sample_token(const float *logits, int64_t V, const SampleOptions *o, uint64_t position,
                     Candidate *scratch, Err *e)
{
    for (int64_t i = 0; i < V; i++) {
        if (isnan(logits[i])) {
            err_set(e, "the model's logit of token %lld is not a number", (long long)i);
            return -1;
        }
        scratch[i] = (Candidate){.logit = logits[i], .id = (int32_t)i};
    }
    qsort(scratch, (size_t)V, sizeof *scratch, by_logit);
    if (V < 1 || isinf(scratch[0].logit)) {
        err_set(e, "the model's largest logit is not finite");
        return -1;
    }
    if (o->temperature == 0) return scratch[0].id;
    int64_t count = o->top_k && o->top_k < V ? o->top_k : V;
    for (int64_t i = 0; i < count; i++)
        scratch[i].p = exp(((double)scratch[i].logit - scratch[0].logit) / o->temperature);
    double sum, passed = 0;
    count = cut(scratch, count, o->top_p, &sum);
    PhiloxKey key = {.seed = o->seed, .purpose = RNG_SAMPLE, .position = position};
    double at = philox_uniform(&key, 0) * sum;
    for (int64_t i = 0; i < count - 1; i++) {
        passed += scratch[i].p;
        if (at < passed) return scratch[i].id;
    }
    return scratch[count - 1].id;
}
