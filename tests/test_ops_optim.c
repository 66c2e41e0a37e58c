/* tests/test_ops_optim.c - adamw, sqsum, sqdiff, clip and step_begin against the oracle. */
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

#include "base/philox.h"
#include "tests/ref/group.h"
#include "tests/ref/harness.h"
#include "tests/ref/ref.h"

/* ---- AdamW ------------------------------------------------------------------------------------*/

typedef struct AdamwCase {
    int64_t n;
    bool bf16;   /* with a bf16 copy */
    int64_t skip;
    int64_t t;   /* number of this update */
    double weight_decay, grad_scale, lr_ratio, lr, eps, size; /* size of the gradients */
    int64_t runs; /* with a rate for each of so many runs */
    bool rounded; /* moments in bf16 */
} AdamwCase;

static const AdamwCase adamw_cases[] = {
    {1, true, 0, 1, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, false},
    {15, false, 0, 1, 0, 1, 1, 3e-4, 1e-8, 1, 0, false},
    {17, true, 0, 3, 0.1, 0.37, 0.31, 0.1, 1e-8, 1, 0, false},
    {1000, true, 0, 100, 0.1, 1, 1, 0.1, 1e-2, 1, 0, false},
    {100, false, 0, 1, 0, 1, 1, 0.1, 1e-8, 1e-8, 0, false}, /* eps in charge */
    {1000, true, 1, 2, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, false},
    {33, false, 1, 2, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, false},
    {70001, true, 0, 7, 0.1, 0.5, 0.31, 3e-4, 1e-8, 1, 0, false},
    {4096, false, 0, 100000, 0, 1, 2, 3e-4, 1e-8, 1, 0, false},
    {0, true, 0, 1, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, false},
    {21, true, 0, 2, 0.1, 1, 0.5, 0.1, 1e-8, 1, 3, false},
    {1000, false, 0, 3, 0.1, 0.3, 1, 0.1, 1e-8, 1, 1000, false},
    {3 * 17001, true, 0, 2, 0.1, 1, 1, 0.1, 1e-8, 1, 3, false}, /* longer than a block */
    {40, true, 1, 2, 0.1, 1, 1, 0.1, 1e-8, 1, 4, false},
    {1, true, 0, 1, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, true},
    {515, false, 0, 3, 0.1, 0.37, 0.31, 0.1, 1e-8, 1, 0, true},
    {3 * 17001, true, 0, 2, 0.1, 1, 1, 0.1, 1e-8, 1, 3, true},
    {1000, true, 0, 3, 0.1, 0.37, 0.31, 0.1, 1e-8, 1, 0, true}, /* whole packs */
    {2400, false, 0, 2, 0.1, 1, 1, 0.1, 1e-8, 1, 3, true},
    {33, true, 0, 2, 0.1, 1, 1, 0.1, 1e-8, 1e-18, 0, true}, /* second moments below 2^-126 */
    {100, true, 1, 2, 0.1, 1, 1, 3e-4, 1e-8, 1, 0, true},
};
enum { ADAMW_CASES = sizeof adamw_cases / sizeof *adamw_cases };

typedef struct AdamwExtra {
    AdamwOpt opt;
    bool check_copy;
    const RefAdamw *rounded; /* moments before they are rounded, or NULL */
    int *wrong; /* copies that are not the rounded master, moments that are not rounded right */
} AdamwExtra;

static void check_copy(Device *d, AdamwTensors t, int *wrong)
{
    int64_t n = tensor_elements(t.master);
    float *master = malloc(sizeof *master * (size_t)(n + 1));
    uint16_t *copy = malloc(sizeof *copy * (size_t)(n + 1));
    dev_download(d, master, t.master);
    dev_download(d, copy, t.weight);
    for (int64_t i = 0; i < n; i++) *wrong += copy[i] != bf16_from_f32(master[i]);
    free(master);
    free(copy);
}

/* Each moment is the exact one, or what f32 arithmetic may have made of it, rounded by the word of
 * its element. */
static void check_moments(Device *d, AdamwTensors t, const RefAdamw *a, int *wrong)
{
    uint16_t *m = malloc(sizeof *m * (size_t)(a->n + 1)), *v = malloc(sizeof *v * (size_t)a->n + 2);
    PhiloxKey key = {a->vars.seed, RNG_ROUND, a->opt.rounding.stream, (uint64_t)a->vars.step};
    dev_download(d, m, t.m);
    dev_download(d, v, t.v);
    for (int64_t i = 0; i < a->n; i++) {
        uint32_t word = philox_u32(&key, a->opt.rounding.first + (uint64_t)i);
        double error_m = tol_element(DT_F32, TOL_C, 0, a->m_mag[i], 0);
        double error_v = tol_element(DT_F32, TOL_C, 0, a->v_mag[i], 0);
        *wrong += !ref_rounds_to(bf16_to_f32(m[i]), a->m[i], error_m, word & 0xffff);
        *wrong += !ref_rounds_to(bf16_to_f32(v[i]), a->v[i], error_v, word >> 16);
    }
    free(m);
    free(v);
}

static void call_adamw(Device *d, const Rig *r, const void *context)
{
    const AdamwExtra *x = context;
    AdamwTensors t = {.master = rig_get(r, "master"), .weight = rig_get(r, "weight"),
                      .grad = rig_get(r, "grad"), .m = rig_get(r, "m"), .v = rig_get(r, "v")};
    AdamwOpt opt = x->opt;
    opt.lr_each = rig_get(r, "each");
    dev_adamw(d, t, &opt, rig_vars(r, "vars"));
    if (x->check_copy) check_copy(d, t, x->wrong);
    if (x->rounded) check_moments(d, t, x->rounded, x->wrong);
}

static void expect_adamw(Rig *r, const RefAdamw *a, const AdamwCase *c)
{
    ref_adamw(a);
    if (!c->bf16) return;
    Tensor shape = tensor_1d(NULL, DT_BF16, c->n);
    if (c->skip) {
        rig_inout(r, "weight", shape, 1, TOL_EXACT);
        return;
    }
    Slot *copy = rig_out(r, "weight", shape, tol_pointwise());
    memcpy(copy->want, a->w, sizeof *a->w * (size_t)c->n);
    memcpy(copy->mag, a->w_mag, sizeof *a->w * (size_t)c->n);
}

/* The unrounded moments go to *exact; the slots then take anything. */
static void keep_exact(RefAdamw *exact, Slot *m, Slot *v)
{
    size_t bytes = sizeof *m->want * (size_t)(exact->n + 1);
    Slot *slot[] = {m, v};
    double **to[] = {&exact->m, &exact->m_mag, &exact->v, &exact->v_mag};
    for (int i = 0; i < 4; i++) {
        *to[i] = malloc(bytes);
        memcpy(*to[i], i % 2 ? slot[i / 2]->mag : slot[i / 2]->want, bytes);
    }
    for (int64_t i = 0; i < exact->n; i++) m->want[i] = v->want[i] = NAN;
}

static void drop_exact(RefAdamw *exact)
{
    free(exact->m);
    free(exact->m_mag);
    free(exact->v);
    free(exact->v_mag);
}

static int adamw_case(const AdamwCase *c)
{
    int wrong = 0;
    AdamwExtra x = {.opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = c->eps, .lr_ratio = c->lr_ratio,
                            .weight_decay = c->weight_decay,
                            .rounding = {.stream = 3, .first = c->n % 2 ? 1001 : 0}},
                    .check_copy = c->bf16 && !c->skip, .wrong = &wrong};
    StepVars vars = {.seed = 11, .lr = c->lr, .bias1 = 1 - pow(0.9, (double)c->t), .step = 5,
                     .bias2 = 1 - pow(0.95, (double)c->t), .grad_scale = c->grad_scale,
                     .skip = c->skip};
    Rig *r = rig_new("adamw", "n %d%s%s%s t %d decay %g scale %g ratio %g size %g runs %d",
                     (int)c->n, c->bf16 ? " bf16" : "", c->skip ? " skip" : "",
                     c->rounded ? " bf16 moments" : "", (int)c->t, c->weight_decay, c->grad_scale,
                     c->lr_ratio, c->size, (int)c->runs);
    double terms = c->skip ? TOL_EXACT : tol_pointwise();
    Tensor shape = tensor_1d(NULL, DT_F32, c->n), moment = shape;
    if (c->rounded) moment.type = DT_BF16;
    rig_in_vars(r, "vars", &vars);
    Slot *w = rig_inout(r, "master", shape, 0.5, terms);
    Slot *m = rig_inout(r, "m", moment, 0.1 * c->size, terms);
    Slot *grad = rig_in(r, "grad", shape, 0.2 * c->size);
    double *squares = malloc(sizeof *squares * (size_t)(c->n + 1));
    for (int64_t i = 0; i < c->n; i++)
        squares[i] = i % 7 ? 0.01 * c->size * c->size * rig_uniform(r) : 0;
    Slot *v = rig_inout_values(r, "v", moment, squares, terms);
    RefAdamw a = {.n = c->n, .opt = x.opt, .vars = vars, .w = w->want, .grad = grad->value,
                  .m = m->want, .v = v->want, .w_mag = w->mag, .m_mag = m->mag, .v_mag = v->mag,
                  .runs = c->runs}, exact;
    if (c->runs) a.each = rig_in(r, "each", tensor_1d(NULL, DT_F32, c->runs), 1)->value;
    expect_adamw(r, &a, c);
    exact = a;
    bool check = c->rounded && !c->skip;
    if (check) keep_exact(&exact, m, v);
    x.rounded = check ? &exact : NULL;
    int failures = rig_run(r, call_adamw, &x);
    if (wrong) rig_fail(r, "%d bf16 copies or moments are not rounded as they must be", wrong);
    if (check) drop_exact(&exact);
    free(squares);
    rig_free(r);
    return failures + wrong;
}

static void adamw(void **state)
{
    (void)state;
    int failures = 0;
    for (int i = 0; i < ADAMW_CASES; i++) failures += adamw_case(&adamw_cases[i]);
    assert_int_equal(failures, 0);
}

/* A gradient that is not finite changes nothing when the step is skipped. */
static void adamw_skips_nan(void **state)
{
    (void)state;
    StepVars vars = {.lr = 1, .bias1 = 0.1, .bias2 = 0.05, .grad_scale = NAN, .grad_norm = NAN,
                     .skip = 1};
    AdamwExtra x = {.opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .lr_ratio = 1}};
    double grad[37];
    for (int i = 0; i < 37; i++) grad[i] = i % 2 ? NAN : INFINITY;
    Rig *r = rig_new("adamw", "skip with NaN");
    Tensor shape = tensor_1d(NULL, DT_F32, 37);
    rig_in_vars(r, "vars", &vars);
    rig_in_values(r, "grad", shape, grad);
    rig_inout(r, "master", shape, 1, TOL_EXACT);
    rig_inout(r, "m", shape, 1, TOL_EXACT);
    rig_inout(r, "v", shape, 1, TOL_EXACT);
    int failures = rig_run(r, call_adamw, &x);
    rig_free(r);
    assert_int_equal(failures, 0);
}

/* ---- AdamW of many rows -----------------------------------------------------------------------*/

/* The emulator's counter (tests/simt/sim_ops.h); not there on a real GPU. */
__attribute__((weak)) int64_t sim_launches(const char *name);

enum { ROWS = 7 };

typedef struct RowTensors {
    int64_t n;
    bool copy, skewed;  /* with a bf16 copy; 4 bytes behind an aligned address */
    int64_t runs;
} RowTensors;

static const RowTensors row_kinds[ROWS] = {
    {1, true, false, 0},    {70000, true, false, 0}, {0, false, false, 0}, {4096, false, true, 0},
    {16384, true, false, 4}, {333, true, false, 3},  {16385, false, false, 0},
};

/* Tensors of a row in fresh memory, the values by row number; base: what to free. */
static AdamwRow new_row(Device *d, int i, DType moments, void *base[ROWS * 6], int *n_base)
{
    const RowTensors *k = &row_kinds[i];
    AdamwRow row = {.opt = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .lr_ratio = 1 + 0.1 * i,
                            .weight_decay = i % 2 ? 0.1 : 0, .rounding = {.stream = (uint32_t)i}}};
    Tensor *t[] = {&row.t.master, &row.t.grad, &row.t.m, &row.t.v, &row.t.weight, &row.opt.lr_each};
    DType type[] = {DT_F32, DT_F32, moments, moments, DT_BF16, DT_F32};
    for (int j = 0; j < 6; j++) {
        Err e = {0};
        int64_t n = j == 5 ? k->runs : k->n, skew = k->skewed ? 4 : 0;
        if ((j == 4 && !k->copy) || (j == 5 && !k->runs)) continue;
        char *memory = dev_alloc(d, (n + 1) * 4 + skew, "row", &e);
        assert_non_null(memory);
        base[(*n_base)++] = memory;
        *t[j] = tensor_1d(memory + skew, type[j], n);
        float *x = malloc(sizeof *x * (size_t)(n + 1));
        uint16_t *half = malloc(sizeof *half * (size_t)(n + 1));
        for (int64_t e1 = 0; e1 < n; e1++) {
            x[e1] = (float)((e1 * 37 + i * 11 + j * 5) % 101) / 101 + (j < 2 ? -0.5f : 0.01f);
            half[e1] = bf16_from_f32(x[e1]);
        }
        dev_upload(d, *t[j], type[j] == DT_F32 ? (void *)x : (void *)half);
        free(x);
        free(half);
    }
    return row;
}

static void same_bits(Device *d, Tensor a, Tensor b, int row, const char *what)
{
    size_t bytes = (size_t)tensor_bytes(a);
    char *x = malloc(bytes + 1), *y = malloc(bytes + 1);
    dev_download(d, x, a);
    dev_download(d, y, b);
    if (memcmp(x, y, bytes)) fail_msg("row %d: other bits in %s", row, what);
    free(x);
    free(y);
}

/* Rows of every kind together, twice: the bits of each by itself, and few launches. */
static void rows_as_single(DType moments)
{
    Device *d = rig_device(0);
    void *base[2][ROWS * 6];
    AdamwRow row[2][ROWS];
    int n_base[2] = {0, 0};
    StepVars vars = {.seed = 11, .lr = 1e-2, .bias1 = 0.1, .bias2 = 0.05, .grad_scale = 0.7};
    Tensor all = tensor_1d(NULL, DT_F64, sizeof vars / sizeof(double));
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < ROWS; i++) row[s][i] = new_row(d, i, moments, base[s], &n_base[s]);
    for (int step = 0; step < 3; step++) {
        vars.step = step;
        vars.skip = step == 1;
        Tensor at = rig_put(d, all, &vars);
        for (int i = 0; i < ROWS; i++)
            dev_adamw(d, row[0][i].t, &row[0][i].opt, (const StepVars *)at.data);
        dev_sync(d);
        int64_t before = sim_launches ? sim_launches("adamw") : 0;
        dev_adamw_rows(d, row[1], ROWS, (const StepVars *)at.data);
        dev_sync(d);
        if (sim_launches) assert_int_equal(sim_launches("adamw") - before, 2);
        rig_take(d, at, NULL);
    }
    for (int i = 0; i < ROWS; i++) {
        const AdamwTensors *a = &row[0][i].t, *b = &row[1][i].t;
        same_bits(d, a->master, b->master, i, "master");
        same_bits(d, a->m, b->m, i, "m");
        same_bits(d, a->v, b->v, i, "v");
        if (row_kinds[i].copy) same_bits(d, a->weight, b->weight, i, "weight");
    }
    for (int s = 0; s < 2; s++)
        for (int i = 0; i < n_base[s]; i++) dev_free(d, base[s][i]);
}

static void adamw_rows(void **state)
{
    (void)state;
    rows_as_single(DT_F32);
    rows_as_single(DT_BF16);
    ops_note("adamw_rows");
}

/* ---- Norm and clipping ------------------------------------------------------------------------*/

static void call_sqsum(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_sqsum(d, rig_get(r, "sum"), rig_get(r, "x"));
}

/* Squares are made and added in f64: 1e25 squared is no infinity, 1e-25 squared is not nothing. */
static void sqsum(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 7, 16, 1000, 100003};
    const double scales[] = {1, 1e25, 1e-25};
    int failures = 0;
    for (int i = 0; i < 6 * 3 * 2 + 1; i++) {
        int64_t n = i < 6 * 3 * 2 ? sizes[i / 6] : 2200003; /* the last: parts of parts */
        DType type = i / 3 % 2 ? DT_BF16 : DT_F32;
        double scale = scales[i % 3], start = scale * scale * 2;
        Rig *r = rig_new("sqsum", "n %d scale %g %s", (int)n, scale, dtype_name(type));
        Slot *x = rig_in(r, "x", tensor_1d(NULL, type, n), scale);
        Slot *sum = rig_inout_values(r, "sum", tensor_1d(NULL, DT_F64, 1), &start, tol_dot(n));
        double squares = ref_sqsum(x->value, n);
        sum->want[0] += squares;
        sum->mag[0] += squares;
        failures += rig_run(r, call_sqsum, NULL);
        rig_free(r);
    }
    assert_int_equal(failures, 0);
}

/* One element that is not finite makes the sum so. */
static void sqsum_not_finite(void **state)
{
    (void)state;
    int failures = 0;
    double x[100] = {0};
    x[61] = INFINITY;
    double start = 1;
    Rig *r = rig_new("sqsum", "infinity");
    rig_in_values(r, "x", tensor_1d(NULL, DT_F32, 100), x);
    rig_inout_values(r, "sum", tensor_1d(NULL, DT_F64, 1), &start, 4)->want[0] = INFINITY;
    failures += rig_run(r, call_sqsum, NULL);
    rig_free(r);
    assert_int_equal(failures, 0);
}

static void call_sqdiff(Device *d, const Rig *r, const void *context)
{
    (void)context;
    dev_sqdiff(d, rig_get(r, "sum"), rig_get(r, "a"), rig_get(r, "b"));
}

/* far: b is a thousand times larger than what it differs by, as an accumulated gradient is. */
static void sqdiff(void **state)
{
    (void)state;
    const int64_t sizes[] = {0, 1, 15, 17, 1000, 100003};
    int failures = 0;
    for (int i = 0; i < 6 * 4; i++) {
        int64_t n = sizes[i / 4];
        bool far = i % 2;
        double scale = i / 2 % 2 ? 1e20 : 1, start = scale * scale * (far ? 2e-6 : 2);
        Rig *r = rig_new("sqdiff", "n %d scale %g%s", (int)n, scale, far ? " far" : "");
        Tensor shape = tensor_1d(NULL, DT_F32, n);
        Slot *a = rig_in(r, "a", shape, scale);
        double *near = malloc(sizeof *near * (size_t)(n + 1));
        for (int64_t k = 0; k < n; k++) near[k] = a->value[k] * (far ? 1.001 : rig_normal(r));
        Slot *b = rig_in_values(r, "b", shape, near);
        Slot *sum = rig_inout_values(r, "sum", tensor_1d(NULL, DT_F64, 1), &start, tol_dot(n));
        for (int64_t k = 0; k < n; k++) near[k] = a->value[k] - b->value[k];
        double squares = ref_sqsum(near, n);
        sum->want[0] += squares;
        sum->mag[0] += squares;
        failures += rig_run(r, call_sqdiff, NULL);
        free(near);
        rig_free(r);
    }
    assert_int_equal(failures, 0);
}

static const StepVars some_vars = {.seed = 0x123456789abcdefull, .step = 77, .lr = 1e-3,
                                   .bias1 = 0.5, .bias2 = 0.25, .loss_scale = 0.125,
                                   .grad_norm = 9, .grad_scale = 8, .z_norm = 7, .z_loss = 6};

static void call_clip(Device *d, const Rig *r, const void *context)
{
    ClipOpt opt = *(const ClipOpt *)context;
    opt.loss = rig_get(r, "loss");
    dev_clip(d, rig_get(r, "vars").data, rig_get(r, "sum"), &opt);
}

static void clip(void **state)
{
    (void)state;
    static const struct {
        double sum, max_norm;
        int64_t skip_before;
        double loss[2]; /* number of targets -1: no such tensor */
    } clips[] = {{4, 1, 0, {1, 2}},         {0.25, 1, 0, {0, -1}},   {0.25, 1, 1, {3, 4}},
                 {1, 1, 0, {0, -1}},        {0, 1, 0, {0, -1}},      {7, 0, 0, {0, 0}},
                 {0, 0, 0, {0, 5}},         {2e60, 1, 0, {1, 1}},    {INFINITY, 1, 0, {1, 1}},
                 {NAN, 1, 0, {0, -1}},      {INFINITY, 0, 0, {2, 1}}, {NAN, 0, 0, {0, -1}},
                 {1e-80, 1e-50, 0, {0, -1}}, {4, 1, 0, {NAN, 2}},    {4, 1, 0, {INFINITY, 2}}};
    int failures = 0;
    for (size_t i = 0; i < sizeof clips / sizeof *clips; i++) {
        const double *loss = clips[i].loss[1] < 0 ? NULL : clips[i].loss;
        ClipOpt opt = {.max_norm = clips[i].max_norm};
        Rig *r = rig_new("clip", "sum %g max %g loss %g", clips[i].sum, opt.max_norm,
                         loss ? loss[0] : -1);
        StepVars before = some_vars, want = some_vars;
        before.skip = clips[i].skip_before;
        ref_clip(&want, clips[i].sum, &opt, loss, NULL, NULL, 0);
        if (!isfinite(want.grad_norm)) want.grad_scale = NAN; /* open */
        rig_inout_vars(r, "vars", &before, &want);
        rig_in_values(r, "sum", tensor_1d(NULL, DT_F64, 1), &clips[i].sum);
        if (loss) rig_in_values(r, "loss", tensor_1d(NULL, DT_F64, 2), loss);
        failures += rig_run(r, call_clip, &opt);
        rig_free(r);
    }
    assert_int_equal(failures, 0);
}

/* Steps through a window on the device, beside the oracle that keeps all steps in order. */
typedef struct Outliers {
    double memory[1 + 2 * 8], norm[64], loss[64];
    int64_t taken;
    ClipOpt opt;
} Outliers;

/* One step; returns its skip after holding it and the z values against the oracle. */
static int64_t outlier_step(Outliers *o, double norm, double loss, double targets)
{
    double sum = norm * norm, sums[2] = {loss * targets, targets};
    StepVars vars = some_vars, want = some_vars;
    Device *d = rig_device(0);
    Tensor all = rig_put(d, tensor_1d(NULL, DT_F64, sizeof vars / sizeof(double)), &vars);
    Tensor square = rig_put(d, tensor_1d(NULL, DT_F64, 1), &sum);
    o->opt.history = rig_put(d, tensor_1d(NULL, DT_F64, 1 + 2 * o->opt.window), o->memory);
    o->opt.loss = rig_put(d, tensor_1d(NULL, DT_F64, 2), sums);
    dev_clip(d, all.data, square, &o->opt);
    rig_take(d, all, &vars);
    rig_take(d, square, NULL);
    rig_take(d, o->opt.history, o->memory);
    rig_take(d, o->opt.loss, NULL);
    if (ref_clip(&want, sum, &o->opt, sums, o->norm, o->loss, o->taken)) {
        o->norm[o->taken] = want.grad_norm;
        o->loss[o->taken++] = sums[1] != 0 ? sums[0] / sums[1] : 0;
    }
    assert_int_equal(vars.skip, want.skip);
    assert_true(vars.z_norm == want.z_norm || fabs(vars.z_norm - want.z_norm) < 1e-9);
    assert_true(vars.z_loss == want.z_loss || fabs(vars.z_loss - want.z_loss) < 1e-9);
    assert_true(o->memory[0] == (double)o->taken);
    return vars.skip;
}

static void outliers(void **state)
{
    (void)state;
    Outliers o = {.opt = {.max_norm = 1, .z_max = 3, .window = 6}};
    static const double noise[] = {0.1, -0.2, 0.3, -0.1, 0.2, -0.3, 0.05};
    for (int i = 0; i < 5; i++) outlier_step(&o, 5 + noise[i], 2 + noise[i] / 2, 10);
    assert_int_equal(outlier_step(&o, 500, 200, 10), SKIP_NO); /* the window is not full */
    for (int i = 0; i < 6; i++)
        assert_int_equal(outlier_step(&o, 5 + noise[i], 2 + noise[i] / 2, 10), SKIP_NO);
    assert_int_equal(outlier_step(&o, 5.1, 2.9, 10), SKIP_LOSS);
    assert_int_equal(outlier_step(&o, 4, 1, 10), SKIP_NO); /* below is no outlier */
    assert_int_equal(outlier_step(&o, NAN, 2, 10), SKIP_NOT_FINITE);
    assert_int_equal(outlier_step(&o, 5, INFINITY, 10), SKIP_NOT_FINITE);
    assert_int_equal(outlier_step(&o, 5, 0, 0), SKIP_NO); /* no targets: not taken in */
    assert_int_equal(o.taken, 14);
    for (int i = 0; i < 6; i++)
        assert_int_equal(outlier_step(&o, 5 + noise[i], 2 + noise[i] / 2, 10), SKIP_NO);
    assert_int_equal(outlier_step(&o, 50, 20, 10), SKIP_NORM); /* the norm is named first */
    int refused = 1;
    for (int i = 0; i < 6; i++) refused += outlier_step(&o, 50 + noise[i], 2, 10) != SKIP_NO;
    assert_true(refused < 4); /* the new level is taken in, so it is soon accepted */
}

/* A window without spread: what lies above it is infinitely far; what is equal is not. */
static void outliers_no_spread(void **state)
{
    (void)state;
    Outliers o = {.opt = {.z_max = 4, .window = 2}};
    for (int i = 0; i < 5; i++) assert_int_equal(outlier_step(&o, 0.5, 2, 4), SKIP_NO);
    assert_int_equal(outlier_step(&o, 0.25, 2, 4), SKIP_NO);
    assert_int_equal(outlier_step(&o, 0.25, 2, 4), SKIP_NO);
    assert_int_equal(outlier_step(&o, 0.25, 2.5, 4), SKIP_LOSS);
}

static void call_step_begin(Device *d, const Rig *r, const void *context)
{
    StepVars host = *(const StepVars *)context;
    dev_step_begin(d, rig_get(r, "vars").data, &host);
    memset(&host, 0, sizeof host); /* the call has taken its copy */
}

static void step_begin(void **state)
{
    (void)state;
    StepVars before = {0};
    Rig *r = rig_new("step_begin", "copy");
    rig_inout_vars(r, "vars", &before, &some_vars);
    int failures = rig_run(r, call_step_begin, &some_vars);
    rig_free(r);
    assert_int_equal(failures, 0);
}

static void all_covered(void **state)
{
    (void)state;
    assert_int_equal(ops_missing("test_ops_optim"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adamw),            cmocka_unit_test(adamw_skips_nan),
        cmocka_unit_test(adamw_rows),
        cmocka_unit_test(sqsum),            cmocka_unit_test(sqsum_not_finite),
        cmocka_unit_test(sqdiff),           cmocka_unit_test(clip),
        cmocka_unit_test(outliers),         cmocka_unit_test(outliers_no_spread),
        cmocka_unit_test(step_begin),
        cmocka_unit_test(all_covered),
    };
    return RIG_GROUP("ops_optim", tests);
}
