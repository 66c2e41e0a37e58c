/* scaling/runs.c - the table itself: names of columns, memory, canonical order; see runs.h. */
#include "scaling/runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/hash.h"

static const char *const names[RUN_COLUMNS] = {
    "N", "N_total", "D", "C", "loss", "experts", "granularity", "sparsity", "lr", "batch",
    "budget", "seed", "noise", "N_no_embed"};

/* What files call the columns besides `names`: of published runs and of papers. */
static const struct {
    const char *name;
    RunColumn column;
} known[] = {
    {"params_active_precise", RUN_N}, {"params_active", RUN_N},     {"active_params", RUN_N},
    {"activated_params", RUN_N},      {"params", RUN_N},            {"n_params", RUN_N},
    {"num_params", RUN_N},            {"parameters", RUN_N},        {"model size", RUN_N},
    {"model_size", RUN_N},            {"dense_parameter_count", RUN_N},
    {"total_params", RUN_N_TOTAL},    {"params_total", RUN_N_TOTAL},
    {"total_parameter_count", RUN_N_TOTAL},
    {"tokens", RUN_D},                {"n_tokens", RUN_D},          {"num_tokens", RUN_D},
    {"training tokens", RUN_D},       {"training_tokens", RUN_D},   {"train_tokens", RUN_D},
    {"flops", RUN_C},                 {"train_flops", RUN_C},       {"training flop", RUN_C},
    {"training_flop", RUN_C},         {"compute", RUN_C},
    {"final_loss", RUN_LOSS},         {"val_loss", RUN_LOSS},       {"loss_validation", RUN_LOSS},
    {"validation_loss", RUN_LOSS},    {"heldout_loss", RUN_LOSS},
    {"E", RUN_EXPERTS},               {"num_experts", RUN_EXPERTS}, {"n_experts", RUN_EXPERTS},
    {"G", RUN_GRANULARITY},           {"S", RUN_SPARSITY},
    {"learning_rate", RUN_LR},        {"peak_lr", RUN_LR},          {"batch_tokens", RUN_BATCH},
    {"budget_flops", RUN_BUDGET},     {"isoflop_budget", RUN_BUDGET},
    {"loss_sd", RUN_NOISE},           {"loss_std", RUN_NOISE},
    {"active_no_embed", RUN_N_BODY},  {"params_no_embed", RUN_N_BODY}};

const char *run_column_name(RunColumn column) { return names[column]; }

static bool same_name(const char *a, const char *b)
{
    return strlen(a) == 1 ? !strcmp(a, b) : !strcasecmp(a, b);
}

int run_column_find(const char *name)
{
    for (int i = 0; i < RUN_COLUMNS; i++)
        if (same_name(names[i], name)) return i;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (same_name(known[i].name, name)) return (int)known[i].column;
    return -1;
}

bool run_value_fits(RunColumn column, double value)
{
    switch (column) {
    case RUN_SPARSITY: return value >= 0 && value < 1;
    case RUN_EXPERTS: return value >= 1 && isfinite(value);
    case RUN_SEED: return isfinite(value);
    case RUN_NOISE: return value >= 0 && isfinite(value);
    default: return value > 0 && isfinite(value);
    }
}

int run_table_make(RunTable *out, int64_t rows, unsigned columns, Err *e)
{
    *out = (RunTable){0};
    if (rows < 0 || rows > RUN_MAX_ROWS)
        return err_set(e, "%lld runs; at most %d are handled", (long long)rows, RUN_MAX_ROWS);
    size_t room = rows ? (size_t)rows : 1;
    bool ok = (out->line = malloc(room * sizeof *out->line)) != NULL;
    for (int c = 0; ok && c < RUN_COLUMNS; c++)
        if (columns >> c & 1) ok = (out->column[c] = malloc(room * sizeof(double))) != NULL;
    if (!ok) {
        run_table_clear(out);
        return err_set(e, "out of memory for %lld runs", (long long)rows);
    }
    out->rows = rows;
    for (int64_t i = 0; i < rows; i++) {
        out->line[i] = i + 1;
        for (int c = 0; c < RUN_COLUMNS; c++)
            if (out->column[c]) out->column[c][i] = NAN;
    }
    return 0;
}

void run_table_clear(RunTable *t)
{
    for (int c = 0; c < RUN_COLUMNS; c++) free(t->column[c]);
    for (int64_t i = 0; t->name && i < t->rows; i++) free(t->name[i]);
    free(t->name);
    free(t->line);
    *t = (RunTable){0};
}

/* One bit pattern for every zero and every NaN. */
static void canonical_values(RunTable *t)
{
    for (int c = 0; c < RUN_COLUMNS; c++)
        for (int64_t i = 0; t->column[c] && i < t->rows; i++) {
            double *value = &t->column[c][i];
            if (*value == 0) *value = 0;
            if (isnan(*value)) *value = NAN;
        }
}

static int compare_values(double a, double b)
{
    if (isnan(a) || isnan(b)) return isnan(a) - isnan(b);
    return (a > b) - (a < b);
}

static int compare_rows(const void *pa, const void *pb, void *table)
{
    const RunTable *t = table;
    int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
    int order = 0;
    for (int c = 0; !order && c < RUN_COLUMNS; c++)
        if (t->column[c]) order = compare_values(t->column[c][a], t->column[c][b]);
    if (!order && t->name) order = strcmp(t->name[a], t->name[b]);
    return order ? order : (t->line[a] > t->line[b]) - (t->line[a] < t->line[b]);
}

static void fill_hash(RunTable *t)
{
    t->hash = hash_bytes(&t->rows, sizeof t->rows);
    for (int32_t c = 0; c < RUN_COLUMNS; c++) {
        if (!t->column[c]) continue;
        t->hash = hash_more(t->hash, &c, sizeof c);
        t->hash = hash_more(t->hash, t->column[c], (size_t)t->rows * sizeof(double));
    }
}

/* values (n, each of 8 bytes) put into the order; work (n). */
static void reorder(void *values, const int64_t *order, int64_t n, uint64_t *work)
{
    char *at = values;
    for (int64_t i = 0; i < n; i++) memcpy(&work[i], at + 8 * order[i], 8);
    memcpy(at, work, (size_t)n * 8);
}

_Static_assert(sizeof(double) == 8 && sizeof(int64_t) == 8 && sizeof(char *) == 8, "reorder");

void run_table_sort(RunTable *t)
{
    int64_t *order = malloc(((size_t)t->rows + 1) * sizeof *order);
    uint64_t *work = malloc(((size_t)t->rows + 1) * sizeof *work);
    CHECK(order && work, "out of memory to sort %lld runs", (long long)t->rows);
    for (int64_t i = 0; i < t->rows; i++) order[i] = i;
    canonical_values(t);
    qsort_r(order, (size_t)t->rows, sizeof *order, compare_rows, t);
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (t->column[c]) reorder(t->column[c], order, t->rows, work);
    reorder(t->line, order, t->rows, work);
    if (t->name) reorder(t->name, order, t->rows, work);
    fill_hash(t);
    free(order);
    free(work);
}

int run_table_select(RunTable *out, const RunTable *t, const unsigned char *keep, Err *e)
{
    int64_t n = 0, to = 0;
    unsigned columns = 0;
    for (int64_t i = 0; i < t->rows; i++) n += keep[i] != 0;
    for (int c = 0; c < RUN_COLUMNS; c++)
        if (t->column[c]) columns |= 1u << c;
    if (run_table_make(out, n, columns, e)) return -1;
    memcpy(out->source, t->source, sizeof out->source);
    if (t->name && !(out->name = calloc((size_t)n + 1, sizeof *out->name))) goto no_memory;
    for (int64_t i = 0; i < t->rows; i++) {
        if (!keep[i]) continue;
        for (int c = 0; c < RUN_COLUMNS; c++)
            if (t->column[c]) out->column[c][to] = t->column[c][i];
        out->line[to] = t->line[i];
        if (t->name && !(out->name[to] = strdup(t->name[i]))) goto no_memory;
        to++;
    }
    fill_hash(out);
    return 0;
no_memory:
    run_table_clear(out);
    return err_set(e, "out of memory for %lld runs", (long long)n);
}
