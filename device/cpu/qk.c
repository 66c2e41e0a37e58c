/* device/cpu/qk.c - RoPE and QK-norm of the heads of queries or keys, x and y (N, H, K).
 *
 * R x: (R x)_i = x_i cos - x_{i+K/2} sin, (R x)_{i+K/2} = x_{i+K/2} cos + x_i sin, at the token's
 * position. Norm: s rstd w, rstd = 1 / sqrt(mean(s^2) + eps) over each head or over all heads.
 * A token's row is widened into f32 lines of scratch, worked on there, and rounded once at the end.
 * Lines end in LANES spare elements, so that loops take whole vectors only; those of constants are
 * 0, since arithmetic on leftover bits may be denormal and slow. Called by model/.
 */
#include <omp.h>

#include "device/cpu/rows.h"

/* What the tokens of a call share. */
typedef struct Qk {
    const QkOpt *opt;
    int64_t H, K, row; /* row = H * K */
    int64_t segments;  /* of a row that are normed: H heads or 1 */
    int64_t width;     /* of a segment */
    int64_t line;      /* floats of a scratch line */
    const float *w;    /* (width) and LANES spare, in scratch */
} Qk;

/* A thread's scratch. */
typedef struct Lines {
    float *cos, *sin; /* (K / 2) of the current position */
    float *x, *y, *z; /* (H * K) */
    float *dw;        /* (width) */
} Lines;

enum { LINES = 6 };

static Qk qk_plan(const QkOpt *opt, Tensor x)
{
    Qk q = {.opt = opt, .H = x.dim[1], .K = x.dim[2]};
    q.row = q.H * q.K;
    bool full = opt->norm == QK_FULL_BEFORE_ROPE;
    q.segments = full ? 1 : q.H;
    q.width = full ? q.row : q.K;
    q.line = size_round_up(q.row, LANES) + LANES;
    return q;
}

/* Scratch for `sets` sets of lines; the first line of all holds w. */
static float *qk_scratch(Device *d, Qk *q, Tensor w, int64_t sets)
{
    float *scratch = cpu_scratch(d, (1 + sets * LINES) * q->line * (int64_t)sizeof *scratch);
    if (tensor_given(w)) {
        memcpy(scratch, w.data, (size_t)q->width * sizeof *scratch);
        v_store(scratch + q->width, (V16){0});
    }
    q->w = scratch;
    return scratch + q->line;
}

static Lines lines_at(const Qk *q, float *scratch, int64_t set)
{
    float *first = scratch + set * LINES * q->line;
    return (Lines){first,
                   first + q->line,
                   first + 2 * q->line,
                   first + 3 * q->line,
                   first + 4 * q->line,
                   first + 5 * q->line};
}

ROW_KERNEL void widen_typed(float *line, const void *row, DType type, int64_t count)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) v_store(line + i, v_get(row, type, i, LANES));
    if (i < count) v_store(line + i, v_get(row, type, i, count - i));
}

/* line = row n of t, widened. */
static void widen(const Qk *q, float *line, Tensor t, int64_t n)
{
    if (t.type == DT_F32) widen_typed(line, row_at(t, n, q->row), DT_F32, q->row);
    else widen_typed(line, row_at(t, n, q->row), DT_BF16, q->row);
}

ROW_KERNEL void narrow_vector(void *row, const float *line, DType type, int64_t i, int64_t n,
                              bool add)
{
    V16 v = v_load(line + i);
    v_put(row, type, i, n, add ? v + v_get(row, type, i, n) : v);
}

ROW_KERNEL void narrow_typed(void *row, const float *line, DType type, int64_t count, bool add)
{
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) narrow_vector(row, line, type, i, LANES, add);
    if (i < count) narrow_vector(row, line, type, i, count - i, add);
}

/* Row n of t = line, or += line, rounded. */
static void narrow(const Qk *q, Tensor t, int64_t n, const float *line, bool add)
{
    if (t.type == DT_F32) narrow_typed(row_at(t, n, q->row), line, DT_F32, q->row, add);
    else narrow_typed(row_at(t, n, q->row), line, DT_BF16, q->row, add);
}

/* cos and sin of token n's position, which alternate in the table. */
static void load_angles(const Qk *q, const Lines *l, int64_t n)
{
    int64_t half = q->K / 2, position = q->opt->pos0 + n % q->opt->T;
    const float *table = (const float *)q->opt->rope.data + position * q->K;
    v_store(l->cos + half, (V16){0});
    v_store(l->sin + half, (V16){0});
    for (int64_t i = 0; i < half; i++) {
        l->cos[i] = table[2 * i];
        l->sin[i] = table[2 * i + 1];
    }
}

/* to = R from, or R^T from with sign = -1. The last vector of a half is stored first: what it
 * writes beyond its half is then overwritten by the other half or by the next head. */
static void rotate(const Qk *q, const Lines *l, float *to, const float *from, float sign)
{
    int64_t half = q->K / 2;
    for (int64_t h = 0; h < q->H; h++, to += q->K, from += q->K) {
        for (int64_t i = (half - 1) / LANES * LANES; i >= 0; i -= LANES) {
            V16 c = v_load(l->cos + i), s = v_load(l->sin + i) * sign;
            V16 low = v_load(from + i), high = v_load(from + half + i);
            v_store(to + i, low * c - high * s);
            v_store(to + half + i, high * c + low * s);
        }
    }
}

/* v with the lanes from n on set to 0. */
static inline V16 first_lanes(V16 v, int64_t n)
{
    const I16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return v_select(lane < (int32_t)(n < LANES ? n : LANES) - (I16){0}, v, (V16){0});
}

static float square_sum(const float *s, int64_t count)
{
    V16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) sum += v_load(s + i) * v_load(s + i);
    if (i < count) sum += first_lanes(v_load(s + i) * v_load(s + i), count - i);
    return v_sum(sum);
}

/* line = line rstd w for each segment; rstd (segments) is written. */
static void norm(const Qk *q, float *line, float *rstd)
{
    for (int64_t j = 0; j < q->segments; j++) {
        float *s = line + j * q->width;
        rstd[j] = 1.0f / sqrtf(square_sum(s, q->width) / (float)q->width + (float)q->opt->eps);
        int64_t i = 0;
        for (; i + LANES <= q->width; i += LANES)
            v_store(s + i, v_load(s + i) * rstd[j] * v_load(q->w + i));
        if (i < q->width)
            v_store_part(s + i, v_load(s + i) * rstd[j] * v_load(q->w + i), q->width - i);
    }
}

static void forward_row(const Qk *q, const Lines *l, Tensor y, Tensor rstd, Tensor x, int64_t n)
{
    const QkNorm form = q->opt->norm;
    float *r = form == QK_NONE ? NULL : (float *)rstd.data + n * q->segments;
    widen(q, l->x, x, n);
    load_angles(q, l, n);
    if (form == QK_HEAD_BEFORE_ROPE || form == QK_FULL_BEFORE_ROPE) norm(q, l->x, r);
    rotate(q, l, l->y, l->x, 1.0f);
    if (form == QK_HEAD_AFTER_ROPE) norm(q, l->y, r);
    narrow(q, y, n, l->y, false);
}

int qk_fwd_cpu(Device *d, Tensor y, Tensor rstd, Tensor x, Tensor w, const QkOpt *opt)
{
    Qk q = qk_plan(opt, x);
    int64_t N = x.dim[0];
    float *scratch = qk_scratch(d, &q, w, d->threads);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * q.row > ROWS_SERIAL)
    for (int64_t n = 0; n < N; n++) {
        Lines l = lines_at(&q, scratch, omp_get_thread_num());
        forward_row(&q, &l, y, rstd, x, n);
    }
    return 0;
}

/* mean over a segment of (g w) (s rstd). */
static float mean_product(const Qk *q, const float *g, const float *s, float rstd)
{
    V16 sum = {0};
    int64_t i = 0;
    for (; i + LANES <= q->width; i += LANES)
        sum += v_load(g + i) * v_load(q->w + i) * (v_load(s + i) * rstd);
    if (i < q->width)
        sum += first_lanes(v_load(g + i) * v_load(q->w + i) * (v_load(s + i) * rstd), q->width - i);
    return v_sum(sum) / (float)q->width;
}

/* ds = rstd (g w - s^ mean(g w s^)), dw += g s^;  s^ = s rstd, g the gradient of s^ w.
 * The last vector of a segment spills into the next one, which is written after it. */
static void norm_grad(const Qk *q, float *ds, float *dw, const float *g, const float *s,
                      const float *rstd)
{
    for (int64_t j = 0; j < q->segments; j++) {
        int64_t at = j * q->width;
        float mean = mean_product(q, g + at, s + at, rstd[j]);
        for (int64_t i = 0; i < q->width; i += LANES) {
            V16 unit = v_load(s + at + i) * rstd[j], gradient = v_load(g + at + i);
            v_store(dw + i, v_load(dw + i) + gradient * unit);
            v_store(ds + at + i, (gradient * v_load(q->w + i) - unit * mean) * rstd[j]);
        }
    }
}

/* One call's gradients and what they are made of. */
typedef struct QkBwd {
    Tensor dx, dy, x, rstd;
} QkBwd;

/* R^T is the backward of the rotation: dx = R^T dy without a norm; dx = norm'(R^T dy) with one
 * before it; dx = R^T norm'(dy), at s = R x, with one after it. */
static void backward_row(const Qk *q, const Lines *l, const QkBwd *b, int64_t n)
{
    const QkNorm form = q->opt->norm;
    const float *rstd = form == QK_NONE ? NULL : (const float *)b->rstd.data + n * q->segments;
    float *dx = l->y;
    load_angles(q, l, n);
    widen(q, l->z, b->dy, n);
    if (form != QK_NONE) widen(q, l->x, b->x, n);
    if (form == QK_HEAD_AFTER_ROPE) {
        rotate(q, l, l->y, l->x, 1.0f);
        norm_grad(q, l->x, l->dw, l->z, l->y, rstd);
        rotate(q, l, dx, l->x, -1.0f);
    } else {
        rotate(q, l, l->y, l->z, -1.0f);
        if (form != QK_NONE) norm_grad(q, dx = l->z, l->dw, l->y, l->x, rstd);
    }
    narrow(q, b->dx, n, dx, q->opt->dx_add);
}

int qk_bwd_cpu(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w, Tensor rstd,
               const QkOpt *opt)
{
    Qk q = qk_plan(opt, x);
    int64_t N = x.dim[0];
    QkBwd b = {.dx = dx, .dy = dy, .x = x, .rstd = rstd};
    float *scratch = qk_scratch(d, &q, w, CPU_CHUNKS);
#pragma omp parallel for num_threads(d->threads) schedule(static) if (N * q.row > ROWS_SERIAL)
    for (int c = 0; c < CPU_CHUNKS; c++) {
        Lines l = lines_at(&q, scratch, c);
        memset(l.dw, 0, (size_t)q.line * sizeof *l.dw);
        for (int64_t n = cpu_chunk_begin(N, c); n < cpu_chunk_begin(N, c + 1); n++)
            backward_row(&q, &l, &b, n);
    }
    if (opt->norm == QK_NONE) return 0;
    for (int64_t i = 0; i < q.width; i++) {
        float sum = 0.0f;
        for (int c = 0; c < CPU_CHUNKS; c++) sum += lines_at(&q, scratch, c).dw[i];
        ((float *)dw.data)[i] += sum;
    }
    return 0;
}
