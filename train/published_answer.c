/* train/published_answer.c - see published_answer.h. */
#include "train/published_answer.h"

#include <stdbool.h>

#include "train/json_out.h"

static const char budget_is[] = "C_min = C/(1 + B/B_crit(L)): the cost at a batch far below B_crit";

/* FLOPs of the law's N and D by the law's own cost: its three rounded formulas agree within some
 * percent. */
static double own_cost(const PublishedLaw *p, double budget)
{
    double N = published_n_opt(p, budget), D = published_d_opt(p, budget);
    return p->cost_a * N * D + p->cost_b * D;
}

/* Whether the budget is outside of those that the law was fitted to; says how far in text. */
static bool say_beyond(const PublishedLaw *p, double budget, char *text, size_t room)
{
    if (budget < p->c_low)
        snprintf(text, room, "an extrapolation: the budget is %.4g times the least that the law "
                 "was fitted to", budget / p->c_low);
    else if (budget > p->c_high)
        snprintf(text, room, "an extrapolation: the budget is %.4g times the largest that the law "
                 "was fitted to, N %.4g times the largest model, D %.4g times the longest run",
                 budget / p->c_high, published_n_opt(p, budget) / p->n_high,
                 published_d_opt(p, budget) / p->d_high);
    return budget < p->c_low || budget > p->c_high;
}

json_t *published_answer_json(const PublishedLaw *p, double budget)
{
    char text[320];
    json_t *warnings = json_array();
    if (say_beyond(p, budget, text, sizeof text))
        json_array_append_new(warnings, json_pack("{s:s, s:s}", "kind", "beyond", "text", text));
    return json_pack(
        "{s:s, s:s, s:{s:f, s:f, s:f, s:f}, s:n, s:{s:[f,f], s:[f,f], s:[f,f]},"
        " s:{s:f, s:f, s:o}, s:o, s:{s:o, s:s, s:o, s:o, s:f, s:f}}",
        "published", p->name, "source", p->source, "parameters", "N_opt_factor", p->n_factor,
        "N_opt_exponent", p->n_power, "D_opt_factor", p->d_factor, "D_opt_exponent", p->d_power,
        "intervals", "range", "N", p->n_low, p->n_high, "D", p->d_low, p->d_high, "C", p->c_low,
        p->c_high, "cost", "a", p->cost_a, "b", p->cost_b, "of_the_answer",
        json_out_real(own_cost(p, budget)), "warnings", warnings, "forecast", "budget",
        json_out_real(budget), "budget_is", budget_is, "N_opt",
        json_out_real(published_n_opt(p, budget)), "D_opt",
        json_out_real(published_d_opt(p, budget)), "N_opt_exponent", p->n_power,
        "D_opt_exponent", p->d_power);
}

void published_answer_print(const PublishedLaw *p, double budget, FILE *out)
{
    char text[320];
    double cost = own_cost(p, budget);
    fprintf(out, "%s: as published, no run of yours is in it\n", p->source);
    if (say_beyond(p, budget, text, sizeof text)) fprintf(out, "\nwarnings\n  beyond: %s\n", text);
    fprintf(out, "\nN_opt = %g C^%g, D_opt = %g C^%g\n", p->n_factor, p->n_power, p->d_factor,
            p->d_power);
    fprintf(out, "  C is %s\n", budget_is);
    fprintf(out, "  fitted to C %.3g to %.3g, N %.3g to %.3g, D %.3g to %.3g; no intervals\n",
            p->c_low, p->c_high, p->n_low, p->n_high, p->d_low, p->d_high);
    fprintf(out, "\nbest for %.4g FLOPs\n", budget);
    fprintf(out, "  %-10s %12.6g   parameters, activated\n", "N", published_n_opt(p, budget));
    fprintf(out, "  %-10s %12.6g   tokens\n", "D", published_d_opt(p, budget));
    fprintf(out, "  both cost, by its C = %g N D + %g D, %.4g FLOPs: %+.2f %% off the budget\n",
            p->cost_a, p->cost_b, cost, 100 * (cost / budget - 1));
}
