/* train/routing_out.c - routing statistics as a table for people and as JSON. */
#include <math.h>
#include <string.h>

#include "train/json_out.h"
#include "train/routing_stats.h"

static json_t *layer_json(const RoutingSums *s, int64_t l)
{
    LayerRouting r = routing_layer(s, l);
    json_t *load = json_array();
    for (int64_t e = 0; e < s->E; e++)
        json_array_append_new(load, json_out_real(routing_share(s, l, e)));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "load", load, "max_load",
                     json_out_real(r.max_load), "cv", json_out_real(r.cv), "mean_entropy",
                     json_out_real(r.mean_entropy), "token_entropy",
                     json_out_real(r.token_entropy));
}

static json_t *domain_json(const RoutingSums *s)
{
    json_t *layers = json_array();
    for (int64_t l = 0; l < s->L; l++) json_array_append_new(layers, layer_json(s, l));
    return json_pack("{s:o, s:o}", "name", json_out_text(s->name, strlen(s->name)), "layers",
                     layers);
}

static json_t *specialization_json(const RoutingSums *domain, int n, int64_t l)
{
    Specialization s = routing_specialization(domain, n, l);
    json_t *rows = json_array(), *bits = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(bits, json_out_real(routing_domain_bits(domain, n, i, l)));
        json_t *row = json_array();
        for (int j = 0; j < n; j++)
            json_array_append_new(row, json_out_real(routing_distance(&domain[i], &domain[j], l)));
        json_array_append_new(rows, row);
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "information", json_out_real(s.information),
                     "share", json_out_real(s.share), "chance", json_out_real(s.chance), "domains",
                     bits, "distance", rows);
}

json_t *routing_json(const RoutingSums *domain, int n)
{
    json_t *domains = json_array(), *layers = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(domains, domain_json(&domain[i]));
    for (int64_t l = 0; l < domain->L; l++)
        json_array_append_new(layers, specialization_json(domain, n, l));
    return json_pack("{s:I, s:o, s:o}", "experts", (json_int_t)domain->E, "domains", domains,
                     "specialization", layers);
}

static double largest_distance(const RoutingSums *domain, int n, int64_t l)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) most = fmax(most, routing_distance(&domain[i], &domain[j], l));
    return most;
}

void routing_print(const RoutingSums *domain, int n, FILE *out)
{
    fprintf(out, "routing to %lld experts, dropless; entropies in bits, %.3f at most\n",
            (long long)domain->E, log2((double)domain->E));
    fprintf(out, "  %5s %-16s %9s %7s %13s %13s\n", "layer", "domain", "max load", "cv",
            "mean router", "each token");
    for (int64_t l = 0; l < domain->L; l++)
        for (int i = 0; i < n; i++) {
            LayerRouting r = routing_layer(&domain[i], l);
            fprintf(out, "  %5lld %-16.16s %8.2fx %7.3f %13.3f %13.3f\n", (long long)l,
                    domain[i].name, r.max_load, r.cv, r.mean_entropy, r.token_entropy);
        }
    if (n < 2) return;
    fprintf(out, "specialization: what the expert tells of the domain\n");
    fprintf(out, "  %5s %9s %9s %10s %20s\n", "layer", "bits", "of most", "by chance",
            "largest distance");
    for (int64_t l = 0; l < domain->L; l++) {
        Specialization s = routing_specialization(domain, n, l);
        fprintf(out, "  %5lld %9.4f %8.1f%% %10.4f %20.3f\n", (long long)l, s.information,
                100 * s.share, s.chance, largest_distance(domain, n, l));
        for (int i = 0; i < n; i++)
            fprintf(out, "        %9.4f of %s\n", routing_domain_bits(domain, n, i, l),
                    domain[i].name);
    }
}
