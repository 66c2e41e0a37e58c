/* optim/moments.c - see moments.h. */
#include "optim/moments.h"

#include <stdlib.h>

#include "base/size.h"

enum {
    ROW_ALIGN = 64,      /* elements */
    WORK_MAX = 1 << 24   /* elements of work that several small matrices may share */
};

#define DRAWS_MAX (INT64_C(1) << 34) /* of the rounding of one row; see dev_adamw */

/* Muon's are the matrices between residual and residual; embedding, head and router, whose rows are
 * looked up or compared one by one, stay with AdamW (as in Moonlight), as do vectors. */
static bool is_muon(const OptimConfig *c, const ParamRow *row)
{
    bool matrix = row->kind == PARAM_ATTN || row->kind == PARAM_SHARED || row->kind == PARAM_EXPERT;
    return c->kind == OPTIM_MUON && matrix && row->n_dim >= 2;
}

/* A row as n matrices: one for each expert; gate and up, one behind the other in it, are two. */
static int muon_shape(RowMoments *r, const ParamRow *row, int64_t *work)
{
    int64_t parts = params_stacked(row), each, all;
    r->n = row->n_dim == 3 ? row->dim[0] * parts : parts;
    r->A = row->dim[row->n_dim - 2] / parts;
    r->B = row->dim[row->n_dim - 1];
    int64_t side = size_min(r->A, r->B);
    if (!size_mul(side, side, &each) || each > INT64_MAX / 64) return -1;
    each = dev_muon_work(r->A, r->B);
    if (!size_mul(each, r->n, &all)) all = INT64_MAX;
    *work = size_max(*work, size_min(all, size_max(each, WORK_MAX)));
    return 0;
}

static int place(int64_t *elements, int64_t n, int64_t *first)
{
    *first = *elements;
    if (!size_add(*elements, n, elements) || *elements > INT64_MAX / 64) return -1;
    *elements = size_round_up(*elements, ROW_ALIGN);
    return 0;
}

int moments_make(Moments *s, const ParamTable *table, const OptimConfig *c, Err *e)
{
    *s = (Moments){.table = table, .type = c->moments == MOMENTS_BF16 ? DT_BF16 : DT_F32};
    s->row = calloc((size_t)table->count + 1, sizeof *s->row);
    if (!s->row) return err_set(e, "out of memory for the optimizer");
    for (int i = 0; i < table->count; i++) {
        const ParamRow *row = &table->row[i];
        RowMoments *r = &s->row[i];
        int rc = place(&s->m_elements, row->elements, &r->m_first);
        if (s->type == DT_BF16 && row->elements > DRAWS_MAX) {
            moments_free(s);
            err_set(e, "%s: more than 2^34 elements cannot have moments in bf16", row->name);
            return err_hint(e, "use optim.moments: f32");
        }
        r->muon = is_muon(c, row);
        r->v_first = -1;
        if (!rc && r->muon) rc = muon_shape(r, row, &s->work_elements);
        else if (!rc) rc = place(&s->v_elements, row->elements, &r->v_first);
        if (rc) {
            moments_free(s);
            return err_set(e, "%s: its moments do not fit in 64-bit sizes", row->name);
        }
    }
    return 0;
}

static Tensor take(ArenaPlan *plan, char *base, const char *name, DType type, int64_t n)
{
    int64_t bytes;
    if (!size_mul(n, (int64_t)dtype_size(type), &bytes)) bytes = -1;
    uintptr_t at = (uintptr_t)arena_reserve(plan, name, bytes);
    return tensor_1d((void *)((uintptr_t)base + at), type, n);
}

static Tensor view(const ParamRow *row, Tensor flat, int64_t first)
{
    ParamRow there = *row;
    there.offset = first;
    return params_view(&there, flat.data, flat.type);
}

void moments_layout(Moments *s, ArenaPlan *plan, char *base)
{
    bool bf16 = s->type == DT_BF16;
    s->m = take(plan, base, bf16 ? "optimizer/first moment bf16" : "optimizer/first moment f32",
                s->type, s->m_elements);
    s->v = take(plan, base, bf16 ? "optimizer/second moment bf16" : "optimizer/second moment f32",
                s->type, s->v_elements);
    if (s->work_elements)
        s->work = take(plan, base, "optimizer/work of muon f32", DT_F32, s->work_elements);
    for (int i = 0; base && i < s->table->count; i++) {
        RowMoments *r = &s->row[i];
        r->m = view(&s->table->row[i], s->m, r->m_first);
        if (r->v_first >= 0) r->v = view(&s->table->row[i], s->v, r->v_first);
    }
}

void moments_free(Moments *s)
{
    free(s->row);
    *s = (Moments){0};
}
