/* train/svg.h - charts as inline SVG, and text made safe for HTML. For the report.
 *
 * Everything is written to a FILE. Colours are CSS variables of the page (--c0 .. --c5, --grid,
 * --text), so that a chart follows dark, light and print. Values that are not finite are gaps.
 */
#ifndef ISOMOE_TRAIN_SVG_H
#define ISOMOE_TRAIN_SVG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Text for HTML content and attributes: markup escaped; what is not UTF-8, and control characters
 * but newline and tab, replaced by U+FFFD. */
void html_text(FILE *out, const char *text, size_t size);
void html_string(FILE *out, const char *text); /* zero-terminated; NULL: nothing */

typedef enum ChartStyle { CHART_FAINT, CHART_LINE, CHART_POINTS } ChartStyle;

typedef struct ChartLine {
    const char *name;    /* for the legend */
    const double *x, *y; /* (count), x rising */
    int64_t count;
    ChartStyle style;
    int color;           /* 0 .. 5 */
} ChartLine;

enum { CHART_LINES = 4, CHART_NUMBER = 32 };

typedef struct Chart {
    const char *title, *unit; /* unit of y */
    ChartLine line[CHART_LINES];
    int lines;
    bool from_zero;      /* the y axis begins at 0 */
    double top_share;    /* the y axis ends at this quantile of the values (what is above is cut
                            off); 0 or 1: at the largest */
    double right_scale;  /* > 0: a second axis on the right, y times this ... */
    const char *right_unit;
    int width, height;   /* in units of about a pixel; 0: SVG_WIDTH, 200 */
} Chart;

enum { SVG_WIDTH = 760, SVG_HALF_WIDTH = 440 };

void svg_chart(FILE *out, const Chart *c);

typedef struct HeatMap {
    const char *title;
    const double *x;     /* (columns) value on the x axis, rising */
    const float *value;  /* (columns, rows) */
    int64_t columns;
    int rows;
    int width;           /* 0: SVG_WIDTH */
    double top;          /* value of the darkest colour */
    const char *note;    /* what dark means */
} HeatMap;

void svg_heat(FILE *out, const HeatMap *m);

/* Ticks of an axis over [low, high]: the first and their distance, 1, 2 or 5 times a power of ten,
 * at least (high - low) / want. */
void svg_ticks(double low, double high, int want, double *first, double *step);

/* "1.5k", "0.0003", "2M": short, for an axis; returns out. */
const char *svg_number(char out[CHART_NUMBER], double value);

#endif
