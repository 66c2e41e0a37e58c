/* train/study_html.c - the page of a study: numbers and warnings first, then the fits with their
 * charts, what stands beside them, the ledger, and how everything was counted; see study.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/flops.h"
#include "train/html_page.h"
#include "train/study.h"
#include "train/svg.h"
#include "train/version.h"

enum { MORE = 160, RATES_CHART = 6, VARIANTS_CHART = 7 };

/* ---- Numbers at the top -----------------------------------------------------------------------*/

static void cost_tiles(FILE *out, const Study *s)
{
    char value[PLOT_NUMBER], time[PLAN_COUNT], more[MORE], saved[PLOT_NUMBER];
    more[0] = 0;
    if (s->alone > s->spent)
        snprintf(more, sizeof more, "%s saved by shared trunks (%.1f %%)",
                 plot_flops(saved, s->alone - s->spent), 100 * (1 - s->spent / s->alone));
    html_tile(out, plot_flops(value, s->spent), "model FLOPs in finished cells", more);
    if (!(s->seconds > 0)) return;
    more[0] = 0;
    if (s->pace > 0)
        snprintf(more, sizeof more, "%s FLOP/s a run at the largest budget",
                 plot_flops(value, s->pace));
    html_tile(out, html_duration(time, s->seconds), "of training, runs added up", more);
}

static void law_tiles(FILE *out, const StudyGroup *g)
{
    char value[MORE], more[MORE], number[PLOT_NUMBER];
    const FitAnswer *a = g->answer;
    if (!a || !a->main.best_ok) return;
    const BootTarget *t = a->has_boot ? bootstrap_target(&a->boot, "a", a->budget) : NULL;
    snprintf(value, sizeof value, "C^%.3f", a->main.a);
    more[0] = 0;
    if (t && isfinite(t->interval.low))
        snprintf(more, sizeof more, "%.3f to %.3f, at %s FLOPs", t->interval.low,
                 t->interval.high, plot_flops(number, a->budget));
    html_tile(out, value, "best N grows as", more);
}

static void held_tiles(FILE *out, const Study *s, const StudyGroup *g)
{
    char value[MORE], more[MORE];
    for (int i = 0; i < g->helds; i++) {
        const StudyHeld *h = &g->held[i];
        double loss = s->cell[h->cell].result.loss;
        if (!h->ok || !isfinite(loss)) continue;
        Interval range = h->forecast.run;
        snprintf(value, sizeof value, "%.4f", loss);
        snprintf(more, sizeof more, "predicted %.4f, %.4f to %.4f: %s", h->forecast.loss,
                 range.low, range.high,
                 loss >= range.low && loss <= range.high ? "inside" : "outside");
        html_tile(out, value, "held-out budget's loss", more);
    }
}

static void tiles(FILE *out, const Study *s)
{
    char value[MORE], more[MORE];
    int points = 0, done = 0;
    for (int g = 0; g < s->groups; g++) {
        points += s->group[g].points;
        done += s->group[g].done;
    }
    fprintf(out, "<div class=\"tiles\">\n");
    snprintf(value, sizeof value, "%d of %d", done, points);
    snprintf(more, sizeof more, "%d diverged, %d failed, %d left out", s->counts[STATE_DIVERGED],
             s->counts[STATE_FAILED], s->left_out);
    html_tile(out, value, "points done", more);
    cost_tiles(out, s);
    for (int g = 0, shown = 0; g < s->groups && !shown; g++) {
        shown = s->group[g].answer != NULL;
        if (shown) law_tiles(out, &s->group[g]);
    }
    for (int g = 0; g < s->groups; g++) held_tiles(out, s, &s->group[g]);
    fprintf(out, "</div>\n");
}

/* ---- Warnings ---------------------------------------------------------------------------------*/

static void warning(FILE *out, const char *variant, const char *kind, const char *text)
{
    fprintf(out, "<p class=\"warn\"><b>");
    html_string(out, variant);
    fprintf(out, "%s", variant[0] ? ": " : "");
    html_string(out, kind);
    fprintf(out, "</b>");
    html_string(out, text);
    fprintf(out, "</p>\n");
}

/* A finding with the runs that it names. */
static void finding(FILE *out, const StudyGroup *g, const Finding *f)
{
    const RunTable *t = &g->answer->all;
    char *text = NULL;
    size_t size = 0;
    FILE *line = open_memstream(&text, &size);
    if (!line) return;
    fputs(f->text, line);
    for (int64_t i = 0; i < f->rows && t->name; i++)
        fprintf(line, "%s%s", i ? ", " : " - ", t->name[f->row[i]]);
    if (f->drops) fputs(" (the fit is given without them too)", line);
    if (!fclose(line)) warning(out, g->name, hygiene_kind_name(f->kind), text);
    free(text);
}

static void group_warnings(FILE *out, const StudyGroup *g)
{
    const FitAnswer *a = g->answer;
    if (g->why[0]) warning(out, g->name, "no law", g->why);
    if (!a) return;
    for (int i = 0; i < a->hygiene.count; i++) finding(out, g, &a->hygiene.finding[i]);
    for (int i = 0; i < a->warnings; i++)
        if (!a->warning[i].without)
            warning(out, g->name, answer_kind_name(a->warning[i].kind), a->warning[i].text);
    if (a->no_forecast[0]) warning(out, g->name, "no forecast", a->no_forecast);
}

/* Why a budget's least loss has no two sizes on each side, as the sweep's end found it. */
static void bracket_warnings(FILE *out, const Study *s)
{
    size_t i;
    json_t *b;
    char text[2 * STUDY_WHY], number[PLOT_NUMBER];
    json_array_foreach(json_object_get(s->answer, "brackets"), i, b) {
        const char *why = json_string_value(json_object_get(b, "why"));
        const char *variant = json_string_value(json_object_get(b, "variant"));
        if (!why) continue;
        snprintf(text, sizeof text, "%s FLOPs: %d sizes below the least loss, %d above: %s",
                 plot_flops(number, json_number_value(json_object_get(b, "budget"))),
                 (int)json_integer_value(json_object_get(b, "below")),
                 (int)json_integer_value(json_object_get(b, "above")), why);
        warning(out, variant ? variant : "", "not bracketed", text);
    }
}

static void warnings(FILE *out, const Study *s)
{
    static const CellState bad[] = {STATE_DIVERGED, STATE_FAILED, STATE_PREEMPTED, STATE_PLANNED,
                                    STATE_RUNNING};
    char text[MORE];
    fprintf(out, "<h2>What is doubtful</h2>\n");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!s->counts[bad[i]]) continue;
        snprintf(text, sizeof text, "%d of %d cells: no points of the fits; listed in the ledger "
                 "below", s->counts[bad[i]], s->cells);
        warning(out, "", cell_state_name(bad[i]), text);
    }
    if (s->left_out) {
        snprintf(text, sizeof text, "%d of %d cells: not run, by the plan; listed with the reason "
                 "in the ledger below", s->left_out, s->cells);
        warning(out, "", "left out", text);
    }
    bracket_warnings(out, s);
    for (int g = 0; g < s->groups; g++) group_warnings(out, &s->group[g]);
    fprintf(out, "<p class=\"none\">Intervals are at %g %%. No other check of <code>isomoe fit"
            "</code> found anything.</p>\n", 100 * s->level);
}

/* ---- Charts -----------------------------------------------------------------------------------*/

/* Draws into memory first: a chart with nothing to show leaves no frame. */
static void figure(FILE *out, const Study *s, int group, int chart)
{
    char *text = NULL;
    size_t size = 0;
    FILE *svg = open_memstream(&text, &size);
    if (!svg) return;
    int nothing = chart < STUDY_CHARTS ? study_chart(svg, s, group, chart)
                                       : study_rates_grid(svg, s, group);
    if (!fclose(svg) && !nothing) fprintf(out, "<figure class=\"plot\">\n%s</figure>\n", text);
    free(text);
}

static void group_section(FILE *out, const Study *s, int group)
{
    const StudyGroup *g = &s->group[group];
    if (!g->answer) return;
    fprintf(out, "<h2>Fit");
    if (g->name[0]) fprintf(out, ": ");
    html_string(out, g->name);
    fprintf(out, "</h2>\n");
    figure(out, s, group, 0);
    figure(out, s, group, 3);
    figure(out, s, group, 1);
    figure(out, s, group, 2);
    figure(out, s, group, 4);
    figure(out, s, group, 5);
    study_fit_tables(out, s, group);
}

static void rates_section(FILE *out, const Study *s)
{
    if (!s->n_rates) return;
    fprintf(out, "<h2>Learning rate and batch</h2>\n");
    for (int g = 0; g < s->groups; g++) figure(out, s, g, RATES_CHART);
    for (int i = 0; i < s->n_rates; i++) figure(out, s, i, STUDY_CHARTS);
}

/* ---- How it was counted -----------------------------------------------------------------------*/

static void row(FILE *out, const char *name, const char *value)
{
    fprintf(out, "<tr><th>");
    html_string(out, name);
    fprintf(out, "</th><td>");
    html_string(out, value);
    fprintf(out, "</td></tr>\n");
}

/* "12 of v1.0, 3 of v1.1" of everything that runs' records say. */
static void origin_rows(FILE *out, const Study *s)
{
    const char *key, *text;
    json_t *seen, *count;
    json_object_foreach(s->origin, key, seen) {
        bool more = false;
        fprintf(out, "<tr><th>runs: ");
        html_string(out, key);
        fprintf(out, "</th><td>");
        json_object_foreach(seen, text, count) {
            fputs(more ? ", " : "", out);
            html_string(out, text);
            fprintf(out, " (%lld)", (long long)json_integer_value(count));
            more = true;
        }
        fprintf(out, "</td></tr>\n");
    }
}

static void conventions(FILE *out, const Study *s)
{
    char text[FLOP_CONVENTION_TEXT], line[2 * FLOP_CONVENTION_TEXT];
    const FlopConvention *c = flop_convention_at(0);
    fprintf(out, "<h2>How it was counted</h2>\n<table>\n");
    snprintf(line, sizeof line, "%s: %s", c->name, flop_convention_text(c, text));
    row(out, "FLOPs (C)", line);
    row(out, "parameters (N)", "activated, with embedding and head; the table of cells has those "
        "without and the total beside it");
    row(out, "tokens (D)", "of the whole run, its trunk's among them");
    row(out, "loss", "held out, nats a token, no token dropped");
    snprintf(line, sizeof line, "%016llx", (unsigned long long)s->hash);
    row(out, "data hash of all points", line);
    for (int g = 0; g < s->groups; g++) {
        const FitAnswer *a = s->group[g].answer;
        if (!a) continue;
        snprintf(line, sizeof line, "%016llx%s%.100s, %lld runs",
                 (unsigned long long)a->all.hash, s->group[g].name[0] ? " of " : "",
                 s->group[g].name, (long long)a->all.rows);
        row(out, "data hash of a fit", line);
        snprintf(line, sizeof line, "%s, seed %llu, %d resampled fits; cost of the optimum: %s",
                 answer_method_name(a->request.method), (unsigned long long)a->request.seed,
                 a->has_boot ? a->boot.options.replicates : 0, a->request.cost.name);
        row(out, "fit", line);
    }
    row(out, "code of this report", version_text());
    origin_rows(out, s);
    fprintf(out, "</table>\n");
}

void study_html(FILE *out, const Study *s)
{
    html_page_open(out, s->name);
    fprintf(out, "<p class=\"lead\">A scaling study: %d cells, C in FLOPs, N in activated "
            "parameters, D in tokens.</p>\n", s->cells);
    tiles(out, s);
    study_train_section(out, s);
    warnings(out, s);
    for (int g = 0; g < s->groups; g++) group_section(out, s, g);
    rates_section(out, s);
    study_beside_tables(out, s);
    figure(out, s, 0, VARIANTS_CHART);
    study_ledger_table(out, s);
    conventions(out, s);
    html_page_close(out, "Made by <code>isomoe report</code> from ledger.sqlite and the runs' "
                         "records. The same as numbers: report.json; the charts as files: "
                         "plots/.");
}
