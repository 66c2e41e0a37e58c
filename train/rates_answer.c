/* train/rates_answer.c - see rates_answer.h. */
#include "train/rates_answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/fit_answer.h"
#include "train/json_out.h"

void rates_answer_clear(RatesAnswer *a)
{
    rate_fit_clear(&a->grid);
    hygiene_clear(&a->hygiene);
    run_table_clear(&a->runs);
    run_table_clear(&a->all);
    free(a->surge);
    memset(a, 0, sizeof *a);
}

static int read_usable(RatesAnswer *a, const char *source, const char *mapping, const char *where,
                       Err *e)
{
    unsigned columns = (a->total ? 1u << RUN_N_TOTAL : 1u << RUN_N) | 1u << RUN_D | 1u << RUN_LOSS;
    if (fit_rate_runs_read(source, mapping, where, &a->all, e)) return -1;
    if (a->all.column[RUN_LR]) columns |= 1u << RUN_LR;
    if (a->all.column[RUN_BATCH]) columns |= 1u << RUN_BATCH;
    if (hygiene_check(&a->all, columns, NAN, &a->hygiene, e)) return -1;
    if (!a->hygiene.n_usable)
        return err_set(e, "%s: no run has all of %s, D, loss%s%s", source,
                       a->total ? "N_total" : "N", a->all.column[RUN_LR] ? ", lr" : "",
                       a->all.column[RUN_BATCH] ? ", batch" : "");
    return run_table_select(&a->runs, &a->all, a->hygiene.usable, e);
}

/* Laws of a sweep read N without embedding and head (cell_law.h): so do these where all runs say
 * it. */
static void leave_embedding(RatesAnswer *a)
{
    RunTable *t = &a->runs;
    const RunColumn column = a->total ? RUN_N_TOTAL : RUN_N;
    const double *body = t->column[RUN_N_BODY];
    if (!t->column[column] || !body) return;
    for (int64_t i = 0; i < t->rows; i++) {
        double N = run_value(t, RUN_N, i);
        if (!run_value_fits(RUN_N_BODY, body[i]) || (a->total && !(N >= body[i]))) return;
    }
    for (int64_t i = 0; i < t->rows; i++) {
        double *N = &t->column[column][i];
        *N = a->total ? *N - (t->column[RUN_N][i] - body[i]) : body[i];
    }
    a->body = true;
}

/* The rate's law over N and D, or over one of them where both are too much. */
static int fit_grid(RatesAnswer *a, Err *e)
{
    static const unsigned tries[] = {FREE_N | FREE_D, FREE_N, FREE_D};
    for (int i = 0; i < 3; i++) {
        Err mine = {0};
        const RateFitOptions o = {.total = a->total, .lr_free = tries[i]};
        rate_fit_clear(&a->grid);
        a->lr_free = tries[i];
        if (!rate_fit(&a->runs, &o, &a->grid, i ? &mine : e)) {
            snprintf(a->held, sizeof a->held, "%s", i ? e->message : "");
            return 0;
        }
    }
    return -1;
}

int rates_answer_make(RatesAnswer *out, const char *source, const char *mapping, const char *where,
                      bool total, Err *e)
{
    Err rate = {0}, noise = {0}, surge = {0};
    memset(out, 0, sizeof *out);
    out->total = total;
    if (read_usable(out, source, mapping, where, e)) return -1;
    leave_embedding(out);
    bool has_rate = !fit_grid(out, &rate);
    bool has_noise = !noise_fit(&out->runs, total, &out->noise, &noise);
    if (!has_rate) memcpy(out->no_rate, rate.message, sizeof rate.message);
    if (!has_noise) memcpy(out->no_noise, noise.message, sizeof noise.message);
    if (!out->grid.cells && !has_noise) {
        err_set(e, "%.1500s", rate.message);
        return err_hint(e, "and %.300s", noise.message);
    }
    out->surge = calloc((size_t)out->grid.cells + 1, sizeof *out->surge);
    if (!out->surge) return err_set(e, "out of memory for %d cells", out->grid.cells);
    for (int i = 0; i < out->grid.cells; i++)
        if (rate_fit_surge(&out->grid, i, RATE_SURGE, &out->surge[i], &surge))
            out->surge[i] = (SurgeFit){.points = 0};
    return 0;
}

/* ---- Lines for a sweep's file -----------------------------------------------------------------*/

void rates_answer_yaml(const RatesAnswer *a, const char *what, char out[RATES_YAML])
{
    const RatePower *p = strcmp(what, "rate") ? &a->grid.batch.law : &a->grid.lr.law;
    const struct {
        const char *key;
        double value;
    } exponent[] = {{"exp_n", p->n}, {"exp_d", p->d}};
    *out = 0;
    if (!(p->factor > 0 && p->factor <= 1e30) || fabs(p->n) > 10 || fabs(p->d) > 10) return;
    size_t used = (size_t)snprintf(out, RATES_YAML, "%s: {law: power, value: %.10g", what,
                                   p->factor);
    for (int i = 0; i < 2; i++)
        if (exponent[i].value != 0)
            used += (size_t)snprintf(out + used, RATES_YAML - used, ", %s: %.10g",
                                     exponent[i].key, exponent[i].value);
    snprintf(out + used, RATES_YAML - used, "%s}", a->total && p->n != 0 ? ", total: true" : "");
}

/* What N counts. */
static const char *size_name(const RatesAnswer *a)
{
    if (a->total) return a->body ? "N_total_no_embed" : "N_total";
    return a->body ? "N_no_embed" : "N";
}

/* ---- JSON -------------------------------------------------------------------------------------*/

static json_t *yaml_json(const RatesAnswer *a, const char *what)
{
    char line[RATES_YAML];
    rates_answer_yaml(a, what, line);
    return *line ? json_string(line) : json_null();
}

static json_t *power_json(const RatePowerFit *f)
{
    return json_pack("{s:o, s:o, s:o, s:{s:o, s:o, s:o}, s:o, s:o, s:i}", "factor",
                     json_out_real(f->law.factor), "N_exponent", json_out_real(f->law.n),
                     "D_exponent", json_out_real(f->law.d), "standard_errors", "ln_factor",
                     json_out_real(f->se.factor), "N_exponent", json_out_real(f->se.n),
                     "D_exponent", json_out_real(f->se.d), "rmse_log", json_out_real(f->rmse),
                     "condition", json_out_real(f->condition), "cells", f->points);
}

static json_t *surge_json(const SurgeFit *s)
{
    if (!s->points) return json_null();
    return json_pack("{s:o, s:o, s:{s:o, s:o}, s:o, s:i, s:b}", "eps_max",
                     json_out_real(s->eps_max), "b_noise", json_out_real(s->b_noise),
                     "standard_errors", "ln_eps_max", json_out_real(s->se_eps_max), "ln_b_noise",
                     json_out_real(s->se_b_noise), "rmse_log", json_out_real(s->rmse), "batches",
                     s->points, "b_noise_beyond_batches", s->outside);
}

static json_t *cells_json(const RatesAnswer *a)
{
    json_t *out = json_array();
    for (int i = 0; i < a->grid.cells; i++) {
        const RateCell *c = &a->grid.cell[i];
        json_t *curves = json_array();
        for (int k = 0; k < c->batches; k++) {
            const RateCurve *v = &a->grid.curve[c->first_curve + k];
            json_array_append_new(curves, json_pack("{s:o, s:o, s:o, s:b}", "batch",
                                                    json_out_real(v->batch), "lr",
                                                    json_out_real(v->lr), "loss",
                                                    json_out_real(v->loss), "at_edge", v->edge));
        }
        json_array_append_new(
            out, json_pack("{s:o, s:o, s:i, s:o, s:o, s:o, s:b, s:b, s:o, s:o}", "N",
                           json_out_real(c->N), "D", json_out_real(c->D), "runs", c->rows, "lr",
                           json_out_real(c->lr), "batch", json_out_real(c->batch), "loss",
                           json_out_real(c->loss), "lr_at_edge", c->lr_edge, "batch_at_edge",
                           c->batch_edge, "curves", curves, "surge", surge_json(&a->surge[i])));
    }
    return out;
}

static json_t *noise_json(const NoiseFit *f)
{
    json_t *points = json_array();
    for (int i = 0; i < f->points; i++) {
        const NoisePoint *p = &f->point[i];
        json_array_append_new(points, json_pack("{s:o, s:o, s:o, s:o, s:i}", "N",
                                                json_out_real(p->N), "loss",
                                                json_out_real(p->loss), "b_noise",
                                                json_out_real(p->b_noise), "s_min",
                                                json_out_real(p->s_min), "batches", p->batches));
    }
    json_t *out = json_pack("{s:o, s:i}", "points", points, "left_out", f->left_out);
    if (f->no_law[0]) {
        json_object_set_new(out, "why_no_law", json_string(f->no_law));
    } else {
        json_object_set_new(out, "b_star", json_out_real(f->law.b_star));
        json_object_set_new(out, "alpha", json_out_real(f->law.alpha));
        json_object_set_new(out, "rmse_log", json_out_real(f->rmse));
    }
    return out;
}

static void set_law(json_t *out, const char *key, const RatePowerFit *f, json_t *yaml)
{
    json_t *law = power_json(f);
    json_object_set_new(law, "yaml", yaml);
    json_object_set_new(out, key, law);
}

json_t *rates_answer_json(const RatesAnswer *a)
{
    json_t *out = json_pack("{s:o, s:o, s:I, s:I, s:s}", "source",
                            json_out_text(a->all.source, strlen(a->all.source)), "data_hash",
                            json_out_hash(a->all.hash), "runs", (json_int_t)a->all.rows, "used",
                            (json_int_t)a->runs.rows, "N_is", size_name(a));
    if (!out) return NULL;
    if (a->no_rate[0]) json_object_set_new(out, "why_no_lr", json_string(a->no_rate));
    else set_law(out, "lr", &a->grid.lr, yaml_json(a, "rate"));
    if (!a->no_rate[0] && a->held[0])
        json_object_set_new(out, "why_lr_of_one", json_string(a->held));
    if (!a->no_rate[0] && a->grid.batch.points)
        set_law(out, "batch", &a->grid.batch, yaml_json(a, "batch"));
    else
        json_object_set_new(out, "why_no_batch",
                            json_string(a->no_rate[0] ? a->no_rate : a->grid.no_batch));
    json_object_set_new(out, "cells", cells_json(a));
    if (a->no_noise[0]) json_object_set_new(out, "why_no_b_crit", json_string(a->no_noise));
    else json_object_set_new(out, "b_crit", noise_json(&a->noise));
    return out;
}

/* ---- Text -------------------------------------------------------------------------------------*/

static void print_power(const char *what, const RatePowerFit *f, FILE *out)
{
    fprintf(out, "\n%s = %.5g N^%.4f D^%.4f\n", what, f->law.factor, f->law.n, f->law.d);
    fprintf(out, "  standard errors: %.2g of ln factor, %.2g, %.2g; rmse %.2g of its logarithm, "
                 "%d cells\n", f->se.factor, f->se.n, f->se.d, f->rmse, f->points);
}

static void print_cells(const RatesAnswer *a, FILE *out)
{
    fputs("\ncells\n", out);
    for (int i = 0; i < a->grid.cells; i++) {
        const RateCell *c = &a->grid.cell[i];
        const SurgeFit *s = &a->surge[i];
        fprintf(out, "  N %.4g  D %.4g  %3d runs  lr %.3e%s", c->N, c->D, c->rows, c->lr,
                c->lr_edge ? " (edge)" : "");
        if (!isnan(c->batch))
            fprintf(out, "  batch %.4g%s", c->batch, c->batch_edge ? " (edge)" : "");
        fprintf(out, "  loss %.4f\n", c->loss);
        if (s->points > 2)
            fprintf(out, "    lr(B) = 2 %.3e / (sqrt(%.4g/B) + sqrt(B/%.4g))%s\n", s->eps_max,
                    s->b_noise, s->b_noise, s->outside ? ", beyond the batches" : "");
    }
}

static void print_lines(const RatesAnswer *a, FILE *out)
{
    static const char *const what[] = {"rate", "batch"};
    char line[RATES_YAML];
    fprintf(out, "\nfor a sweep's file%s\n", a->body ? "" : ", whose laws read N without embedding "
            "and head: N_no_embed says it of a run");
    for (int i = 0; i < (a->grid.batch.points ? 2 : 1); i++) {
        rates_answer_yaml(a, what[i], line);
        if (*line) fprintf(out, "  %s\n", line);
        else fprintf(out, "  no %s: factor or exponents are out of the range of power\n", what[i]);
    }
}

void rates_answer_print(const RatesAnswer *a, FILE *out)
{
    fprintf(out, "%s: %lld runs, %lld used; N is %s parameters%s\n", a->all.source,
            (long long)a->all.rows, (long long)a->runs.rows, a->total ? "all" : "activated",
            a->body ? " but embedding and head" : "");
    if (a->no_rate[0]) {
        fprintf(out, "\nno law of the rate: %s\n", a->no_rate);
    } else {
        print_power("lr", &a->grid.lr, out);
        if (a->held[0])
            fprintf(out, "  over %c alone: %s\n", a->lr_free == FREE_N ? 'N' : 'D', a->held);
        if (a->grid.batch.points) print_power("batch", &a->grid.batch, out);
        else fprintf(out, "\nno law of the batch: %s\n", a->grid.no_batch);
        print_lines(a, out);
    }
    if (a->grid.cells) print_cells(a, out);
    if (a->no_noise[0]) {
        fprintf(out, "\nno B_crit(L): %s\n", a->no_noise);
    } else if (a->noise.no_law[0]) {
        fprintf(out, "\nno B_crit(L): %s\n", a->noise.no_law);
    } else {
        fprintf(out, "\nB_crit(L) = %.4g tokens / L^(1/%.4f), from %d losses; rmse %.2g of its "
                     "logarithm\n", a->noise.law.b_star, a->noise.law.alpha,
                a->noise.points - a->noise.left_out, a->noise.rmse);
    }
}
