/* tests/ref/harness.c - cases: slots and their values; see harness.h. */
#include "tests/ref/harness.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"

static uint64_t text_hash(uint64_t hash, const char *text)
{
    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 0x100000001b3u;
    return hash;
}

Rig *rig_new(const char *op, const char *format, ...)
{
    Rig *r = calloc(1, sizeof *r);
    CHECK(r, "out of memory");
    va_list args;
    va_start(args, format);
    vsnprintf(r->label, sizeof r->label, format, args);
    va_end(args);
    r->op = op;
    r->rng = text_hash(text_hash(0xcbf29ce484222325u, op), r->label);
    return r;
}

void rig_free(Rig *r)
{
    for (int i = 0; i < r->n_slots; i++) {
        Slot *s = &r->slot[i];
        free(s->init);
        free(s->value);
        free(s->want);
        free(s->mag);
        free(s->half);
        free(s->got);
        free(s->first);
    }
    free(r);
}

/* SplitMix64 (Steele et al. 2014). */
static uint64_t next(Rig *r)
{
    uint64_t z = r->rng += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

double rig_uniform(Rig *r) { return (double)(next(r) >> 11) * 0x1p-53; }

double rig_normal(Rig *r)
{
    double u = 1 - rig_uniform(r), v = rig_uniform(r);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

int64_t rig_below(Rig *r, int64_t n) { return (int64_t)(rig_uniform(r) * (double)n); }

int64_t slot_size(const Slot *s) { return tensor_elements(s->shape); }

double slot_number(const Slot *s, const void *data, int64_t i)
{
    switch (s->shape.type) {
    case DT_F32: return ((const float *)data)[i];
    case DT_BF16: return bf16_to_f32(((const uint16_t *)data)[i]);
    case DT_I32: return ((const int32_t *)data)[i];
    case DT_F64: return ((const double *)data)[i];
    default: CHECK(0, "type %d", s->shape.type);
    }
    return 0;
}

static void store_number(const Slot *s, void *data, int64_t i, double x)
{
    switch (s->shape.type) {
    case DT_F32: ((float *)data)[i] = (float)x; break;
    case DT_BF16: ((uint16_t *)data)[i] = bf16_from_f32((float)x); break;
    case DT_I32: ((int32_t *)data)[i] = (int32_t)x; break;
    case DT_F64: ((double *)data)[i] = x; break;
    default: CHECK(0, "type %d", s->shape.type);
    }
}

static double *doubles(int64_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    CHECK(x, "%lld numbers", (long long)n);
    return x;
}

static Slot *add_slot(Rig *r, const char *name, SlotRole role, Tensor shape, double terms)
{
    CHECK(r->n_slots < RIG_SLOTS, "%s", name);
    Slot *s = &r->slot[r->n_slots++];
    snprintf(s->name, sizeof s->name, "%s", name);
    s->role = role;
    s->shape = shape;
    s->terms = terms;
    int64_t n = tensor_elements(shape), bytes = tensor_bytes(shape);
    s->init = malloc((size_t)bytes + 8);
    s->got = malloc((size_t)bytes + 8);
    s->first = malloc((size_t)bytes + 8);
    CHECK(s->init && s->got && s->first, "%lld bytes", (long long)bytes);
    memset(s->init, 0, (size_t)bytes + 8);
    s->value = doubles(n);
    if (role != SLOT_IN) {
        s->want = doubles(n);
        s->mag = doubles(n);
        s->half = doubles(n);
    }
    return s;
}

/* The starting bytes as numbers; INOUT results start from them. */
static Slot *take_values(Slot *s)
{
    for (int64_t i = 0; i < slot_size(s); i++) {
        s->value[i] = slot_number(s, s->init, i);
        if (s->role == SLOT_INOUT) {
            s->want[i] = s->value[i];
            s->mag[i] = fabs(s->value[i]);
        }
    }
    return s;
}

static Slot *fill_random(Rig *r, Slot *s, double scale)
{
    for (int64_t i = 0; i < slot_size(s); i++) store_number(s, s->init, i, scale * rig_normal(r));
    return take_values(s);
}

static Slot *fill_values(Slot *s, const double *values)
{
    for (int64_t i = 0; i < slot_size(s); i++) store_number(s, s->init, i, values[i]);
    return take_values(s);
}

Slot *rig_in(Rig *r, const char *name, Tensor shape, double scale)
{
    return fill_random(r, add_slot(r, name, SLOT_IN, shape, 0), scale);
}

Slot *rig_in_values(Rig *r, const char *name, Tensor shape, const double *values)
{
    return fill_values(add_slot(r, name, SLOT_IN, shape, 0), values);
}

Slot *rig_in_i32(Rig *r, const char *name, Tensor shape, const int32_t *values)
{
    Slot *s = add_slot(r, name, SLOT_IN, shape, 0);
    memcpy(s->init, values, (size_t)tensor_bytes(shape));
    return take_values(s);
}

/* The integers among the fields become subnormal doubles, which TOL_EXACT compares as well. */
static Slot *vars_slot(Rig *r, const char *name, SlotRole role, const StepVars *vars)
{
    Tensor shape = tensor_1d(NULL, DT_F64, (int64_t)(sizeof *vars / sizeof(double)));
    Slot *s = add_slot(r, name, role, shape, TOL_EXACT);
    memcpy(s->init, vars, sizeof *vars);
    return take_values(s);
}

Slot *rig_in_vars(Rig *r, const char *name, const StepVars *vars)
{
    return vars_slot(r, name, SLOT_IN, vars);
}

Slot *rig_inout_vars(Rig *r, const char *name, const StepVars *vars, const StepVars *want)
{
    Slot *s = vars_slot(r, name, SLOT_INOUT, vars);
    memcpy(s->want, want, sizeof *want);
    return s;
}

Slot *rig_out(Rig *r, const char *name, Tensor shape, double terms)
{
    Slot *s = add_slot(r, name, SLOT_OUT, shape, terms);
    memset(s->init, 0xff, (size_t)tensor_bytes(shape)); /* NaN in every type; -1 */
    return s;
}

Slot *rig_inout(Rig *r, const char *name, Tensor shape, double scale, double terms)
{
    return fill_random(r, add_slot(r, name, SLOT_INOUT, shape, terms), scale);
}

Slot *rig_inout_values(Rig *r, const char *name, Tensor shape, const double *values, double terms)
{
    return fill_values(add_slot(r, name, SLOT_INOUT, shape, terms), values);
}

static int slot_index(const Rig *r, const char *name)
{
    for (int i = 0; i < r->n_slots; i++)
        if (!strcmp(r->slot[i].name, name)) return i;
    for (int i = 0; i < r->n_aliases; i++)
        if (!strcmp(r->alias[i].name, name)) return r->alias[i].slot;
    return -1;
}

void rig_alias(Rig *r, const char *name, const Slot *slot)
{
    CHECK(r->n_aliases < RIG_ALIASES && slot_index(r, name) < 0, "%s", name);
    snprintf(r->alias[r->n_aliases].name, RIG_NAME, "%s", name);
    r->alias[r->n_aliases++].slot = (int)(slot - r->slot);
}

Tensor rig_get(const Rig *r, const char *name)
{
    int i = slot_index(r, name);
    return i < 0 ? tensor_none() : r->slot[i].live;
}

const StepVars *rig_vars(const Rig *r, const char *name) { return rig_get(r, name).data; }

Slot *rig_slot(Rig *r, const char *name)
{
    int i = slot_index(r, name);
    CHECK(i >= 0, "no slot %s", name);
    return &r->slot[i];
}

void slot_want_i32(Slot *s, const int32_t *want)
{
    for (int64_t i = 0; i < slot_size(s); i++) s->want[i] = want[i];
}

double *slot_abs(const Slot *s)
{
    if (!s) return NULL;
    double *x = doubles(slot_size(s));
    for (int64_t i = 0; i < slot_size(s); i++) x[i] = fabs(s->value[i]);
    return x;
}

int rig_random_cases(int count)
{
    const char *many = getenv("ISOMOE_LONG"), *few = getenv("ISOMOE_FAST");
    if (many && !strcmp(many, "1")) return 20 * count;
    return few && !strcmp(few, "1") ? (count + 3) / 4 : count;
}
