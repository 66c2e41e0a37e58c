/* device/cuda/attention_fwd.cu - attention, forward, own kernel: f32, bf16, any head width.
 *
 * o = softmax(scale q k^T + mask) v and lse, shapes in device.h. A block owns 64 rows and goes over
 * their keys in tiles of 64: S = q k^T into shared memory; four threads a row bring its maximum up
 * to date and put P = 2^(scale2 S - max) in place of S; O is scaled by 2^(old max - max), then
 * O += P v. At the end o = O / sum, lse = max ln 2 + ln(sum).
 * Bytes that must move: q, k, v, o once, lse. Moved: q once a tile of keys, k and v once a tile of
 * 64 rows (both from the second-level cache while a pair's k and v fit there). The work is bound by
 * multiply-adds, 4 K a visible pair and hidden pairs of tiles that the mask cuts.
 */
#include "device/cuda/attention.cuh"

enum { SPLIT = 4, STRETCH = ATTN_TILE / SPLIT }; /* threads a row, keys of each */

/* What a thread knows of its row of the softmax: row warp * 8 + lane % 8, keys from lane / 8 * 16
 * of a tile. */
struct RowState {
    int row, first; /* of the tile; first of its keys in a tile */
    AttnSight sight;
    float max, sum; /* of scale2 S over all its row's keys; of P over its own keys */
};

static __device__ RowState row_state(int lane, int warp)
{
    RowState r;
    r.row = warp * (WARP / SPLIT) + lane % (WARP / SPLIT);
    r.first = lane / (WARP / SPLIT) * STRETCH;
    r.max = -INFINITY;
    r.sum = 0.0f;
    return r;
}

/* P in place of S for the thread's keys of the tile that starts at key0; returns the factor on what
 * the row has summed so far. */
static inline __device__ float row_softmax(RowState *r, float4 *scores, int key0, float scale2)
{
    float4 *at = scores + r->row * ATTN_SPITCH + r->first / 4;
    union {
        float4 pack[STRETCH / 4];
        float x[STRETCH];
    } s;
    float max = -INFINITY;
#pragma unroll
    for (int i = 0; i < STRETCH / 4; i++) s.pack[i] = at[i];
#pragma unroll
    for (int i = 0; i < STRETCH; i++) {
        int key = key0 + r->first + i;
        s.x[i] = key >= r->sight.lo && key < r->sight.hi ? s.x[i] * scale2 : -INFINITY;
        max = fmaxf(max, s.x[i]);
    }
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, WARP / SPLIT));
    max = fmaxf(max, __shfl_xor_sync(WARP_ALL, max, 2 * WARP / SPLIT));
    max = fmaxf(max, r->max);
    float base = max == -INFINITY ? 0.0f : max, sum = 0.0f; /* nothing seen so far: all P are 0 */
#pragma unroll
    for (int i = 0; i < STRETCH; i++) {
        s.x[i] = exp2f(s.x[i] - base);
        sum += s.x[i];
    }
#pragma unroll
    for (int i = 0; i < STRETCH / 4; i++) at[i] = s.pack[i];
    float factor = exp2f(r->max - base);
    r->max = max;
    r->sum = fmaf(r->sum, factor, sum);
    return factor;
}

/* First and last key that a row of the tile sees; `lo` of all rows is in shared memory. */
static inline __device__ AttnSight tile_sight(const int *lo, const int *hi)
{
    AttnSight s = {lo[0], hi[0]};
    for (int i = 1; i < ATTN_TILE; i++) {
        s.lo = lo[i] < s.lo ? lo[i] : s.lo;
        s.hi = hi[i] > s.hi ? hi[i] : s.hi;
    }
    return s;
}

template <typename T, int NC>
KERNEL(ATTN_BLOCK) attention_fwd_kernel(AttnArgs<T> a, T *o, float *lse)
{
    SHARED(float4, panel, [ATTN_PANEL]);
    SHARED(float4, scores, [ATTN_SCORES]);
    SHARED(float, factors, [ATTN_TILE]); /* of the rows' sums */
    SHARED(int, lo, [ATTN_TILE]);
    SHARED(int, hi, [ATTN_TILE]);
    const int lane = (int)threadIdx.x % WARP, ty = (int)threadIdx.x / ATTN_LANES;
    AttnBlock k = attn_block(a, true);
    const int row0 = k.tile * ATTN_TILE, col0 = attn_column<NC>(k);
    AttnLines<const T> q = attn_rows(a, a.q, k), key = attn_keys(a, a.k, k);
    AttnLines<const T> value = attn_keys(a, a.v, k);
    RowState r = row_state(lane, (int)threadIdx.x / WARP);
    r.sight = attn_sight(a, k, row0 + r.row);
    if (lane < WARP / SPLIT) {
        lo[r.row] = r.sight.lo;
        hi[r.row] = r.sight.hi;
    }
    __syncthreads();
    AttnSight keys = tile_sight(lo, hi);
    float out[ATTN_OWN][NC] = {};
    for (int key0 = keys.lo / ATTN_TILE * ATTN_TILE; key0 < keys.hi; key0 += ATTN_TILE) {
        float s[ATTN_OWN][ATTN_OWN];
        attn_product(s, panel, q, row0, key, key0);
        attn_put(scores, s);
        __syncthreads();
        float factor = row_softmax(&r, scores, key0, a.scale * ATTN_LOG2E);
        if (lane < WARP / SPLIT) factors[r.row] = factor;
        __syncthreads();
#pragma unroll
        for (int i = 0; i < ATTN_OWN; i++) {
            float f = factors[ty + ATTN_LANES * i];
#pragma unroll
            for (int j = 0; j < NC; j++) out[i][j] *= f;
        }
        attn_add_product<NC>(out, scores, panel, value, key0, col0);
    }
    r.sum += __shfl_xor_sync(WARP_ALL, r.sum, WARP / SPLIT);
    r.sum += __shfl_xor_sync(WARP_ALL, r.sum, 2 * WARP / SPLIT);
    if (lane < WARP / SPLIT) { /* all have read the last factors: attn_add_product has barriers */
        factors[r.row] = r.sum == 0.0f ? 0.0f : 1.0f / r.sum;
        if (k.column == 0 && row0 + r.row < q.count)
            lse[attn_row_index(a, k, row0 + r.row)] =
                r.sum == 0.0f ? -INFINITY : r.max * ATTN_LN2 + logf(r.sum);
    }
    __syncthreads();
    AttnLines<T> to = attn_rows(a, o, k);
#pragma unroll
    for (int i = 0; i < ATTN_OWN; i++) {
        int row = ty + ATTN_LANES * i;
        attn_store<NC>(to, row0 + row, col0, factors[row], out[i], false);
    }
}

/* ---- Host -------------------------------------------------------------------------------------*/

template <typename T, int NC> static void launch(Device *d, const AttnArgs<T> &s, T *o, float *lse)
{
    LAUNCH((attention_fwd_kernel<T, NC>), attn_grid(s, (int64_t)s.Tq * s.group), ATTN_BLOCK, 0,
           cuda_stream(d), s, o, lse);
}

template <typename T> static int forward(Device *d, const AttnTensors &a, const AttnOpt *opt)
{
    AttnArgs<T> s = attn_args<T>(a, opt, true);
    T *o = (T *)a.o.data;
    float *lse = (float *)a.lse.data;
    if (s.width <= 16) launch<T, 1>(d, s, o, lse);
    else if (s.width <= 32) launch<T, 2>(d, s, o, lse);
    else if (s.width <= 64) launch<T, 4>(d, s, o, lse);
    else if (s.width <= 80) launch<T, 5>(d, s, o, lse);
    else if (s.width <= 96) launch<T, 6>(d, s, o, lse);
    else launch<T, 8>(d, s, o, lse);
    return cuda_launched(d, "attention_fwd");
}

int attn_own_fwd(Device *d, AttnTensors a, const AttnOpt *opt)
{
    if (tensor_elements(a.q) == 0) return 0;
    return a.q.type == DT_F32 ? forward<float>(d, a, opt) : forward<bf16>(d, a, opt);
}
