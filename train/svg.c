/* train/svg.c - see svg.h. */
#include "train/svg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LEFT = 58, RIGHT = 14, RIGHT_AXIS = 50, TOP = 10, BOTTOM = 26,
    POINT = 5, DEFAULT_HEIGHT = 200, TICK_DISTANCE = 80, ROW_HEIGHT = 14, HEAT_COLUMNS = 120
};

/* The plot's place in the picture and the values at its edges. */
typedef struct Frame {
    double x0, x1, y0, y1;           /* values */
    double left, right, top, bottom; /* places */
} Frame;

static double place_x(const Frame *f, double x)
{
    return f->left + (x - f->x0) / (f->x1 - f->x0) * (f->right - f->left);
}

static double place_y(const Frame *f, double y)
{
    double at = f->bottom - (y - f->y0) / (f->y1 - f->y0) * (f->bottom - f->top);
    return fmin(fmax(at, -1e4), 1e4); /* far outside; the clip hides it */
}

void svg_ticks(double low, double high, int want, double *first, double *step)
{
    double raw = (high - low) / want, power = pow(10, floor(log10(raw))), m = raw / power;
    *step = power * (m < 1.001 ? 1 : m < 2.001 ? 2 : m < 5.001 ? 5 : 10);
    *first = ceil(low / *step - 1e-9) * *step;
}

const char *svg_number(char out[CHART_NUMBER], double value)
{
    static const struct {
        double size;
        const char *name;
    } unit[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    double size = fabs(value);
    for (int i = 0; i < 4; i++)
        if (size >= unit[i].size * 0.99999) {
            snprintf(out, CHART_NUMBER, "%.4g%s", value / unit[i].size, unit[i].name);
            return out;
        }
    snprintf(out, CHART_NUMBER, "%.4g", size < 1e-300 ? 0.0 : value);
    return out;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value below which `share` of all finite y lie. */
static double quantile(const Chart *c, double share, double fallback)
{
    int64_t room = 0, n = 0;
    for (int i = 0; i < c->lines; i++) room += c->line[i].count;
    double *all = malloc((size_t)room * sizeof *all), out = fallback;
    if (!all) return fallback;
    for (int i = 0; i < c->lines; i++)
        for (int64_t j = 0; j < c->line[i].count; j++)
            if (isfinite(c->line[i].y[j])) all[n++] = c->line[i].y[j];
    qsort(all, (size_t)n, sizeof *all, by_value);
    if (n) out = all[(int64_t)(share * (double)(n - 1))];
    free(all);
    return out;
}

/* Fills the values at the frame's edges; false: there is nothing to draw. */
static bool find_range(Frame *f, const Chart *c)
{
    *f = (Frame){.x0 = INFINITY, .x1 = -INFINITY, .y0 = INFINITY, .y1 = -INFINITY};
    for (int i = 0; i < c->lines; i++)
        for (int64_t j = 0; j < c->line[i].count; j++) {
            double x = c->line[i].x[j], y = c->line[i].y[j];
            if (!isfinite(x) || !isfinite(y)) continue;
            f->x0 = fmin(f->x0, x);
            f->x1 = fmax(f->x1, x);
            f->y0 = fmin(f->y0, y);
            f->y1 = fmax(f->y1, y);
        }
    if (!(f->x0 <= f->x1)) return false;
    if (c->top_share > 0 && c->top_share < 1) f->y1 = quantile(c, c->top_share, f->y1);
    if (c->from_zero) f->y0 = fmin(f->y0, 0);
    if (f->x1 - f->x0 < 1e-12 * fabs(f->x1) || f->x1 <= f->x0) {
        f->x0 -= 1;
        f->x1 += 1;
    }
    double spread = f->y1 - f->y0, least = 1e-9 * fmax(fabs(f->y0), fabs(f->y1));
    if (!(spread > least)) f->y1 = f->y0 + (f->y0 != 0 ? fabs(f->y0) : 1);
    spread = f->y1 - f->y0;
    if (!c->from_zero) f->y0 -= 0.05 * spread;
    f->y1 += 0.05 * spread;
    return isfinite(spread) && isfinite(f->y1 - f->y0);
}

static void draw_x_axis(FILE *out, const Frame *f)
{
    double first, step;
    char number[CHART_NUMBER];
    int want = (int)((f->right - f->left) / TICK_DISTANCE) + 1;
    svg_ticks(f->x0, f->x1, want, &first, &step);
    for (int i = 0; i < 4 * want && first + i * step <= f->x1 * (1 + 1e-9); i++) {
        double at = place_x(f, first + i * step);
        fprintf(out, "<text class=\"t\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>\n",
                at, f->bottom + 17, svg_number(number, first + i * step));
    }
}

static void draw_y_axis(FILE *out, const Frame *f, const Chart *c)
{
    double first, step;
    char number[CHART_NUMBER];
    int want = (int)((f->bottom - f->top) / 36) + 1;
    svg_ticks(f->y0, f->y1, want, &first, &step);
    for (int i = 0; i < 4 * want && first + i * step <= f->y1 + 1e-9 * step; i++) {
        double y = first + i * step, at = place_y(f, y);
        if (fabs(y) < 1e-9 * step) y = 0;
        fprintf(out, "<path class=\"g\" d=\"M%.1f %.1fH%.1f\"/>\n", f->left, at, f->right);
        fprintf(out, "<text class=\"t\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
                f->left - 6, at + 4, svg_number(number, y));
        if (c->right_scale > 0)
            fprintf(out, "<text class=\"t\" x=\"%.1f\" y=\"%.1f\">%.3g%s</text>\n", f->right + 6,
                    at + 4, y * c->right_scale, c->right_unit ? c->right_unit : "");
    }
}

/* Where the next point goes: a gap begins a new stroke. */
static void draw_to(FILE *out, const Frame *f, double x, double y, bool *drawing)
{
    fprintf(out, "%c%.1f %.1f", *drawing ? 'L' : 'M', place_x(f, x), place_y(f, y));
    *drawing = true;
}

/* A stroke through all points, or, when there are more than the picture has columns, through the
 * smallest and largest of each column, so that no spike is lost. */
static void draw_line(FILE *out, const Frame *f, const ChartLine *l)
{
    int64_t columns = (int64_t)(f->right - f->left);
    int64_t step = l->count > 2 * columns ? l->count / columns : 1;
    bool drawing = false;
    fprintf(out, "<path class=\"%s\" style=\"stroke:var(--c%d)\" d=\"",
            l->style == CHART_FAINT ? "f" : "l", l->color);
    for (int64_t i = 0; i < l->count; i += step) {
        int64_t low = -1, high = -1;
        for (int64_t j = i; j < i + step && j < l->count; j++) {
            if (!isfinite(l->y[j]) || !isfinite(l->x[j])) continue;
            if (low < 0 || l->y[j] < l->y[low]) low = j;
            if (high < 0 || l->y[j] > l->y[high]) high = j;
        }
        if (low < 0) {
            drawing = false;
            continue;
        }
        int64_t first = low < high ? low : high, second = low < high ? high : low;
        draw_to(out, f, l->x[first], l->y[first], &drawing);
        if (second != first) draw_to(out, f, l->x[second], l->y[second], &drawing);
    }
    fprintf(out, "\"/>\n");
}

static void draw_points(FILE *out, const Frame *f, const ChartLine *l)
{
    for (int64_t i = 0; i < l->count; i++) {
        if (!isfinite(l->x[i]) || !isfinite(l->y[i])) continue;
        fprintf(out, "<circle class=\"p\" style=\"fill:var(--c%d)\" cx=\"%.1f\" cy=\"%.1f\" "
                "r=\"3.5\"><title>", l->color, place_x(f, l->x[i]), place_y(f, l->y[i]));
        html_string(out, l->name);
        fprintf(out, " at %.10g: %.5g</title></circle>\n", l->x[i], l->y[i]);
    }
}

static void draw_legend(FILE *out, const Chart *c)
{
    fprintf(out, "<figcaption><b>");
    html_string(out, c->title);
    fprintf(out, "</b> <span class=\"u\">");
    html_string(out, c->unit);
    fprintf(out, "</span>");
    for (int i = 0; i < c->lines; i++) {
        if (!c->line[i].name || !c->line[i].count) continue;
        fprintf(out, " <span class=\"k\"><i style=\"background:var(--c%d)%s\"></i>",
                c->line[i].color, c->line[i].style == CHART_FAINT ? ";opacity:.35" : "");
        html_string(out, c->line[i].name);
        fprintf(out, "</span>");
    }
    fprintf(out, "</figcaption>\n");
}

static void open_svg(FILE *out, const char *title, int width, int height)
{
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", width, height);
    html_string(out, title);
    fprintf(out, "\">\n");
}

void svg_chart(FILE *out, const Chart *c)
{
    int width = c->width ? c->width : SVG_WIDTH, height = c->height ? c->height : DEFAULT_HEIGHT;
    Frame f;
    fprintf(out, "<figure>\n");
    draw_legend(out, c);
    if (!find_range(&f, c)) {
        fprintf(out, "<p class=\"none\">no values</p>\n</figure>\n");
        return;
    }
    f.left = LEFT;
    f.right = width - (c->right_scale > 0 ? RIGHT_AXIS : RIGHT);
    f.top = TOP;
    f.bottom = height - BOTTOM;
    open_svg(out, c->title, width, height);
    draw_x_axis(out, &f);
    draw_y_axis(out, &f, c);
    /* A nested svg clips what lies outside of the plot and needs no name of its own. */
    double wide = f.right - f.left + POINT, high = f.bottom - f.top;
    fprintf(out, "<svg x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" viewBox=\"%.1f %.1f "
            "%.1f %.1f\">\n", f.left, f.top, wide, high, f.left, f.top, wide, high);
    for (int i = 0; i < c->lines; i++) {
        const ChartLine *l = &c->line[i];
        if (l->style == CHART_POINTS)
            draw_points(out, &f, l);
        else
            draw_line(out, &f, l);
    }
    fprintf(out, "</svg>\n</svg>\n</figure>\n");
}

/* Mean of the finite values of `row` over columns begin .. end-1; NaN: there are none. */
static double heat_mean(const HeatMap *m, int row, int64_t begin, int64_t end)
{
    double sum = 0;
    int64_t n = 0;
    for (int64_t i = begin; i < end; i++) {
        float v = m->value[i * m->rows + row];
        if (!isfinite(v)) continue;
        sum += v;
        n++;
    }
    return n ? sum / (double)n : NAN;
}

static void draw_cells(FILE *out, const HeatMap *m, const Frame *f)
{
    int64_t cells = m->columns < HEAT_COLUMNS ? m->columns : HEAT_COLUMNS;
    double width = (f->right - f->left) / (double)cells;
    for (int r = 0; r < m->rows; r++) {
        double y = f->top + r * ROW_HEIGHT;
        fprintf(out, "<text class=\"t\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%d</text>\n",
                f->left - 6, y + 11, r);
        for (int64_t i = 0; i < cells; i++) {
            double v = heat_mean(m, r, m->columns * i / cells, m->columns * (i + 1) / cells);
            if (!isfinite(v)) continue;
            fprintf(out, "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%d\" "
                    "style=\"fill:var(--c0);opacity:%.3f\"/>\n", f->left + (double)i * width, y,
                    width + 0.05, ROW_HEIGHT - 1, fmin(fmax(v / m->top, 0), 1));
        }
    }
}

void svg_heat(FILE *out, const HeatMap *m)
{
    int width = m->width ? m->width : SVG_WIDTH, height = TOP + m->rows * ROW_HEIGHT + BOTTOM;
    Chart legend = {.title = m->title, .unit = m->note};
    fprintf(out, "<figure>\n");
    draw_legend(out, &legend);
    if (m->columns < 1 || m->rows < 1 || !(m->top > 0)) {
        fprintf(out, "<p class=\"none\">no values</p>\n</figure>\n");
        return;
    }
    Frame f = {.x0 = m->x[0], .x1 = m->x[m->columns - 1], .y1 = 1, .left = LEFT,
               .right = width - RIGHT, .top = TOP, .bottom = height - BOTTOM};
    if (!(f.x1 > f.x0)) f.x1 = f.x0 + 1;
    open_svg(out, m->title, width, height);
    draw_cells(out, m, &f);
    draw_x_axis(out, &f);
    fprintf(out, "</svg>\n</figure>\n");
}
