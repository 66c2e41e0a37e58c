/* train/study_tables.c - the tables of a study's page; see study.h. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "train/html_page.h"
#include "train/study.h"
#include "train/svg.h"

enum { TEXT = 96 };

/* Opens a table with these columns, divided by '|'; behind '#' those of numbers. */
static void open_table(FILE *out, const char *columns)
{
    fprintf(out, "<div class=\"wide\"><table>\n<tr>");
    for (bool more = true; more;) {
        bool number = *columns == '#';
        size_t n = strcspn(columns += number, "|");
        fprintf(out, "<th%s>", number ? " class=\"n\"" : "");
        html_text(out, columns, n);
        fprintf(out, "</th>");
        more = columns[n] == '|';
        columns += n + more;
    }
    fprintf(out, "</tr>\n");
}

static void close_table(FILE *out) { fprintf(out, "</table></div>\n"); }

static void text_cell(FILE *out, const char *text)
{
    fprintf(out, "<td>");
    html_string(out, text);
    fprintf(out, "</td>");
}

/* A sentence, which may be broken into lines. */
static void long_cell(FILE *out, const char *text)
{
    fprintf(out, "<td class=\"w\">");
    html_string(out, text);
    fprintf(out, "</td>");
}

__attribute__((format(printf, 2, 3))) static void number_cell(FILE *out, const char *format, ...)
{
    char text[TEXT];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(out, "<td class=\"n\">");
    html_string(out, text);
    fprintf(out, "</td>");
}

/* Short, "-" of NaN. */
static void value_cell(FILE *out, double value)
{
    char number[PLOT_NUMBER];
    number_cell(out, "%s", isfinite(value) ? plot_number(number, value) : "-");
}

static void flops_cell(FILE *out, double value)
{
    char number[PLOT_NUMBER];
    number_cell(out, "%s", isfinite(value) ? plot_flops(number, value) : "-");
}

static void loss_cell(FILE *out, double value)
{
    if (isfinite(value))
        number_cell(out, "%.4f", value);
    else
        number_cell(out, "-");
}

static void range_cell(FILE *out, Interval i)
{
    char low[PLOT_NUMBER], high[PLOT_NUMBER];
    if (isfinite(i.low) && isfinite(i.high))
        number_cell(out, "%s to %s", plot_number(low, i.low), plot_number(high, i.high));
    else
        number_cell(out, "-");
}

static void end_row(FILE *out) { fprintf(out, "</tr>\n"); }

/* ---- The fit ----------------------------------------------------------------------------------*/

static void certificate(FILE *out, const FitAnswer *a)
{
    const Fit *f = &a->main.fit;
    const FitCertificate *c = &f->certificate;
    fprintf(out, "<p>Certificate: gradient %.1g of its largest part; %d of %d starts end at the "
            "best objective, parameters at most %.1g apart; condition %.2g", c->gradient, c->agree,
            c->starts, c->spread, c->condition);
    for (int i = 0; i < f->law->n_terms + f->law->n_shape; i++)
        if (c->at_bound >> i & 1) fprintf(out, "; %s at a bound", law_param_name(f->law, i));
    fprintf(out, ": %s. Objective %.6g, rmse %.3g nats.</p>\n",
            c->identified ? "identified" : "not identified", f->objective, f->rmse);
}

static void parameters(FILE *out, const FitAnswer *a)
{
    const Law *law = a->main.fit.law;
    fprintf(out, "<h3>Parameters of ");
    html_string(out, law->formula);
    fprintf(out, "</h3>\n");
    open_table(out, "|#value|#interval|#standard error|#without doubtful runs");
    for (int i = 0; i < law->n_terms + law->n_shape; i++) {
        const BootTarget *t =
            a->has_boot ? bootstrap_target(&a->boot, law_param_name(law, i), 0) : NULL;
        fprintf(out, "<tr>");
        text_cell(out, law_param_name(law, i));
        number_cell(out, "%.5g", a->main.fit.param[i]);
        range_cell(out, t ? t->interval : (Interval){NAN, NAN});
        value_cell(out, t ? t->se : NAN);
        value_cell(out, a->without.ok ? a->without.fit.param[i] : NAN);
        end_row(out);
    }
    close_table(out);
    certificate(out, a);
}

static void costs(FILE *out, const StudyGroup *g)
{
    char time[PLAN_COUNT], text[COST_LAW_TEXT];
    const CostLaw *cost = &g->answer->request.cost;
    fprintf(out, "<h3>What to train, and what it costs</h3>\n");
    open_table(out, "#C|#N|#interval|#D|#interval|#loss|#one run's|#time|");
    for (int i = 0; i < g->budgets; i++) {
        const StudyBudget *b = &g->budget[i];
        const Forecast *f = &b->forecast;
        fprintf(out, "<tr>");
        flops_cell(out, b->C);
        value_cell(out, b->ok ? f->N : NAN);
        range_cell(out, b->ok ? f->n_opt : (Interval){NAN, NAN});
        value_cell(out, b->ok ? f->D : NAN);
        range_cell(out, b->ok ? f->d_opt : (Interval){NAN, NAN});
        loss_cell(out, b->ok ? f->loss : NAN);
        range_cell(out, b->ok ? f->run : (Interval){NAN, NAN});
        number_cell(out, "%s", isnan(b->hours) ? "-" : html_duration(time, 3600 * b->hours));
        bool outside = b->ok && (f->N < cost->low || f->N > cost->high);
        text_cell(out, b->measured ? "measured" : outside ? "forecast; N beyond the cost's range"
                                                          : "forecast");
        end_row(out);
    }
    close_table(out);
    fprintf(out, "<p>Cost: ");
    html_string(out, cost->name);
    fprintf(out, ": ");
    html_string(out, cost_law_text(cost, text));
    if (cost->worst > 0) fprintf(out, " (residuals at most %.2g %%)", 100 * cost->worst);
    fprintf(out, ". Time: at the pace of a run of the largest budget on the machine of the "
            "study.</p>\n");
}

static void held_out(FILE *out, const Study *s, const StudyGroup *g)
{
    if (!g->helds) return;
    fprintf(out, "<h3>Held-out budget</h3>\n");
    open_table(out, "run|state|#C|#N|#D|#measured|#predicted|#one run's|");
    for (int i = 0; i < g->helds; i++) {
        const StudyHeld *h = &g->held[i];
        const LedgerCell *c = &s->cell[h->cell];
        Interval range = h->ok ? h->forecast.run : (Interval){NAN, NAN};
        double loss = c->result.loss;
        fprintf(out, "<tr>");
        text_cell(out, c->cell.name);
        text_cell(out, cell_state_name(c->state));
        flops_cell(out, c->cell.C);
        value_cell(out, c->cell.N);
        value_cell(out, c->cell.D);
        loss_cell(out, loss);
        loss_cell(out, h->ok ? h->forecast.loss : NAN);
        range_cell(out, range);
        text_cell(out, isnan(loss) || isnan(range.low) ? ""
                       : loss >= range.low && loss <= range.high ? "inside" : "outside");
        end_row(out);
    }
    close_table(out);
}

static void curves(FILE *out, const StudyGroup *g)
{
    const Profile *p = study_profile(g, ANSWER_PARABOLA), *akima = study_profile(g, ANSWER_AKIMA);
    if (!p) return;
    fprintf(out, "<h3>Minima of the curves</h3>\n");
    open_table(out, "#C|#runs|#sizes|#below|#above|bracketed|#N, parabola|#sd of ln N|#D|#loss|"
                    "#N, Akima");
    for (int i = 0; i < p->count; i++) {
        const ProfileBudget *b = &p->budget[i];
        fprintf(out, "<tr%s>", b->bracketed ? "" : " class=\"bad\"");
        flops_cell(out, b->C);
        number_cell(out, "%lld", (long long)b->runs);
        number_cell(out, "%d", b->sizes);
        number_cell(out, "%d", b->below);
        number_cell(out, "%d", b->above);
        text_cell(out, b->bracketed ? "yes" : "no");
        value_cell(out, b->N);
        value_cell(out, b->sd);
        value_cell(out, b->D);
        loss_cell(out, b->loss);
        value_cell(out, akima && i < akima->count ? akima->budget[i].N : NAN);
        end_row(out);
    }
    close_table(out);
}

static void methods(FILE *out, const FitAnswer *a)
{
    char number[PLOT_NUMBER];
    bool any = a->without.ok;
    for (int m = 0; m < ANSWER_METHODS; m++) any |= a->check[m].ok;
    if (!any) return;
    fprintf(out, "<h3>Methods beside each other, at %s FLOPs</h3>\n",
            plot_flops(number, a->budget));
    open_table(out, "|#N|#D|#loss|#N ~ C^|#D ~ C^");
    for (int m = -2; m < ANSWER_METHODS; m++) {
        const AnswerFit *f = m == -2 ? &a->main : m == -1 ? &a->without : &a->check[m];
        if (!f->ok) continue;
        fprintf(out, "<tr>");
        text_cell(out, m == -2 ? answer_method_name(a->request.method)
                       : m == -1 ? "without doubtful runs" : answer_method_name((AnswerMethod)m));
        value_cell(out, f->best_ok ? f->N : NAN);
        value_cell(out, f->best_ok ? f->D : NAN);
        loss_cell(out, f->best_ok ? f->loss : NAN);
        loss_cell(out, f->a);
        loss_cell(out, f->b);
        end_row(out);
    }
    close_table(out);
}

static void backtest(FILE *out, const FitAnswer *a)
{
    const Backtest *b = &a->backtest;
    fprintf(out, "<h3>Backtest</h3>\n");
    if (!a->has_backtest) {
        fprintf(out, "<p>");
        html_string(out, a->no_backtest[0] ? a->no_backtest : "not made");
        fprintf(out, "</p>\n");
        return;
    }
    fprintf(out, "<p>Small budgets fitted, larger ones predicted: %d of %d runs inside of their "
            "%g %% interval; %d numbers of budgets gave no fit.</p>\n", b->inside, b->runs,
            100 * b->level, b->skipped);
    open_table(out, "#fitted up to C|#predicted C|#runs|#inside|#mean error, nats|"
                    "#half width, nats");
    for (int i = 0; i < b->rows; i++) {
        fprintf(out, "<tr>");
        flops_cell(out, b->row[i].c_fitted);
        flops_cell(out, b->row[i].c);
        number_cell(out, "%d", b->row[i].rows);
        number_cell(out, "%d", b->row[i].inside);
        number_cell(out, "%+.4f", b->row[i].error);
        loss_cell(out, b->row[i].width);
        end_row(out);
    }
    close_table(out);
}

void study_fit_tables(FILE *out, const Study *s, int group)
{
    const StudyGroup *g = &s->group[group];
    const FitAnswer *a = g->answer;
    bool law = a->main.is_law;
    if (law) parameters(out, a);
    if (law) costs(out, g);
    held_out(out, s, g);
    curves(out, g);
    methods(out, a);
    if (law) backtest(out, a);
}

/* ---- Beside the fits --------------------------------------------------------------------------*/

static const char *named(const Study *s, int group)
{
    return s->group[group].name[0] ? s->group[group].name : "the study";
}

static void compares(FILE *out, const Study *s)
{
    if (!s->compares) return;
    fprintf(out, "<h2>Variants</h2>\n<p>At each budget and size, against the first variant there. "
            "Intervals of the difference by Student's t: over seeds that both have, or of two "
            "means (Welch). Below zero: better.</p>\n");
    open_table(out, "variant|#C|#N|#runs|#mean loss|#sd|against|#difference|#interval|");
    for (int i = 0; i < s->compares; i++) {
        const StudyCompare *c = &s->compare[i];
        bool base = c->group == c->base;
        fprintf(out, "<tr>");
        text_cell(out, named(s, c->group));
        flops_cell(out, c->budget);
        value_cell(out, c->N);
        number_cell(out, "%d", c->runs);
        loss_cell(out, c->mean);
        loss_cell(out, c->sd);
        text_cell(out, base ? "" : named(s, c->base));
        if (base)
            number_cell(out, "-");
        else
            number_cell(out, "%+.4f", c->difference);
        if (isfinite(c->interval.low))
            number_cell(out, "%+.4f to %+.4f", c->interval.low, c->interval.high);
        else
            number_cell(out, "-");
        text_cell(out, base || isnan(c->interval.low) ? "" : c->paired ? "paired" : "two means");
        end_row(out);
    }
    close_table(out);
}

static void rates(FILE *out, const Study *s)
{
    if (!s->n_rates) return;
    fprintf(out, "<h3>Runs that differ in rate or batch alone</h3>\n");
    open_table(out, "run|#C|#N|#rate|#over its law|#tokens a step|#over its law|#loss|state");
    for (int i = 0; i < s->n_rates; i++)
        for (int k = 0; k < s->rates[i].count; k++) {
            const LedgerCell *c = &s->cell[s->order[s->rates[i].first + k]];
            fprintf(out, "<tr%s>", c->state == STATE_DONE ? "" : " class=\"bad\"");
            text_cell(out, c->cell.name);
            flops_cell(out, c->cell.budget);
            value_cell(out, c->cell.N);
            value_cell(out, study_rate(c));
            value_cell(out, c->cell.lr_law_ratio);
            value_cell(out, study_batch(c));
            value_cell(out, c->cell.batch_law_ratio);
            loss_cell(out, c->result.loss);
            text_cell(out, cell_state_name(c->state));
            end_row(out);
        }
    close_table(out);
}

void study_beside_tables(FILE *out, const Study *s)
{
    rates(out, s);
    compares(out, s);
}

/* ---- The model to train -----------------------------------------------------------------------*/

void study_train_section(FILE *out, const Study *s)
{
    const json_t *train = json_object_get(s->answer, "to_train");
    size_t i;
    json_t *line;
    if (!train) return;
    fprintf(out, "<h2>Model to train</h2>\n");
    json_array_foreach(json_object_get(train, "text"), i, line) {
        fprintf(out, "<p>");
        html_string(out, json_string_value(line));
        fprintf(out, "</p>\n");
    }
}

/* ---- The ledger -------------------------------------------------------------------------------*/

/* Everything that is no finished run, with its reason: nothing of it is hidden. */
static void not_done(FILE *out, const Study *s)
{
    if (s->counts[STATE_DONE] == s->cells) return;
    fprintf(out, "<h3>Cells that are not done</h3>\n");
    open_table(out, "cell|kind|state|#tries|#rate|reason");
    for (int i = 0; i < s->cells; i++) {
        const LedgerCell *c = &s->cell[i];
        const char *left_out = c->cell.left_out;
        if (c->state == STATE_DONE) continue;
        fprintf(out, "<tr>");
        text_cell(out, c->cell.name);
        text_cell(out, study_kind(&c->cell));
        text_cell(out, left_out[0] ? "left out" : cell_state_name(c->state));
        number_cell(out, "%d", c->tries);
        value_cell(out, study_rate(c));
        long_cell(out, left_out[0] ? left_out : c->reason);
        end_row(out);
    }
    close_table(out);
}

static void done(FILE *out, const Study *s)
{
    char time[PLAN_COUNT];
    fprintf(out, "<h3>Finished cells</h3>\n");
    open_table(out, "cell|kind|#N|#no embedding|#total|#D|#C|#C_min|#own FLOPs|#rate|"
                    "#tokens a step|#seed|#loss|#time|");
    for (int i = 0; i < s->cells; i++) {
        const LedgerCell *c = &s->cell[i];
        if (c->state != STATE_DONE) continue;
        fprintf(out, "<tr>");
        text_cell(out, c->cell.name);
        text_cell(out, study_kind(&c->cell));
        value_cell(out, c->cell.N);
        value_cell(out, c->cell.N_no_embed);
        value_cell(out, c->cell.N_total);
        value_cell(out, c->cell.D);
        flops_cell(out, c->cell.C);
        flops_cell(out, ledger_c_min(c, &s->critical));
        flops_cell(out, c->cell.own_flops);
        value_cell(out, study_rate(c));
        value_cell(out, study_batch(c));
        number_cell(out, "%lld", (long long)c->cell.seed);
        loss_cell(out, c->result.loss);
        number_cell(out, "%s", html_duration(time, c->result.seconds));
        text_cell(out, c->lr_factor < 1 ? "at a lower rate, after it diverged" : "");
        end_row(out);
    }
    close_table(out);
}

void study_ledger_table(FILE *out, const Study *s)
{
    char spent[PLOT_NUMBER], alone[PLOT_NUMBER];
    fprintf(out, "<h2>Ledger</h2>\n<p>%d cells:", s->cells);
    for (int i = 0; i < CELL_STATES; i++)
        if (s->counts[i])
            fprintf(out, " %d %s;", s->counts[i], cell_state_name((CellState)i));
    fprintf(out, " %d left out by the plan. Finished cells trained %s FLOPs; each run alone: %s."
            "</p>\n", s->left_out, plot_flops(spent, s->spent), plot_flops(alone, s->alone));
    not_done(out, s);
    done(out, s);
}
