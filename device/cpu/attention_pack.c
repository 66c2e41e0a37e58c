/* device/cpu/attention_pack.c - attention's geometry, and copies between tensors and panels.
 *
 * See attention.h. Called by attention_fwd.c and attention_bwd.c.
 */
#include "device/cpu/attention.h"

AttnShape attn_shape(const Device *d, const AttnTensors *a, const AttnOpt *opt)
{
    AttnShape sh = {.B = a->q.dim[0], .Tq = a->q.dim[1], .H = a->q.dim[2], .K = a->q.dim[3]};
    sh.Tk = a->k.dim[1];
    sh.G = a->k.dim[2];
    CHECK(sh.Tk < INT32_MAX - ATTN_ALIGN, "%lld keys", (long long)sh.Tk);
    sh.group = sh.H / sh.G;
    sh.rows = sh.Tq * sh.group;
    sh.row_blocks = size_ceil_div(sh.rows, ATTN_ROWS);
    sh.pairs = sh.B * sh.G;
    sh.q_pos0 = opt->q_pos0;
    sh.k_pos0 = opt->k_pos0;
    sh.keys = size_max(0, size_min(sh.Tk, opt->q_pos0 + sh.Tq - opt->k_pos0));
    sh.doc_start = opt->doc_start.data;
    sh.scale = (float)opt->scale;
    sh.scale2 = (float)(opt->scale * 1.4426950408889634);
    sh.type = a->q.type;
    sh.panel = cpu_state(d)->native_bf16 ? sh.type : DT_F32;
    sh.panel_size = (int64_t)dtype_size(sh.panel);
    sh.width = size_round_up(sh.K, sh.panel == DT_F32 ? LANES : 2 * LANES);
    sh.skew = sh.panel == DT_F32 ? ATTN_SKEW : 0;
    return sh;
}

/* Keys lo <= s < hi that query t of batch b sees; 0, 0 if none. */
static void query_sight(const AttnShape *sh, int64_t b, int64_t t, int32_t *lo, int32_t *hi)
{
    int64_t first = sh->doc_start ? sh->doc_start[b * sh->Tq + t] - sh->k_pos0 : 0;
    int64_t end = size_min(sh->Tk, sh->q_pos0 + t - sh->k_pos0 + 1);
    first = size_max(first, 0);
    *lo = first < end ? (int32_t)first : 0;
    *hi = first < end ? (int32_t)end : 0;
}

static void group_bounds(AttnBlock *block, int64_t g)
{
    const int32_t *lo = block->lo + g * LANES, *hi = block->hi + g * LANES;
    block->lo_min[g] = block->lo_max[g] = lo[0];
    block->hi_min[g] = block->hi_max[g] = hi[0];
    for (int i = 1; i < LANES; i++) {
        block->lo_min[g] = lo[i] < block->lo_min[g] ? lo[i] : block->lo_min[g];
        block->lo_max[g] = lo[i] > block->lo_max[g] ? lo[i] : block->lo_max[g];
        block->hi_min[g] = hi[i] < block->hi_min[g] ? hi[i] : block->hi_min[g];
        block->hi_max[g] = hi[i] > block->hi_max[g] ? hi[i] : block->hi_max[g];
    }
}

void attn_block(AttnBlock *block, const AttnShape *sh, int64_t pair, int64_t index)
{
    int64_t b = pair / sh->G, begin = INT32_MAX, end = 0;
    block->row0 = index * ATTN_ROWS;
    block->count = size_min(ATTN_ROWS, sh->rows - block->row0);
    block->cols = block->count > LANES ? ATTN_ROWS : LANES;
    for (int64_t r = 0; r < ATTN_ROWS; r++) {
        int64_t row = block->row0 + size_min(r, block->count - 1);
        query_sight(sh, b, row / sh->group, &block->lo[r], &block->hi[r]);
        if (block->lo[r] == block->hi[r]) continue;
        begin = size_min(begin, block->lo[r]);
        end = size_max(end, block->hi[r]);
    }
    for (int64_t g = 0; g < ATTN_GROUPS; g++) group_bounds(block, g);
    block->key_begin = end == 0 ? 0 : begin / ATTN_ALIGN * ATTN_ALIGN;
    block->key_end = size_round_up(end, ATTN_ALIGN);
}

AttnLines attn_query_lines(const AttnShape *sh, Tensor t, int64_t pair)
{
    int64_t b = pair / sh->G, g = pair % sh->G;
    int64_t first = (b * sh->Tq * sh->H + g * sh->group) * sh->K;
    return (AttnLines){.data = (char *)t.data + first * (int64_t)dtype_size(t.type),
                       .group = sh->group,
                       .stride = sh->H * sh->K,
                       .K = sh->K,
                       .type = t.type};
}

AttnLines attn_key_lines(const AttnShape *sh, Tensor t, int64_t pair)
{
    int64_t first = (pair / sh->G * sh->Tk * sh->G + pair % sh->G) * sh->K;
    return (AttnLines){.data = (char *)t.data + first * (int64_t)dtype_size(t.type),
                       .group = 1,
                       .stride = sh->G * sh->K,
                       .K = sh->K,
                       .type = t.type};
}

float attn_line_dot(const AttnLines *a, const AttnLines *b, int64_t r)
{
    const char *x = attn_line(a, r), *y = attn_line(b, r);
    V16 sum = {0};
    for (int64_t i = 0; i < a->K; i += LANES)
        sum += v_get(x, a->type, i, a->K - i) * v_get(y, b->type, i, a->K - i);
    return v_sum(sum);
}

static inline char *panel_at(const AttnPack *p, int64_t line, int64_t column)
{
    return (char *)p->panel + (line * p->ld + column) * (p->type == DT_F32 ? 4 : 2);
}

ROW_KERNEL void pack_typed(const AttnPack *p, DType from, DType to)
{
    const int64_t K = p->from.K, whole = K / LANES * LANES;
    for (int64_t line = 0; line < p->lines; line++) {
        void *out = panel_at(p, line, 0);
        int64_t i = 0;
        if (line < p->count) {
            const void *in = attn_line(&p->from, p->line0 + line);
            for (; i < whole; i += LANES) v_put(out, to, i, LANES, v_get(in, from, i, LANES));
            if (i < K) v_put(out, to, i, LANES, v_get(in, from, i, K - i)), i += LANES;
        }
        for (; i < p->width; i += LANES) v_put(out, to, i, LANES, (V16){0});
    }
}

void attn_pack(const AttnPack *p)
{
    if (p->from.type == DT_F32) pack_typed(p, DT_F32, DT_F32);
    else if (p->type == DT_F32) pack_typed(p, DT_BF16, DT_F32);
    else pack_typed(p, DT_BF16, DT_BF16);
}

typedef float F4 __attribute__((vector_size(16)));
typedef int32_t I4 __attribute__((vector_size(16)));

static inline F4 f4_load(const float *p)
{
    F4 v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* out = in transposed, 16 x 16, by squares of 4: quick on every instruction set. */
static inline void transpose16(float out[LANES][LANES], float in[LANES][LANES])
{
    for (int r = 0; r < LANES; r += 4) {
        for (int c = 0; c < LANES; c += 4) {
            F4 a = f4_load(&in[r][c]), b = f4_load(&in[r + 1][c]);
            F4 e = f4_load(&in[r + 2][c]), f = f4_load(&in[r + 3][c]);
            F4 ab0 = __builtin_shuffle(a, b, (I4){0, 4, 1, 5});
            F4 ab1 = __builtin_shuffle(a, b, (I4){2, 6, 3, 7});
            F4 ef0 = __builtin_shuffle(e, f, (I4){0, 4, 1, 5});
            F4 ef1 = __builtin_shuffle(e, f, (I4){2, 6, 3, 7});
            F4 line[4] = {__builtin_shuffle(ab0, ef0, (I4){0, 1, 4, 5}),
                          __builtin_shuffle(ab0, ef0, (I4){2, 3, 6, 7}),
                          __builtin_shuffle(ab1, ef1, (I4){0, 1, 4, 5}),
                          __builtin_shuffle(ab1, ef1, (I4){2, 3, 6, 7})};
            for (int i = 0; i < 4; i++) memcpy(&out[c + i][r], &line[i], sizeof line[i]);
        }
    }
}

/* in[r] = elements i.. of line[r] (NULL: a line of zeros); beyond K, 0. */
ROW_KERNEL void square_get(float in[LANES][LANES], const void *const line[LANES], DType from,
                           int64_t i, int64_t K)
{
    for (int r = 0; r < LANES; r++) {
        V16 v = {0};
        if (line[r] && i + LANES <= K) v = v_get(line[r], from, i, LANES);
        else if (line[r] && i < K) v = v_get(line[r], from, i, K - i);
        v_store(in[r], v);
    }
}

ROW_KERNEL void pack_t_typed(const AttnPack *p, DType from, DType to)
{
    float in[LANES][LANES], out[LANES][LANES];
    for (int64_t line = 0; line < p->lines; line += LANES) {
        const void *source[LANES];
        for (int64_t r = 0; r < LANES; r++)
            source[r] = line + r < p->count ? attn_line(&p->from, p->line0 + line + r) : NULL;
        for (int64_t i = 0; i < p->width; i += LANES) {
            square_get(in, source, from, i, p->from.K);
            transpose16(out, in);
            for (int c = 0; c < LANES; c++)
                v_put(panel_at(p, i + c, line), to, 0, LANES, v_load(out[c]));
        }
    }
}

void attn_pack_t(const AttnPack *p)
{
    if (p->from.type == DT_F32) pack_t_typed(p, DT_F32, DT_F32);
    else if (p->type == DT_F32) pack_t_typed(p, DT_BF16, DT_F32);
    else pack_t_typed(p, DT_BF16, DT_BF16);
}

ROW_KERNEL void line_put(const AttnUnpack *u, DType type, int64_t line, int64_t i, V16 x)
{
    char *to = attn_line(&u->to, u->line0 + line);
    if (u->add) x += v_get(to, type, i, u->to.K - i);
    v_put(to, type, i, u->to.K - i, x);
}

ROW_KERNEL void unpack_typed(const AttnUnpack *u, DType type, float factor)
{
    for (int64_t line = 0; line < u->count; line++)
        for (int64_t i = 0; i < u->to.K; i += LANES)
            line_put(u, type, line, i, v_load(u->panel + line * u->ld + i) * factor);
}

void attn_unpack(const AttnUnpack *u, float factor)
{
    if (u->to.type == DT_F32) unpack_typed(u, DT_F32, factor);
    else unpack_typed(u, DT_BF16, factor);
}

ROW_KERNEL void unpack_t_typed(const AttnUnpack *u, DType type, const float *factor)
{
    float in[LANES][LANES], out[LANES][LANES];
    for (int64_t line = 0; line < u->count; line += LANES) {
        for (int64_t i = 0; i < u->to.K; i += LANES) {
            const float *corner = u->panel + i * u->ld + line;
            for (int c = 0; c < LANES; c++)
                v_store(in[c], v_load(corner + c * u->ld) * v_load(factor + line));
            transpose16(out, in);
            for (int64_t r = 0; r < LANES && line + r < u->count; r++)
                line_put(u, type, line + r, i, v_load(out[r]));
        }
    }
}

void attn_unpack_t(const AttnUnpack *u, const float factor[ATTN_ROWS])
{
    if (u->to.type == DT_F32) unpack_t_typed(u, DT_F32, factor);
    else unpack_t_typed(u, DT_BF16, factor);
}
