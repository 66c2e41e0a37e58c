/* scaling/ledger_runs.c - the finished cells of a ledger as a table of runs. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "scaling/ledger_sql.h"

/* ---- C_min ------------------------------------------------------------------------------------*/

int ledger_critical_set(Ledger *l, const CriticalBatch *law, Err *e)
{
    char text[64];
    if (!(law->b_star > 0)) /* a law that was given earlier stays */
        return 0;
    snprintf(text, sizeof text, "%.17g %.17g", law->b_star, law->alpha);
    return ledger_note_set(l, "critical", text, e);
}

int ledger_critical_get(Ledger *l, CriticalBatch *law, Err *e)
{
    char *text = NULL;
    *law = (CriticalBatch){0};
    if (ledger_note_get(l, "critical", &text, e)) return -1;
    if (text && sscanf(text, "%lf %lf", &law->b_star, &law->alpha) != 2) *law = (CriticalBatch){0};
    free(text);
    return 0;
}

double ledger_c_min(const LedgerCell *c, const CriticalBatch *law)
{
    double loss = c->result.loss, batch = (double)c->cell.batch * (double)c->cell.seq_len;
    double crit = law->b_star > 0 ? critical_batch(law, loss) : c->result.b_noise;
    bool known = c->state == STATE_DONE && c->cell.kind != CELL_TRUNK && crit > 0;
    return known ? compute_min(c->cell.C, batch, crit) : NAN;
}

/* ---- Runs -------------------------------------------------------------------------------------*/

/* What a ledger knows of a cell, by column. */
static double value(const LedgerCell *c, RunColumn column)
{
    const Cell *cell = &c->cell;
    switch (column) {
    case RUN_N: return cell->N;
    case RUN_N_BODY: return cell->N_no_embed;
    case RUN_N_TOTAL: return cell->N_total;
    case RUN_D: return cell->D;
    case RUN_C: return cell->C;
    case RUN_LOSS: return c->result.loss;
    case RUN_EXPERTS: return cell->experts;
    case RUN_GRANULARITY: return cell->granularity;
    case RUN_SPARSITY: return cell->sparsity;
    case RUN_LR: return cell->lr * c->lr_factor;
    case RUN_BATCH: return (double)cell->batch * (double)cell->seq_len;
    case RUN_BUDGET: return cell->budget > 0 ? cell->budget : NAN;
    case RUN_SEED: return (double)cell->seed;
    default: return NAN;
    }
}

static const unsigned always = 1u << RUN_N | 1u << RUN_N_TOTAL | 1u << RUN_D | 1u << RUN_C |
                              1u << RUN_LOSS | 1u << RUN_LR | 1u << RUN_BATCH |
                              1u << RUN_BUDGET | 1u << RUN_SEED | 1u << RUN_N_BODY;
static const unsigned of_experts = 1u << RUN_EXPERTS | 1u << RUN_GRANULARITY | 1u << RUN_SPARSITY;

static bool counts(const LedgerCell *c, bool with_checks)
{
    if (c->state != STATE_DONE) return false;
    return c->cell.kind == CELL_POINT || (with_checks && c->cell.kind == CELL_CHECK);
}

/* A cell without a variant, or of one that changes rate and batch alone: what the variant says
 * stands behind the study's own overrides, the last of which is the seed. */
static bool of_base_model(const Cell *c)
{
    static const char *const own[] = {"optim.lr=", "train.batch="};
    const char *p = strstr(c->overrides, "\ntrain.seed=");
    for (p = p ? strchr(p + 1, '\n') : NULL; p && *(p += strspn(p, "\n")); p += strcspn(p, "\n")) {
        bool known = false;
        for (int i = 0; i < 2; i++) known = known || !strncmp(p, own[i], strlen(own[i]));
        if (!known) return false;
    }
    return p != NULL;
}

static int fill(RunTable *out, const LedgerCell *cells, int n, bool with_checks, Err *e)
{
    int64_t row = 0;
    out->name = calloc((size_t)out->rows + 1, sizeof *out->name);
    if (!out->name) return err_set(e, "out of memory");
    for (int i = 0; i < n; i++) {
        if (!counts(&cells[i], with_checks)) continue;
        for (int k = 0; k < RUN_COLUMNS; k++)
            if (out->column[k]) out->column[k][row] = value(&cells[i], (RunColumn)k);
        out->line[row] = i + 1;
        out->name[row] = strdup(cells[i].cell.name);
        if (!out->name[row++]) return err_set(e, "out of memory");
    }
    return 0;
}

/* Takes the mark of the variant off the names of cells that are of the base's model. */
static void merge_variants(LedgerCell *cells, int n)
{
    for (int i = 0; i < n; i++) {
        char *mark = strrchr(cells[i].cell.name, '@');
        if (mark && of_base_model(&cells[i].cell)) *mark = 0;
    }
}

static int read_runs(Ledger *l, bool with_checks, bool merge, RunTable *out, Err *e)
{
    LedgerCell *cells;
    int n;
    int64_t rows = 0;
    unsigned known = always;
    if (ledger_cells(l, &cells, &n, e)) return -1;
    if (merge) merge_variants(cells, n);
    for (int i = 0; i < n; i++) {
        if (!counts(&cells[i], with_checks)) continue;
        if (isfinite(cells[i].cell.experts)) known |= of_experts; /* not of version 1 */
        rows++;
    }
    int rc = run_table_make(out, rows, known, e);
    if (!rc) rc = fill(out, cells, n, with_checks, e);
    if (!rc) {
        snprintf(out->source, sizeof out->source, "%.*s", (int)sizeof out->source - 1, l->path);
        run_table_sort(out);
    }
    free(cells);
    return rc;
}

int ledger_runs(Ledger *l, bool with_checks, RunTable *out, Err *e)
{
    return read_runs(l, with_checks, false, out, e);
}

int ledger_rate_runs(Ledger *l, bool merge, RunTable *out, Err *e)
{
    return read_runs(l, true, merge, out, e);
}
