/* train/fit_answer_print.c - the answer of `isomoe fit` for people; see fit_answer.h. */
#include <math.h>
#include <string.h>

#include "base/io.h"
#include "scaling/published.h"
#include "train/fit_answer.h"

enum { SHOWN_ROWS = 8, SHOWN_OF_KIND = 4 };

/* The rows of a finding: lines of the file, or names of a sweep's cells. */
static void print_rows(const FitAnswer *a, const Finding *f, FILE *out)
{
    bool file = !io_is_dir(a->request.source);
    if (!f->rows) return;
    fprintf(out, " [%s%s", file ? "line" : "cell", f->rows == 1 ? "" : "s");
    for (int64_t k = 0; k < f->rows && k < SHOWN_ROWS; k++)
        if (file)
            fprintf(out, "%s %lld", k ? "," : "", (long long)a->all.line[f->row[k]]);
        else
            fprintf(out, "%s %s", k ? "," : "", a->all.name[f->row[k]]);
    if (f->rows > SHOWN_ROWS) fprintf(out, " and %lld more", (long long)f->rows - SHOWN_ROWS);
    fputs("]", out);
}

static void print_warnings(const FitAnswer *a, FILE *out)
{
    int of_kind[HYGIENE_KINDS] = {0};
    if (a->hygiene.count || a->warnings) fputs("\nwarnings\n", out);
    for (int i = 0; i < a->hygiene.count; i++) {
        const Finding *f = &a->hygiene.finding[i];
        if (of_kind[f->kind]++ >= SHOWN_OF_KIND) continue;
        fprintf(out, "  %s: %s", hygiene_kind_name(f->kind), f->text);
        print_rows(a, f, out);
        fputc('\n', out);
    }
    for (int k = 0; k < HYGIENE_KINDS; k++)
        if (of_kind[k] > SHOWN_OF_KIND)
            fprintf(out, "  %s: %d more (--json has all)\n", hygiene_kind_name((HygieneKind)k),
                    of_kind[k] - SHOWN_OF_KIND);
    for (int i = 0; i < a->warnings; i++)
        fprintf(out, "  %s%s: %s\n", answer_kind_name(a->warning[i].kind),
                a->warning[i].without ? ", without doubtful runs" : "", a->warning[i].text);
}

static void print_value(FILE *out, const char *name, double value, Interval i, const char *unit)
{
    fprintf(out, "  %-10s %12.6g", name, value);
    if (isfinite(i.low) && isfinite(i.high)) fprintf(out, "   %.4g to %.4g", i.low, i.high);
    fprintf(out, "%s%s\n", *unit ? "   " : "", unit);
}

static Interval of_target(const FitAnswer *a, const char *name, double budget)
{
    const BootTarget *t = a->has_boot ? bootstrap_target(&a->boot, name, budget) : NULL;
    return t ? t->interval : (Interval){NAN, NAN};
}

static void print_law(const FitAnswer *a, FILE *out)
{
    const Fit *f = &a->main.fit;
    const FitCertificate *c = &f->certificate;
    fprintf(out, "\n%s: %s\n", f->law->name, f->law->formula);
    for (int i = 0; i < f->law->n_terms + f->law->n_shape; i++) {
        const char *name = law_param_name(f->law, i);
        print_value(out, name, f->param[i], of_target(a, name, 0),
                    i < f->law->n_terms && f->law->kind == LAW_SUM && name[0] == 'E' && !name[1]
                        ? "nats a token" : "");
    }
    fprintf(out, "  objective %.6g, rmse %.3g nats, %.3g of ln L\n", f->objective, f->rmse,
            f->rmse_log);
    fprintf(out, "  search: gradient %.1g, %d of %d starts agree, condition %.2g: %s\n",
            c->gradient, c->agree, c->starts, c->condition,
            c->identified ? "identified" : "not identified");
}

static void print_curves(const FitAnswer *a, const Profile *p, FILE *out)
{
    fprintf(out, "\nisoFLOP curves, minima by %s; budgets: %s\n", profile_method_name(p->method),
            p->planned ? "as planned" : "runs whose C is within 10 %");
    for (int i = 0; i < p->count && i < 24; i++) {
        const ProfileBudget *b = &p->budget[i];
        fprintf(out, "  %10.4g FLOPs %3d sizes", b->C, b->sizes);
        if (isnan(b->N))
            fputs("   no minimum between them\n", out);
        else
            fprintf(out, "   N %.4g   D %.4g   loss %.4f%s\n", b->N, b->D, b->loss,
                    b->bracketed ? "" : "   not bracketed");
    }
    if (p->count > 24) fprintf(out, "  and %d more\n", p->count - 24);
    if (p == &a->main.profile) {
        double level = a->request.level;
        const ProfileNoise *by = a->has_noise ? &a->by_noise : NULL;
        print_value(out, "N_opt ~ C^", p->n_opt.exponent,
                    by ? by->n_exponent : power_law_exponent(&p->n_opt, level), "");
        print_value(out, "D_opt ~ C^", p->d_opt.exponent,
                    by ? by->d_exponent : power_law_exponent(&p->d_opt, level), "");
        fprintf(out, "  %g %% intervals: %s\n", 100 * level,
                by ? "the runs' noise drawn anew" : "scatter of the budgets");
    }
}

static void print_cost(const FitAnswer *a, FILE *out)
{
    const CostLaw *c = &a->request.cost;
    char text[COST_LAW_TEXT];
    fprintf(out, "  %s", cost_law_text(c, text));
    if (c->worst > 0)
        fprintf(out, "; the runs lie up to %.2g %% off it", 100 * c->worst);
    if (!cost_law_is_line(c)) fprintf(out, ", N from %.3g to %.3g", a->n_low, a->n_high);
    fputc('\n', out);
}

static void print_forecast(const FitAnswer *a, FILE *out)
{
    const AnswerFit *m = &a->main;
    Interval n = of_target(a, "N_opt", a->budget), d = of_target(a, "D_opt", a->budget);
    if (!m->best_ok) {
        fprintf(out, "\nno best N and D: %s\n", m->why);
        return;
    }
    if (!m->is_law) {
        n = a->has_noise ? a->by_noise.n_opt
                         : power_law_interval(&m->profile.n_opt, a->budget, a->request.level);
        d = a->has_noise ? a->by_noise.d_opt
                         : power_law_interval(&m->profile.d_opt, a->budget, a->request.level);
    }
    fprintf(out, "\nbest for %.4g FLOPs", a->budget);
    if (a->c_max > 0) fprintf(out, ", %.3g times the largest run", a->budget / a->c_max);
    fprintf(out, "; cost %s%s\n", a->request.cost.name, a->total ? " with N_total for N" : "");
    print_cost(a, out);
    print_value(out, a->total ? "N_total" : "N", m->N, n, "parameters");
    print_value(out, "D", m->D, d, "tokens");
    if (m->is_law)
        print_value(out, "loss", m->loss, a->has_forecast ? a->forecast.run : (Interval){NAN, NAN},
                    a->has_forecast ? "nats a token; the interval is one run's" : "nats a token");
    if (a->held) fprintf(out, "  %s does not read D: it is held\n", m->fit.law->name);
    fprintf(out, "  there N_opt goes as C^%.4f, D_opt as C^%.4f\n", m->a, m->b);
    if (!strcmp(a->request.cost.name, "hunyuan"))
        fprintf(out, "  published for Hunyuan-Large: N %.4g, D %.4g\n", hunyuan_n_opt(a->budget),
                hunyuan_d_opt(a->budget));
    if (!a->has_forecast && a->no_forecast[0])
        fprintf(out, "  no interval of the loss: %s\n", a->no_forecast);
}

static void print_beside(const FitAnswer *a, FILE *out)
{
    bool any = a->hygiene.n_clean < a->hygiene.n_usable;
    for (int m = 0; m < ANSWER_METHODS; m++) any |= a->check[m].ok;
    if (!any) return;
    fputs("\nbeside it                   N            D     loss   N_opt ~ C^\n", out);
    for (int m = -1; m < ANSWER_METHODS; m++) {
        const AnswerFit *f = m < 0 ? &a->without : &a->check[m];
        if (!f->ok || !f->best_ok) continue;
        fprintf(out, "  %-14s %12.5g %12.5g ", m < 0 ? "no doubtful" :
                answer_method_name((AnswerMethod)m), f->N, f->D);
        if (isnan(f->loss))
            fputs("       -", out);
        else
            fprintf(out, "%8.4f", f->loss);
        fprintf(out, "   %.4f\n", f->a);
    }
    if (a->hygiene.n_clean < a->hygiene.n_usable && !a->without.ok)
        fprintf(out, "  without doubtful runs: %s\n", a->without.why);
}

static void print_backtest(const FitAnswer *a, FILE *out)
{
    const Backtest *b = &a->backtest;
    if (a->no_backtest[0]) fprintf(out, "\nno backtest: %s\n", a->no_backtest);
    if (!a->has_backtest) return;
    fprintf(out, "\nbacktest: %d of %d runs inside of their %g %% interval\n", b->inside, b->runs,
            100 * b->level);
    fputs("  fitted up to  predicted   runs  inside   mean error   half width, nats\n", out);
    for (int i = 0; i < b->rows; i++)
        fprintf(out, "  %12.3g %10.3g %6d %7d %12.4f %12.4f\n", b->row[i].c_fitted, b->row[i].c,
                b->row[i].rows, b->row[i].inside, b->row[i].error, b->row[i].width);
}

void fit_answer_print(const FitAnswer *a, FILE *out)
{
    fprintf(out, "%s: %lld runs, %lld fitted by %s", a->all.source, (long long)a->all.rows,
            (long long)a->runs.rows, answer_method_name(a->request.method));
    if (a->has_boot)
        fprintf(out, "; %g %% intervals by %d resampled fits (%s, %s)", 100 * a->request.level,
                a->request.replicates, answer_resample_name(a->request.resample),
                interval_name(a->boot.options.interval));
    fputc('\n', out);
    print_warnings(a, out);
    if (a->main.is_law)
        print_law(a, out);
    else
        print_curves(a, &a->main.profile, out);
    print_forecast(a, out);
    print_beside(a, out);
    print_backtest(a, out);
}
