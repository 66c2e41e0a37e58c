/* device/cpu/attention_fwd.c - attention, forward.
 *
 * o = softmax(scale q k^T + mask) v and lse, shapes in device.h. A block of 64 rows goes over the
 * keys in blocks: S^T = K Q^T; M = max(M_old, column maxima of S^T); P^T = exp(S^T - M); sum and
 * O^T are scaled by exp(M_old - M), then sum += column sums of P^T, O^T += V^T P^T. At the end
 * o = O / sum, lse = M + log(sum). Blocks of keys that no row may see are skipped.
 * Called by model/.
 */
#include <omp.h>

#include "device/cpu/attention.h"

/* Keys of a block: for f32 panels S^T stays in the first-level cache, for bf16 the calls of oneDNN
 * are few. */
enum { KEYS_F32 = 128, KEYS_BF16 = 512 };

/* One call. A pack holds K and V^T of all key blocks of a pair. */
typedef struct Forward {
    const Device *d;
    AttnTensors a;
    AttnShape sh;
    int64_t keys; /* of a block */
    int64_t key_blocks;
    int64_t block_keys; /* lines of a packed block: `keys`, or fewer if there are fewer in all */
    int64_t k_bytes, block_bytes, pack_bytes, work_bytes;
} Forward;

/* A thread's scratch. */
typedef struct Work {
    void *q_t;    /* (width, cols) */
    float *s;     /* (keys, cols): S^T */
    void *p;      /* (keys, cols): P^T; is s where the panels are f32 */
    float *o_t;   /* (width, cols) f32 */
    float *max;   /* (ATTN_ROWS): of scale2 S, so far */
    float *sum;   /* (ATTN_ROWS): of 2^(scale2 S - max), so far */
} Work;

static Work work_at(const Forward *f, char *memory)
{
    const AttnShape *sh = &f->sh;
    Work w;
    w.max = (float *)memory;
    w.sum = w.max + ATTN_ROWS;
    w.o_t = w.sum + ATTN_ROWS;
    w.s = w.o_t + sh->width * ATTN_ROWS;
    w.q_t = w.s + f->block_keys * ATTN_ROWS;
    w.p = sh->panel == DT_F32 ? w.s : (void *)((char *)w.q_t + sh->width * ATTN_ROWS * 2);
    return w;
}

static Forward forward_plan(const Device *d, AttnTensors a, const AttnOpt *opt)
{
    Forward f = {.d = d, .a = a, .sh = attn_shape(d, &a, opt)};
    const AttnShape *sh = &f.sh;
    f.keys = sh->panel == DT_F32 ? KEYS_F32 : KEYS_BF16;
    f.key_blocks = size_ceil_div(sh->keys, f.keys);
    f.block_keys = size_min(f.keys, size_round_up(sh->keys, ATTN_ALIGN));
    f.k_bytes = f.block_keys * sh->width * sh->panel_size;
    f.block_bytes = f.k_bytes + sh->width * (f.block_keys + sh->skew) * sh->panel_size;
    f.pack_bytes = f.key_blocks * f.block_bytes;
    int64_t floats = ATTN_ROWS * (2 + sh->width + f.block_keys);
    f.work_bytes = floats * 4 + ATTN_ROWS * (sh->width + f.block_keys) * sh->panel_size;
    return f;
}

/* K and V^T of key block j of a pair. */
static void pack_keys(const Forward *f, char *pack, int64_t pair, int64_t j)
{
    const AttnShape *sh = &f->sh;
    AttnPack p = {.line0 = j * f->keys, .count = size_min(f->keys, sh->keys - j * f->keys)};
    p.lines = size_round_up(p.count, ATTN_ALIGN);
    p.width = sh->width;
    p.type = sh->panel;
    p.from = attn_key_lines(sh, f->a.k, pair);
    p.panel = pack + j * f->block_bytes;
    p.ld = sh->width;
    attn_pack(&p);
    p.from = attn_key_lines(sh, f->a.v, pair);
    p.panel = (char *)p.panel + f->k_bytes;
    p.ld = f->block_keys + sh->skew;
    attn_pack_t(&p);
}

/* Column maxima of scale2 S^T over one strip of keys, from `max` on. */
ROW_KERNEL V16 strip_max(const Forward *f, const Work *w, const AttnBlock *b, int64_t g,
                         int64_t key0, int64_t key, V16 max, bool part)
{
    const float *s = w->s + (key - key0) * b->cols + g * LANES;
    V16 scale2 = v_set(f->sh.scale2), max1 = max;
    for (int64_t i = 0; i < ATTN_STRIP; i += 2) {
        V16 s0 = v_load(s + i * b->cols) * scale2, s1 = v_load(s + (i + 1) * b->cols) * scale2;
        if (part) {
            s0 = v_select(attn_sees(b, g, key + i), s0, v_set(-INFINITY));
            s1 = v_select(attn_sees(b, g, key + i + 1), s1, v_set(-INFINITY));
        }
        max = attn_max(s0, max);
        max1 = attn_max(s1, max1);
    }
    return attn_max(max, max1);
}

/* P^T of one strip of keys; returns the column sums, added to `sum`: even keys, then odd keys. */
ROW_KERNEL V16 strip_exp(const Forward *f, const Work *w, const AttnBlock *b, int64_t g,
                         int64_t key0, int64_t key, V16 max, bool part)
{
    const DType panel = f->sh.panel;
    int64_t at = (key - key0) * b->cols + g * LANES;
    V16 scale2 = v_set(f->sh.scale2), sum0 = {0}, sum1 = {0};
    for (int64_t i = 0; i < ATTN_STRIP; i += 2, at += 2 * b->cols) {
        V16 p0 = attn_exp2(v_load(w->s + at) * scale2 - max);
        V16 p1 = attn_exp2(v_load(w->s + at + b->cols) * scale2 - max);
        if (part) {
            p0 = v_select(attn_sees(b, g, key + i), p0, (V16){0});
            p1 = v_select(attn_sees(b, g, key + i + 1), p1, (V16){0});
        }
        sum0 += p0;
        sum1 += p1;
        v_put(w->p, panel, at, LANES, p0);
        v_put(w->p, panel, at + b->cols, LANES, p1);
    }
    return sum0 + sum1;
}

static void strip_zero(const Forward *f, const Work *w, const AttnBlock *b, int64_t g, int64_t at)
{
    for (int64_t i = 0; i < ATTN_STRIP; i++)
        v_put(w->p, f->sh.panel, at + i * b->cols + g * LANES, LANES, (V16){0});
}

/* The 16 rows of group g: P^T of keys key0 .. end-1 from S^T; max, sum, O^T brought up to date. */
static void softmax_group(const Forward *f, const Work *w, const AttnBlock *b, int64_t g,
                          int64_t key0, int64_t end)
{
    V16 old = v_load(w->max + g * LANES), max = old, sum = {0};
    for (int64_t key = key0; key < end; key += ATTN_STRIP) {
        AttnSight sight = attn_sight(b, g, key);
        if (sight == SIGHT_ALL) max = strip_max(f, w, b, g, key0, key, max, false);
        else if (sight == SIGHT_PART) max = strip_max(f, w, b, g, key0, key, max, true);
    }
    V16 base = v_select(max == -INFINITY, (V16){0}, max); /* nothing seen so far: all P are 0 */
    for (int64_t key = key0; key < end; key += ATTN_STRIP) {
        AttnSight sight = attn_sight(b, g, key);
        if (sight == SIGHT_ALL) sum += strip_exp(f, w, b, g, key0, key, base, false);
        else if (sight == SIGHT_PART) sum += strip_exp(f, w, b, g, key0, key, base, true);
        else strip_zero(f, w, b, g, (key - key0) * b->cols);
    }
    V16 shrink = v_select(old == -INFINITY, (V16){0}, attn_exp2(old - base));
    v_store(w->max + g * LANES, max);
    v_store(w->sum + g * LANES, v_load(w->sum + g * LANES) * shrink + sum);
    for (int64_t i = 0; i < f->sh.width; i++) {
        float *o = w->o_t + i * b->cols + g * LANES;
        v_store(o, v_load(o) * shrink);
    }
}

/* One block of rows with keys begin .. end-1 of key block j. */
static void attend_keys(const Forward *f, const Work *w, const AttnBlock *b, const char *pack,
                        int64_t begin, int64_t end)
{
    const AttnShape *sh = &f->sh;
    int64_t j = begin / f->keys, offset = begin - j * f->keys;
    const char *k = pack + j * f->block_bytes, *v_t = k + f->k_bytes;
    Gemm scores = {.m = end - begin, .n = b->cols, .k = sh->width};
    scores.a = k + offset * sh->width * sh->panel_size;
    scores.lda = sh->width;
    scores.b = w->q_t;
    scores.c = w->s;
    scores.ldb = scores.ldc = b->cols;
    scores.type = sh->panel;
    attn_mul(f->d, &scores);
    for (int64_t g = 0; g < b->cols / LANES; g++) softmax_group(f, w, b, g, begin, end);
    Gemm values = {.m = sh->width, .n = b->cols, .k = end - begin};
    values.a = v_t + offset * sh->panel_size;
    values.lda = f->block_keys + sh->skew;
    values.b = w->p;
    values.c = w->o_t;
    values.ldb = values.ldc = b->cols;
    values.type = sh->panel;
    values.add = true;
    attn_mul(f->d, &values);
}

/* o and lse of a finished block. */
static void store_rows(const Forward *f, const Work *w, const AttnBlock *b, int64_t pair)
{
    const AttnShape *sh = &f->sh;
    float *lse = f->a.lse.data, inverse[ATTN_ROWS] = {0};
    for (int64_t r = 0; r < b->count; r++) {
        int64_t row = b->row0 + r, t = row / sh->group;
        int64_t h = pair % sh->G * sh->group + row % sh->group;
        bool seen = b->lo[r] < b->hi[r];
        inverse[r] = seen ? 1.0f / w->sum[r] : 0.0f;
        lse[(pair / sh->G * sh->H + h) * sh->Tq + t] =
            seen ? w->max[r] * 0.693147181f + logf(w->sum[r]) : -INFINITY;
    }
    AttnUnpack u = {.to = attn_query_lines(sh, f->a.o, pair), .line0 = b->row0, .count = b->count};
    u.panel = w->o_t;
    u.ld = b->cols;
    attn_unpack_t(&u, inverse);
}

static void attend_rows(const Forward *f, const Work *w, const char *pack, int64_t pair,
                        int64_t index)
{
    const AttnShape *sh = &f->sh;
    AttnBlock b;
    attn_block(&b, sh, pair, index);
    for (int64_t r = 0; r < ATTN_ROWS; r++) w->max[r] = -INFINITY, w->sum[r] = 0.0f;
    memset(w->o_t, 0, (size_t)(sh->width * b.cols) * sizeof *w->o_t);
    AttnPack q = {.from = attn_query_lines(sh, f->a.q, pair), .line0 = b.row0, .count = b.count};
    q.panel = w->q_t;
    q.type = sh->panel;
    q.ld = q.lines = b.cols;
    q.width = sh->width;
    attn_pack_t(&q);
    for (int64_t begin = b.key_begin; begin < b.key_end;) {
        int64_t end = size_min(b.key_end, (begin / f->keys + 1) * f->keys);
        attend_keys(f, w, &b, pack, begin, end);
        begin = end;
    }
    store_rows(f, w, &b, pair);
}

/* Many pairs: each thread packs the keys of a pair for itself and finds them in its cache. */
static void run_pairs(const Forward *f, char *scratch, int threads)
{
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t pair = 0; pair < f->sh.pairs; pair++) {
        char *pack = scratch + omp_get_thread_num() * (f->pack_bytes + f->work_bytes);
        Work w = work_at(f, pack + f->pack_bytes);
        for (int64_t j = 0; j < f->key_blocks; j++) pack_keys(f, pack, pair, j);
        for (int64_t i = 0; i < f->sh.row_blocks; i++) attend_rows(f, &w, pack, pair, i);
    }
}

/* Few pairs: all threads pack, then share the blocks of rows, the longest first. */
static void run_blocks(const Forward *f, char *packs, int threads)
{
    const AttnShape *sh = &f->sh;
    char *works = packs + sh->pairs * f->pack_bytes;
#pragma omp parallel num_threads(threads)
    {
        Work w = work_at(f, works + omp_get_thread_num() * f->work_bytes);
#pragma omp for schedule(static)
        for (int64_t u = 0; u < sh->pairs * f->key_blocks; u++) {
            int64_t pair = u / f->key_blocks;
            pack_keys(f, packs + pair * f->pack_bytes, pair, u % f->key_blocks);
        }
#pragma omp for schedule(dynamic, 1)
        for (int64_t u = 0; u < sh->pairs * sh->row_blocks; u++) {
            int64_t pair = u % sh->pairs, index = sh->row_blocks - 1 - u / sh->pairs;
            attend_rows(f, &w, packs + pair * f->pack_bytes, pair, index);
        }
    }
}

int attention_fwd_cpu(Device *d, AttnTensors a, const AttnOpt *opt)
{
    const Forward f = forward_plan(d, a, opt);
    bool many = f.sh.pairs >= 2 * d->threads;
    int64_t packs = many ? d->threads : f.sh.pairs;
    char *scratch = cpu_scratch(d, packs * f.pack_bytes + d->threads * f.work_bytes);
    if (many) run_pairs(&f, scratch, d->threads);
    else run_blocks(&f, scratch, d->threads);
    return 0;
}
