/* scaling/hygiene.c - findings about single runs and about the table; see hygiene.h. */
#include "scaling/hygiene.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[HYGIENE_KINDS] = {
    "values", "duplicates", "below_e", "flops", "edge", "outlier", "not_convex", "tied"};

#define FLOPS_APART 1.5   /* between neighbours, of C / (6 N D): two ways to count */
#define FLOPS_SAME_N 1.2  /* the same, for runs of one N */
#define TIED_SPREAD 0.15  /* of ln D about its line over ln N */

const char *hygiene_kind_name(HygieneKind kind) { return names[kind]; }

Finding *hygiene_add(Hygiene *h, HygieneKind kind, bool drops, Err *e)
{
    if (h->count == h->room) {
        int room = h->room ? 2 * h->room : 8;
        Finding *grown = realloc(h->finding, (size_t)room * sizeof *grown);
        if (!grown) {
            err_set(e, "out of memory for findings");
            return NULL;
        }
        h->finding = grown;
        h->room = room;
    }
    Finding *f = &h->finding[h->count++];
    *f = (Finding){.kind = kind, .drops = drops, .budget = NAN};
    return f;
}

int hygiene_row(Finding *f, int64_t row, Err *e)
{
    if (!(f->rows & (f->rows - 1))) { /* room is the next power of two */
        int64_t *grown = realloc(f->row, (size_t)(f->rows ? 2 * f->rows : 1) * sizeof *grown);
        if (!grown) return err_set(e, "out of memory for findings");
        f->row = grown;
    }
    f->row[f->rows++] = row;
    return 0;
}

void hygiene_clear(Hygiene *h)
{
    for (int i = 0; i < h->count; i++) free(h->finding[i].row);
    free(h->finding);
    free(h->usable);
    free(h->clean);
    *h = (Hygiene){0};
}

/* "1 run", "3 runs", with the verb's ending chosen by the caller's `one`, `many`. */
static const char *number(int64_t n, const char *one, const char *many)
{
    return n == 1 ? one : many;
}

/* ---- Single runs ------------------------------------------------------------------------------*/

static int check_column(const RunTable *t, RunColumn c, Hygiene *h, Err *e)
{
    Finding *f = NULL;
    int64_t missing = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        double value = t->column[c][i];
        if (run_value_fits(c, value)) continue;
        if (!f && !(f = hygiene_add(h, HYGIENE_VALUE, true, e))) return -1;
        if (hygiene_row(f, i, e)) return -1;
        missing += isnan(value);
        h->usable[i] = 0;
    }
    if (!f) return 0;
    int64_t wrong = f->rows - missing;
    const char *name = run_column_name(c), *range = c == RUN_SPARSITY  ? "0 to below 1"
                                                    : c == RUN_EXPERTS ? "1 or more"
                                                                       : "above 0";
    int used = snprintf(f->text, sizeof f->text, "%s is", name);
    if (missing)
        used += snprintf(f->text + used, sizeof f->text - (size_t)used, " not known of %lld %s",
                         (long long)missing, number(missing, "run", "runs"));
    if (wrong)
        used += snprintf(f->text + used, sizeof f->text - (size_t)used,
                         "%s not %s for %lld %s", missing ? " and" : "", range, (long long)wrong,
                         number(wrong, "run", "runs"));
    snprintf(f->text + used, sizeof f->text - (size_t)used, ": not fitted");
    return 0;
}

static bool same_values(const RunTable *t, int64_t a, int64_t b)
{
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (t->column[c] && memcmp(&t->column[c][a], &t->column[c][b], sizeof(double)))
            return false;
    return true;
}

/* Equal rows stand side by side in the canonical order. */
static int check_duplicates(const RunTable *t, Hygiene *h, Err *e)
{
    Finding *f = NULL;
    for (int64_t i = 1; i < t->rows; i++) {
        if (!h->usable[i] || !same_values(t, i, i - 1)) continue;
        if (!f && !(f = hygiene_add(h, HYGIENE_DUPLICATE, true, e))) return -1;
        if (hygiene_row(f, i, e)) return -1;
    }
    if (f)
        snprintf(f->text, sizeof f->text, "%lld %s another one in every column, the loss to the "
                 "last digit: counted twice", (long long)f->rows,
                 number(f->rows, "run repeats", "runs repeat"));
    return 0;
}

static int check_below(const RunTable *t, double limit, Hygiene *h, Err *e)
{
    Finding *f = NULL;
    for (int64_t i = 0; i < t->rows; i++) {
        if (!h->usable[i] || !(run_value(t, RUN_LOSS, i) <= limit)) continue;
        if (!f && !(f = hygiene_add(h, HYGIENE_BELOW_E, true, e))) return -1;
        if (hygiene_row(f, i, e)) return -1;
    }
    if (f)
        snprintf(f->text, sizeof f->text, "%lld %s a loss not above E = %.5g: the law cannot "
                 "reach it", (long long)f->rows, number(f->rows, "run has", "runs have"), limit);
    return 0;
}

/* ---- Conventions ------------------------------------------------------------------------------*/

typedef struct Ratio {
    int64_t row;
    double r; /* C / (6 N D) */
} Ratio;

static int by_ratio(const void *a, const void *b)
{
    const Ratio *x = a, *y = b;
    if (x->r != y->r) return x->r < y->r ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static double median_ratio(const Ratio *r, int64_t n) { return r[n / 2].r; }

/* The largest of the clusters of sorted ratios (n) that a factor `apart` separates; of equal ones
 * the later. *from, *to: its bounds. Returns the number of clusters. */
static int largest_cluster(const Ratio *r, int64_t n, double apart, int64_t *from, int64_t *to)
{
    int64_t start = 0, best = 0;
    int count = 0;
    for (int64_t i = 1; i <= n; i++) {
        if (i < n && r[i].r < apart * r[i - 1].r) continue;
        count++;
        if (i - start >= best) {
            best = i - start;
            *from = start;
            *to = i;
        }
        start = i;
    }
    return count;
}

/* Why two counts may differ so. */
static const char *reason(double factor)
{
    if (factor < 1) factor = 1 / factor;
    if (factor > 2.7 && factor < 3.3)
        return "; a factor of 3: forward alone against forward and backward";
    if (factor > 1.26 && factor < 1.4) return "; a factor of 4/3: recomputation counted or not";
    return "";
}

/* One finding for each cluster but the largest, of sorted ratios (n). */
static int add_clusters(const Ratio *r, int64_t n, double apart, Hygiene *h, Err *e)
{
    int64_t from = 0, to = n;
    if (n < 2 || largest_cluster(r, n, apart, &from, &to) < 2) return 0;
    double most = median_ratio(r + from, to - from);
    for (int64_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && r[end].r < apart * r[end - 1].r;) end++;
        if (i == from) continue;
        Finding *f = hygiene_add(h, HYGIENE_FLOPS, true, e);
        if (!f) return -1;
        for (int64_t k = i; k < end; k++)
            if (hygiene_row(f, r[k].row, e)) return -1;
        double here = median_ratio(r + i, end - i);
        snprintf(f->text, sizeof f->text, "C/(6 N D) is %.3g for %lld %s and %.3g for most: FLOPs "
                 "were counted in two ways%s", here, (long long)(end - i),
                 number(end - i, "run", "runs"), most, reason(here / most));
    }
    return 0;
}

/* All runs first; then those of one N, where a smaller step is too much: the ratio changes with the
 * size alone. */
static int check_flops(const RunTable *t, Hygiene *h, Err *e)
{
    if (!t->column[RUN_N] || !t->column[RUN_D] || !t->column[RUN_C]) return 0;
    Ratio *all = malloc(((size_t)t->rows + 1) * sizeof *all);
    if (!all) return err_set(e, "out of memory for %lld runs", (long long)t->rows);
    int64_t n = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        double r = run_value(t, RUN_C, i) / (6 * run_value(t, RUN_N, i) * run_value(t, RUN_D, i));
        if (h->usable[i] && r > 0 && isfinite(r)) all[n++] = (Ratio){i, r};
    }
    int found = h->count, rc = 0;
    for (int64_t i = 0, end; !rc && i < n; i = end) { /* rows are sorted by N */
        double N = run_value(t, RUN_N, all[i].row);
        for (end = i + 1; end < n && run_value(t, RUN_N, all[end].row) == N;) end++;
        Ratio *part = all + i;
        qsort(part, (size_t)(end - i), sizeof *part, by_ratio);
        rc = add_clusters(part, end - i, FLOPS_SAME_N, h, e);
    }
    if (!rc && h->count == found) {
        qsort(all, (size_t)n, sizeof *all, by_ratio);
        rc = add_clusters(all, n, FLOPS_APART, h, e);
    }
    free(all);
    return rc;
}

/* ---- Identification ---------------------------------------------------------------------------*/

typedef struct Line { /* ln D over ln N */
    int64_t n;
    double mx, my, sxx, sxy, syy;
} Line;

static Line line_of(const RunTable *t, const Hygiene *h)
{
    Line l = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (int64_t i = 0; i < t->rows; i++) {
            double N = run_value(t, RUN_N, i), D = run_value(t, RUN_D, i);
            if (!h->clean[i] || !(N > 0) || !(D > 0)) continue;
            double x = log(N) - l.mx, y = log(D) - l.my;
            if (!pass) {
                l.n++;
                l.sxx += x;
                l.syy += y;
            } else {
                l.sxx += x * x;
                l.sxy += x * y;
                l.syy += y * y;
            }
        }
        if (pass || !l.n) break;
        l.mx = l.sxx / (double)l.n;
        l.my = l.syy / (double)l.n;
        l.sxx = l.syy = 0;
    }
    return l;
}

static int check_tied(const RunTable *t, unsigned columns, Hygiene *h, Err *e)
{
    if (!(columns >> RUN_N & 1) || !(columns >> RUN_D & 1)) return 0;
    Line l = line_of(t, h);
    if (l.n < 3) return 0;
    double sx = sqrt(l.sxx / (double)l.n), sy = sqrt(l.syy / (double)l.n), slope = l.sxy / l.sxx;
    double spread = sqrt(fmax(l.syy - slope * l.sxy, 0) / (double)l.n);
    bool still_n = sx < 1e-6, still_d = sy < 1e-6;
    if (!still_n && !still_d && !(slope > 0 && spread < TIED_SPREAD)) return 0;
    Finding *f = hygiene_add(h, HYGIENE_TIED, false, e);
    if (!f) return -1;
    if (still_n || still_d)
        snprintf(f->text, sizeof f->text, "%s is the same for all runs: %s not identified",
                 still_n ? "N" : "D",
                 still_n && still_d ? "alpha and beta are" : still_n ? "alpha is" : "beta is");
    else
        snprintf(f->text, sizeof f->text, "D follows N (as N^%.3g, within %.2g %%): alpha and beta "
                 "are not identified; runs of one size with other D would tell them apart", slope,
                 100 * spread);
    return 0;
}

/* ---- Together ---------------------------------------------------------------------------------*/

/* clean: usable and in no finding that drops. */
static void fill_clean(const RunTable *t, Hygiene *h)
{
    memcpy(h->clean, h->usable, (size_t)t->rows);
    for (int i = 0; i < h->count; i++)
        for (int64_t k = 0; h->finding[i].drops && k < h->finding[i].rows; k++)
            h->clean[h->finding[i].row[k]] = 0;
    h->n_usable = h->n_clean = 0;
    for (int64_t i = 0; i < t->rows; i++) {
        h->n_usable += h->usable[i];
        h->n_clean += h->clean[i];
    }
}

/* In the order of kinds; those of one kind stay in theirs. */
static void sort_findings(Hygiene *h)
{
    for (int i = 1; i < h->count; i++) {
        Finding f = h->finding[i];
        int k = i;
        for (; k > 0 && h->finding[k - 1].kind > f.kind; k--) h->finding[k] = h->finding[k - 1];
        h->finding[k] = f;
    }
}

int hygiene_check(const RunTable *t, unsigned columns, double e_limit, Hygiene *out, Err *e)
{
    *out = (Hygiene){.usable = malloc((size_t)t->rows + 1), .clean = malloc((size_t)t->rows + 1)};
    if (!out->usable || !out->clean)
        return err_set(e, "out of memory for %lld runs", (long long)t->rows);
    memset(out->usable, 1, (size_t)t->rows);
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (columns >> c & 1 && t->column[c] && check_column(t, (RunColumn)c, out, e)) return -1;
    if (check_duplicates(t, out, e) || check_below(t, e_limit, out, e) || check_flops(t, out, e))
        return -1;
    fill_clean(t, out);
    if (hygiene_curves(t, out, e)) return -1;
    fill_clean(t, out);
    int rc = check_tied(t, columns, out, e);
    sort_findings(out);
    return rc;
}
