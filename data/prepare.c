/* data/prepare.c - see prepare.h.
 *
 * Everything is made in a folder inside `out`, under a lock, and moved into place at the end: the
 * manifest of the old data goes first, the new one comes last. Until then the old data is whole.
 */
#include "data/prepare.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/utf8.h"
#include "data/encode.h"
#include "data/filter_note.h"
#include "data/inputs.h"
#include "data/manifest.h"
#include "data/reservoir.h"
#include "data/source.h"
#include "data/tokenizer.h"
#include "data/tokenizer_train.h"

enum { SAMPLE_BYTES = 10 << 20, MODEL_MAX = 1 << 26 };

#define STAGING ".prepare.tmp"

typedef struct Prepare {
    const PrepareOptions *o;
    InputList inputs;
    int lock; /* descriptor of the locked folder `out` */
    char staging[IO_PATH_MAX], model[IO_PATH_MAX], spool[IO_PATH_MAX];
    char about[SHARD_SOURCE];
    Tokenizer *tokenizer;
    Sieve *sieve;
    Manifest manifest;
} Prepare;

/* ---- the folder ---------------------------------------------------------------------------- */

/* Is it the name of a file that prepare makes? */
static bool is_ours(const char *name)
{
    if (!strcmp(name, MANIFEST_FILE) || !strcmp(name, MANIFEST_TOKENIZER)) return true;
    for (int split = 0; split < SPLITS; split++) {
        size_t n = strlen(SPLIT_NAME[split]), digits;
        if (strncmp(name, SPLIT_NAME[split], n) || name[n] != '-') continue;
        digits = strspn(name + n + 1, "0123456789");
        if (digits >= 5 && !strcmp(name + n + 1 + digits, ".h5")) return true;
    }
    return false;
}

static int check_folder(const PrepareOptions *o, Err *e)
{
    char **names;
    int n, rc = 0;
    if (o->overwrite) return 0;
    if (io_list_dir(o->out, &names, &n, e)) return -1;
    for (int i = 0; i < n && !rc; i++)
        if (is_ours(names[i])) rc = err_set(e, "%s: already holds %s", o->out, names[i]);
    if (rc) err_hint(e, "choose another folder, or replace what is there with --overwrite");
    io_free_names(names, n);
    return rc;
}

static int lock_folder(Prepare *p, Err *e)
{
    p->lock = open(p->o->out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p->lock < 0) return err_errno(e, "%s: folder cannot be opened", p->o->out);
    /* Where the file system knows no locks (errors other than this one) there is none. */
    if (flock(p->lock, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return err_set(e, "%s: another isomoe prepare is writing there", p->o->out);
    return 0;
}

static int open_folder(Prepare *p, Err *e)
{
    if (io_make_dirs(p->o->out, e) || lock_folder(p, e) || check_folder(p->o, e) ||
        io_join(p->staging, p->o->out, STAGING, e) || io_remove_tree(p->staging, e) ||
        io_make_dirs(p->staging, e) || io_join(p->model, p->staging, MANIFEST_TOKENIZER, e) ||
        io_join(p->spool, p->staging, "stdin.txt", e))
        return -1;
    return 0;
}

static int move_file(const Prepare *p, const char *name, Err *e)
{
    char from[IO_PATH_MAX], to[IO_PATH_MAX];
    if (io_join(from, p->staging, name, e) || io_join(to, p->o->out, name, e)) return -1;
    return rename(from, to) ? err_errno(e, "%s: cannot be moved into place", to) : 0;
}

static int remove_file(const Prepare *p, const char *name, Err *e)
{
    char path[IO_PATH_MAX];
    if (io_join(path, p->o->out, name, e)) return -1;
    return unlink(path) && errno != ENOENT ? err_errno(e, "%s: cannot be removed", path) : 0;
}

/* From here on old data is replaced: manifest out, old files out, new files in, manifest in. */
static int commit(Prepare *p, Err *e)
{
    char **names;
    int n, rc;
    if (remove_file(p, MANIFEST_FILE, e) || io_sync_dir(p->o->out, e) ||
        io_list_dir(p->o->out, &names, &n, e))
        return -1;
    rc = 0;
    for (int i = 0; i < n && !rc; i++)
        if (is_ours(names[i])) rc = remove_file(p, names[i], e);
    io_free_names(names, n);
    if (!rc) rc = move_file(p, MANIFEST_TOKENIZER, e);
    for (int i = 0; i < p->manifest.count && !rc; i++)
        rc = move_file(p, p->manifest.shard[i].file, e);
    if (!rc) rc = io_sync_dir(p->o->out, e);
    if (!rc) rc = manifest_write(&p->manifest, p->o->out, p->o->inputs, p->o->n_inputs, e);
    return rc;
}

/* ---- the tokenizer ------------------------------------------------------------------------- */

/* Standard input can be read once: with a tokenizer to train, it goes to a file first. */
static int spool_stdin(Prepare *p, InputFile *file, Err *e)
{
    enum { BLOCK = 1 << 18 };
    int fd = open(p->spool, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), rc = 0;
    if (fd < 0) return err_errno(e, "%s: cannot be created", p->spool);
    Stream *in = stream_open("-", STREAM_PLAIN, e);
    char *block = malloc(BLOCK), *path = strdup(p->spool);
    int64_t n = in && block && path ? 1 : -1;
    while (n > 0 && !rc) {
        n = stream_read(in, block, BLOCK, e);
        if (n > 0) rc = io_write_full(fd, block, (size_t)n, p->spool, e);
    }
    if (n < 0) rc = e && e->set ? -1 : err_set(e, "out of memory");
    if (!rc) {
        free(file->path);
        file->path = path;
        path = NULL;
    }
    free(path);
    free(block);
    stream_close(&in);
    close(fd);
    return rc;
}

static int check_stdin(Prepare *p, Err *e)
{
    int seen = 0;
    for (int i = 0; i < p->inputs.count; i++) {
        if (strcmp(p->inputs.file[i].path, "-")) continue;
        if (seen++) return err_set(e, "standard input (-) is named more than once");
        if (!p->o->tokenizer && spool_stdin(p, &p->inputs.file[i], e)) return -1;
    }
    return 0;
}

/* Have the filters left anything? */
static int check_filtered(const Prepare *p, Err *e)
{
    const SieveResult *r = sieve_result(p->sieve);
    int64_t kept = r->documents;
    for (int f = 0; f < FILTERS; f++) kept -= r->removed[f].documents;
    if (kept || !r->documents) return 0;
    err_set(e, "%s: the filters took out all %lld documents", p->about, (long long)r->documents);
    return err_hint(e, "--dry-run-filters shows which; --filter-report names each");
}

/* Samples the training split: what is held out must not shape the tokenizer. */
static int sample_inputs(Prepare *p, Sample *sample, Err *e)
{
    BadPolicy policy = p->o->skip_bad ? BAD_QUIET : BAD_FAILS;
    Source *source = source_open(&p->inputs, p->o->text_key, policy, e);
    if (!source) return -1;
    sieve_begin(p->sieve, source, &p->inputs);
    Document document;
    int more, rc = 0;
    while (!rc && (more = sieve_next(p->sieve, &document, e)) != 0) {
        if (more < 0) rc = -1;
        else if (!encode_is_val(&document, p->o->val_fraction))
            rc = sample_add(sample, document.text, document.size, e);
    }
    source_close(&source);
    return rc;
}

static int train_tokenizer(Prepare *p, Err *e)
{
    Sample *sample = sample_create(SAMPLE_BYTES);
    TrainText *texts = NULL;
    int n = 0, rc = sample ? 0 : err_set(e, "out of memory");
    if (!rc) rc = sample_inputs(p, sample, e) || check_filtered(p, e) ? -1 : 0;
    if (!rc) rc = sample_texts(sample, &texts, &n, e);
    if (!rc) {
        log_info("training a tokenizer of %d pieces", p->o->vocab_size);
        rc = tokenizer_train(texts, n, p->o->vocab_size, p->model, e);
    }
    free(texts);
    sample_destroy(&sample);
    return rc;
}

static int copy_tokenizer(Prepare *p, Err *e)
{
    char *bytes;
    size_t size;
    if (io_read_all(p->o->tokenizer, MODEL_MAX, &bytes, &size, e)) return -1;
    int rc = io_write_atomic(p->model, bytes, size, e);
    free(bytes);
    return rc;
}

static int open_tokenizer(Prepare *p, Err *e)
{
    if (p->o->tokenizer) { /* opened from its own place first: messages name it */
        p->tokenizer = tokenizer_open(p->o->tokenizer, e);
        return p->tokenizer ? copy_tokenizer(p, e) : -1;
    }
    if (train_tokenizer(p, e)) return -1;
    p->tokenizer = tokenizer_open(p->model, e);
    return p->tokenizer ? 0 : -1;
}

/* ---- the run ------------------------------------------------------------------------------- */

static int check_options(const PrepareOptions *o, Err *e)
{
    if (!(o->val_fraction >= 0 && o->val_fraction < 1))
        return err_set(e, "val_fraction %g: must be from 0 to below 1", o->val_fraction);
    if (o->shard_tokens < 1)
        return err_set(e, "shard_tokens %lld: must be at least 1", (long long)o->shard_tokens);
    if (filter_check(&o->filter, e)) return -1;
    return o->tokenizer || o->dry_run ? 0 : tokenizer_check_vocab(o->vocab_size, e);
}

/* Names of the inputs, cut at what fits. */
static void describe_inputs(Prepare *p)
{
    size_t used = 0, room = sizeof p->about - 1;
    for (int i = 0; i < p->o->n_inputs && used < room; i++) {
        const char *name = p->o->inputs[i];
        int n = snprintf(p->about + used, room + 1 - used, "%s%s", i ? " " : "", name);
        used = n < 0 || (size_t)n > room - used ? room : used + (size_t)n;
    }
    p->about[utf8_valid_prefix(p->about, strlen(p->about))] = 0;
}

static void count_manifest(const Manifest *m, PrepareResult *r)
{
    *r = (PrepareResult){.skipped = m->skipped};
    for (int i = 0; i < m->count; i++) {
        const ManifestShard *row = &m->shard[i];
        bool val = !strcmp(row->split, SPLIT_NAME[SPLIT_VAL]);
        r->documents += row->documents;
        r->bytes += row->bytes;
        *(val ? &r->val_tokens : &r->train_tokens) += row->tokens;
        if (val) r->val_bytes += row->bytes;
        ++*(val ? &r->val_shards : &r->train_shards);
    }
}

static int by_name(const void *a, const void *b)
{
    const ManifestShard *x = a, *y = b;
    int order = strcmp(x->split, y->split); /* five digits or more: longer names are later ones */
    if (!order) order = (strlen(x->file) > strlen(y->file)) - (strlen(x->file) < strlen(y->file));
    return order ? order : strcmp(x->file, y->file);
}

static int encode_inputs(Prepare *p, Err *e)
{
    BadPolicy policy = p->o->skip_bad ? BAD_WARNS : BAD_FAILS;
    Source *source = source_open(&p->inputs, p->o->text_key, policy, e);
    if (!source) return -1;
    sieve_begin(p->sieve, source, &p->inputs);
    EncodePlan plan = {p->tokenizer, p->sieve, p->staging, p->about, p->o->val_fraction,
                       p->o->shard_tokens};
    Manifest *m = &p->manifest;
    m->tokenizer_hash = tokenizer_hash(p->tokenizer);
    m->vocab_size = tokenizer_vocab(p->tokenizer);
    m->bos = tokenizer_bos(p->tokenizer);
    m->eos = tokenizer_eos(p->tokenizer);
    int rc = encode_all(&plan, m, e);
    if (!rc && filter_any(&p->o->filter)) {
        m->filters = filter_note(&p->o->filter, sieve_result(p->sieve));
        if (!m->filters) rc = err_set(e, "out of memory");
    }
    m->skipped = source_skipped(source);
    source_close(&source);
    if (m->count) qsort(m->shard, (size_t)m->count, sizeof *m->shard, by_name);
    return rc;
}

static int check_result(const Prepare *p, const PrepareResult *r, Err *e)
{
    if (check_filtered(p, e)) return -1;
    if (!r->documents)
        return err_set(e, "%s: no documents (%lld bad ones skipped)", p->about,
                       (long long)r->skipped);
    if (!r->train_tokens) {
        err_set(e, "%s: all %lld documents were held out", p->about, (long long)r->documents);
        return err_hint(e, "choose a smaller val_fraction");
    }
    if (p->o->val_fraction > 0 && !r->val_tokens)
        log_warn("none of the %lld documents was held out: there is no val split (it is chosen by "
                 "whole documents; give more of them, or a larger val_fraction)",
                 (long long)r->documents);
    return 0;
}

/* The filters alone. */
static int count_only(Prepare *p, PrepareResult *result, Err *e)
{
    Document document;
    int more;
    Source *source = source_open(&p->inputs, p->o->text_key,
                                 p->o->skip_bad ? BAD_WARNS : BAD_FAILS, e);
    if (!source) return -1;
    sieve_begin(p->sieve, source, &p->inputs);
    while ((more = sieve_next(p->sieve, &document, e)) > 0) {
        result->documents++;
        result->bytes += (int64_t)document.size;
    }
    result->skipped = source_skipped(source);
    result->filter = *sieve_result(p->sieve);
    source_close(&source);
    return more;
}

static int run(Prepare *p, PrepareResult *result, Err *e)
{
    double begin = log_seconds();
    if (check_options(p->o, e) || inputs_expand(p->o->inputs, p->o->n_inputs, &p->inputs, e))
        return -1;
    describe_inputs(p);
    if (p->inputs.ignored)
        log_info("%d files with other suffixes are ignored", p->inputs.ignored);
    p->sieve = sieve_create(&p->o->filter, e);
    if (!p->sieve) return -1;
    if (p->o->dry_run) return count_only(p, result, e);
    if (open_folder(p, e) || check_stdin(p, e) || open_tokenizer(p, e)) return -1;
    if (encode_inputs(p, e)) return -1;
    count_manifest(&p->manifest, result);
    result->filter = *sieve_result(p->sieve);
    if (check_result(p, result, e) || commit(p, e)) return -1;
    log_info("%lld documents, %.3f MB, %lld tokens in %.1f s", (long long)result->documents,
             1e-6 * (double)result->bytes, (long long)(result->train_tokens + result->val_tokens),
             log_seconds() - begin);
    return 0;
}

int prepare_run(const PrepareOptions *options, PrepareResult *result, Err *e)
{
    Prepare p = {.o = options, .lock = -1};
    *result = (PrepareResult){0};
    int rc = run(&p, result, e);
    if (p.staging[0]) io_remove_tree(p.staging, NULL);
    tokenizer_close(&p.tokenizer);
    sieve_destroy(&p.sieve);
    manifest_free(&p.manifest);
    inputs_free(&p.inputs);
    if (p.lock >= 0) close(p.lock);
    return rc;
}

/* ---- verification -------------------------------------------------------------------------- */

static int verify_tokenizer(const Manifest *m, const char *folder, Err *e)
{
    char path[IO_PATH_MAX];
    if (io_join(path, folder, MANIFEST_TOKENIZER, e)) return -1;
    Tokenizer *tokenizer = tokenizer_open(path, e);
    if (!tokenizer) return -1;
    int rc = 0;
    if (tokenizer_hash(tokenizer) != m->tokenizer_hash ||
        tokenizer_vocab(tokenizer) != m->vocab_size || tokenizer_bos(tokenizer) != m->bos ||
        tokenizer_eos(tokenizer) != m->eos)
        rc = err_set(e, "%s: not the tokenizer that %s describes", path, MANIFEST_FILE);
    tokenizer_close(&tokenizer);
    return rc;
}

static int verify_shard(const Manifest *m, int i, const char *folder, Err *e)
{
    char path[IO_PATH_MAX];
    if (io_join(path, folder, m->shard[i].file, e)) return -1;
    Shard *shard = shard_open(path, e);
    if (!shard) return -1;
    int rc = manifest_check(&m->shard[i], shard, e);
    if (!rc && shard_info(shard)->tokenizer_hash != m->tokenizer_hash)
        rc = err_set(e, "%s: made with another tokenizer than %s", path, MANIFEST_TOKENIZER);
    if (!rc) rc = shard_verify(shard, e);
    shard_close(&shard);
    return rc;
}

int prepare_verify(const char *folder, PrepareResult *result, Err *e)
{
    Manifest manifest;
    if (manifest_read(&manifest, folder, e)) return -1;
    int rc = verify_tokenizer(&manifest, folder, e);
    for (int i = 0; i < manifest.count && !rc; i++) rc = verify_shard(&manifest, i, folder, e);
    if (!rc) count_manifest(&manifest, result);
    manifest_free(&manifest);
    return rc;
}
