/* device/tensor.c - see tensor.h. */
#include "device/tensor.h"

#include <stdio.h>

#include "base/err.h"
#include "base/size.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[DT_COUNT] = {
    [DT_F32] = {"f32", 4}, [DT_BF16] = {"bf16", 2}, [DT_I32] = {"i32", 4}, [DT_F64] = {"f64", 8}};

size_t dtype_size(DType type)
{
    CHECK((unsigned)type < DT_COUNT, "type %d", type);
    return dtypes[type].size;
}

const char *dtype_name(DType type) { return (unsigned)type < DT_COUNT ? dtypes[type].name : "?"; }

static Tensor make(void *data, DType type, int n, const int64_t dim[TENSOR_MAX_DIM])
{
    Tensor t = {.data = data, .n_dim = n, .type = type};
    int64_t elements = 1;
    for (int i = 0; i < n; i++) {
        t.dim[i] = dim[i];
        CHECK(size_mul(elements, dim[i], &elements), "dimension %d is %lld", i, (long long)dim[i]);
    }
    return t;
}

Tensor tensor_1d(void *data, DType type, int64_t d0)
{
    return make(data, type, 1, (int64_t[TENSOR_MAX_DIM]){d0});
}

Tensor tensor_2d(void *data, DType type, int64_t d0, int64_t d1)
{
    return make(data, type, 2, (int64_t[TENSOR_MAX_DIM]){d0, d1});
}

Tensor tensor_3d(void *data, DType type, int64_t d0, int64_t d1, int64_t d2)
{
    return make(data, type, 3, (int64_t[TENSOR_MAX_DIM]){d0, d1, d2});
}

Tensor tensor_4d(void *data, DType type, int64_t d0, int64_t d1, int64_t d2, int64_t d3)
{
    return make(data, type, 4, (int64_t[TENSOR_MAX_DIM]){d0, d1, d2, d3});
}

int64_t tensor_elements(Tensor t)
{
    if (!t.n_dim) return 0;
    int64_t n = 1;
    for (int i = 0; i < t.n_dim; i++) n *= t.dim[i];
    return n;
}

int64_t tensor_bytes(Tensor t) { return tensor_elements(t) * (int64_t)dtype_size(t.type); }

int64_t tensor_rows(Tensor t)
{
    if (!t.n_dim) return 0;
    int64_t n = 1;
    for (int i = 0; i + 1 < t.n_dim; i++) n *= t.dim[i];
    return n;
}

int64_t tensor_cols(Tensor t) { return t.n_dim ? t.dim[t.n_dim - 1] : 0; }

Tensor tensor_slice(Tensor t, int64_t begin, int64_t count)
{
    char text[96];
    CHECK(t.n_dim >= 1 && begin >= 0 && count >= 0 && begin + count <= t.dim[0],
          "rows %lld + %lld of %s", (long long)begin, (long long)count, tensor_text(t, text));
    int64_t row = t.dim[0] ? tensor_elements(t) / t.dim[0] : 0;
    t.data = (char *)t.data + (size_t)(begin * row) * dtype_size(t.type);
    t.dim[0] = count;
    return t;
}

static Tensor reshape(Tensor t, Tensor shape)
{
    char a[96], b[96];
    CHECK(tensor_elements(t) == tensor_elements(shape), "%s to %s", tensor_text(t, a),
          tensor_text(shape, b));
    return shape;
}

Tensor tensor_reshape2(Tensor t, int64_t d0, int64_t d1)
{
    return reshape(t, tensor_2d(t.data, t.type, d0, d1));
}

Tensor tensor_reshape3(Tensor t, int64_t d0, int64_t d1, int64_t d2)
{
    return reshape(t, tensor_3d(t.data, t.type, d0, d1, d2));
}

Tensor tensor_reshape4(Tensor t, int64_t d0, int64_t d1, int64_t d2, int64_t d3)
{
    return reshape(t, tensor_4d(t.data, t.type, d0, d1, d2, d3));
}

bool tensor_same_shape(Tensor a, Tensor b)
{
    if (a.n_dim != b.n_dim) return false;
    for (int i = 0; i < a.n_dim; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

const char *tensor_text(Tensor t, char out[96])
{
    int used = snprintf(out, 96, "%s (", t.data || t.n_dim ? dtype_name(t.type) : "none");
    for (int i = 0; i < t.n_dim && used < 80; i++)
        used += snprintf(out + used, (size_t)(96 - used), "%s%lld", i ? ", " : "",
                         (long long)t.dim[i]);
    snprintf(out + used, (size_t)(96 - used), ")");
    return out;
}
