/* train/checkpoint_manifest.c - see checkpoint_manifest.h. */
#include "train/checkpoint_manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"
#include "train/json_out.h"
#include "train/version.h"

enum {
    MANIFEST_BYTES_MAX = 1 << 28,
    SEALED = JSON_COMPACT | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)
};
#define FORMAT "isomoe checkpoint"

/* The numbers of a TrainState, in one table for both directions. */
typedef enum FieldKind { FIELD_INT, FIELD_REAL, FIELD_HASH } FieldKind;
#define AT(field) offsetof(TrainState, field)
static const struct {
    const char *key;
    FieldKind kind;
    size_t offset;
    int count; /* 0: a number; else a list of so many */
} fields[] = {
    {"step", FIELD_INT, AT(step), 0},
    {"updates", FIELD_INT, AT(updates), 0},
    {"sequence", FIELD_INT, AT(sequence), 0},
    {"stage", FIELD_INT, AT(stage), 0},
    {"segment_first", FIELD_INT, AT(segment.first), 0},
    {"segment_seq_len", FIELD_INT, AT(segment.T), 0},
    {"segment_weights", FIELD_REAL, AT(segment.weight), LOADER_MAX_SOURCES},
    {"segment_served", FIELD_INT, AT(segment.served), LOADER_MAX_SOURCES},
    {"segment_phase", FIELD_INT, AT(segment.phase), LOADER_MAX_SOURCES},
    {"reweighted", FIELD_INT, AT(reweighted), 0},
    {"steps_total", FIELD_INT, AT(steps_total), 0},
    {"tokens", FIELD_REAL, AT(tokens), 0},
    {"flops", FIELD_REAL, AT(flops), 0},
    {"seconds", FIELD_REAL, AT(seconds), 0},
    {"loss_ema", FIELD_REAL, AT(loss_ema), 0},
    {"run", FIELD_HASH, AT(run_id), 0},
    {"tokenizer", FIELD_HASH, AT(tokenizer_hash), 0},
    {"data", FIELD_HASH, AT(data_hash), 0},
    {"val", FIELD_HASH, AT(val_hash), 0},
    {"from_run", FIELD_HASH, AT(from_run), 0},
    {"from_step", FIELD_INT, AT(from_step), 0},
    {"replay_run", FIELD_HASH, AT(replay_run), 0},
};
enum { FIELDS = sizeof fields / sizeof *fields };

/* Exactly 16 hexadecimal digits. */
static bool hash_parse(const json_t *value, uint64_t *out)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) != HASH_HEX - 1 || strspn(text, "0123456789abcdef") != HASH_HEX - 1)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

/* ---- Writing ----------------------------------------------------------------------------------*/

static size_t field_size(int i)
{
    static const size_t size[] = {[FIELD_INT] = sizeof(int64_t), [FIELD_REAL] = sizeof(double),
                                  [FIELD_HASH] = sizeof(uint64_t)};
    return size[fields[i].kind];
}

static json_t *number_json(FieldKind kind, const void *at)
{
    if (kind == FIELD_INT) return json_integer(*(const int64_t *)at);
    return kind == FIELD_REAL ? json_real(*(const double *)at)
                              : json_out_hash(*(const uint64_t *)at);
}

static json_t *state_json(const TrainState *s)
{
    json_t *out = json_object();
    for (int i = 0; i < FIELDS; i++) {
        const char *at = (const char *)s + fields[i].offset;
        json_t *value = fields[i].count ? json_array() : number_json(fields[i].kind, at);
        for (int j = 0; j < fields[i].count; j++, at += field_size(i))
            json_array_append_new(value, number_json(fields[i].kind, at));
        json_object_set_new(out, fields[i].key, value);
    }
    return out;
}

static json_t *tensors_json(const TensorSlots *slots)
{
    json_t *out = json_object();
    for (int i = 0; i < slots->count; i++) {
        const TensorSlot *slot = &slots->slot[i];
        char name[TENSOR_PATH];
        json_t *shape = json_array(), *offset = json_array();
        for (int d = 0; d < slot->tensor.n_dim; d++) {
            json_array_append_new(shape, json_integer(slot->tensor.dim[d]));
            json_array_append_new(offset, json_integer(0));
        }
        json_object_set_new(out, tensor_slot_name(slot, name),
                            json_pack("{s:s, s:s, s:o, s:o, s:o}", "file", CHECKPOINT_TENSORS,
                                      "type", dtype_name(slot->tensor.type), "shape", shape,
                                      "offset", offset, "xxh3", json_out_hash(slot->hash)));
    }
    return out;
}

/* XXH3-64 of the manifest without its member "xxh3"; 0 when out of memory. */
static uint64_t seal_of(json_t *root)
{
    json_t *seal = json_incref(json_object_get(root, "xxh3"));
    json_object_del(root, "xxh3");
    char *text = json_dumps(root, SEALED);
    uint64_t hash = text ? hash_bytes(text, strlen(text)) : 0;
    free(text);
    if (seal) json_object_set_new(root, "xxh3", seal);
    return hash;
}

int checkpoint_manifest_write(const char *folder, const CheckpointParts *p, Err *e)
{
    char path[IO_PATH_MAX], *text = NULL, *config = conf_write(run_config_table(), p->config);
    json_t *root = NULL;
    int rc = -1;
    if (io_join(path, folder, CHECKPOINT_MANIFEST, e)) goto done;
    if (config)
        root = json_pack("{s:s, s:i, s:s, s:s, s:s, s:{s:i}, s:s, s:o, s:[{s:s, s:I, s:o}], s:o}",
                         "format", FORMAT, "version", CHECKPOINT_VERSION, "code", version_text(),
                         "precision", p->config->train.precision ? "f32" : "bf16", "variant",
                         p->state->variant, "layout", "ranks", 1, "config", config, "state",
                         state_json(p->state), "files", "name", CHECKPOINT_TENSORS, "bytes",
                         (json_int_t)p->file_bytes, "xxh3", json_out_hash(p->file_hash), "tensors",
                         tensors_json(p->slots));
    if (root && !json_object_set_new(root, "xxh3", json_out_hash(seal_of(root))))
        text = json_dumps(root, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    if (!text) {
        err_set(e, "%s: cannot be made: out of memory, or a number in it is not finite", path);
        goto done;
    }
    rc = io_write_atomic(path, text, strlen(text), e);
done:
    free(text);
    json_decref(root);
    free(config);
    return rc;
}

/* ---- Reading ----------------------------------------------------------------------------------*/

static int read_number(FieldKind kind, const json_t *value, void *at)
{
    if (kind == FIELD_HASH) return hash_parse(value, at) ? 0 : -1;
    if (kind == FIELD_INT) {
        if (!json_is_integer(value) || json_integer_value(value) < 0) return -1;
        *(int64_t *)at = json_integer_value(value);
        return 0;
    }
    if (!json_is_number(value)) return -1;
    *(double *)at = json_number_value(value);
    return 0;
}

/* Is it not in older checkpoints, and then 0? */
static bool is_later(const char *key)
{
    return !strcmp(key, "segment_phase") || !strcmp(key, "replay_run");
}

static int read_field(const json_t *state, int i, TrainState *s)
{
    json_t *value = json_object_get(state, fields[i].key);
    char *at = (char *)s + fields[i].offset;
    if (!value && is_later(fields[i].key)) return 0;
    if (!fields[i].count) return read_number(fields[i].kind, value, at);
    if (json_array_size(value) != (size_t)fields[i].count) return -1;
    for (int j = 0; j < fields[i].count; j++, at += field_size(i))
        if (read_number(fields[i].kind, json_array_get(value, (size_t)j), at)) return -1;
    return 0;
}

static int read_state(const json_t *root, const char *path, TrainState *s, Err *e)
{
    const json_t *state = json_object_get(root, "state");
    const char *variant = json_string_value(json_object_get(root, "variant"));
    for (int i = 0; i < FIELDS; i++)
        if (read_field(state, i, s))
            return err_set(e, "%s: state.%s is missing or not what it should be", path,
                           fields[i].key);
    if (!variant || strlen(variant) >= sizeof s->variant)
        return err_set(e, "%s: variant is missing or not what it should be", path);
    snprintf(s->variant, sizeof s->variant, "%s", variant);
    return 0;
}

/* Format, version, layout and the one file of one rank. */
static int read_frame(CheckpointManifest *m, const char *path, Err *e)
{
    const char *format = json_string_value(json_object_get(m->root, "format"));
    const json_t *version = json_object_get(m->root, "version");
    const json_t *layout = json_object_get(m->root, "layout");
    long long ranks = json_integer_value(json_object_get(layout, "ranks"));
    if (!format || strcmp(format, FORMAT)) return err_set(e, "%s: not an " FORMAT, path);
    if (!json_is_integer(version) || json_integer_value(version) != CHECKPOINT_VERSION)
        return err_set(e, "%s: format version %lld; this program reads version %d", path,
                       (long long)json_integer_value(version), CHECKPOINT_VERSION);
    if (ranks != 1)
        return err_set(e, "%s: written by %lld ranks; this program reads checkpoints of one", path,
                       ranks);
    const json_t *files = json_object_get(m->root, "files"), *file = json_array_get(files, 0);
    const char *name = json_string_value(json_object_get(file, "name"));
    const json_t *bytes = json_object_get(file, "bytes");
    if (json_array_size(files) != 1 || !name || strcmp(name, CHECKPOINT_TENSORS) ||
        !json_is_integer(bytes) || !hash_parse(json_object_get(file, "xxh3"), &m->file_hash))
        return err_set(e, "%s: files is not a list of one " CHECKPOINT_TENSORS, path);
    m->file_bytes = json_integer_value(bytes);
    m->config = json_string_value(json_object_get(m->root, "config"));
    m->tensors = json_object_get(m->root, "tensors");
    if (!m->config || !json_is_object(m->tensors))
        return err_set(e, "%s: config or tensors are missing", path);
    return 0;
}

static int read_sealed(CheckpointManifest *m, const char *path, Err *e)
{
    uint64_t seal;
    if (!hash_parse(json_object_get(m->root, "xxh3"), &seal) || seal != seal_of(m->root))
        return err_set(e, "%s: its checksum does not fit: it was edited or damaged", path);
    if (read_frame(m, path, e)) return -1;
    return read_state(m->root, path, &m->state, e);
}

int checkpoint_manifest_read(const char *folder, CheckpointManifest *out, Err *e)
{
    char path[IO_PATH_MAX], *text;
    size_t size;
    json_error_t why;
    *out = (CheckpointManifest){0};
    if (io_join(path, folder, CHECKPOINT_MANIFEST, e)) return -1;
    if (io_read_all(path, MANIFEST_BYTES_MAX, &text, &size, e)) return -1;
    out->root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    free(text);
    int rc = 0;
    if (!out->root)
        rc = err_set(e, "%s:%d: not valid JSON: %s", path, why.line, why.text);
    else
        rc = read_sealed(out, path, e);
    if (rc) checkpoint_manifest_free(out);
    return rc;
}

void checkpoint_manifest_free(CheckpointManifest *m)
{
    json_decref(m->root);
    *m = (CheckpointManifest){0};
}

static bool same_shape(const json_t *tensor, const Tensor *t)
{
    const json_t *shape = json_object_get(tensor, "shape");
    const char *type = json_string_value(json_object_get(tensor, "type"));
    if (json_array_size(shape) != (size_t)t->n_dim) return false;
    for (int d = 0; d < t->n_dim; d++)
        if (json_integer_value(json_array_get(shape, (size_t)d)) != t->dim[d]) return false;
    return type && !strcmp(type, dtype_name(t->type));
}

/* A listed tensor that the model does not have, or NULL; of what may stay unread, none. */
static const char *find_stranger(const CheckpointManifest *m, const TensorSlots *slots)
{
    const char *key;
    json_t *value;
    json_object_foreach(m->tensors, key, value) {
        char name[TENSOR_PATH];
        bool known = !slots->whole && strncmp(key, "master/", 7) != 0;
        for (int i = 0; i < slots->count && !known; i++)
            known = !strcmp(tensor_slot_name(&slots->slot[i], name), key);
        if (!known) return key;
    }
    return NULL;
}

int checkpoint_manifest_tensors(const CheckpointManifest *m, const char *folder,
                                TensorSlots *slots, Err *e)
{
    for (int i = 0; i < slots->count; i++) {
        TensorSlot *slot = &slots->slot[i];
        char name[TENSOR_PATH];
        json_t *tensor = json_object_get(m->tensors, tensor_slot_name(slot, name));
        if (!tensor)
            return err_set(e, "%s: the model's tensor %s is not in the checkpoint", folder, name);
        if (!same_shape(tensor, &slot->tensor) ||
            !hash_parse(json_object_get(tensor, "xxh3"), &slot->hash))
            return err_set(e, "%s: tensor %s has not the model's shape and type", folder, name);
    }
    const char *stranger = find_stranger(m, slots);
    if (!stranger) return 0;
    return err_set(e, "%s: tensor %.90s of the checkpoint is not in the model", folder, stranger);
}
