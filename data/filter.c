/* data/filter.c - see filter.h. */
#include "data/filter.h"

#include <math.h>

#include "data/dedup.h"
#include "data/repeat.h"

typedef int (*Value)(const FilterOptions *o, DocText *t, int n, double *out, Err *e);

static double share_of(int64_t part, int64_t whole)
{
    return whole ? (double)part / (double)whole : 0;
}

static int value_bytes(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = (double)t->bytes;
    return 0;
}

static int value_chars(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = (double)t->chars;
    return 0;
}

static int value_words(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = (double)t->words.count;
    return 0;
}

static int value_symbols(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = share_of(t->class_chars[U_SYMBOL], t->chars);
    return 0;
}

static int value_bullets(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = share_of(t->bullets, t->lines.count);
    return 0;
}

static int value_ellipses(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n, (void)e;
    *out = share_of(t->ellipses, t->lines.count);
    return 0;
}

static int value_scripts(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    int64_t wanted = 0, letters = 0;
    (void)n, (void)e;
    for (int s = 0; s < U_SCRIPTS; s++) {
        letters += t->class_chars[s];
        if (o->scripts >> s & 1) wanted += t->class_chars[s];
    }
    *out = share_of(wanted, letters);
    return 0;
}

static int value_lines(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n;
    return repeat_lines(t, out, e);
}

static int value_line_chars(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o, (void)n;
    return repeat_line_chars(t, out, e);
}

static int value_top(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o;
    return repeat_top(t, n, out, e);
}

static int value_runs(const FilterOptions *o, DocText *t, int n, double *out, Err *e)
{
    (void)o;
    return repeat_runs(t, n, out, e);
}

/* most: the largest value there is. gopher: the published limit, 0: none. */
static const struct {
    Value value;
    int n;
    double most, gopher;
} row[FILTERS] = {
    [FILTER_BYTES] = {value_bytes, 0, INFINITY, 0},
    [FILTER_CHARS] = {value_chars, 0, INFINITY, 0},
    [FILTER_WORDS] = {value_words, 0, INFINITY, 0},
    [FILTER_SYMBOLS] = {value_symbols, 0, 1, 0},
    [FILTER_BULLETS] = {value_bullets, 0, 1, 0},
    [FILTER_ELLIPSES] = {value_ellipses, 0, 1, 0},
    [FILTER_SCRIPTS] = {value_scripts, 0, 1, 0},
    [FILTER_LINES] = {value_lines, 0, 1, 0.30},
    [FILTER_LINE_CHARS] = {value_line_chars, 0, 1, 0.20},
    [FILTER_TOP_2] = {value_top, 2, 1, 0.20},
    [FILTER_TOP_3] = {value_top, 3, 1, 0.18},
    [FILTER_TOP_4] = {value_top, 4, 1, 0.16},
    [FILTER_RUNS_5] = {value_runs, 5, 1, 0.15},
    [FILTER_RUNS_6] = {value_runs, 6, 1, 0.14},
    [FILTER_RUNS_7] = {value_runs, 7, 1, 0.13},
    [FILTER_RUNS_8] = {value_runs, 8, 1, 0.12},
    [FILTER_RUNS_9] = {value_runs, 9, 1, 0.11},
    [FILTER_RUNS_10] = {value_runs, 10, 1, 0.10},
    [FILTER_BITS] = {NULL, 0, INFINITY, 0},
    [FILTER_EXACT] = {NULL, 0, 1, 0},
    [FILTER_NEAR] = {NULL, 0, 1, 0},
};

const char *const filter_name[FILTERS] = {
    [FILTER_BYTES] = "bytes",
    [FILTER_CHARS] = "characters",
    [FILTER_WORDS] = "words",
    [FILTER_SYMBOLS] = "symbols",
    [FILTER_BULLETS] = "bullet_lines",
    [FILTER_ELLIPSES] = "ellipsis_lines",
    [FILTER_SCRIPTS] = "scripts",
    [FILTER_LINES] = "duplicate_lines",
    [FILTER_LINE_CHARS] = "duplicate_line_characters",
    [FILTER_TOP_2] = "top_2_words",
    [FILTER_TOP_3] = "top_3_words",
    [FILTER_TOP_4] = "top_4_words",
    [FILTER_RUNS_5] = "duplicate_5_words",
    [FILTER_RUNS_6] = "duplicate_6_words",
    [FILTER_RUNS_7] = "duplicate_7_words",
    [FILTER_RUNS_8] = "duplicate_8_words",
    [FILTER_RUNS_9] = "duplicate_9_words",
    [FILTER_RUNS_10] = "duplicate_10_words",
    [FILTER_BITS] = "bits_per_byte",
    [FILTER_EXACT] = "exact_duplicate",
    [FILTER_NEAR] = "near_duplicate",
};

bool filter_any(const FilterOptions *o)
{
    for (int f = 0; f < FILTERS; f++)
        if (o->limit[f].on) return true;
    return false;
}

static int check_limit(const FilterOptions *o, int f, Err *e)
{
    const FilterLimit *limit = &o->limit[f];
    if (!limit->on || f == FILTER_EXACT) return 0;
    if (isnan(limit->low) || isnan(limit->high) || limit->low > limit->high)
        return err_set(e, "filter %s: keeps from %g to %g: nothing", filter_name[f], limit->low,
                       limit->high);
    if (limit->low > row[f].most)
        return err_set(e, "filter %s: a limit of %g: it is a share, from 0 to 1", filter_name[f],
                       limit->low);
    if (isfinite(limit->low) && limit->low < 0)
        return err_set(e, "filter %s: a limit of %g: must be from 0", filter_name[f], limit->low);
    if (limit->high < 0 || (limit->high > row[f].most && isfinite(limit->high)))
        return err_set(e, "filter %s: a limit of %g: must be from 0 to %g", filter_name[f],
                       limit->high, row[f].most);
    return 0;
}

int filter_check(const FilterOptions *o, Err *e)
{
    int bands = o->bands ? o->bands : DEDUP_BANDS, rows = o->rows ? o->rows : DEDUP_ROWS;
    for (int f = 0; f < FILTERS; f++)
        if (check_limit(o, f, e)) return -1;
    if (o->limit[FILTER_SCRIPTS].on && (!o->scripts || o->scripts >> U_SCRIPTS))
        return err_set(e, "filter scripts: none is named");
    if (o->limit[FILTER_BITS].on && !o->score)
        return err_set(e, "filter bits_per_byte: there is no model");
    if (o->limit[FILTER_NEAR].on && !(o->limit[FILTER_NEAR].high > 0))
        return err_set(e, "filter near_duplicate: a likeness of 0 would take out everything");
    if (bands < 1 || rows < 1 || bands > DEDUP_HASHES_MAX / rows)
        return err_set(e, "filter near_duplicate: %d bands of %d rows: both from 1, together at "
                       "most %d hashes", bands, rows, DEDUP_HASHES_MAX);
    if (o->dedup_bytes < 0)
        return err_set(e, "memory for duplicates: %lld bytes", (long long)o->dedup_bytes);
    return 0;
}

bool filter_keeps(const FilterOptions *o, Filter filter, double value)
{
    const FilterLimit *limit = &o->limit[filter];
    return !limit->on || (value >= limit->low && value <= limit->high);
}

int filter_value(const FilterOptions *o, Filter filter, DocText *t, double *value, Err *e)
{
    CHECK(filter < FILTERS_TEXT, "filter %d", (int)filter);
    return row[filter].value(o, t, row[filter].n, value, e);
}

int filter_text(const FilterOptions *o, DocText *t, FilterVerdict *out, Err *e)
{
    *out = (FilterVerdict){FILTERS, 0};
    for (int f = 0; f < FILTERS_TEXT; f++) {
        if (!o->limit[f].on) continue;
        if (filter_value(o, (Filter)f, t, &out->value, e)) return -1;
        if (filter_keeps(o, (Filter)f, out->value)) continue;
        out->by = (Filter)f;
        return 0;
    }
    return 0;
}

void filter_gopher(FilterOptions *o)
{
    for (int f = 0; f < FILTERS; f++)
        if (row[f].gopher > 0 && !o->limit[f].on)
            o->limit[f] = (FilterLimit){true, -INFINITY, row[f].gopher};
}
