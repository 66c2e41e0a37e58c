/* optim/expert_rate.c - see expert_rate.h. The state lives in device memory, where checkpoints find
 * it; every step reads it, and writes it back behind the optimizer's step. */
#include "optim/expert_rate.h"

#include <math.h>
#include <stdlib.h>

#include "base/size.h"

/* The numbers of the state besides the loads. */
typedef struct RateState {
    double load_steps;  /* steps in the moving average of the loads */
    NoiseState noise;
    double load_tokens; /* tokens of a step that the averages are of */
} RateState;
enum { STATE_NUMBERS = sizeof(RateState) / sizeof(double) };

struct ExpertRates {
    Model *m;
    ExpertRateConfig c;
    int64_t L, E;
    Tensor numbers;     /* (STATE_NUMBERS) f64 */
    Tensor load;        /* (L, E) f64: smoothed tokens of a step; load only */
    Tensor before;      /* f32 flat: the gradients before the unit; measured only */
    Tensor squares;     /* (NOISE_UNITS_MAX) f64: a unit's part, squared; measured only */
    void *block;        /* all four */
    RateState state;    /* host copies of this step */
    double *host_load;  /* (L, E) */
    float *factor;      /* (L, E) */
    int64_t batch, T;
    double noise_tokens;
};

double expert_rate_ratio(double n, double x) { return sqrt(n) * (1 + x) / (n + x); }

double expert_rate_split(const ModelConfig *c)
{
    if (c->routing == ROUTE_EXPERT_CHOICE)
        return fmax(1, (double)c->routing_group_tokens / (double)model_capacity(c));
    return (double)c->n_experts / (double)c->top_k;
}

/* ---- Life -------------------------------------------------------------------------------------*/

static Tensor take(ArenaPlan *plan, char *base, const char *name, DType type, int64_t n)
{
    int64_t bytes;
    if (!size_mul(n, (int64_t)dtype_size(type), &bytes)) bytes = -1;
    uintptr_t at = (uintptr_t)arena_reserve(plan, name, bytes);
    return tensor_1d((void *)((uintptr_t)base + at), type, n);
}

static void layout(ExpertRates *r, int64_t elements, ArenaPlan *plan, char *base)
{
    r->numbers = take(plan, base, "expert rates/state", DT_F64, STATE_NUMBERS);
    if (r->c.mode == EXPERT_LR_LOAD) {
        Tensor flat = take(plan, base, "expert rates/loads f64", DT_F64, r->L * r->E);
        r->load = tensor_2d(flat.data, DT_F64, r->L, r->E);
    }
    if (r->c.noise != NOISE_MEASURED) return;
    r->before = take(plan, base, "expert rates/gradients before a unit f32", DT_F32, elements);
    r->squares = take(plan, base, "expert rates/unit norms", DT_F64, NOISE_UNITS_MAX);
}

static ExpertRates blank(const ModelConfig *model, const ExpertRateConfig *c)
{
    return (ExpertRates){.c = *c, .L = model->n_layers, .E = model->n_experts};
}

int expert_rates_plan(const ModelConfig *model, const ExpertRateConfig *c, ArenaPlan *plan, Err *e)
{
    ParamTable table;
    ExpertRates rehearsal = blank(model, c);
    if (c->mode == EXPERT_LR_RATIO) return 0;
    if (params_build(&table, model, e)) return -1;
    layout(&rehearsal, table.elements, plan, NULL);
    params_free(&table);
    return arena_check(plan, e);
}

int expert_rates_create(ExpertRates **out, Model *m, const ExpertRateConfig *c, Err *e)
{
    ArenaPlan plan = {0};
    Device *d = model_device(m);
    int64_t elements = model_params(m)->elements;
    *out = NULL;
    if (c->mode == EXPERT_LR_RATIO) return 0;
    ExpertRates *r = malloc(sizeof *r);
    if (!r) return err_set(e, "out of memory for the experts' rates");
    *r = blank(model_config(m), c);
    CHECK(r->E > 0, "rates of experts for a model without any");
    r->m = m;
    r->host_load = calloc((size_t)(r->L * r->E), sizeof *r->host_load);
    r->factor = calloc((size_t)(r->L * r->E), sizeof *r->factor);
    layout(r, elements, &plan, NULL);
    int64_t bytes = arena_total(&plan);
    int rc = arena_check(&plan, e);
    arena_clear(&plan);
    if (!rc && (!r->host_load || !r->factor))
        rc = err_set(e, "out of memory for the experts' rates");
    if (!rc) r->block = dev_alloc(d, bytes, "the experts' rates", e);
    if (!r->block) {
        expert_rates_destroy(&r);
        return -1;
    }
    layout(r, elements, &plan, r->block);
    CHECK(arena_total(&plan) == bytes, "the layout changed");
    arena_clear(&plan);
    dev_fill(d, r->numbers, 0);
    if (tensor_given(r->load)) dev_fill(d, r->load, 0);
    *out = r;
    return 0;
}

void expert_rates_destroy(ExpertRates **r)
{
    if (!*r) return;
    dev_free(model_device((*r)->m), (*r)->block);
    free((*r)->host_load);
    free((*r)->factor);
    free(*r);
    *r = NULL;
}

int expert_rates_state(ExpertRates *r, StateTensor *out)
{
    int n = 0;
    if (!r) return 0;
    out[n++] = (StateTensor){"expert_rates", r->numbers};
    if (tensor_given(r->load)) out[n++] = (StateTensor){"expert_loads", r->load};
    return n;
}

/* ---- A step -----------------------------------------------------------------------------------*/

static double noise_tokens(const ExpertRates *r, double loss)
{
    switch ((NoiseSource)r->c.noise) {
    case NOISE_GIVEN: return r->c.noise_tokens;
    case NOISE_LOSS: return noise_from_loss(r->c.noise_b_star, r->c.noise_alpha, loss);
    case NOISE_MEASURED: return r->state.noise.tokens;
    }
    CHECK(0, "noise from %d", r->c.noise);
    return 0;
}

/* Another length of a step, in a new stage of the data: the averages are of so many tokens. */
static void scale_loads(ExpertRates *r, double tokens)
{
    double by = r->state.load_tokens > 0 ? tokens / r->state.load_tokens : 1;
    for (int64_t i = 0; i < r->L * r->E && by != 1; i++) r->host_load[i] *= by;
    r->state.load_tokens = tokens;
}

void expert_rates_begin(ExpertRates *r, Tensor factors, int64_t batch, int64_t T, double loss)
{
    Device *d = model_device(r->m);
    double tokens = (double)(batch * T), all = expert_rate_split(model_config(r->m));
    bool each = r->c.mode == EXPERT_LR_LOAD;
    r->batch = batch;
    r->T = T;
    dev_download(d, &r->state, r->numbers);
    if (each) dev_download(d, r->host_load, r->load);
    if (each) scale_loads(r, tokens);
    r->noise_tokens = noise_tokens(r, loss);
    double x = r->noise_tokens > 0 ? tokens / r->noise_tokens : 0;
    for (int64_t i = 0; i < r->L * r->E; i++) {
        bool seen = each && r->state.load_steps > 0;
        double n = seen ? tokens / fmax(1, r->host_load[i]) : all; /* one token: n is bounded */
        r->factor[i] = (float)expert_rate_ratio(n, x);
    }
    dev_upload(d, factors, r->factor);
    if (r->c.noise == NOISE_MEASURED) dev_fill(d, r->squares, 0);
}

/* A unit's part of the batch's gradient is what the sum grew by since the unit before: so the sum
 * is made as if nobody measured. */
void expert_rates_micro(ExpertRates *r, int64_t sequences)
{
    if (r->c.noise != NOISE_MEASURED || sequences % r->c.noise_unit) return;
    Device *d = model_device(r->m);
    Tensor grads = model_grads(r->m);
    int64_t unit = sequences / r->c.noise_unit - 1;
    Tensor square = tensor_slice(r->squares, unit, 1);
    if (unit == 0)
        dev_sqsum(d, square, grads);
    else
        dev_sqdiff(d, square, grads, r->before);
    if (sequences < r->batch) dev_copy(d, r->before, grads);
}

static void observe_load(ExpertRates *r, int n_micro)
{
    int64_t n = r->L * r->E;
    double *now = malloc((size_t)n * sizeof *now);
    CHECK(now, "out of memory for %lld loads", (long long)n);
    model_loads(r->m, n_micro, now);
    r->state.load_steps++;
    double weight = average_weight(r->c.load_decay, r->state.load_steps);
    for (int64_t i = 0; i < n; i++) r->host_load[i] += weight * (now[i] - r->host_load[i]);
    dev_upload(model_device(r->m), r->load, r->host_load);
    free(now);
}

static void observe_noise(ExpertRates *r, double grad_norm, const int32_t *targets)
{
    double square[NOISE_UNITS_MAX], counted[NOISE_UNITS_MAX];
    int64_t unit = r->c.noise_unit * r->T;
    NoiseStep step = {.units = (int)(r->batch / r->c.noise_unit), .square = square,
                      .targets = counted, .big = grad_norm * grad_norm,
                      .tokens = (double)(r->batch * r->T)};
    dev_download(model_device(r->m), square, r->squares);
    for (int j = 0; j < step.units; j++) {
        counted[j] = 0;
        for (int64_t i = 0; i < unit; i++) counted[j] += targets[j * unit + i] >= 0;
    }
    noise_observe(&r->state.noise, &step, r->c.noise_decay);
}

void expert_rates_end(ExpertRates *r, int n_micro, double grad_norm, const int32_t *targets)
{
    if (r->c.mode == EXPERT_LR_LOAD && isfinite(grad_norm)) observe_load(r, n_micro);
    if (r->c.noise == NOISE_MEASURED) observe_noise(r, grad_norm, targets);
    dev_upload(model_device(r->m), r->numbers, &r->state);
}

ExpertRateView expert_rates_view(const ExpertRates *r)
{
    return (ExpertRateView){r->L, r->E, r->factor, r->noise_tokens};
}
