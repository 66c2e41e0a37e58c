/* device/cpu/attention.h - what the forward and the backward of attention share.
 *
 * The queries of one key head, (Tq, H / G) of them, are rows: row r is query r / (H / G), head
 * r % (H / G) of the group. So a key head's gradients sum over its query heads inside a product.
 * Work goes in blocks of 64 rows by blocks of keys, all transposed: S^T = K Q^T has a key a line
 * and a query a column, so that maxima and sums over keys run down the columns, one query a vector
 * lane, with no sum across lanes. Operands are copied ("packed") into zero-padded panels of the
 * panel type: the tensors' type, or f32 where bf16 products are not native.
 *
 * Bits of one query's result depend on that query, the keys it sees and their indexes alone: blocks
 * of keys start at fixed indexes, a hidden key adds exactly 0, a block without a visible key
 * changes nothing, and every column of a product is computed alike.
 */
#ifndef ISOMOE_DEVICE_CPU_ATTENTION_H
#define ISOMOE_DEVICE_CPU_ATTENTION_H

#include "base/err.h"
#include "base/size.h"
#include "device/cpu/gemm.h"
#include "device/cpu/rows.h"
#include "device/cpu/vec.h"

enum {
    ATTN_ROWS = 64,  /* rows of a block */
    ATTN_GROUPS = ATTN_ROWS / LANES,
    ATTN_STRIP = 32, /* keys whose visibility is decided together */
    ATTN_ALIGN = 64, /* key ranges start and end at multiples of it (panels are padded) */
    ATTN_SKEW = 16   /* extra columns of an f32 panel with lines a power of 2 apart: such lines
                        share cache sets. oneDNN, which gets the bf16 panels, wants them dense */
};

typedef struct AttnShape {
    int64_t B, Tq, Tk, H, G, K;
    int64_t group;      /* H / G */
    int64_t rows;       /* Tq * group */
    int64_t row_blocks;
    int64_t pairs;      /* B * G: (batch, key head) */
    int64_t keys;       /* keys that the last query may see: the others are not read */
    int64_t width;      /* K rounded up to what the products take */
    int64_t q_pos0, k_pos0;
    const int32_t *doc_start; /* (B, Tq) or NULL */
    float scale;
    float scale2; /* scale * log2(e): probabilities are powers of 2 here */
    DType type;   /* of the tensors */
    DType panel;  /* of the panels */
    int64_t panel_size; /* bytes of a panel element */
    int64_t skew;       /* ATTN_SKEW or 0 */
} AttnShape;

/* A block of rows of one pair, and what its rows see: row r the keys lo[r] <= s < hi[r]. Rows
 * from `count` on are padding and see what the last row sees. */
typedef struct AttnBlock {
    int64_t row0, count;
    int64_t cols;               /* columns in use: 16 (generation) or 64 */
    int64_t key_begin, key_end; /* all that some row sees, widened to ATTN_ALIGN; equal: nothing */
    int32_t lo[ATTN_ROWS], hi[ATTN_ROWS];
    int32_t lo_min[ATTN_GROUPS], lo_max[ATTN_GROUPS], hi_min[ATTN_GROUPS], hi_max[ATTN_GROUPS];
} AttnBlock;

/* Lines of K elements in a tensor: line r is at data + (r / group) * stride + (r % group) * K. */
typedef struct AttnLines {
    char *data;
    int64_t group, stride, K;
    DType type;
} AttnLines;

#define attn_shape CPU_NAME(attn_shape)
#define attn_block CPU_NAME(attn_block)
#define attn_query_lines CPU_NAME(attn_query_lines)
#define attn_key_lines CPU_NAME(attn_key_lines)
#define attn_pack CPU_NAME(attn_pack)
#define attn_pack_t CPU_NAME(attn_pack_t)
#define attn_mul CPU_NAME(attn_mul)
#define attn_line_dot CPU_NAME(attn_line_dot)
#define attn_unpack CPU_NAME(attn_unpack)
#define attn_unpack_t CPU_NAME(attn_unpack_t)

AttnShape attn_shape(const Device *d, const AttnTensors *a, const AttnOpt *opt);
void attn_block(AttnBlock *block, const AttnShape *sh, int64_t pair, int64_t index);

/* Lines of the queries (q, o, d_o, dq) or of the keys (k, v, dk, dv) of a pair, from `line` on. */
AttnLines attn_query_lines(const AttnShape *sh, Tensor t, int64_t pair);
AttnLines attn_key_lines(const AttnShape *sh, Tensor t, int64_t pair);

static inline char *attn_line(const AttnLines *l, int64_t r)
{
    int64_t element = r / l->group * l->stride + r % l->group * l->K;
    return l->data + element * (l->type == DT_F32 ? 4 : 2);
}

/* Line r of a times line r of b. */
float attn_line_dot(const AttnLines *a, const AttnLines *b, int64_t r);

/* Copies lines line0 .. line0+count-1 into `lines` x width (row stride ld), or transposed into
 * width x lines; what is beyond count or K is 0. */
typedef struct AttnPack {
    AttnLines from;
    int64_t line0, count;
    void *panel;
    DType type; /* of the panel */
    int64_t ld, lines, width;
} AttnPack;
void attn_pack(const AttnPack *p);
void attn_pack_t(const AttnPack *p);

/* Lines line0 .. line0+count-1 = (the old ones if add, +) factor * panel (f32). attn_unpack: panel
 * is count x width, one factor; attn_unpack_t: width x columns, factor[r] for column r. */
typedef struct AttnUnpack {
    AttnLines to;
    int64_t line0, count;
    const float *panel;
    int64_t ld;
    bool add;
} AttnUnpack;
void attn_unpack(const AttnUnpack *u, float factor);
void attn_unpack_t(const AttnUnpack *u, const float factor[ATTN_ROWS]);

/* C (+)= A B of panels; m a multiple of 16, n of LANES, no transposition, C f32. */
void attn_mul(const Device *d, const Gemm *g);

typedef enum AttnSight { SIGHT_NONE, SIGHT_PART, SIGHT_ALL } AttnSight;

/* What the 16 rows of a group see of the keys [begin, begin + ATTN_STRIP). */
static inline AttnSight attn_sight(const AttnBlock *block, int64_t group, int64_t begin)
{
    int64_t end = begin + ATTN_STRIP;
    if (begin >= block->hi_max[group] || end <= block->lo_min[group]) return SIGHT_NONE;
    if (begin >= block->lo_max[group] && end <= block->hi_min[group]) return SIGHT_ALL;
    return SIGHT_PART;
}

/* All ones in the lanes of the rows that see key s. */
static inline I16 attn_sees(const AttnBlock *block, int64_t group, int64_t s)
{
    I16 lo, hi, key = (int32_t)s - (I16){0};
    memcpy(&lo, block->lo + group * LANES, sizeof lo);
    memcpy(&hi, block->hi + group * LANES, sizeof hi);
    return (key >= lo) & (key < hi);
}

/* max(a, b), and b if either is NaN: one instruction where v_max takes three. */
static inline V16 attn_max(V16 a, V16 b)
{
#ifdef __AVX512F__
    return __builtin_ia32_maxps512_mask(a, b, a, 0xffff, 4);
#else
    return v_select(a > b, a, b);
#endif
}

/* 2^x for x <= 0 (or little above): 2^n 2^f, f in [-1/2, 1/2], 2^f by the polynomial of degree 6
 * with constant 1 whose largest relative error is smallest (below 1e-7 in f32). 2^0 is exactly 1;
 * below 2^-126 the result stays there; NaN stays NaN. v_exp covers both ends and takes twice as
 * long. */
static inline V16 attn_exp2(V16 x)
{
    const V16 magic = v_set(12582912.0f + 127.0f); /* 1.5 * 2^23: adding it rounds; 127: bias */
    V16 clamped = attn_max(v_set(-126.0f), x);
    V16 shifted = clamped + magic;
    V16 f = clamped - (shifted - magic);
    V16 p = v_set(1.55946778e-4f);
    p = p * f + 1.34066434e-3f;
    p = p * f + 9.61769279e-3f;
    p = p * f + 5.55031039e-2f;
    p = p * f + 2.40226522e-1f;
    p = p * f + 6.93147242e-1f;
    p = p * f + 1.0f;
    return p * (V16)((I16)shifted << 23);
}

#endif
