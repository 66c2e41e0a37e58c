/* train/checkpoint.c - writing checkpoints; see checkpoint.h. The order is what makes it safe: file
 * laid out, filled, sealed and synced; manifest renamed in and synced; folder renamed and its
 * parent synced; only then are older checkpoints removed. */
#include "train/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/hash.h"
#include "base/log.h"
#include "train/checkpoint_folder.h"
#include "train/checkpoint_manifest.h"

enum { PIECE = 1 << 22 }; /* bytes on their way from the device to the file */

typedef struct Saver {
    Model *m;
    Optimizer *o;
    char parent[IO_PATH_MAX];    /* <run>/checkpoints */
    char temporary[IO_PATH_MAX]; /* <parent>/step-000000123.tmp.<pid> */
    char final[IO_PATH_MAX];
    char file[IO_PATH_MAX];      /* <temporary>/rank-0000.h5 */
    TensorSlots slots;
    char *piece;                 /* (PIECE) */
    int fd;                      /* of `file` while it is filled, else -1 */
} Saver;

/* Removes what a killed process left behind; the run's lock makes sure that it is nobody's. */
static int remove_leftovers(const char *parent, Err *e)
{
    char **names, path[IO_PATH_MAX];
    int count, rc = 0;
    if (io_list_dir(parent, &names, &count, e)) return -1;
    for (int i = 0; i < count && !rc; i++)
        if (checkpoint_name_temporary(names[i]))
            rc = io_join(path, parent, names[i], e) || io_remove_tree(path, e);
    io_free_names(names, count);
    return rc ? -1 : 0;
}

/* Asks for the whole file's space before HDF5 sees it: a full disk is told in plain words, and
 * HDF5, which loses memory when it cannot close a file, does not meet it. A file system that cannot
 * reserve space is asked by writing alone. */
static int check_space(const Saver *w, Err *e)
{
    int64_t need = 65536; /* the descriptions: about half a kilobyte a tensor */
    for (int i = 0; i < w->slots.count; i++)
        need += tensor_bytes(w->slots.slot[i].tensor) + 1024;
    int fd = open(w->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), rc = 0;
    if (fd < 0) return err_errno(e, "%s: cannot be created", w->file);
    if (fallocate(fd, 0, 0, (off_t)need) && errno != EOPNOTSUPP && errno != ENOSYS) {
        rc = err_errno(e, "%s: no space for its %.1f MB", w->file, (double)need / 1e6);
        err_hint(e, "free space, or keep fewer checkpoints (train.keep_checkpoints)");
    }
    close(fd);
    return rc;
}

static int write_tensor(Saver *w, TensorSlot *slot, XXH3_state_t *hash, Err *e)
{
    int64_t size = (int64_t)dtype_size(slot->tensor.type), bytes = tensor_bytes(slot->tensor);
    if (lseek(w->fd, (off_t)slot->at, SEEK_SET) < 0)
        return err_errno(e, "%s: cannot be written at byte %" PRId64, w->file, slot->at);
    XXH3_64bits_reset(hash);
    for (int64_t i = 0; i < bytes; i += PIECE) {
        int64_t n = bytes - i < PIECE ? bytes - i : PIECE;
        Tensor part = tensor_1d((char *)slot->tensor.data + i, slot->tensor.type, n / size);
        dev_download(model_device(w->m), w->piece, part);
        XXH3_64bits_update(hash, w->piece, (size_t)n);
        if (io_write_full(w->fd, w->piece, (size_t)n, w->file, e)) return -1;
    }
    slot->hash = XXH3_64bits_digest(hash);
    return 0;
}

static int write_tensors(Saver *w, Err *e)
{
    XXH3_state_t *hash = XXH3_createState();
    int rc = -1;
    if (!hash) {
        err_set(e, "%s: out of memory", w->file);
        goto done;
    }
    w->fd = open(w->file, O_WRONLY | O_CLOEXEC);
    if (w->fd < 0) {
        err_errno(e, "%s: cannot be opened", w->file);
        goto done;
    }
    for (int i = 0; i < w->slots.count; i++)
        if (write_tensor(w, &w->slots.slot[i], hash, e)) goto done;
    rc = 0;
done:
    if (w->fd >= 0 && close(w->fd) && !rc) rc = err_errno(e, "%s: cannot be closed", w->file);
    w->fd = -1;
    XXH3_freeState(hash);
    return rc;
}

static int sync_file(const char *path, int64_t *bytes, Err *e)
{
    struct stat info = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
    if (fd < 0) return err_errno(e, "%s: cannot be opened", path);
    if (fsync(fd) || fstat(fd, &info)) rc = err_errno(e, "%s: cannot be synced", path);
    close(fd);
    *bytes = info.st_size;
    return rc;
}

/* The complete checkpoint under its temporary name. */
static int write_folder(Saver *w, const RunConfig *c, const TrainState *s, Err *e)
{
    TrainState state = *s;
    CheckpointParts parts = {c, &state, 0, 0, &w->slots};
    snprintf(state.variant, sizeof state.variant, "%s", device_variant(model_device(w->m)));
    if (io_make_dirs(w->temporary, e) || check_space(w, e)) return -1;
    if (tensor_file_create(w->file, &w->slots, e)) return -1;
    if (write_tensors(w, e)) return -1;
    if (tensor_file_seal(w->file, &w->slots, e)) return -1;
    if (sync_file(w->file, &parts.file_bytes, e)) return -1;
    if (hash_file(w->file, &parts.file_hash, e)) return -1;
    return checkpoint_manifest_write(w->temporary, &parts, e);
}

/* Gives the folder its name. A folder that has it already (a second save at one step) is moved
 * aside first and removed last. */
static int install(Saver *w, Err *e)
{
    char old[IO_PATH_MAX];
    int n = snprintf(old, sizeof old, "%s.old.%ld", w->final, (long)getpid());
    if (n < 0 || n >= (int)sizeof old) return err_set(e, "path too long: %.200s...", w->final);
    bool moved = !rename(w->final, old);
    if (!moved && errno != ENOENT) return err_errno(e, "%s: cannot be moved aside", w->final);
    if (rename(w->temporary, w->final)) {
        err_errno(e, "%s: cannot be renamed into place", w->temporary);
        if (moved && rename(old, w->final)) log_warn("%s: the old checkpoint is here now", old);
        return -1;
    }
    if (io_sync_dir(w->parent, e)) return -1;
    return moved ? io_remove_tree(old, e) : 0;
}

/* The new checkpoint is safe already, so trouble here is only a warning. The manifest goes first: a
 * half-removed folder is no checkpoint. */
static void prune(const char *run_folder, int64_t keep, int64_t newest)
{
    char path[IO_PATH_MAX], manifest[IO_PATH_MAX];
    int64_t *steps;
    int count;
    Err e = {0};
    if (keep == 0 || checkpoint_list(run_folder, 0, &steps, &count, &e)) {
        if (e.set) log_warn("%s", e.message);
        return;
    }
    for (int i = 0; i < count; i++) {
        if (i < keep || steps[i] >= newest) continue;
        if (checkpoint_path(path, run_folder, steps[i], &e) ||
            io_join(manifest, path, CHECKPOINT_MANIFEST, &e) || io_remove_tree(manifest, &e) ||
            io_remove_tree(path, &e))
            log_warn("%s", e.message);
    }
    free(steps);
}

static int prepare(Saver *w, const char *run_folder, int64_t step, Err *e)
{
    if (io_join(w->parent, run_folder, "checkpoints", e)) return -1;
    if (checkpoint_path(w->final, run_folder, step, e)) return -1;
    int n = snprintf(w->temporary, sizeof w->temporary, "%s.tmp.%ld", w->final, (long)getpid());
    if (n < 0 || n >= (int)sizeof w->temporary)
        return err_set(e, "path too long: %.200s...", w->final);
    if (io_join(w->file, w->temporary, CHECKPOINT_TENSORS, e)) return -1;
    w->piece = malloc(PIECE);
    if (!w->piece) return err_set(e, "%s: out of memory", w->final);
    if (tensor_slots_make(&w->slots, w->m, w->o, e)) return -1;
    if (io_make_dirs(w->parent, e)) return -1;
    return remove_leftovers(w->parent, e);
}

int checkpoint_save(const char *run_folder, Model *m, Optimizer *o, const RunConfig *c,
                    const TrainState *s, Err *e)
{
    Saver *w = calloc(1, sizeof *w);
    int rc = -1;
    if (!w) return err_set(e, "%s: out of memory", run_folder);
    w->m = m;
    w->o = o;
    w->fd = -1;
    if (prepare(w, run_folder, s->step, e)) goto done;
    if (write_folder(w, c, s, e) || install(w, e)) {
        io_remove_tree(w->temporary, NULL);
        goto done;
    }
    prune(run_folder, c->train.keep_checkpoints, s->step);
    rc = 0;
done:
    free(w->piece);
    tensor_slots_free(&w->slots);
    free(w);
    return rc;
}
