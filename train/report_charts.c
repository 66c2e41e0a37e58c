/* train/report_charts.c - the figures of the report: loss, rates, speed, expert load. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/size.h"
#include "train/report.h"
#include "train/svg.h"

enum { SMOOTHING = 60, LOSS_HEIGHT = 300 };
#define LOSS_TOP 0.985 /* of the values lie in the picture: the first steps fall from above */
#define NORM_TOP 0.99
#define SPEED_TOP 0.99

/* Mean of the finite values within count / SMOOTHING of each step, as many before as behind it, so
 * that the curve does not lag; at the end those that there are, lest it run into the last step's
 * noise. NULL: out of memory. */
static double *smooth(const double *y, int64_t count)
{
    double *sum = calloc((size_t)count + 1, sizeof *sum);
    double *out = malloc(((size_t)count + 1) * sizeof *out);
    int64_t *n = calloc((size_t)count + 1, sizeof *n);
    for (int64_t i = 0; sum && n && i < count; i++) {
        bool good = isfinite(y[i]);
        sum[i + 1] = sum[i] + (good ? y[i] : 0);
        n[i + 1] = n[i] + good;
    }
    for (int64_t i = 0; sum && n && out && i < count; i++) {
        int64_t reach = size_min(count / SMOOTHING, i);
        int64_t begin = i - reach, end = size_min(i + reach + 1, count);
        out[i] = n[end] > n[begin] ? (sum[end] - sum[begin]) / (double)(n[end] - n[begin]) : NAN;
    }
    bool failed = !sum || !n;
    free(sum);
    free(n);
    if (!failed) return out;
    free(out);
    return NULL;
}

static bool has_values(const RunRecord *r, StepField field)
{
    for (int64_t i = 0; i < r->count; i++)
        if (isfinite(r->field[field][i])) return true;
    return false;
}

static ChartLine line(const RunRecord *r, const char *name, StepField field, int color)
{
    return (ChartLine){.name = name, .x = r->field[STEP_step], .y = r->field[field],
                       .count = r->count, .style = CHART_LINE, .color = color};
}

/* The field's curve, faint, and its smoothed one. The latter's values go to *smoothed, which the
 * caller frees after drawing. */
static void add_smoothed(Chart *c, ChartLine each, const char *name, double **smoothed)
{
    *smoothed = smooth(each.y, each.count);
    each.style = *smoothed ? CHART_FAINT : CHART_LINE;
    c->line[c->lines++] = each;
    if (!*smoothed) return;
    each.style = CHART_LINE;
    each.name = name;
    each.y = *smoothed;
    c->line[c->lines++] = each;
}

static void draw_loss(FILE *out, const RunRecord *r)
{
    Chart c = {.title = "Loss", .unit = "nats a token, by step", .height = LOSS_HEIGHT,
               .top_share = LOSS_TOP};
    double *smoothed;
    add_smoothed(&c, line(r, "training, each step", STEP_loss, 0), "training, smoothed", &smoothed);
    c.line[c.lines++] = (ChartLine){.name = "held out", .x = r->eval_step, .y = r->eval_loss,
                                    .count = r->n_evals, .style = CHART_POINTS, .color = 1};
    svg_chart(out, &c);
    free(smoothed);
}

/* A half-wide chart of one field. */
static void draw_one(FILE *out, const RunRecord *r, StepField field, Chart c)
{
    double *smoothed;
    if (!has_values(r, field)) return;
    c.width = SVG_HALF_WIDTH;
    add_smoothed(&c, line(r, NULL, field, 0), NULL, &smoothed);
    svg_chart(out, &c);
    free(smoothed);
}

/* Speed, with a second axis on which the same curve is a share of the matrix peak. */
static void draw_speed(FILE *out, const Report *report)
{
    Chart c = {.title = "Speed", .unit = "model FLOP/s", .from_zero = true,
               .top_share = SPEED_TOP};
    if (report->peak > 0) {
        c.unit = "model FLOP/s; share of the matrix peak";
        c.right_scale = 100 / report->peak;
        c.right_unit = "%";
    }
    draw_one(out, &report->record, STEP_flops_per_s, c);
}

static void draw_rate(FILE *out, const RunRecord *r)
{
    Chart c = {.title = "Learning rate", .unit = "by step", .from_zero = true,
               .width = SVG_HALF_WIDTH};
    c.line[c.lines++] = line(r, NULL, STEP_lr, 0);
    svg_chart(out, &c);
}

static void draw_heat(FILE *out, const RunRecord *r)
{
    if (!r->experts) return;
    HeatMap m = {.title = "Load by expert", .note = "pale: none; full: twice the fair share",
                 .x = r->field[STEP_step], .value = r->load, .columns = r->count,
                 .rows = r->experts, .top = 2.0 / r->experts, .width = SVG_HALF_WIDTH};
    svg_heat(out, &m);
}

static void draw_lost(FILE *out, const RunRecord *r)
{
    if (!has_values(r, STEP_recycled)) return;
    Chart c = {.title = "Choices without room", .unit = "share of all choices, by step",
               .from_zero = true, .width = SVG_HALF_WIDTH};
    c.line[c.lines++] = line(r, "beyond capacity", STEP_overflow, 3);
    c.line[c.lines++] = line(r, "recycled", STEP_recycled, 2);
    c.line[c.lines++] = line(r, "unplaced", STEP_unplaced, 1);
    svg_chart(out, &c);
}

static void draw_auxiliary(FILE *out, const RunRecord *r)
{
    if (!has_values(r, STEP_aux)) return;
    Chart c = {.title = "Auxiliary losses", .unit = "sums over layers, before their coefficients",
               .top_share = NORM_TOP, .width = SVG_HALF_WIDTH};
    c.line[c.lines++] = line(r, "load balance", STEP_aux, 0);
    c.line[c.lines++] = line(r, "router z", STEP_z, 4);
    svg_chart(out, &c);
}

void report_charts(FILE *out, const Report *report)
{
    const RunRecord *r = &report->record;
    fprintf(out, "<h2>Training</h2>\n");
    draw_loss(out, r);
    fprintf(out, "<div class=\"pair\">\n");
    draw_rate(out, r);
    draw_one(out, r, STEP_grad_norm,
             (Chart){.title = "Gradient norm", .unit = "before clipping, by step",
                     .from_zero = true, .top_share = NORM_TOP});
    draw_one(out, r, STEP_tokens_per_s,
             (Chart){.title = "Tokens a second", .unit = "by step", .from_zero = true,
                     .top_share = SPEED_TOP});
    draw_speed(out, report);
    fprintf(out, "</div>\n");
    bool dense = report->has_config && !report->config.model.n_experts;
    if (dense || (!has_values(r, STEP_load_max) && !r->experts)) return;
    fprintf(out, "<h2>Experts</h2>\n<div class=\"pair\">\n");
    draw_one(out, r, STEP_load_max,
             (Chart){.title = "Largest load", .unit = "times the mean load, by step",
                     .top_share = NORM_TOP});
    draw_lost(out, r);
    draw_auxiliary(out, r);
    draw_heat(out, r);
    fprintf(out, "</div>\n");
}
