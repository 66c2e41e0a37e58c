/* tests/train_help.h - what the tests of train/ share: a scratch folder, messages, running the
 * program, a small corpus, run records. */
#ifndef ISOMOE_TESTS_TRAIN_HELP_H
#define ISOMOE_TESTS_TRAIN_HELP_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"

enum { PATH = 512 };
static char scratch[PATH]; /* set by help_begin, removed by help_end */

__attribute__((unused)) static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part)) return;
    fail_msg("expected: %s\nfound: %s", part, text);
}

/* A path below the scratch folder; a few buffers in turn. */
__attribute__((format(printf, 1, 2), unused)) static char *at(const char *format, ...)
{
    static char buffer[8][PATH * 2];
    static int next;
    char *out = buffer[next++ % 8];
    int n = snprintf(out, PATH * 2, "%s/", scratch);
    va_list args;
    va_start(args, format);
    vsnprintf(out + n, (size_t)(PATH * 2 - n), format, args);
    va_end(args);
    return out;
}

__attribute__((unused)) static int help_begin(void **state)
{
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/isomoe-test-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

__attribute__((unused)) static int help_end(void **state)
{
    (void)state;
    return io_remove_tree(scratch, NULL);
}

__attribute__((unused)) static void write_file(const char *path, const char *text)
{
    Err e = {0};
    if (io_write_atomic(path, text, strlen(text), &e)) fail_msg("%s", e.message);
}

__attribute__((unused, noinline)) static char *read_file(const char *path, size_t *size)
{
    char *text;
    size_t n;
    Err e = {0};
    if (io_read_all(path, 1 << 28, &text, &n, &e)) fail_msg("%s", e.message);
    if (size) *size = n;
    return text;
}

/* The program beside the test: build/<mode>/tests/test_x -> build/<mode>/isomoe. */
__attribute__((unused)) static const char *program(void)
{
    static char path[PATH];
    const char *given = getenv("ISOMOE_PROGRAM");
    if (given) return given;
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    assert_true(n > 0);
    path[n] = 0;
    char *folder = dirname(dirname(path));
    static char out[PATH + 8];
    snprintf(out, sizeof out, "%s/isomoe", folder);
    return out;
}

/* What a run of the program printed; texts live until the next run. */
static char *program_out, *program_err;

/* Starts `isomoe words...` (ends with NULL); its output goes to files of the scratch folder. */
__attribute__((unused)) static pid_t program_start(const char *const *words)
{
    const char *list[64] = {program()};
    int n = 1;
    while (words[n - 1] && n < 62) {
        list[n] = words[n - 1];
        n++;
    }
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    int out = open(at("out"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err = open(at("err"), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(out, 1);
    dup2(err, 2);
    execv(list[0], (char *const *)list);
    _exit(126);
}

/* Waits for it; the exit code, or 1000 + the signal that ended it. Fills program_out and _err. */
__attribute__((unused)) static int program_wait(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    free(program_out);
    free(program_err);
    program_out = read_file(at("out"), NULL);
    program_err = read_file(at("err"), NULL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

#define RUN(...) program_wait(program_start((const char *const[]){__VA_ARGS__, NULL}))

/* Runs, and fails with everything that was printed if the exit code is another. */
#define RUN_CODE(code, ...)                                                                        \
    do {                                                                                           \
        int got = RUN(__VA_ARGS__);                                                                \
        if (got != (code))                                                                         \
            fail_msg("exit %d, expected %d\n%s%s", got, (code), program_out, program_err);         \
    } while (0)

#endif
