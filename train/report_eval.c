/* train/report_eval.c - what eval.json tells beyond one loss: domains, tasks, routing. The file may
 * be anything: what has not the expected form is left out. */
#include <math.h>
#include <stdlib.h>

#include "train/choices.h"
#include "train/report.h"
#include "train/svg.h"

enum { MAPS_MAX = 16, EXPERTS_MAX = 256, LAYERS_MAX = 4096 };

/* <td> with a number of `digits` digits behind the point; - where there is none. */
static void cell(FILE *out, double value, int digits)
{
    if (isfinite(value)) fprintf(out, "<td class=\"n\">%.*f</td>", digits, value);
    else fprintf(out, "<td class=\"n\">-</td>");
}

static void name_cell(FILE *out, const json_t *row)
{
    fprintf(out, "<tr><th>");
    html_string(out, report_string(row, "name"));
    fprintf(out, "</th>");
}

static void head(FILE *out, const char *title, const char *const *columns)
{
    fprintf(out, "<h2>%s</h2>\n<table>\n<tr><th></th>", title);
    for (; *columns; columns++) fprintf(out, "<th class=\"n\">%s</th>", *columns);
    fprintf(out, "</tr>\n");
}

static void domains(FILE *out, const json_t *list)
{
    static const char *const columns[] = {"sequences", "bytes", "loss", "bits per byte", "95% from",
                                          "to", NULL};
    size_t i;
    json_t *row;
    if (json_array_size(list) < 2) return; /* one is all: the page has it */
    head(out, "Domains", columns);
    json_array_foreach(list, i, row) {
        name_cell(out, row);
        cell(out, report_number(row, "sequences"), 0);
        cell(out, report_number(row, "bytes"), 0);
        cell(out, report_number(row, "loss"), 4);
        cell(out, report_number(row, "bits_per_byte"), 4);
        cell(out, report_number(row, "bits_per_byte_low"), 4);
        cell(out, report_number(row, "bits_per_byte_high"), 4);
        fprintf(out, "</tr>\n");
    }
    fprintf(out, "</table>\n");
}

static void tasks(FILE *out, const json_t *list)
{
    static const char *const columns[] = {"questions", "guessing", "right", "95% from", "to",
                                          "right, per byte", "right, per token", NULL};
    size_t i;
    json_t *row;
    if (!json_array_size(list)) return;
    head(out, "Tasks", columns);
    json_array_foreach(list, i, row) {
        const json_t *acc = json_object_get(row, choice_rule_names[CHOICE_SUM]);
        name_cell(out, row);
        cell(out, report_number(row, "n"), 0);
        cell(out, report_number(row, "random"), 3);
        cell(out, report_number(acc, "value"), 3);
        cell(out, report_number(acc, "low"), 3);
        cell(out, report_number(acc, "high"), 3);
        for (int rule = CHOICE_PER_BYTE; rule < CHOICE_RULES; rule++)
            cell(out, report_number(json_object_get(row, choice_rule_names[rule]), "value"), 3);
        fprintf(out, "</tr>\n");
    }
    fprintf(out, "</table>\n");
}

/* Loads of one domain, experts upwards over layers. */
static void map(FILE *out, const json_t *domain, size_t experts)
{
    const json_t *layers = json_object_get(domain, "layers");
    size_t L = json_array_size(layers);
    if (L < 1 || L > LAYERS_MAX) return;
    double *x = malloc(L * sizeof *x);
    float *value = malloc(L * experts * sizeof *value);
    for (size_t l = 0; x && value && l < L; l++) {
        const json_t *load = json_object_get(json_array_get(layers, l), "load");
        x[l] = (double)l;
        for (size_t e = 0; e < experts; e++) {
            const json_t *share = json_array_get(load, e);
            value[l * experts + e] = json_is_number(share) ? (float)json_number_value(share) : NAN;
        }
    }
    HeatMap m = {.title = report_string(domain, "name"), .x = x, .value = value, .width =
                 SVG_HALF_WIDTH, .columns = (int64_t)L, .rows = (int)experts,
                 .top = 2.0 / (double)experts,
                 .note = "load by layer; pale: none; full: twice the fair share"};
    if (x && value) svg_heat(out, &m);
    free(x);
    free(value);
}

static void routing(FILE *out, const json_t *stats)
{
    static const char *const columns[] = {"bits", "share of the largest possible", "by chance",
                                          NULL};
    const json_t *domain = json_object_get(stats, "domains");
    const json_t *layers = json_object_get(stats, "specialization");
    double experts = report_number(stats, "experts");
    if (!(experts >= 1 && experts <= EXPERTS_MAX) || !json_array_size(domain)) return;
    fprintf(out, "<h2>Experts on held-out text</h2>\n<div class=\"pair\">\n");
    for (size_t i = 0; i < json_array_size(domain) && i < MAPS_MAX; i++)
        map(out, json_array_get(domain, i), (size_t)experts);
    fprintf(out, "</div>\n");
    if (json_array_size(domain) < 2 || json_array_size(layers) > LAYERS_MAX) return;
    head(out, "What the expert tells of the domain", columns);
    for (size_t l = 0; l < json_array_size(layers); l++) {
        const json_t *row = json_array_get(layers, l);
        fprintf(out, "<tr><th>layer %zu</th>", l);
        cell(out, report_number(row, "information"), 4);
        cell(out, report_number(row, "share"), 4);
        cell(out, report_number(row, "chance"), 4);
        fprintf(out, "</tr>\n");
    }
    fprintf(out, "</table>\n");
}

void report_eval(FILE *out, const Report *r)
{
    domains(out, json_object_get(r->eval, "domains"));
    tasks(out, json_object_get(r->eval, "tasks"));
    routing(out, json_object_get(r->eval, "routing"));
}
