/* tests/test_io.c - base/io and hash_file: whole reads, atomic writes, folders; and what is said
 * and left behind when the file system refuses.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"

/* Folder of this run, made and removed by the group's setup and teardown. */
static char folder[] = "/tmp/isomoe_io.XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? chmod(folder, 0755) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return io_remove_tree(folder, NULL);
}

/* folder/name, in one of four rotating buffers. */
static const char *at(const char *name)
{
    static char paths[4][128];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void assert_content(const char *path, const char *text)
{
    char *data;
    size_t size;
    Err e = {0};
    if (io_read_all(path, 1 << 20, &data, &size, &e)) fail_msg("%s", e.message);
    assert_int_equal(size, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

static int count_names(const char *path)
{
    char **names;
    int count;
    Err e = {0};
    if (io_list_dir(path, &names, &count, &e)) fail_msg("%s", e.message);
    io_free_names(names, count);
    return count;
}

static void assert_message(const Err *e, const char *part)
{
    assert_true(e->set);
    if (!strstr(e->message, part))
        fail_msg("expected in the message: %s\nthe message: %s", part, e->message);
}

static void test_atomic_write(void **state)
{
    (void)state;
    Err e = {0};
    assert_int_equal(io_make_dirs(at("atomic"), &e), 0);
    assert_int_equal(io_write_atomic(at("atomic/f"), "old", 3, &e), 0);
    assert_content(at("atomic/f"), "old");
    assert_int_equal(io_write_atomic(at("atomic/f"), "newer", 5, &e), 0);
    assert_content(at("atomic/f"), "newer");
    assert_int_equal(io_write_atomic(at("atomic/empty"), "", 0, &e), 0);
    assert_content(at("atomic/empty"), "");
    assert_int_equal(count_names(at("atomic")), 2); /* no temporary file left */
    assert_int_equal(e.set, 0);
}

static void test_atomic_write_failures(void **state)
{
    (void)state;
    Err e = {0};
    assert_int_equal(io_make_dirs(at("failing/sub"), &e), 0);
    assert_int_equal(io_write_atomic(at("none/f"), "x", 1, &e), -1);
    assert_message(&e, "/none/f.tmp.");
    assert_message(&e, "cannot be created: No such file or directory");
    assert_int_equal(io_write_atomic(at("failing/sub"), "x", 1, &e), -1);
    assert_message(&e, "/failing/sub: cannot be renamed into place: Is a directory");
    assert_int_equal(count_names(at("failing")), 1);
    char path[IO_PATH_MAX + 10];
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = 0;
    assert_int_equal(io_write_atomic(path, "x", 1, &e), -1);
    assert_message(&e, "path too long: ppp");
}

/* A disk that takes 4096 bytes and no more: the old content stays, no temporary file does. */
static void test_atomic_write_on_a_full_disk(void **state)
{
    (void)state;
    Err e = {0};
    struct rlimit limit, small;
    char *data = calloc(1, 100000);
    assert_int_equal(io_make_dirs(at("full"), &e), 0);
    assert_int_equal(io_write_atomic(at("full/f"), "old", 3, &e), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 4096;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int rc = io_write_atomic(at("full/f"), data, 100000, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(rc, -1);
    assert_message(&e, "/full/f.tmp.");
    assert_message(&e, ": write error: File too large");
    assert_content(at("full/f"), "old");
    assert_int_equal(count_names(at("full")), 1);
    int fd = open("/dev/full", O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(io_write_full(fd, data, 100000, "there", &e), -1);
    assert_message(&e, "there: write error: No space left on device");
    close(fd);
    free(data);
}

/* In a child that is not root, so that permissions count. */
static void test_no_permission(void **state)
{
    (void)state;
    Err e = {0};
    assert_int_equal(io_make_dirs(at("locked"), &e), 0);
    assert_int_equal(io_write_atomic(at("locked/f"), "x", 1, &e), 0);
    assert_int_equal(chmod(at("locked"), 0555) | chmod(at("locked/f"), 0), 0);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && setuid(65534)) _exit(9);
        char *data;
        size_t size;
        int bad = io_write_atomic(at("locked/g"), "x", 1, &e) != -1;
        bad |= !strstr(e.message, "cannot be created: Permission denied");
        bad |= (io_read_all(at("locked/f"), 10, &data, &size, &e) != -1) << 1;
        bad |= !strstr(e.message, "/locked/f: cannot be opened: Permission denied") << 1;
        bad |= (io_make_dirs(at("locked/d"), &e) != -1) << 2;
        bad |= !strstr(e.message, "/locked/d: folder cannot be made: Permission denied") << 2;
        bad |= (io_remove_tree(at("locked/f"), &e) != -1) << 3;
        bad |= !strstr(e.message, "/locked/f: cannot be removed: Permission denied") << 3;
        _exit(bad);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(chmod(at("locked"), 0755), 0);
}

static void test_read_all(void **state)
{
    (void)state;
    Err e = {0};
    char *data;
    size_t size;
    assert_int_equal(io_read_all(at("missing"), 10, &data, &size, &e), -1);
    assert_message(&e, "/missing: cannot be opened: No such file or directory");
    assert_null(data);
    assert_int_equal(io_read_all(folder, 10, &data, &size, &e), -1);
    assert_message(&e, ": read error at byte 0: Is a directory");
    assert_int_equal(io_read_all("/dev/zero", 1 << 20, &data, &size, &e), -1);
    assert_message(&e, "/dev/zero: larger than the 1048576 bytes allowed here");
    static const size_t sizes[] = {0, 1, 65534, 65535, 65536, 131071, 131072, 300000};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *written = malloc(sizes[i] + 1);
        for (size_t j = 0; j < sizes[i]; j++) written[j] = (char)(j * 7 + j / 251);
        e = (Err){0};
        assert_int_equal(io_write_atomic(at("whole"), written, sizes[i], &e), 0);
        assert_int_equal(io_read_all(at("whole"), (int64_t)sizes[i], &data, &size, &e), 0);
        assert_int_equal(size, sizes[i]);
        assert_memory_equal(data, written, sizes[i]);
        assert_int_equal(data[size], 0);
        free(data);
        uint64_t hash;
        assert_int_equal(hash_file(at("whole"), &hash, &e), 0);
        assert_true(hash == hash_bytes(written, sizes[i]));
        free(written);
    }
    assert_int_equal(io_read_all(at("whole"), 299999, &data, &size, &e), -1);
    assert_message(&e, "/whole: larger than the 299999 bytes allowed here");
}

static void test_hash_file_failures(void **state)
{
    (void)state;
    Err e = {0};
    uint64_t hash;
    assert_int_equal(hash_file(at("missing"), &hash, &e), -1);
    assert_message(&e, "/missing: cannot be opened: No such file or directory");
    assert_int_equal(hash_file(folder, &hash, &e), -1);
    assert_message(&e, ": read error: Is a directory");
}

static void test_pread(void **state)
{
    (void)state;
    Err e = {0};
    char part[8] = {0};
    assert_int_equal(io_write_atomic(at("p"), "0123456789", 10, &e), 0);
    int fd = open(at("p"), O_RDONLY);
    assert_int_equal(io_pread_full(fd, part, 4, 6, "p", &e), 0);
    assert_string_equal(part, "6789");
    assert_int_equal(io_pread_full(fd, part, 0, 10, "p", &e), 0);
    assert_int_equal(io_pread_full(fd, part, 4, 8, "p", &e), -1);
    assert_message(&e, "p: cut short: wanted 4 bytes at byte 8, got 2");
    assert_int_equal(io_pread_full(fd, part, 4, -1, "p", &e), -1);
    assert_message(&e, "p: read error at byte -1: Invalid argument");
    close(fd);
    assert_int_equal(io_pread_full(fd, part, 4, 0, "p", &e), -1);
    assert_message(&e, "p: read error at byte 0: Bad file descriptor");
}

static void test_folders(void **state)
{
    (void)state;
    Err e = {0};
    assert_int_equal(io_make_dirs(at("a/b/c"), &e), 0);
    assert_int_equal(io_make_dirs(at("a/b/c/"), &e), 0);
    assert_true(io_is_dir(at("a/b/c")) && io_exists(at("a")));
    assert_int_equal(io_write_atomic(at("a/file"), "x", 1, &e), 0);
    assert_false(io_is_dir(at("a/file")));
    assert_int_equal(io_make_dirs(at("a/file"), &e), -1);
    assert_message(&e, "/a/file: exists and is not a folder");
    assert_int_equal(io_make_dirs(at("a/file/d"), &e), -1);
    assert_message(&e, "/a/file/d: folder cannot be made: Not a directory");
    assert_int_equal(io_sync_dir(at("a/none"), &e), -1);
    assert_message(&e, "/a/none: folder cannot be opened: No such file or directory");
    assert_int_equal(io_sync_dir(at("a/file"), &e), -1);
    assert_int_equal(io_sync_dir(at("a"), &e), 0);
}

static void test_list_and_remove(void **state)
{
    (void)state;
    Err e = {0};
    char name[32], **names;
    int count;
    assert_int_equal(io_make_dirs(at("list/sub"), &e), 0);
    for (int i = 0; i < 200; i++) { /* made in another order than the sorted one */
        snprintf(name, sizeof name, "list/f%03d", i * 77 % 200);
        assert_int_equal(io_write_atomic(at(name), "", 0, &e), 0);
    }
    assert_int_equal(io_make_dirs(at("kept"), &e), 0);
    assert_int_equal(io_write_atomic(at("kept/f"), "kept", 4, &e), 0);
    assert_int_equal(symlink("../kept", at("list/link")), 0);
    assert_int_equal(io_list_dir(at("list"), &names, &count, &e), 0);
    assert_int_equal(count, 202);
    assert_string_equal(names[0], "f000");
    for (int i = 1; i < count; i++) assert_true(strcmp(names[i - 1], names[i]) < 0);
    io_free_names(names, count);
    assert_int_equal(io_remove_tree(at("list"), &e), 0);
    assert_false(io_exists(at("list")));
    assert_content(at("kept/f"), "kept"); /* the link went, not what it led to */
    assert_int_equal(io_remove_tree(at("list"), &e), 0);
    assert_int_equal(io_list_dir(at("list"), &names, &count, &e), -1);
    assert_message(&e, "/list: folder cannot be opened: No such file or directory");
    assert_null(names);
    assert_int_equal(count, 0);
}

static void test_join(void **state)
{
    (void)state;
    Err e = {0};
    char out[IO_PATH_MAX], part[IO_PATH_MAX];
    assert_int_equal(io_join(out, "a", "b.h5", &e), 0);
    assert_string_equal(out, "a/b.h5");
    memset(part, 'q', sizeof part);
    part[IO_PATH_MAX - 2] = 0;
    assert_int_equal(io_join(out, "a", part, &e), -1);
    assert_message(&e, "path too long: a/qqq");
    assert_int_equal(io_join(out, "a", part + 1, &e), 0); /* just fits, with its zero */
    assert_int_equal(strlen(out), IO_PATH_MAX - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_atomic_write),
        cmocka_unit_test(test_atomic_write_failures),
        cmocka_unit_test(test_atomic_write_on_a_full_disk),
        cmocka_unit_test(test_no_permission),
        cmocka_unit_test(test_read_all),
        cmocka_unit_test(test_hash_file_failures),
        cmocka_unit_test(test_pread),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_list_and_remove),
        cmocka_unit_test(test_join),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
