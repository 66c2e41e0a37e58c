/* base/io.c - see io.h. */
#include "base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int io_read_all(const char *path, int64_t max_size, char **data, size_t *size, Err *e)
{
    *data = NULL;
    *size = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = -1;
    if (fd < 0) return err_errno(e, "%s: cannot be opened", path);
    size_t capacity = 65536, used = 0;
    char *buffer = malloc(capacity);
    for (;;) {
        if (!buffer) {
            err_set(e, "%s: out of memory after %zu bytes", path, used);
            goto done;
        }
        ssize_t n = read(fd, buffer + used, capacity - used - 1);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            err_errno(e, "%s: read error at byte %zu", path, used);
            goto done;
        }
        if (n == 0) break;
        used += (size_t)n;
        if ((int64_t)used > max_size) {
            err_set(e, "%s: larger than the %lld bytes allowed here", path, (long long)max_size);
            goto done;
        }
        if (used + 1 == capacity) {
            char *grown = realloc(buffer, capacity * 2);
            if (!grown) {
                err_set(e, "%s: out of memory after %zu bytes", path, used);
                goto done;
            }
            buffer = grown;
            capacity *= 2;
        }
    }
    buffer[used] = 0;
    *data = buffer;
    *size = used;
    buffer = NULL;
    rc = 0;
done:
    free(buffer);
    close(fd);
    return rc;
}

int io_write_full(int fd, const void *data, size_t size, const char *path, Err *e)
{
    const char *p = data;
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, "%s: write error", path);
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

int io_pread_full(int fd, void *data, size_t size, int64_t offset, const char *path, Err *e)
{
    char *p = data;
    size_t done = 0;
    while (done < size) {
        ssize_t n = pread(fd, p + done, size - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_errno(e, "%s: read error at byte %lld", path, (long long)offset);
        if (n == 0)
            return err_set(e, "%s: cut short: wanted %zu bytes at byte %lld, got %zu", path, size,
                           (long long)offset, done);
        done += (size_t)n;
    }
    return 0;
}

int io_sync_dir(const char *path, Err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(e, "%s: folder cannot be opened", path);
    int rc = fsync(fd);
    if (rc) err_errno(e, "%s: folder cannot be synced", path);
    close(fd);
    return rc ? -1 : 0;
}

int io_write_atomic(const char *path, const void *data, size_t size, Err *e)
{
    char temporary[IO_PATH_MAX], folder[IO_PATH_MAX];
    int n = snprintf(temporary, sizeof temporary, "%s.tmp.%ld", path, (long)getpid());
    if (n < 0 || n >= (int)sizeof temporary) return err_set(e, "path too long: %.200s...", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) return err_errno(e, "%s: cannot be created", temporary);
    int rc = io_write_full(fd, data, size, temporary, e);
    if (!rc && fsync(fd)) rc = err_errno(e, "%s: cannot be synced", temporary);
    if (close(fd) && !rc) rc = err_errno(e, "%s: cannot be closed", temporary);
    if (!rc && rename(temporary, path)) rc = err_errno(e, "%s: cannot be renamed into place", path);
    if (rc) {
        unlink(temporary);
        return -1;
    }
    snprintf(folder, sizeof folder, "%s", path);
    return io_sync_dir(dirname(folder), e);
}

int io_make_dirs(const char *path, Err *e)
{
    char part[IO_PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof part) return err_set(e, "path too long: %.200s...", path);
    for (size_t i = 1; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0) continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0777) && errno != EEXIST)
            return err_errno(e, "%s: folder cannot be made", part);
    }
    if (!io_is_dir(path)) return err_set(e, "%s: exists and is not a folder", path);
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

int io_remove_tree(const char *path, Err *e)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) && errno != ENOENT)
        return err_errno(e, "%s: cannot be removed", path);
    return 0;
}

bool io_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0;
}

bool io_is_dir(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int io_join(char out[IO_PATH_MAX], const char *a, const char *b, Err *e)
{
    int n = snprintf(out, IO_PATH_MAX, "%s/%s", a, b);
    if (n < 0 || n >= IO_PATH_MAX) return err_set(e, "path too long: %.100s/%.100s", a, b);
    return 0;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int io_list_dir(const char *path, char ***names, int *count, Err *e)
{
    *names = NULL;
    *count = 0;
    DIR *folder = opendir(path);
    if (!folder) return err_errno(e, "%s: folder cannot be opened", path);
    char **list = NULL;
    int used = 0, capacity = 0, rc = -1;
    struct dirent *entry;
    while ((entry = readdir(folder))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (used == capacity) {
            capacity = capacity ? capacity * 2 : 64;
            char **grown = realloc(list, (size_t)capacity * sizeof *list);
            if (!grown) goto memory;
            list = grown;
        }
        if (!(list[used] = strdup(entry->d_name))) goto memory;
        used++;
    }
    if (used) qsort(list, (size_t)used, sizeof *list, name_order);
    *names = list;
    *count = used;
    rc = 0;
    goto done;
memory:
    err_set(e, "%s: out of memory while listing", path);
    io_free_names(list, used);
done:
    closedir(folder);
    return rc;
}

void io_free_names(char **names, int count)
{
    for (int i = 0; i < count; i++) free(names[i]);
    free(names);
}
