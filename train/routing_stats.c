/* train/routing_stats.c - see routing_stats.h. */
#include "train/routing_stats.h"

#include <math.h>
#include <stdlib.h>

int routing_sums_init(RoutingSums *s, Model *m, const char *name, Err *e)
{
    const ModelConfig *c = model_config(m);
    const ModelShape *shape = model_shape(m);
    size_t LE = (size_t)(c->n_layers * c->n_experts), N = (size_t)(shape->B * shape->T);
    *s = (RoutingSums){.L = c->n_layers, .E = c->n_experts, .device = model_device(m),
                       .room = (int64_t)N, .top_k = c->top_k};
    snprintf(s->name, sizeof s->name, "%s", name);
    CHECK(s->E > 0, "a model without experts has no routing");
    s->choices = calloc(LE, sizeof *s->choices);
    s->score = calloc(LE, sizeof *s->score);
    s->entropy = calloc((size_t)s->L, sizeof *s->entropy);
    s->tokens = calloc((size_t)s->L, sizeof *s->tokens);
    s->probs = malloc(N * (size_t)s->E * sizeof *s->probs);
    s->first = malloc(N * (size_t)c->top_k * sizeof *s->first);
    if (s->choices && s->score && s->entropy && s->tokens && s->probs && s->first) return 0;
    return err_set(e, "out of memory for the routing statistics of %zu tokens", N);
}

void routing_sums_free(RoutingSums *s)
{
    free(s->choices);
    free(s->score);
    free(s->entropy);
    free(s->tokens);
    free(s->probs);
    free(s->first);
    *s = (RoutingSums){0};
}

static double plogp(double p) { return p > 0 ? -p * log2(p) : 0; }

void routing_sums_add(void *sums, int64_t layer, const Routing *r)
{
    RoutingSums *s = sums;
    int64_t N = r->probs.dim[0], E = s->E, choices = tensor_elements(r->first);
    int64_t *count = s->choices + layer * E;
    double *score = s->score + layer * E;
    CHECK(N <= s->room && choices <= s->room * s->top_k, "%lld tokens, %lld choices, room for %lld",
          (long long)N, (long long)choices, (long long)s->room);
    dev_download(s->device, s->probs, r->probs);
    dev_download(s->device, s->first, r->first);
    for (int64_t i = 0; i < choices; i++)
        if (s->first[i] >= 0) count[s->first[i]]++;
    for (int64_t n = 0; n < N; n++) {
        const float *p = s->probs + n * E;
        double sum = 0;
        for (int64_t e = 0; e < E; e++) sum += p[e];
        if (!(sum > 0)) continue; /* sigmoids that all underflowed say nothing */
        for (int64_t e = 0; e < E; e++) {
            score[e] += p[e] / sum;
            s->entropy[layer] += plogp(p[e] / sum);
        }
        s->tokens[layer]++;
    }
}

static double total(const RoutingSums *s, int64_t layer)
{
    double sum = 0;
    for (int64_t e = 0; e < s->E; e++) sum += (double)s->choices[layer * s->E + e];
    return sum;
}

double routing_share(const RoutingSums *s, int64_t layer, int64_t expert)
{
    return (double)s->choices[layer * s->E + expert] / total(s, layer);
}

LayerRouting routing_layer(const RoutingSums *s, int64_t layer)
{
    double E = (double)s->E, tokens = (double)s->tokens[layer], square = 0;
    LayerRouting out = {.token_entropy = s->entropy[layer] / tokens};
    for (int64_t e = 0; e < s->E; e++) {
        double share = routing_share(s, layer, e) * E;
        out.max_load = isnan(share) ? share : fmax(out.max_load, share);
        square += (share - 1) * (share - 1);
        out.mean_entropy += plogp(s->score[layer * s->E + e] / tokens);
    }
    out.cv = sqrt(square / E);
    if (!tokens) out.mean_entropy = NAN;
    return out;
}

/* A term of sum p log2(p / q). */
static double gain(double p, double q) { return p > 0 ? p * log2(p / q) : 0; }

double routing_domain_bits(const RoutingSums *domain, int n, int i, int64_t layer)
{
    double bits = 0;
    if (n < 2) return NAN;
    for (int64_t e = 0; e < domain->E; e++) {
        double mean = 0;
        for (int d = 0; d < n; d++) mean += routing_share(&domain[d], layer, e) / n;
        bits += gain(routing_share(&domain[i], layer, e), mean);
    }
    return bits;
}

Specialization routing_specialization(const RoutingSums *domain, int n, int64_t layer)
{
    double information = 0, inverse = 0;
    if (n < 2) return (Specialization){NAN, NAN, NAN};
    int64_t E = domain->E;
    for (int d = 0; d < n; d++) information += routing_domain_bits(domain, n, d, layer) / n;
    for (int d = 0; d < n; d++) inverse += 1 / total(&domain[d], layer) / n;
    double most = fmin(log2(n), log2((double)E));
    return (Specialization){information, most > 0 ? information / most : NAN,
                            (double)(E - 1) * (1 - 1.0 / n) * inverse / (2 * log(2))};
}

double routing_distance(const RoutingSums *a, const RoutingSums *b, int64_t layer)
{
    double sum = 0;
    for (int64_t e = 0; e < a->E; e++) {
        double p = routing_share(a, layer, e), q = routing_share(b, layer, e), m = (p + q) / 2;
        if (isnan(m)) return NAN;
        sum += (gain(p, m) + gain(q, m)) / 2;
    }
    return sqrt(fmax(0, sum));
}
