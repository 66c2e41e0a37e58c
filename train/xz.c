/* train/xz.c - the size of a text as `xz -9` packs it: a yardstick for bits per byte. */
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "train/heldout.h"

extern char **environ;

/* Starts xz with stdin from `in` and stdout into `out`; no shell is involved. */
static int start_xz(int in, int out, pid_t *child, Err *e)
{
    char *const arguments[] = {"xz", "-9", "-c", "-q", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    int rc = posix_spawnp(child, "xz", &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (!rc) return 0;
    err_set(e, "xz cannot be started: %s", strerror(rc));
    return err_hint(e, rc == ENOENT ? "install it (Debian: apt-get install xz-utils), or leave "
                                      "--compare-xz out" : "leave --compare-xz out");
}

/* Reads to the end; *bytes receives how many came. */
static int drain(int fd, int64_t *bytes, Err *e)
{
    char buffer[65536];
    *bytes = 0;
    for (;;) {
        ssize_t n = read(fd, buffer, sizeof buffer);
        if (n == 0) return 0;
        if (n > 0) *bytes += n;
        if (n < 0 && errno != EINTR) return err_errno(e, "what xz writes cannot be read");
    }
}

int xz_size(FILE *text, int64_t *bytes, Err *e)
{
    int ends[2], status = 0, rc;
    pid_t child;
    if (fflush(text) || lseek(fileno(text), 0, SEEK_SET) != 0)
        return err_errno(e, "the held-out text cannot be rewound");
    if (pipe2(ends, O_CLOEXEC)) return err_errno(e, "a pipe to xz cannot be made");
    rc = start_xz(fileno(text), ends[1], &child, e);
    close(ends[1]);
    if (!rc) {
        rc = drain(ends[0], bytes, e);
        while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
        if (!rc && status) rc = err_set(e, "xz failed (status %d)", status);
    }
    close(ends[0]);
    return rc;
}
