/* tests/simt/test_simt_mma.cu - tensor-core products on the emulated GPU: the instructions against
 * plain loops, with layouts worked out here from the PTX manual; the text of the PTX, which no test
 * can run; mistakes that the emulator must find; and the tiles' products, ends and bits. */
#include <math.h>
#include <string.h>

#include <string>
#include <vector>

#include "device/cuda/gemm.h"
#include "device/cuda/mma_tile.cuh"
#include "tests/simt/simt_expect.h"

/* ---- Layouts: who holds an element (the manual's figures, read from the other side) -----------*/

struct Owner {
    int lane, index; /* of the lane's bf16 elements a0..a7, b0..b3, or its c0..c3 */
};
static inline Owner owner_of_a(int row, int k)
{
    return {row % 8 * 4 + k % 8 / 2, (k >= 8 ? 4 : 0) + (row >= 8 ? 2 : 0) + (k & 1)};
}
static inline Owner owner_of_b(int k, int col)
{
    return {col * 4 + k % 8 / 2, (k >= 8 ? 2 : 0) + (k & 1)};
}
static inline Owner owner_of_c(int row, int col)
{
    return {row % 8 * 4 + col / 2, (row >= 8 ? 2 : 0) + (col & 1)};
}

/* The bits of a small whole number in bf16. */
static inline uint16_t half_of(int x) { return (uint16_t)(__float_as_uint((float)x) >> 16); }

static inline void put_half(uint32_t *registers, int index, uint16_t bits)
{
    registers[index / 2] |= (uint32_t)bits << (index % 2 * 16);
}

/* c (16, 8) += a (16, 16) b (16, 8), whole numbers. */
KERNEL(32) one_product(float *c, const int *a, const int *b)
{
    int lane = (int)threadIdx.x;
    uint32_t left[4] = {}, right[2] = {};
    float sum[4] = {};
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            if (owner_of_a(i, k).lane == lane)
                put_half(left, owner_of_a(i, k).index, half_of(a[i * 16 + k]));
    for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++)
            if (owner_of_b(k, j).lane == lane)
                put_half(right, owner_of_b(k, j).index, half_of(b[k * 8 + j]));
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            if (owner_of_c(i, j).lane == lane) sum[owner_of_c(i, j).index] = c[i * 8 + j];
    mma_bf16(sum, left, right[0], right[1]);
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
            if (owner_of_c(i, j).lane == lane) c[i * 8 + j] = sum[owner_of_c(i, j).index];
}

static void mma_equals_plain_loops(void **)
{
    int a[16 * 16], b[16 * 8];
    float c[16 * 8], want[16 * 8], got[16 * 8];
    for (int i = 0; i < 16 * 16; i++) a[i] = (i * 73 + 11) % 256 - 128;
    for (int i = 0; i < 16 * 8; i++) b[i] = (i * 41 + 5) % 128 - 64;
    for (int i = 0; i < 16 * 8; i++) {
        c[i] = want[i] = (float)(i * 7 - 300);
        for (int k = 0; k < 16; k++) want[i] += (float)(a[i / 8 * 16 + k] * b[k * 8 + i % 8]);
    }
    cudaStream_t stream = simt_new_stream();
    int *da = simt_device(a, 16 * 16), *db = simt_device(b, 16 * 8);
    float *dc = simt_device(c, 16 * 8);
    LAUNCH(one_product, 1, 32, 0, stream, dc, da, db);
    cudaStreamSynchronize(stream);
    cudaMemcpy(got, dc, sizeof got, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 16 * 8; i++)
        if (got[i] != want[i]) fail_msg("element %d: %g, not %g", i, got[i], want[i]);
    for (void *p : {(void *)da, (void *)db, (void *)dc}) cudaFree(p);
    cudaStreamDestroy(stream);
}

/* Element (row, col) of matrix m is 100 m + 10 row + col; register r of a lane goes to out[r]. */
KERNEL(32) load_matrices(uint32_t *out, bool transposed)
{
    SHARED(uint4, rows, [32]);
    int lane = (int)threadIdx.x;
    uint32_t r[4];
    for (int col = 0; col < 8; col++)
        ((uint16_t *)&rows[lane])[col] = (uint16_t)(100 * (lane / 8) + 10 * (lane % 8) + col);
    __syncwarp();
    if (transposed) matrix_load_trans(r, &rows[lane]);
    else matrix_load(r, &rows[lane]);
    for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
}

static void matrices_are_dealt_out(void **)
{
    cudaStream_t stream = simt_new_stream();
    uint32_t got[128], *out = simt_device((const uint32_t *)NULL, 128);
    for (int transposed = 0; transposed < 2; transposed++) {
        LAUNCH(load_matrices, 1, 32, 0, stream, out, transposed != 0);
        cudaStreamSynchronize(stream);
        cudaMemcpy(got, out, sizeof got, cudaMemcpyDeviceToHost);
        for (int i = 0; i < 128; i++) {
            unsigned lane = (unsigned)i / 4, m = (unsigned)i % 4;
            unsigned slow = lane / 4, fast = lane % 4 * 2; /* row and column, or the reverse */
            unsigned first = 100 * m + (transposed ? 10 * fast + slow : 10 * slow + fast);
            unsigned second = first + (transposed ? 10 : 1);
            assert_int_equal(got[i], first | second << 16);
        }
    }
    cudaFree(out);
    cudaStreamDestroy(stream);
}

/* ---- Texts ------------------------------------------------------------------------------------*/

/* A file of the tree without blanks, line ends and quotation marks. */
static std::string squeezed(const char *path)
{
    std::string text;
    FILE *f = fopen(path, "r");
    if (!f) fail_msg("%s does not open: run from the tree's root", path);
    for (int c; (c = fgetc(f)) != EOF;)
        if (c != ' ' && c != '\n' && c != '"') text += (char)c;
    fclose(f);
    return text;
}

static void need_text(const std::string &text, const char *wanted)
{
    if (text.find(wanted) == std::string::npos) fail_msg("not there: %s", wanted);
}

/* What the manual's syntax and operand order ask for; and that kernels and emulator take layouts
 * from the one table. */
static void ptx_is_as_the_manual_says(void **)
{
    const std::string ptx = squeezed("device/cuda/mma.cuh");
    const std::string sim = squeezed("tests/simt/sim_mma.cc");
    need_text(ptx, "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32{%0,%1,%2,%3},"
                   "{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};:+f(c[0]),+f(c[1]),+f(c[2]),+f(c[3])"
                   ":r(a[0]),r(a[1]),r(a[2]),r(a[3]),r(b0),r(b1));");
    need_text(ptx, "ldmatrix.sync.aligned.m8n8.x4.shared.b16{%0,%1,%2,%3},[%4];:=r(r[0]),=r(r[1]),"
                   "=r(r[2]),=r(r[3]):r((uint32_t)__cvta_generic_to_shared(row)):memory);");
    need_text(ptx, "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16{%0,%1,%2,%3},[%4];"
                   ":=r(r[0]),=r(r[1]),=r(r[2]),=r(r[3])"
                   ":r((uint32_t)__cvta_generic_to_shared(row)):memory);");
    need_text(ptx, "cp.async.cg.shared.global[%0],[%1],16,%2;::r((uint32_t)"
                   "__cvta_generic_to_shared(to)),l(__cvta_generic_to_global(from)),r(bytes)"
                   ":memory);");
    need_text(ptx, "asmvolatile(cp.async.commit_group;:::memory);");
    need_text(ptx, "asmvolatile(cp.async.wait_group%0;::n(LEFT):memory);");
    for (const char *layout : {"mma_a_row(lane,r)", "mma_a_k(lane,r)", "mma_b_k(lane,r)",
                               "mma_b_col(lane)", "mma_c_row(lane,i)", "mma_c_col(lane,i)",
                               "matrix_row(lane)", "matrix_col(lane)"})
        need_text(sim, layout);
    need_text(squeezed("device/cuda/mma_tile.cuh"), "mma_c_row(lane,c)");
    need_text(squeezed("device/cuda/mma_tile.cuh"), "mma_c_col(lane,c)");
}

/* ---- Places in shared memory ------------------------------------------------------------------*/

/* Every pack has a place of its own, and the 8 that are read (a matrix) or written (neighbouring
 * threads) at once lie in 8 different groups of 4 banks. */
template <bool ALONG_K> static void places_hold()
{
    constexpr int LINES = ALONG_K ? MMA_TILE : MMA_SLICE, PACKS = MMA_PACKS / LINES;
    std::vector<bool> taken(MMA_PACKS);
    for (int i = 0; i < MMA_PACKS; i++) {
        int place = mma_place<ALONG_K>(i / PACKS, i % PACKS);
        assert_in_range(place, 0, MMA_PACKS - 1);
        assert_false(taken[(size_t)place]);
        taken[(size_t)place] = true;
    }
    for (int i = 0; i < MMA_PACKS; i += 8) {
        unsigned together = 0, matrix = 0;
        for (int j = 0; j < 8; j++) {
            together |= 1u << mma_place<ALONG_K>((i + j) / PACKS, (i + j) % PACKS) % 8;
            matrix |= 1u << mma_place<ALONG_K>(i / 8 % (LINES / 8) * 8 + j, i / LINES) % 8;
        }
        assert_int_equal(together, 0xff);
        assert_int_equal(matrix, 0xff);
    }
}

static void places_meet_in_no_bank(void **)
{
    places_hold<true>();
    places_hold<false>();
}

/* ---- Mistakes ---------------------------------------------------------------------------------*/

KERNEL(32) product_of(int lanes)
{
    float c[4] = {};
    uint32_t a[4] = {};
    if ((int)threadIdx.x < lanes) mma_bf16(c, a, 0, 0);
}

/* Row `lane`, shifted by so many bytes; filled if asked for, last by the lane's neighbour. */
KERNEL(32) load_of(int shift, bool filled, bool sync)
{
    SHARED(uint4, rows, [32]);
    uint32_t r[4];
    if (filled) rows[threadIdx.x] = make_uint4(1, 2, 3, 4);
    __syncwarp();
    if (filled) rows[threadIdx.x ^ 1] = make_uint4(5, 6, 7, 8);
    if (sync) __syncwarp();
    matrix_load(r, (const uint4 *)((const char *)rows + 16 * (int)threadIdx.x + shift));
}

enum CopyFault { COPY_FINE, COPY_SOON, COPY_LEFT, COPY_SKEW, COPY_INWARD, COPY_LONG, COPY_OVER,
                 COPY_REUSED };

/* Two groups of a copy each; the first is read by the neighbour, with the second one under way. */
template <CopyFault FAULT> KERNEL(32) copies(uint32_t *to, const uint32_t *from)
{
    SHARED(uint4, a, [32]);
    SHARED(uint4, b, [32]);
    int t = (int)threadIdx.x;
    const uint32_t *source = from + 4 * t + (FAULT == COPY_SKEW);
    if (FAULT == COPY_INWARD) source = (const uint32_t *)&b[t];
    copy_start(&a[t], source, FAULT == COPY_LONG ? 17 : FAULT == COPY_OVER && t == 31 ? 16 : 12);
    copy_group();
    copy_start(&b[t], from + 4 * t, 0);
    copy_group();
    if (FAULT == COPY_SOON) copy_wait<2>();
    else copy_wait<1>();
    __syncwarp();
    uint4 v = a[t ^ 1];
    if (FAULT == COPY_REUSED) {
        copy_start(&a[t], from + 4 * t, 8);
        copy_group();
    }
    if (FAULT != COPY_LEFT) copy_wait<0>();
    __syncwarp();
    uint4 w = b[t ^ 1];
    to[4 * t] = v.x, to[4 * t + 1] = v.y, to[4 * t + 2] = v.z, to[4 * t + 3] = v.w | w.x | w.w;
}

template <CopyFault FAULT> static void run_copies()
{
    enum { WORDS = 127 }; /* the last thread's fourth word is not there */
    uint32_t x[WORDS], y[128];
    for (uint32_t i = 0; i < WORDS; i++) x[i] = i + 1;
    uint32_t *from = simt_device(x, WORDS), *to = simt_device((const uint32_t *)NULL, 128);
    cudaStream_t stream = simt_new_stream();
    LAUNCH(copies<FAULT>, 1, 32, 0, stream, to, from);
    cudaStreamSynchronize(stream);
    cudaMemcpy(y, to, sizeof y, cudaMemcpyDeviceToHost);
    for (int i = 0; i < 128; i++) {
        uint32_t want = i % 4 == 3 ? 0 : (uint32_t)(((i / 4) ^ 1) * 4 + i % 4 + 1);
        if (y[i] != want) {
            fprintf(stderr, "word %d is %x\n", i, y[i]);
            _exit(SIM_FAULT_EXIT);
        }
    }
    cudaFree(from);
    cudaFree(to);
}

static void run_load(int shift, bool filled, bool sync)
{
    cudaStream_t stream = simt_new_stream();
    LAUNCH(load_of, 1, 32, 0, stream, shift, filled, sync);
    cudaStreamSynchronize(stream);
}

static void run_product(int lanes)
{
    cudaStream_t stream = simt_new_stream();
    LAUNCH(product_of, 1, 32, 0, stream, lanes);
    cudaStreamSynchronize(stream);
}

static void lanes_that_do_not_come(void **)
{
    expect_clean([] { run_product(32); });
    expect_fault([] { run_product(31); }, "mma_bf16: ");
    expect_fault([] { run_product(31); }, "names lane 31, which has ended");
}

static void loads_that_may_not_be(void **)
{
    expect_clean([] { run_load(0, true, true); });
    expect_fault([] { run_load(8, true, true); }, "is not on 16 bytes");
    expect_fault([] { run_load(16, true, true); }, "is no shared memory of this block");
    if (!simt_checks) return;
    expect_fault([] { run_load(0, false, true); }, "uninitialised");
    expect_fault([] { run_load(0, true, false); }, "race on byte");
}

static void copies_that_may_not_be(void **)
{
    expect_clean(run_copies<COPY_FINE>);
    expect_fault(run_copies<COPY_SOON>, simt_checks ? "race on byte" : "word 0 is ffffffff");
    expect_fault(run_copies<COPY_LEFT>, "ended without waiting for it");
    expect_fault(run_copies<COPY_SKEW>, "is not on 16 bytes");
    expect_fault(run_copies<COPY_INWARD>, "is no global memory");
    expect_fault(run_copies<COPY_LONG>, "copy_start: 17 bytes");
    if (simt_checks) {
        expect_fault(run_copies<COPY_OVER>, "out of bounds");
        expect_fault(run_copies<COPY_REUSED>, "race on byte");
    }
}

/* ---- Products of the device -------------------------------------------------------------------*/

static Device *device;

static int open_device(void **)
{
    Err e = {};
    device = device_create("cuda", NULL, &e);
    if (!device) fprintf(stderr, "%s\n", e.message);
    return device ? 0 : -1;
}

static int close_device(void **)
{
    device_destroy(&device);
    return 0;
}

/* Rows of small whole numbers, whose products and sums are exact, and NaN in the last `pad`
 * columns. */
static std::vector<float> matrix(int64_t rows, int64_t cols, int64_t pad, int seed)
{
    std::vector<float> x((size_t)(rows * (cols + pad)));
    for (int64_t i = 0; i < (int64_t)x.size(); i++)
        x[(size_t)i] = i % (cols + pad) < cols ? (float)((i * 37 + seed * 101) % 9 - 4) : NAN;
    return x;
}

static Tensor upload(Tensor shape, const std::vector<float> &values)
{
    Err e = {};
    shape.data = dev_alloc(device, tensor_bytes(shape), "test", &e);
    std::vector<uint16_t> half(values.size());
    for (size_t i = 0; i < values.size(); i++) half[i] = bf16_from_f32(values[i]);
    dev_upload(device, shape, shape.type == DT_F32 ? (const void *)values.data() : half.data());
    return shape;
}

static Tensor upload_flat(DType type, const std::vector<float> &values)
{
    return upload(tensor_1d(NULL, type, (int64_t)values.size()), values);
}

/* `got` must be `want` rounded to the type, NaN where that is NaN. */
static void expect(Tensor t, const std::vector<float> &want, const char *what)
{
    size_t n = want.size();
    std::vector<float> got(n);
    std::vector<uint16_t> half(n);
    dev_download(device, t.type == DT_F32 ? (void *)got.data() : half.data(), t);
    for (size_t i = 0; i < n; i++) {
        float w = t.type == DT_F32 ? want[i] : bf16_to_f32(bf16_from_f32(want[i]));
        float g = t.type == DT_F32 ? got[i] : bf16_to_f32(half[i]);
        if (g != w && !(isnan(g) && isnan(w))) fail_msg("%s, %zu: %g, not %g", what, i, g, w);
    }
}

struct Sizes {
    int64_t m, n, k, count;
    bool a_trans, b_trans;
    DType c_type;
    float alpha, beta;
    bool bias;
    int64_t pad_a, pad_b, pad_c;
};

static const Sizes products[] = {
    {128, 128, 64, 1, false, true, DT_BF16, 1, 0, false, 0, 0, 1},
    {130, 72, 40, 1, false, true, DT_BF16, 1, 0, true, 8, 0, 0}, /* a bias under bf16 */
    {70, 136, 97, 1, false, false, DT_BF16, 2, 1, false, 7, 0, 1},
    {136, 200, 130, 1, true, false, DT_F32, 1, 1, false, 0, 0, 3},
    {5, 7, 33, 2, true, true, DT_F32, -1, 0, true, 0, 1, 0},
    {200, 33, 31, 1, true, false, DT_BF16, 1, -1, false, 3, 2, 0},
    {1, 1, 1, 3, false, false, DT_F32, 1, 0, false, 0, 0, 0},
    {9, 130, 0, 1, false, true, DT_F32, 1, 2, true, 8, 8, 0},
    {64, 160, 257, 1, false, true, DT_F32, 1, 0, false, 7, 7, 5},
};

static void product_holds(const Sizes &z)
{
    int64_t rows_a = z.a_trans ? z.k : z.m, cols_a = z.a_trans ? z.m : z.k;
    int64_t rows_b = z.b_trans ? z.n : z.k, cols_b = z.b_trans ? z.k : z.n;
    int64_t lda = cols_a + z.pad_a, ldb = cols_b + z.pad_b, ldc = z.n + z.pad_c;
    std::vector<float> a = matrix(z.count * rows_a + 1, cols_a, z.pad_a, 1);
    std::vector<float> b = matrix(z.count * rows_b + 1, cols_b, z.pad_b, 2);
    std::vector<float> c = matrix(z.count * z.m, z.n, z.pad_c, 3), bias = matrix(1, z.n, 0, 4);
    std::vector<float> want = c;
    for (int64_t p = 0; p < z.count; p++)
        for (int64_t i = 0; i < z.m; i++)
            for (int64_t j = 0; j < z.n; j++) {
                const float *x = &a[(size_t)(p * rows_a * lda)];
                const float *y = &b[(size_t)(p * rows_b * ldb)];
                float sum = 0;
                for (int64_t l = 0; l < z.k; l++)
                    sum += x[z.a_trans ? l * lda + i : i * lda + l] *
                           y[z.b_trans ? j * ldb + l : l * ldb + j];
                float &to = want[(size_t)(p * z.m * ldc + i * ldc + j)];
                to = z.alpha * sum + (z.beta != 0 ? z.beta * to : 0);
                if (z.bias) to += bias[(size_t)j];
            }
    Tensor ta = upload_flat(DT_BF16, a), tb = upload_flat(DT_BF16, b);
    Tensor tc = upload_flat(z.c_type, c), t = upload_flat(DT_F32, bias);
    CudaGemm g = {.m = z.m, .n = z.n, .k = z.k, .count = z.count, .a = ta.data, .lda = lda,
                  .a_step = rows_a * lda, .a_trans = z.a_trans, .b = tb.data, .ldb = ldb,
                  .b_step = rows_b * ldb, .b_trans = z.b_trans, .c = tc.data, .ldc = ldc,
                  .c_step = z.m * ldc, .add = tc.data, .alpha = z.alpha, .beta = z.beta,
                  .bias = z.bias ? (const float *)t.data : NULL, .type = DT_BF16,
                  .c_type = z.c_type};
    assert_false(gemm_fits_library(&g));
    assert_int_equal(gemm_run(device, "test", &g), 0);
    expect(tc, want, "product");
    for (Tensor *x : {&ta, &tb, &tc, &t}) dev_free(device, x->data);
}

static void products_and_their_ends(void **)
{
    for (const Sizes &z : products) product_holds(z);
}

/* Runs of rows that only the device knows: none, one, more than a tile, from odd rows on. */
static void experts_hold(int64_t O, int64_t I)
{
    enum { E = 4 };
    const int32_t begin[E + 1] = {0, 130, 130, 135, 264};
    const int64_t R = 264;
    std::vector<float> x = matrix(R, I, 0, 1), w = matrix(E * O, I, 0, 2), y = matrix(R, O, 0, 3);
    std::vector<float> dx = matrix(R, I, 0, 4), dw = matrix(E * O, I, 0, 5);
    std::vector<float> want_y((size_t)(R * O));
    Tensor tx = upload(tensor_2d(NULL, DT_BF16, R, I), x);
    Tensor tw = upload(tensor_3d(NULL, DT_BF16, E, O, I), w);
    Tensor ty = upload(tensor_2d(NULL, DT_BF16, R, O), y);
    Tensor out = upload(ty, y), tdx = upload(tx, dx), rows = tensor_1d(NULL, DT_I32, E + 1);
    Tensor tdw = upload(tensor_3d(NULL, DT_F32, E, O, I), dw);
    Err err = {};
    rows.data = dev_alloc(device, sizeof begin, "test", &err);
    dev_upload(device, rows, begin);
    for (int e = 0; e < E; e++)
        for (int64_t r = begin[e]; r < begin[e + 1]; r++)
            for (int64_t o = 0; o < O; o++) {
                float sum = 0, dy = y[(size_t)(r * O + o)];
                for (int64_t i = 0; i < I; i++) {
                    size_t at = (size_t)((e * O + o) * I + i), in = (size_t)(r * I + i);
                    sum += x[in] * w[at];
                    dx[in] += dy * w[at];
                    dw[at] += dy * x[in];
                }
                want_y[(size_t)(r * O + o)] = sum;
            }
    dev_expert_linear_fwd(device, out, tx, tw, rows);
    expect(out, want_y, "y");
    LinearGrad g = {};
    g.dx = tdx, g.dx_add = true, g.dw = tdw;
    dev_expert_linear_bwd(device, g, ty, tx, tw, rows);
    expect(tdx, dx, "dx");
    expect(tdw, dw, "dw");
    for (Tensor *t : {&tx, &tw, &ty, &out, &tdx, &rows, &tdw}) dev_free(device, t->data);
}

static void experts_with_rows_of_the_device(void **)
{
    experts_hold(136, 72); /* rows on 16 bytes, or not */
    experts_hold(33, 131);
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mma_equals_plain_loops), cmocka_unit_test(matrices_are_dealt_out),
        cmocka_unit_test(ptx_is_as_the_manual_says), cmocka_unit_test(places_meet_in_no_bank),
        cmocka_unit_test(lanes_that_do_not_come), cmocka_unit_test(loads_that_may_not_be),
        cmocka_unit_test(copies_that_may_not_be), cmocka_unit_test(products_and_their_ends),
        cmocka_unit_test(experts_with_rows_of_the_device),
    };
    return cmocka_run_group_tests_name("simt_mma", tests, open_device, close_device);
}
