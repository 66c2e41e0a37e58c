/* data/inputs.c - see inputs.h. */
#include "data/inputs.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/io.h"

enum { DEPTH_MAX = 64 }; /* of folders: a loop of links ends here */

/* Does name[0..length) end in suffix? */
static bool ends_in(const char *name, size_t length, const char *suffix)
{
    size_t n = strlen(suffix);
    return length >= n && !memcmp(name + length - n, suffix, n);
}

/* Sets kind and packing from the name; false if the suffix is not a known one. */
static bool classify(const char *name, InputFile *file)
{
    size_t length = strlen(name);
    file->kind = INPUT_TEXT;
    file->packing = STREAM_PLAIN;
    if (ends_in(name, length, ".gz")) {
        file->packing = STREAM_GZIP;
        length -= 3;
    } else if (ends_in(name, length, ".zst")) {
        file->packing = STREAM_ZSTD;
        length -= 4;
    }
    if (ends_in(name, length, ".jsonl")) file->kind = INPUT_JSONL;
    else if (!ends_in(name, length, ".txt")) return false;
    return true;
}

static int add_file(InputList *list, const char *path, const InputFile *how, Err *e)
{
    if (list->count == list->capacity) {
        int capacity = list->capacity ? list->capacity * 2 : 64;
        InputFile *grown = realloc(list->file, (size_t)capacity * sizeof *grown);
        if (!grown) return err_set(e, "out of memory while listing input files");
        list->file = grown;
        list->capacity = capacity;
    }
    InputFile *file = &list->file[list->count];
    *file = *how;
    if (!(file->path = strdup(path))) return err_set(e, "out of memory while listing input files");
    list->count++;
    return 0;
}

static int add_folder(InputList *list, const char *path, int depth, Err *e);

static int add_entry(InputList *list, const char *folder, const char *name, int depth, Err *e)
{
    char path[IO_PATH_MAX];
    struct stat info;
    InputFile how;
    if (name[0] == '.') {
        list->ignored++;
        return 0;
    }
    if (io_join(path, folder, name, e)) return -1;
    if (stat(path, &info)) return err_errno(e, "%s: cannot be read", path);
    if (S_ISDIR(info.st_mode)) return add_folder(list, path, depth + 1, e);
    if (S_ISREG(info.st_mode) && classify(name, &how)) return add_file(list, path, &how, e);
    list->ignored++;
    return 0;
}

static int add_folder(InputList *list, const char *path, int depth, Err *e)
{
    if (depth > DEPTH_MAX) return err_set(e, "%s: folders nested too deep (a loop?)", path);
    char **names;
    int n, rc = 0;
    if (io_list_dir(path, &names, &n, e)) return -1;
    for (int i = 0; i < n && !rc; i++) rc = add_entry(list, path, names[i], depth, e);
    io_free_names(names, n);
    return rc;
}

int inputs_expand(const char *const *names, int n, InputList *out, Err *e)
{
    *out = (InputList){0};
    int rc = n > 0 ? 0 : err_set(e, "no input files given");
    for (int i = 0; i < n && !rc; i++) {
        InputFile how = {0};
        struct stat info;
        if (!strcmp(names[i], "-")) {
            rc = add_file(out, "-", &how, e);
        } else if (stat(names[i], &info)) {
            rc = err_errno(e, "%s: cannot be read", names[i]);
        } else if (S_ISDIR(info.st_mode)) {
            rc = add_folder(out, names[i], 0, e);
        } else {
            classify(names[i], &how);
            rc = add_file(out, names[i], &how, e);
        }
    }
    if (!rc && out->count == 0) {
        rc = err_set(e, "%s: nothing to read (%d files ignored)", names[0], out->ignored);
        err_hint(e, "in folders, files are read that end in .txt or .jsonl, also with .gz or .zst");
    }
    if (rc) inputs_free(out);
    return rc;
}

void inputs_free(InputList *list)
{
    for (int i = 0; i < list->count; i++) free(list->file[i].path);
    free(list->file);
    *list = (InputList){0};
}
