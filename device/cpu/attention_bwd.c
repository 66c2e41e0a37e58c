/* device/cpu/attention_bwd.c - attention, backward.
 *
 * P = exp(scale q k^T - lse), recomputed block by block; D = rowsum(do o); dS = P (do v^T - D);
 * dv = P^T do; dq = scale dS k; dk = scale dS^T q. Shapes in device.h. Called by model/.
 *
 * A unit of work is a pair (batch, key head) or a fixed part of its blocks of rows. It takes up to
 * 16 blocks of rows at a time and goes over the keys in blocks of 128, and for each of these over
 * the blocks of rows: S^T = K Q^T, dP^T = V dO^T, dV += P^T dO, dK += dS^T Q, dQ^T += K^T dS^T.
 * dV and dK add up in f32 lines of the unit; where a pair has several parts they are summed in
 * order at the end. Parts and orders depend on shapes alone.
 */
#include <omp.h>

#include "device/cpu/attention.h"

enum {
    KEYS = 128,
    BAND = 16,       /* blocks of rows taken together */
    UNITS = 32,      /* pairs are cut into parts to have at least as many units, */
    PART_BLOCKS = 4, /* but not below so many blocks of rows, */
};
static const int64_t sums_limit = (int64_t)256 << 20; /* nor beyond so many bytes of sums */

/* One call. */
typedef struct Backward {
    const Device *d;
    AttnTensors a;
    AttnGrad g;
    Tensor d_o;
    AttnShape sh;
    int64_t parts;
    int64_t sum_lines; /* sh.keys rounded up to ATTN_ALIGN */
    int64_t sums_bytes, rows_bytes, work_bytes;
} Backward;

/* A packed block of rows. Transposed panels (width, cols), the others (cols, width). */
typedef struct Rows {
    AttnBlock block;
    float lse2[ATTN_ROWS]; /* lse * log2(e) */
    float d[ATTN_ROWS];    /* D */
    void *q, *q_t, *d_o, *d_o_t;
    float *dq_t; /* f32 */
} Rows;

/* A thread's scratch. Panels of a block of keys: k, v (KEYS, width), k_t (width, KEYS). */
typedef struct Work {
    Rows rows[BAND];
    float *dk, *dv; /* (sum_lines, width): sums of the unit */
    void *k, *v, *k_t;
    float *s, *dp; /* (KEYS, cols): S^T and dP^T */
    void *p, *ds;  /* (KEYS, cols): P^T and dS^T; are s and dp where the panels are f32 */
} Work;

static int64_t parts_of_pair(const AttnShape *sh)
{
    if (sh->pairs == 0 || sh->keys == 0) return 1;
    int64_t bytes = sh->pairs * sh->keys * sh->width * 8;
    int64_t parts = size_min(size_ceil_div(UNITS, sh->pairs), sh->row_blocks / PART_BLOCKS);
    return size_max(1, size_min(parts, sums_limit / bytes));
}

static Backward backward_plan(const Device *d, AttnGrad g, Tensor d_o, AttnTensors a,
                              const AttnOpt *opt)
{
    Backward f = {.d = d, .a = a, .g = g, .d_o = d_o, .sh = attn_shape(d, &a, opt)};
    const AttnShape *sh = &f.sh;
    f.parts = parts_of_pair(sh);
    f.sum_lines = size_round_up(sh->keys, ATTN_ALIGN);
    f.sums_bytes = 2 * f.sum_lines * sh->width * 4;
    f.rows_bytes = ATTN_ROWS * sh->width * (4 * sh->panel_size + 4);
    int64_t keys = (3 * KEYS + ATTN_SKEW) * sh->width * sh->panel_size;
    int64_t scores = 2 * KEYS * ATTN_ROWS * (4 + sh->panel_size);
    f.work_bytes = size_round_up(sizeof(Work), 64) + BAND * f.rows_bytes + keys + scores;
    return f;
}

static char *carve(char **memory, int64_t bytes)
{
    char *start = *memory;
    *memory += bytes;
    return start;
}

/* The scratch of a thread, laid out in `memory`; dk and dv are set for each unit. */
static Work *work_at(const Backward *f, char *memory)
{
    const AttnShape *sh = &f->sh;
    Work *w = (Work *)carve(&memory, size_round_up(sizeof *w, 64));
    int64_t panel = ATTN_ROWS * sh->width * sh->panel_size;
    for (int i = 0; i < BAND; i++) {
        w->rows[i].q = carve(&memory, panel);
        w->rows[i].q_t = carve(&memory, panel);
        w->rows[i].d_o = carve(&memory, panel);
        w->rows[i].d_o_t = carve(&memory, panel);
        w->rows[i].dq_t = (float *)carve(&memory, ATTN_ROWS * sh->width * 4);
    }
    w->k = carve(&memory, KEYS * sh->width * sh->panel_size);
    w->v = carve(&memory, KEYS * sh->width * sh->panel_size);
    w->k_t = carve(&memory, (KEYS + ATTN_SKEW) * sh->width * sh->panel_size);
    w->s = (float *)carve(&memory, KEYS * ATTN_ROWS * 4);
    w->dp = (float *)carve(&memory, KEYS * ATTN_ROWS * 4);
    bool same = sh->panel == DT_F32;
    w->p = same ? (void *)w->s : carve(&memory, KEYS * ATTN_ROWS * sh->panel_size);
    w->ds = same ? (void *)w->dp : carve(&memory, KEYS * ATTN_ROWS * sh->panel_size);
    return w;
}

/* rowsum(do o) and lse log2(e) of a block. Padding rows get D = 0 and lse = inf: P = 2^-126, and
 * they add nothing because their q and do are 0. */
static void row_values(const Backward *f, Rows *r, int64_t pair)
{
    const AttnShape *sh = &f->sh;
    const float *lse = f->a.lse.data;
    AttnLines o = attn_query_lines(sh, f->a.o, pair), d_o = attn_query_lines(sh, f->d_o, pair);
    for (int64_t i = 0; i < ATTN_ROWS; i++) {
        int64_t row = r->block.row0 + i, t = row / sh->group;
        int64_t h = pair % sh->G * sh->group + row % sh->group;
        bool real = i < r->block.count;
        r->d[i] = real ? attn_line_dot(&o, &d_o, row) : 0.0f;
        r->lse2[i] = real ? lse[(pair / sh->G * sh->H + h) * sh->Tq + t] * 1.44269504f : INFINITY;
    }
}

static void pack_rows(const Backward *f, Rows *r, int64_t pair, int64_t index)
{
    const AttnShape *sh = &f->sh;
    attn_block(&r->block, sh, pair, index);
    if (r->block.key_begin < r->block.key_end) row_values(f, r, pair);
    int64_t cols = r->block.cols;
    AttnPack p = {.line0 = r->block.row0, .count = r->block.count, .lines = cols};
    p.type = sh->panel;
    p.width = sh->width;
    p.ld = sh->width;
    p.from = attn_query_lines(sh, f->a.q, pair);
    p.panel = r->q;
    attn_pack(&p);
    p.from = attn_query_lines(sh, f->d_o, pair);
    p.panel = r->d_o;
    attn_pack(&p);
    p.ld = cols;
    p.panel = r->d_o_t;
    attn_pack_t(&p);
    p.from = attn_query_lines(sh, f->a.q, pair);
    p.panel = r->q_t;
    attn_pack_t(&p);
    memset(r->dq_t, 0, (size_t)(sh->width * cols) * sizeof *r->dq_t);
}

static void pack_keys(const Backward *f, Work *w, int64_t pair, int64_t key0)
{
    const AttnShape *sh = &f->sh;
    AttnPack p = {.line0 = key0, .count = size_min(KEYS, sh->keys - key0)};
    p.lines = size_round_up(p.count, ATTN_ALIGN);
    p.type = sh->panel;
    p.width = sh->width;
    p.ld = sh->width;
    p.from = attn_key_lines(sh, f->a.v, pair);
    p.panel = w->v;
    attn_pack(&p);
    p.from = attn_key_lines(sh, f->a.k, pair);
    p.panel = w->k;
    attn_pack(&p);
    p.ld = KEYS + sh->skew;
    p.panel = w->k_t;
    attn_pack_t(&p);
}

/* P^T and dS^T of one strip of keys and 16 rows, from S^T and dP^T. */
ROW_KERNEL void strip_grad(const Backward *f, const Work *w, const Rows *r, int64_t g, int64_t at,
                           int64_t key, bool part)
{
    const DType panel = f->sh.panel;
    const int64_t cols = r->block.cols;
    V16 scale2 = v_set(f->sh.scale2);
    V16 lse2 = v_load(r->lse2 + g * LANES), d = v_load(r->d + g * LANES);
    for (int64_t i = 0; i < ATTN_STRIP; i++, at += cols) {
        V16 p = attn_exp2(v_load(w->s + at) * scale2 - lse2);
        if (part) p = v_select(attn_sees(&r->block, g, key + i), p, (V16){0});
        V16 ds = p * (v_load(w->dp + at) - d);
        v_put(w->p, panel, at, LANES, p);
        v_put(w->ds, panel, at, LANES, ds);
    }
}

static void strip_zero(const Backward *f, const Work *w, const Rows *r, int64_t at)
{
    for (int64_t i = 0; i < ATTN_STRIP; i++, at += r->block.cols) {
        v_put(w->p, f->sh.panel, at, LANES, (V16){0});
        v_put(w->ds, f->sh.panel, at, LANES, (V16){0});
    }
}

/* P = exp(scale q k^T - lse), dS = P (dP - D), both transposed, for keys begin .. end-1. */
static void score_grad(const Backward *f, const Work *w, const Rows *r, int64_t begin, int64_t end)
{
    for (int64_t key = begin; key < end; key += ATTN_STRIP) {
        for (int64_t g = 0; g < r->block.cols / LANES; g++) {
            int64_t at = (key - begin) * r->block.cols + g * LANES;
            AttnSight sight = attn_sight(&r->block, g, key);
            if (sight == SIGHT_ALL) strip_grad(f, w, r, g, at, key, false);
            else if (sight == SIGHT_PART) strip_grad(f, w, r, g, at, key, true);
            else strip_zero(f, w, r, at);
        }
    }
}

static inline const void *element(const AttnShape *sh, const void *panel, int64_t i)
{
    return (const char *)panel + i * sh->panel_size;
}

/* Keys begin .. end-1, inside the packed block from key0, and one block of rows. */
static void grad_block(const Backward *f, const Work *w, const Rows *r, int64_t key0,
                       int64_t begin, int64_t end)
{
    const AttnShape *sh = &f->sh;
    const int64_t cols = r->block.cols, width = sh->width, skip = begin - key0;
    /* S^T = K Q^T, dP^T = V dO^T */
    Gemm g = {.m = end - begin, .n = cols, .k = width, .type = sh->panel};
    g.a = element(sh, w->k, skip * width), g.lda = width;
    g.b = r->q_t, g.ldb = cols;
    g.c = w->s, g.ldc = cols;
    attn_mul(f->d, &g);
    g.a = element(sh, w->v, skip * width);
    g.b = r->d_o_t;
    g.c = w->dp;
    attn_mul(f->d, &g);
    score_grad(f, w, r, begin, end);
    /* dV += P^T dO, dK += dS^T Q */
    g = (Gemm){.m = end - begin, .n = width, .k = cols, .type = sh->panel, .add = true};
    g.a = w->p, g.lda = cols;
    g.b = r->d_o, g.ldb = width;
    g.c = w->dv + begin * width, g.ldc = width;
    attn_mul(f->d, &g);
    g.a = w->ds;
    g.b = r->q;
    g.c = w->dk + begin * width;
    attn_mul(f->d, &g);
    /* dQ^T += K^T dS^T */
    g = (Gemm){.m = width, .n = cols, .k = end - begin, .type = sh->panel, .add = true};
    g.a = element(sh, w->k_t, skip), g.lda = KEYS + sh->skew;
    g.b = w->ds, g.ldb = cols;
    g.c = r->dq_t, g.ldc = cols;
    attn_mul(f->d, &g);
}

/* dq = scale dS k of a finished block. */
static void store_dq(const Backward *f, const Rows *r, int64_t pair)
{
    float factor[ATTN_ROWS];
    for (int i = 0; i < ATTN_ROWS; i++) factor[i] = f->sh.scale;
    AttnUnpack u = {.to = attn_query_lines(&f->sh, f->g.dq, pair)};
    u.line0 = r->block.row0;
    u.count = r->block.count;
    u.panel = r->dq_t;
    u.ld = r->block.cols;
    attn_unpack_t(&u, factor);
}

/* `count` packed blocks of rows with all their keys. */
static void grad_band(const Backward *f, Work *w, int64_t pair, int64_t count)
{
    int64_t first = INT64_MAX, last = 0;
    for (int64_t i = 0; i < count; i++) {
        const AttnBlock *b = &w->rows[i].block;
        if (b->key_begin < b->key_end) first = size_min(first, b->key_begin);
        last = size_max(last, b->key_end);
    }
    for (int64_t key0 = first / KEYS * KEYS; key0 < last; key0 += KEYS) {
        pack_keys(f, w, pair, key0);
        for (int64_t i = 0; i < count; i++) {
            const AttnBlock *b = &w->rows[i].block;
            int64_t begin = size_max(key0, b->key_begin), end = size_min(key0 + KEYS, b->key_end);
            if (begin < end) grad_block(f, w, &w->rows[i], key0, begin, end);
        }
    }
    for (int64_t i = 0; i < count; i++) store_dq(f, &w->rows[i], pair);
}

/* Blocks part, part + parts, ... of the pair: the blocks of a causal triangle shared out evenly. */
static void grad_unit(const Backward *f, Work *w, int64_t pair, int64_t part)
{
    memset(w->dk, 0, (size_t)f->sums_bytes / 2);
    memset(w->dv, 0, (size_t)f->sums_bytes / 2);
    int64_t index = part;
    while (index < f->sh.row_blocks) {
        int64_t count = 0;
        for (; count < BAND && index < f->sh.row_blocks; index += f->parts)
            pack_rows(f, &w->rows[count++], pair, index);
        grad_band(f, w, pair, count);
    }
}

/* dk = scale dS^T q and dv of keys key0 .. key0+count-1 of a pair, from its first part's sums after
 * adding those of the others in order. Keys that nobody sees get 0. */
static void store_keys(const Backward *f, float *sums, int64_t pair, int64_t key0, int64_t count)
{
    const AttnShape *sh = &f->sh;
    int64_t half = f->sums_bytes / 8;
    float *dk = sums + key0 * sh->width, *dv = dk + half;
    for (int64_t part = 1; part < f->parts; part++) {
        for (int64_t i = 0; i < count * sh->width; i += LANES) {
            int64_t from = part * 2 * half + i;
            v_store(dk + i, v_load(dk + i) + v_load(dk + from));
            v_store(dv + i, v_load(dv + i) + v_load(dv + from));
        }
    }
    AttnUnpack u = {.line0 = key0, .count = count, .ld = sh->width};
    u.to = attn_key_lines(sh, f->g.dk, pair);
    u.panel = dk;
    attn_unpack(&u, sh->scale);
    u.to = attn_key_lines(sh, f->g.dv, pair);
    u.panel = dv;
    u.add = f->g.dv_add;
    attn_unpack(&u, 1.0f);
}

/* dk and dv of the keys that no query may see. */
static void store_unseen(const Backward *f, int64_t pair)
{
    const AttnShape *sh = &f->sh;
    for (int64_t s = sh->keys; s < sh->Tk; s++) {
        AttnLines dk = attn_key_lines(sh, f->g.dk, pair), dv = attn_key_lines(sh, f->g.dv, pair);
        int64_t bytes = sh->K * (int64_t)dtype_size(sh->type);
        memset(attn_line(&dk, s), 0, (size_t)bytes);
        if (!f->g.dv_add) memset(attn_line(&dv, s), 0, (size_t)bytes);
    }
}

/* Parts of a pair add up apart and meet at the end; a whole pair is finished by its thread. */
static void run(const Backward *f, char *scratch, int64_t n_sums, int threads)
{
    const AttnShape *sh = &f->sh;
    const int64_t cuts = f->parts > 1 ? size_ceil_div(sh->keys, KEYS) : 0;
    char *works = scratch + n_sums * f->sums_bytes;
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        Work *w = work_at(f, works + thread * f->work_bytes);
#pragma omp for schedule(dynamic, 1)
        for (int64_t unit = 0; unit < sh->pairs * f->parts; unit++) {
            int64_t pair = unit / f->parts, at = f->parts > 1 ? unit : thread;
            w->dk = (float *)(scratch + at * f->sums_bytes);
            w->dv = w->dk + f->sums_bytes / 8;
            grad_unit(f, w, pair, unit % f->parts);
            if (f->parts == 1) store_keys(f, w->dk, pair, 0, sh->keys);
            if (unit % f->parts == 0) store_unseen(f, pair);
        }
#pragma omp for schedule(static)
        for (int64_t u = 0; u < sh->pairs * cuts; u++) {
            int64_t pair = u / cuts, key0 = u % cuts * KEYS;
            float *sums = (float *)(scratch + pair * f->parts * f->sums_bytes);
            store_keys(f, sums, pair, key0, size_min(KEYS, sh->keys - key0));
        }
    }
}

int attention_bwd_cpu(Device *d, AttnGrad g, Tensor d_o, AttnTensors a, const AttnOpt *opt)
{
    const Backward f = backward_plan(d, g, d_o, a, opt);
    int64_t n_sums = f.parts > 1 ? f.sh.pairs * f.parts : d->threads;
    char *scratch = cpu_scratch(d, n_sums * f.sums_bytes + d->threads * f.work_bytes);
    run(&f, scratch, n_sums, d->threads);
    return 0;
}
