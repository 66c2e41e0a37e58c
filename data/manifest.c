/* data/manifest.c - see manifest.h. Hashes are 16 hex digits: JSON's numbers are too small. */
#include "data/manifest.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/io.h"

enum { FILE_MAX = 1 << 28 };

void manifest_shard_name(char name[MANIFEST_NAME], const char *split, int number)
{
    snprintf(name, MANIFEST_NAME, "%.15s-%05d.h5", split, number);
}

int manifest_add(Manifest *manifest, const char *file, const ShardInfo *info, Err *e)
{
    Manifest *m = manifest;
    ManifestShard *grown = realloc(m->shard, ((size_t)m->count + 1) * sizeof *grown);
    if (!grown) return err_set(e, "out of memory");
    m->shard = grown;
    ManifestShard *row = &grown[m->count++];
    *row = (ManifestShard){.tokens = info->n_tokens, .documents = info->n_docs,
                           .bytes = info->n_bytes, .tokens_checksum = info->tokens_checksum,
                           .docs_checksum = info->docs_checksum};
    snprintf(row->file, sizeof row->file, "%s", file);
    snprintf(row->split, sizeof row->split, "%s", info->split);
    return 0;
}

void manifest_free(Manifest *manifest)
{
    free(manifest->shard);
    json_decref(manifest->filters);
    *manifest = (Manifest){0};
}

/* ---- writing ------------------------------------------------------------------------------- */

static json_t *hash_json(uint64_t hash)
{
    char hex[HASH_HEX];
    hash_hex(hash, hex);
    return json_string(hex);
}

static json_t *shard_json(const ManifestShard *row)
{
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "file", row->file, "split", row->split,
                     "tokens", (json_int_t)row->tokens, "documents", (json_int_t)row->documents,
                     "bytes", (json_int_t)row->bytes, "tokens_checksum",
                     hash_json(row->tokens_checksum), "docs_checksum",
                     hash_json(row->docs_checksum));
}

int manifest_write(const Manifest *manifest, const char *folder, const char *const *inputs, int n,
                   Err *e)
{
    const Manifest *m = manifest;
    char path[IO_PATH_MAX];
    if (io_join(path, folder, MANIFEST_FILE, e)) return -1;
    json_t *shards = json_array(), *names = json_array();
    for (int i = 0; i < m->count; i++) json_array_append_new(shards, shard_json(&m->shard[i]));
    for (int i = 0; i < n; i++) { /* a name that is not UTF-8 is left out */
        json_t *name = json_string(inputs[i]);
        if (name) json_array_append_new(names, name);
    }
    json_t *root = json_pack(
        "{s:i, s:{s:s, s:o, s:I, s:I, s:I}, s:o, s:I, s:o}", "format", MANIFEST_FORMAT, "tokenizer",
        "file", MANIFEST_TOKENIZER, "hash", hash_json(m->tokenizer_hash), "vocab_size",
        (json_int_t)m->vocab_size, "bos", (json_int_t)m->bos, "eos", (json_int_t)m->eos, "shards",
        shards, "skipped", (json_int_t)m->skipped, "inputs", names);
    if (root && m->filters) json_object_set(root, "filters", m->filters);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    int rc = text ? io_write_atomic(path, text, strlen(text), e) : err_set(e, "out of memory");
    free(text);
    json_decref(root);
    return rc;
}

/* ---- reading ------------------------------------------------------------------------------- */

static int parse_hash(const char *hex, uint64_t *out)
{
    char *end;
    if (strlen(hex) != HASH_HEX - 1 || strspn(hex, "0123456789abcdef") != HASH_HEX - 1) return -1;
    *out = strtoull(hex, &end, 16);
    return *end ? -1 : 0;
}

static int parse_shard(json_t *object, ManifestShard *row)
{
    const char *file, *split, *tokens_sum, *docs_sum;
    json_int_t tokens, documents, bytes;
    if (json_unpack(object, "{s:s, s:s, s:I, s:I, s:I, s:s, s:s}", "file", &file, "split", &split,
                    "tokens", &tokens, "documents", &documents, "bytes", &bytes, "tokens_checksum",
                    &tokens_sum, "docs_checksum", &docs_sum))
        return -1;
    size_t length = strlen(file);
    if (!length || length >= sizeof row->file || strchr(file, '/') || file[0] == '.') return -1;
    if (strlen(split) >= sizeof row->split || tokens < 1 || documents < 1 || bytes < 0) return -1;
    row->tokens = tokens;
    row->documents = documents;
    row->bytes = bytes;
    memcpy(row->file, file, length + 1);
    memcpy(row->split, split, strlen(split) + 1);
    return parse_hash(tokens_sum, &row->tokens_checksum) ||
           parse_hash(docs_sum, &row->docs_checksum);
}

static int parse_manifest(json_t *root, Manifest *m, const char *path, Err *e)
{
    const char *hash;
    json_t *shards;
    json_int_t vocab, bos, eos, skipped;
    int format;
    if (json_unpack(root, "{s:i}", "format", &format))
        return err_set(e, "%s: not a manifest of prepared data", path);
    if (format != MANIFEST_FORMAT)
        return err_set(e, "%s: format %d, this program reads format %d", path, format,
                       MANIFEST_FORMAT);
    if (json_unpack(root, "{s:{s:s, s:I, s:I, s:I}, s:o, s:I}", "tokenizer", "hash", &hash,
                    "vocab_size", &vocab, "bos", &bos, "eos", &eos, "shards", &shards, "skipped",
                    &skipped) ||
        parse_hash(hash, &m->tokenizer_hash) || !json_is_array(shards) ||
        json_array_size(shards) > MANIFEST_SHARDS_MAX)
        return err_set(e, "%s: a member is missing or has the wrong type", path);
    m->vocab_size = vocab;
    m->bos = bos;
    m->eos = eos;
    m->skipped = skipped;
    m->count = (int)json_array_size(shards);
    m->shard = calloc((size_t)m->count + 1, sizeof *m->shard);
    if (!m->shard) return err_set(e, "%s: out of memory", path);
    for (int i = 0; i < m->count; i++)
        if (parse_shard(json_array_get(shards, (size_t)i), &m->shard[i]))
            return err_set(e, "%s: shard %d: a member is missing or wrong", path, i);
    return 0;
}

int manifest_read(Manifest *manifest, const char *folder, Err *e)
{
    char path[IO_PATH_MAX], *text;
    size_t size;
    *manifest = (Manifest){0};
    if (io_join(path, folder, MANIFEST_FILE, e)) return -1;
    if (!io_exists(path)) {
        err_set(e, "%s: no %s: not a folder of (completely) prepared data", folder, MANIFEST_FILE);
        return err_hint(e, "run isomoe prepare; an interrupted run must be done again");
    }
    if (io_read_all(path, FILE_MAX, &text, &size, e)) return -1;
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    int rc = root ? parse_manifest(root, manifest, path, e)
                  : err_set(e, "%s:%d: bad JSON: %s", path, error.line, error.text);
    json_decref(root);
    free(text);
    if (rc) manifest_free(manifest);
    return rc;
}

int manifest_check(const ManifestShard *row, const Shard *shard, Err *e)
{
    const ShardInfo *i = shard_info(shard);
    if (row->tokens != i->n_tokens || row->documents != i->n_docs || row->bytes != i->n_bytes ||
        row->tokens_checksum != i->tokens_checksum || row->docs_checksum != i->docs_checksum ||
        strcmp(row->split, i->split)) {
        err_set(e, "%s: not the file that %s describes", shard_path(shard), MANIFEST_FILE);
        return err_hint(e, "files of two runs of isomoe prepare were mixed");
    }
    return 0;
}
