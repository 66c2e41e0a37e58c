/* train/checkpoint_read.c - finding and reading checkpoints; see checkpoint.h. All checks that need
 * no tensor bytes come first, then the whole file's checksum, and only then is the model touched.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/hash.h"
#include "train/checkpoint.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_manifest.h"
#include "train/stages.h"

enum { PIECE = 1 << 22 }; /* bytes */

/* Every message about a damaged checkpoint ends with this. */
static int hint_delete(const char *folder, Err *e)
{
    return err_hint(e, "to go on from an older checkpoint, delete the folder %s", folder);
}

int checkpoint_newest(const char *run_folder, char *found, Err *e)
{
    int64_t *steps;
    int count;
    found[0] = 0;
    if (checkpoint_list(run_folder, 1, &steps, &count, e)) return -1;
    int rc = count ? checkpoint_path(found, run_folder, steps[0], e) : 0;
    free(steps);
    return rc;
}

/* The folder that `path` means. */
static int resolve(const char *path, char *found, Err *e)
{
    char manifest[IO_PATH_MAX];
    if (io_join(manifest, path, CHECKPOINT_MANIFEST, e)) return -1;
    if (io_exists(manifest)) {
        if (found != path) snprintf(found, IO_PATH_MAX, "%s", path);
        return 0;
    }
    if (!io_is_dir(path)) return err_set(e, "%s: no such folder", path);
    if (checkpoint_newest(path, found, e)) return -1;
    if (found[0]) return 0;
    err_set(e, "%s: holds no checkpoint", path);
    return err_hint(e, "expected a run folder with checkpoints/step-.../manifest.json, or one such "
                       "step folder");
}

/* A folder that was renamed to another step would be taken for newer or older than it is. */
static int check_step(const char *folder, int64_t step, Err *e)
{
    const char *slash = strrchr(folder, '/');
    int64_t named = checkpoint_name_step(slash ? slash + 1 : folder);
    if (named < 0 || named == step) return 0;
    return err_set(e, "%s: the folder's name says step %" PRId64 ", its manifest step %" PRId64,
                   folder, named, step);
}

int checkpoint_open(const char *path, RunConfig *c, TrainState *s, char *found, Err *e)
{
    CheckpointManifest m;
    char name[IO_PATH_MAX + 32];
    if (resolve(path, found, e)) return -1;
    if (checkpoint_manifest_read(found, &m, e)) return hint_delete(found, e);
    snprintf(name, sizeof name, "%s/" CHECKPOINT_MANIFEST " (config)", found);
    int rc = check_step(found, m.state.step, e);
    if (!rc && c) rc = run_config_read_text(c, m.config, name, e);
    if (!rc && c && m.state.stage >= stages_count(c))
        rc = err_set(e, "%s: state.stage is %" PRId64 ", the run has %d", name, m.state.stage,
                     stages_count(c));
    if (!rc && s) *s = m.state;
    checkpoint_manifest_free(&m);
    return rc;
}

typedef struct Reader {
    Model *m;
    Optimizer *o;           /* or NULL */
    char file[IO_PATH_MAX]; /* <folder>/rank-0000.h5 */
    TensorSlots slots;
    int fd;
    char *piece;            /* (PIECE) */
} Reader;

/* The file is the one that the manifest was written for, byte for byte. */
static int check_file(const char *path, const CheckpointManifest *m, Err *e)
{
    struct stat info;
    uint64_t hash;
    if (stat(path, &info)) return err_errno(e, "%s: cannot be opened", path);
    if (info.st_size != m->file_bytes)
        return err_set(e, "%s: damaged: %lld bytes, the manifest says %lld", path,
                       (long long)info.st_size, (long long)m->file_bytes);
    if (hash_file(path, &hash, e)) return -1;
    if (hash != m->file_hash)
        return err_set(e, "%s: damaged: its checksum is not the manifest's", path);
    return 0;
}

/* CheckpointManifest and file agree about each tensor's checksum. */
static int check_hashes(Reader *r, const CheckpointManifest *m, const char *folder, Err *e)
{
    int count = r->slots.count;
    uint64_t *hash = malloc((size_t)count * sizeof *hash);
    int rc = hash ? 0 : err_set(e, "%s: out of memory", folder);
    if (!rc) rc = checkpoint_manifest_tensors(m, folder, &r->slots, e);
    for (int i = 0; i < count && !rc; i++) hash[i] = r->slots.slot[i].hash;
    if (!rc) rc = tensor_file_inspect(r->file, &r->slots, e);
    for (int i = 0; i < count && !rc; i++) {
        char name[TENSOR_PATH];
        if (hash[i] != r->slots.slot[i].hash)
            rc = err_set(e, "%s: damaged: checksum of tensor %s is not the manifest's", r->file,
                         tensor_slot_name(&r->slots.slot[i], name));
    }
    free(hash);
    return rc;
}

static int read_tensor(Reader *r, const TensorSlot *slot, XXH3_state_t *hash, Err *e)
{
    int64_t size = (int64_t)dtype_size(slot->tensor.type), bytes = tensor_bytes(slot->tensor);
    char name[TENSOR_PATH];
    XXH3_64bits_reset(hash);
    for (int64_t i = 0; i < bytes; i += PIECE) {
        int64_t n = bytes - i < PIECE ? bytes - i : PIECE;
        Tensor part = tensor_1d((char *)slot->tensor.data + i, slot->tensor.type, n / size);
        if (io_pread_full(r->fd, r->piece, (size_t)n, slot->at + i, r->file, e)) return -1;
        XXH3_64bits_update(hash, r->piece, (size_t)n);
        dev_upload(model_device(r->m), part, r->piece);
    }
    if (XXH3_64bits_digest(hash) == slot->hash) return 0;
    return err_set(e, "%s: damaged: tensor %s does not have its checksum", r->file,
                   tensor_slot_name(slot, name));
}

static int read_tensors(Reader *r, Err *e)
{
    XXH3_state_t *hash = XXH3_createState();
    int rc = -1;
    r->piece = malloc(PIECE);
    r->fd = open(r->file, O_RDONLY | O_CLOEXEC);
    if (!hash || !r->piece) {
        err_set(e, "%s: out of memory", r->file);
        goto done;
    }
    if (r->fd < 0) {
        err_errno(e, "%s: cannot be opened", r->file);
        goto done;
    }
    for (int i = 0; i < r->slots.count; i++)
        if (read_tensor(r, &r->slots.slot[i], hash, e)) goto done;
    model_refresh_weights(r->m);
    rc = 0;
done:
    if (r->fd >= 0) close(r->fd);
    free(r->piece);
    XXH3_freeState(hash);
    return rc;
}

static int load(Reader *r, const CheckpointManifest *m, const char *folder, Err *e)
{
    if (io_join(r->file, folder, CHECKPOINT_TENSORS, e)) return -1;
    if (tensor_slots_make(&r->slots, r->m, r->o, e)) return -1;
    if (check_file(r->file, m, e) || check_hashes(r, m, folder, e)) return -1;
    return read_tensors(r, e);
}

int checkpoint_load(const char *folder, Model *m, Optimizer *o, Err *e)
{
    CheckpointManifest manifest;
    Reader *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, "%s: out of memory", folder);
    r->m = m;
    r->o = o;
    r->fd = -1;
    int rc = checkpoint_manifest_read(folder, &manifest, e);
    if (!rc) {
        rc = load(r, &manifest, folder, e);
        checkpoint_manifest_free(&manifest);
    }
    tensor_slots_free(&r->slots);
    free(r);
    return rc ? hint_delete(folder, e) : 0;
}
