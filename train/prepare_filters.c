/* train/prepare_filters.c - see prepare_filters.h. */
#include "train/prepare_filters.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double SCRIPT_SHARE = 0.5, NEAR_LIKENESS = 0.8;

/* Options that are one limit of one filter. */
static const struct {
    int option;
    Filter filter;
    bool high;
} limit_option[] = {
    {FILTER_OPT_MIN_BYTES, FILTER_BYTES, false},
    {FILTER_OPT_MAX_BYTES, FILTER_BYTES, true},
    {FILTER_OPT_MIN_CHARS, FILTER_CHARS, false},
    {FILTER_OPT_MAX_CHARS, FILTER_CHARS, true},
    {FILTER_OPT_MIN_WORDS, FILTER_WORDS, false},
    {FILTER_OPT_MAX_WORDS, FILTER_WORDS, true},
    {FILTER_OPT_SYMBOLS, FILTER_SYMBOLS, true},
    {FILTER_OPT_BULLETS, FILTER_BULLETS, true},
    {FILTER_OPT_ELLIPSES, FILTER_ELLIPSES, true},
    {FILTER_OPT_SCRIPT_SHARE, FILTER_SCRIPTS, false},
    {FILTER_OPT_LINES, FILTER_LINES, true},
    {FILTER_OPT_LINE_CHARS, FILTER_LINE_CHARS, true},
    {FILTER_OPT_MIN_BITS, FILTER_BITS, false},
    {FILTER_OPT_MAX_BITS, FILTER_BITS, true},
    {FILTER_OPT_LIKENESS, FILTER_NEAR, true},
};

/* An option that says nothing unless another is there. */
static const struct {
    int option, needs;
    const char *name, *needs_name;
} need[] = {
    {FILTER_OPT_SCRIPT_SHARE, FILTER_OPT_SCRIPTS, "--min-script-share", "--scripts"},
    {FILTER_OPT_BITS_DATA, FILTER_OPT_BITS_MODEL, "--bpb-data", "--bpb-model"},
    {FILTER_OPT_MIN_BITS, FILTER_OPT_BITS_MODEL, "--min-bpb", "--bpb-model"},
    {FILTER_OPT_MAX_BITS, FILTER_OPT_BITS_MODEL, "--max-bpb", "--bpb-model"},
    {FILTER_OPT_LIKENESS, FILTER_OPT_NEAR, "--near-likeness", "--near-duplicates"},
    {FILTER_OPT_BANDS, FILTER_OPT_NEAR, "--near-bands", "--near-duplicates"},
    {FILTER_OPT_ROWS, FILTER_OPT_NEAR, "--near-rows", "--near-duplicates"},
};

/* The options of the filters among all of the command's. */
typedef struct Given {
    const Arguments *a;
    int first;
} Given;

static const char *text(Given g, int option) { return g.a->text[g.first + option]; }
static bool flag(Given g, int option) { return g.a->number[g.first + option] != 0; }
static bool has(Given g, int option) { return text(g, option) || flag(g, option); }

/* Of an option of either kind of number; one of them is 0. */
static double number(Given g, int option)
{
    return (double)g.a->number[g.first + option] + g.a->real[g.first + option];
}

static void set_limit(FilterOptions *o, Filter filter, bool high, double value)
{
    FilterLimit *limit = &o->limit[filter];
    if (!limit->on) *limit = (FilterLimit){true, -INFINITY, INFINITY};
    *(high ? &limit->high : &limit->low) = value;
}

/* "0.2,0.18,0.16" for `count` filters from `first` on. */
static int read_shares(FilterOptions *o, const char *list, Filter first, int count,
                       const char *name, Err *e)
{
    const char *at = list;
    for (int i = 0; i < count; i++) {
        char *end;
        double value = strtod(at, &end);
        bool ends = *end == (i + 1 < count ? ',' : 0);
        if (end == at || !ends || !(value >= 0 && value <= 1))
            return err_set(e, "%s '%.100s': needs %d shares from 0 to 1 with commas between", name,
                           list, count);
        set_limit(o, (Filter)(first + i), true, value);
        at = end + 1;
    }
    return 0;
}

static int read_scripts(FilterOptions *o, const char *list, Err *e)
{
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        size_t n = strcspn(at, ",");
        int found = -1;
        for (int s = 0; s < U_SCRIPTS; s++)
            if (strlen(unicode_script_name[s]) == n && !strncmp(unicode_script_name[s], at, n))
                found = s;
        if (found < 0) {
            err_set(e, "--scripts: '%.*s' is none", (int)(n < 40 ? n : 40), at);
            return err_hint(e, "latin, cyrillic, greek, han, kana, hangul, arabic, hebrew, "
                            "devanagari, thai, other");
        }
        o->scripts |= 1u << found;
    }
    if (!o->limit[FILTER_SCRIPTS].on) set_limit(o, FILTER_SCRIPTS, false, SCRIPT_SHARE);
    return 0;
}

static int check_needs(Given g, Err *e)
{
    for (size_t i = 0; i < sizeof need / sizeof *need; i++)
        if (has(g, need[i].option) && !has(g, need[i].needs))
            return err_set(e, "%s: does nothing without %s", need[i].name, need[i].needs_name);
    if (has(g, FILTER_OPT_BITS_MODEL) && !has(g, FILTER_OPT_MIN_BITS) &&
        !has(g, FILTER_OPT_MAX_BITS))
        return err_set(e, "--bpb-model: does nothing without --min-bpb or --max-bpb");
    if (has(g, FILTER_OPT_MEMORY) && !has(g, FILTER_OPT_EXACT) && !has(g, FILTER_OPT_NEAR))
        return err_set(e, "--dedup-memory: does nothing without --exact-duplicates or "
                       "--near-duplicates");
    return 0;
}

static int read_duplicates(Given g, FilterOptions *o, Err *e)
{
    long long memory = g.a->number[g.first + FILTER_OPT_MEMORY];
    if (flag(g, FILTER_OPT_EXACT)) o->limit[FILTER_EXACT].on = true;
    if (flag(g, FILTER_OPT_NEAR) && !has(g, FILTER_OPT_LIKENESS))
        set_limit(o, FILTER_NEAR, true, NEAR_LIKENESS);
    for (int i = FILTER_OPT_BANDS; i <= FILTER_OPT_ROWS; i++) {
        long long value = g.a->number[g.first + i];
        if (has(g, i) && (value < 1 || value > DEDUP_HASHES_MAX))
            return err_set(e, "--near-%s %lld: must be from 1 to %d",
                           i == FILTER_OPT_BANDS ? "bands" : "rows", value, DEDUP_HASHES_MAX);
        *(i == FILTER_OPT_BANDS ? &o->bands : &o->rows) = (int)value;
    }
    if (has(g, FILTER_OPT_MEMORY) && (memory < 1 || memory > 1 << 30))
        return err_set(e, "--dedup-memory %lld: must be from 1 to %d MiB", memory, 1 << 30);
    o->dedup_bytes = (int64_t)memory << 20;
    return 0;
}

static int read_limits(Given g, FilterOptions *o, Err *e)
{
    const char *top = text(g, FILTER_OPT_TOP), *runs = text(g, FILTER_OPT_RUNS);
    for (size_t i = 0; i < sizeof limit_option / sizeof *limit_option; i++)
        if (has(g, limit_option[i].option))
            set_limit(o, limit_option[i].filter, limit_option[i].high,
                      number(g, limit_option[i].option));
    if ((top && read_shares(o, top, FILTER_TOP_2, 3, "--max-top-words", e)) ||
        (runs && read_shares(o, runs, FILTER_RUNS_5, 6, "--max-dup-words", e)) ||
        (has(g, FILTER_OPT_SCRIPTS) && read_scripts(o, text(g, FILTER_OPT_SCRIPTS), e)))
        return -1;
    if (flag(g, FILTER_OPT_GOPHER)) filter_gopher(o);
    return 0;
}

int prepare_filters_read(const Arguments *a, int first, FilterOptions *out, Bits **bits, Err *e)
{
    Given g = {a, first};
    *out = (FilterOptions){.report = text(g, FILTER_OPT_REPORT),
                           .score = bits_score,
                           .score_name = text(g, FILTER_OPT_BITS_MODEL)};
    *bits = NULL;
    if (check_needs(g, e) || read_limits(g, out, e) || read_duplicates(g, out, e) ||
        filter_check(out, e))
        return EXIT_MISUSE;
    if ((out->report || flag(g, FILTER_OPT_DRY_RUN)) && !filter_any(out)) {
        err_set(e, "%s: there is no filter", out->report ? "--filter-report" : "--dry-run-filters");
        return EXIT_MISUSE;
    }
    if (!out->score_name) return EXIT_DONE;
    out->score_context = *bits = bits_open(out->score_name, text(g, FILTER_OPT_BITS_DATA), e);
    return *bits ? EXIT_DONE : EXIT_FAILED;
}

static void print_row(const char *name, FilterCount c, const SieveResult *r)
{
    double share = r->documents ? 100 * (double)c.documents / (double)r->documents : 0;
    printf("  %-26s %12lld %16lld %8.2f%%\n", name, (long long)c.documents, (long long)c.bytes,
           share);
}

void prepare_filters_print(const FilterOptions *o, const SieveResult *r)
{
    FilterCount kept = {r->documents, r->bytes};
    printf("  %-26s %12s %16s %9s\n", "taken out by", "documents", "bytes", "share");
    for (int f = 0; f < FILTERS; f++) {
        if (!o->limit[f].on) continue;
        print_row(filter_name[f], r->removed[f], r);
        kept.documents -= r->removed[f].documents;
        kept.bytes -= r->removed[f].bytes;
    }
    print_row("kept", kept, r);
    if (!o->limit[FILTER_EXACT].on && !o->limit[FILTER_NEAR].on) return;
    printf("  finding duplicates took %.1f MiB, %.0f bytes a kept document\n",
           (double)r->dedup.bytes / (1 << 20),
           r->dedup.documents ? (double)r->dedup.bytes / (double)r->dedup.documents : 0);
    if (r->dedup.cut_short)
        printf("  %lld documents have more possible near duplicates than the %d that were looked "
               "at\n", (long long)r->dedup.cut_short, DEDUP_COMPARE_MAX);
}
