/* train/run_folder.c - see run_folder.h. */
#include "train/run_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"

/* A lock file alone does not count: a refused start leaves it behind. */
static int check_empty(const char *folder, Err *e)
{
    char **names;
    int count, others = 0;
    if (io_list_dir(folder, &names, &count, e)) return -1;
    for (int i = 0; i < count; i++) others += strcmp(names[i], "lock") != 0;
    io_free_names(names, count);
    if (!others) return 0;
    err_set(e, "%s: is not empty, and --fresh overwrites nothing", folder);
    return err_hint(e, "choose another folder with train.out=..., or remove this one");
}

static int already_locked(const char *folder, int fd, Err *e)
{
    char owner[32] = "";
    ssize_t n = pread(fd, owner, sizeof owner - 1, 0);
    long pid = n > 0 ? strtol(owner, NULL, 10) : 0;
    if (pid > 0)
        err_set(e, "%s: process %ld is training into this folder", folder, pid);
    else
        err_set(e, "%s: another process is training into this folder", folder);
    return err_hint(e, "wait for it, stop it, or choose another folder with train.out=...");
}

int run_folder_lock(const char *folder, bool fresh, int *lock, Err *e)
{
    char path[IO_PATH_MAX], text[32];
    *lock = -1;
    if (io_make_dirs(folder, e) || io_join(path, folder, "lock", e)) return -1;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return err_errno(e, "%s: cannot be opened", path);
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno == EWOULDBLOCK)
            already_locked(folder, fd, e);
        else
            err_errno(e, "%s: cannot be locked", path);
        goto fail;
    }
    if (fresh && check_empty(folder, e)) goto fail;
    int n = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0)) {
        err_errno(e, "%s: cannot be emptied", path);
        goto fail;
    }
    if (io_write_full(fd, text, (size_t)n, path, e)) goto fail;
    *lock = fd;
    return 0;
fail:
    close(fd);
    return -1;
}

void run_folder_unlock(int *lock)
{
    if (*lock >= 0) close(*lock);
    *lock = -1;
}

/* A file system that keeps no times has no signs either; that is no reason to stop. */
void run_folder_sign(int lock)
{
    if (lock >= 0) (void)!futimens(lock, NULL);
}
