/* tests/cudnn/graph_eval.c - see graph_eval.h. Every tensor, virtual or not, is an array in which
 * its strides place the elements; so a reshape is a copy of the array. */
#include "tests/cudnn/graph_eval.h"

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { TENSORS = 80 };

typedef struct Array {
    const char *name;
    int64_t dim[4], stride[4], size;
    double *at;
    bool owned, ready;
} Array;

typedef struct Graph {
    Array array[TENSORS];
    int n;
} Graph;

static Array *array_of(Graph *g, const json_t *node, const char *role)
{
    const char *name = json_string_value(json_object_get(node, role));
    for (int i = 0; name && i < g->n; i++)
        if (!strcmp(g->array[i].name, name)) return &g->array[i];
    return NULL;
}

/* Element i of an array, where axes that it lacks repeat: of size 1, or one for several heads. */
static double *element(const Array *a, const int64_t i[4], const int64_t dim[4])
{
    int64_t at = 0;
    for (int x = 0; x < 4; x++) at += i[x] * a->dim[x] / dim[x] * a->stride[x];
    return &a->at[at];
}

/* Steps i through all elements of dim; false after the last. */
static bool next(int64_t i[4], const int64_t dim[4])
{
    for (int x = 3; x >= 0; x--) {
        if (++i[x] < dim[x]) return true;
        i[x] = 0;
    }
    return false;
}

static const char *product(const Array *a, const Array *b, Array *c)
{
    int64_t i[4] = {0};
    if (a->dim[3] != b->dim[2] || a->dim[2] != c->dim[2] || b->dim[3] != c->dim[3])
        return "a product of shapes that do not fit";
    do {
        double sum = 0;
        int64_t left[4] = {i[0], i[1], i[2], 0}, right[4] = {i[0], 0, 0, i[3]};
        right[1] = i[1] * b->dim[1] / c->dim[1];
        for (int64_t k = 0; k < a->dim[3]; k++) {
            left[3] = right[2] = k;
            sum += *element(a, left, a->dim) * *element(b, right, b->dim);
        }
        *element(c, i, c->dim) = sum;
    } while (next(i, c->dim));
    return NULL;
}

static const char *reduction(const Array *x, Array *y, const char *kind)
{
    int64_t i[4] = {0};
    bool max = strstr(kind, "MAX") != NULL;
    for (int64_t j = 0; j < y->size; j++) y->at[j] = max ? -INFINITY : 0;
    do {
        double *to = element(y, i, x->dim), value = *element(x, i, x->dim);
        *to = max ? fmax(*to, value) : *to + value;
    } while (next(i, x->dim));
    return NULL;
}

static double applied(const char *mode, double x, double b, double t, int64_t index)
{
    if (!strcmp(mode, "MUL")) return x * b;
    if (!strcmp(mode, "ADD")) return x + b;
    if (!strcmp(mode, "SUB")) return x - b;
    if (!strcmp(mode, "DIV")) return x / b;
    if (!strcmp(mode, "EXP")) return exp(x);
    if (!strcmp(mode, "LOG")) return log(x);
    if (!strcmp(mode, "IDENTITY")) return x;
    if (!strcmp(mode, "GEN_INDEX")) return (double)index;
    if (!strcmp(mode, "CMP_GE")) return x >= b;
    if (!strcmp(mode, "CMP_LT")) return x < b;
    if (!strcmp(mode, "LOGICAL_AND")) return x != 0 && b != 0;
    if (!strcmp(mode, "BINARY_SELECT")) return t != 0 ? x : b;
    return NAN;
}

static const char *pointwise(const json_t *node, const Array *x, const Array *b, const Array *t,
                             Array *y)
{
    const char *mode = json_string_value(json_object_get(node, "pointwiseMode"));
    const char *prefix = "CUDNN_POINTWISE_";
    int64_t axis = json_integer_value(json_object_get(node, "axis")), i[4] = {0};
    if (!mode || strncmp(mode, prefix, strlen(prefix)) || axis < 0 || axis > 3)
        return "a pointwise operation of no known mode";
    do {
        double u = *element(x, i, y->dim), v = b ? *element(b, i, y->dim) : 0;
        double w = t ? *element(t, i, y->dim) : 0;
        *element(y, i, y->dim) = applied(mode + strlen(prefix), u, v, w, i[axis]);
    } while (next(i, y->dim));
    return NULL;
}

/* Runs a node if its inputs are there: *ran. */
static const char *run_node(Graph *g, const json_t *node, bool *ran)
{
    static const char *const roles[] = {"matA", "matB", "X", "B", "T"};
    const char *kind = json_string_value(json_object_get(node, "operation"));
    Array *in[5], *out = array_of(g, node, "matC");
    if (!out) out = array_of(g, node, "Y");
    if (!kind || !out) return "a node without name or result";
    *ran = false;
    for (int i = 0; i < 5; i++) {
        in[i] = array_of(g, node, roles[i]);
        if (in[i] && !in[i]->ready) return NULL;
    }
    *ran = out->ready = true;
    if (strstr(kind, "MATMUL") && in[0] && in[1]) return product(in[0], in[1], out);
    if (!in[2]) return "a node without input";
    if (strstr(kind, "POINTWISE")) return pointwise(node, in[2], in[3], in[4], out);
    if (strstr(kind, "REDUCTION"))
        return reduction(in[2], out, json_string_value(json_object_get(node, "reductionOp")));
    if (!strstr(kind, "RESHAPE")) return "an unknown operation";
    if (in[2]->size != out->size) return "a reshape to another size";
    memcpy(out->at, in[2]->at, (size_t)out->size * sizeof *out->at);
    return NULL;
}

static const char *read_tensors(Graph *g, const json_t *tensors, double **memory, int names)
{
    for (size_t j = 0; j < json_array_size(tensors); j++) {
        const json_t *t = json_array_get(tensors, j);
        if (g->n == TENSORS) return "too many tensors";
        Array *a = &g->array[g->n++];
        a->name = json_string_value(json_object_get(t, "name"));
        a->size = 1;
        for (size_t x = 0; x < 4; x++) {
            a->dim[x] = json_integer_value(json_array_get(json_object_get(t, "dim"), x));
            a->stride[x] = json_integer_value(json_array_get(json_object_get(t, "stride"), x));
            if (a->dim[x] < 1 || a->stride[x] < 1) return "a tensor without shape";
            a->size += (a->dim[x] - 1) * a->stride[x];
        }
        int name = a->name ? (int)strtol(a->name, NULL, 10) : 0;
        a->owned = json_is_true(json_object_get(t, "isVirtual"));
        if (!a->owned && (name < 1 || name >= names || !memory[name])) return "a tensor not bound";
        a->at = a->owned ? malloc((size_t)a->size * sizeof *a->at) : memory[name];
    }
    return NULL;
}

const char *graph_eval(const char *json, double **memory, int names)
{
    Graph g = {.n = 0};
    json_t *plan = json_loads(json, 0, NULL);
    const json_t *graph = json_object_get(plan, "operationGraph");
    const json_t *nodes = json_object_get(graph, "nodes");
    const char *fault = read_tensors(&g, json_object_get(graph, "tensors"), memory, names);
    size_t n = json_array_size(nodes), done = 0;
    if (!fault && n == 0) fault = "no nodes";
    /* what no node makes is there from the start */
    for (int i = 0; i < g.n; i++) g.array[i].ready = true;
    for (size_t j = 0; j < n; j++) {
        const json_t *node = json_array_get(nodes, j);
        Array *out = array_of(&g, node, "matC");
        if (!out) out = array_of(&g, node, "Y");
        if (out) out->ready = false;
    }
    bool *ended = calloc(n + 1, sizeof *ended);
    for (size_t pass = 0; pass < n && !fault; pass++) {
        for (size_t j = 0; j < n && !fault; j++) {
            if (!ended[j]) fault = run_node(&g, json_array_get(nodes, j), &ended[j]);
            else continue;
            done += ended[j];
        }
    }
    if (!fault && done < n) fault = "nodes that wait for each other";
    for (int i = 0; i < g.n; i++)
        if (g.array[i].owned) free(g.array[i].at);
    free(ended);
    json_decref(plan);
    return fault;
}
