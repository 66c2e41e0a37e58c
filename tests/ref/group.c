/* tests/ref/group.c - see group.h. */
#include "tests/ref/group.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/err.h"
#include "tests/ref/harness.h"

static const char *const isa_names[] = {"sse4", "avx2", "avx512", "amx"};
enum { ISAS = sizeof isa_names / sizeof *isa_names };

/* Every test program is linked with this file, so that each knows ISOMOE_TEST_ONLY. */
__attribute__((constructor)) static void choose_tests(void)
{
    const char *only = getenv("ISOMOE_TEST_ONLY");
    if (only) cmocka_set_test_filter(only);
}

static int run(const char *name, const char *isa, const struct CMUnitTest *tests, size_t count)
{
    char title[96];
    snprintf(title, sizeof title, "%s on %s", name, isa);
    return _cmocka_run_group_tests(title, tests, count, NULL, NULL);
}

/* In a process of its own: failed tests, or -1 if the machine lacks the instruction set. */
static int run_apart(const char *name, const char *isa, const struct CMUnitTest *tests,
                     size_t count)
{
    enum { LACKING = 255 };
    fflush(NULL);
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child == 0) {
        Err e = {0};
        setenv("ISOMOE_ISA", isa, 1);
        if (!rig_open(&e)) {
            printf("skipped: %s on %s: %s\n", name, isa, e.message);
            exit(LACKING);
        }
        exit(run(name, isa, tests, count));
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child, "wait");
    if (WIFEXITED(status)) return WEXITSTATUS(status) == LACKING ? -1 : WEXITSTATUS(status);
    printf("FAIL %s on %s ended by signal %d\n", name, isa, WTERMSIG(status));
    return (int)count;
}

int rig_group(const char *name, const struct CMUnitTest *tests, size_t count)
{
    const char *device = getenv("ISOMOE_TEST_DEVICE"), *isa = getenv("ISOMOE_ISA");
    if (!isa && device && strcmp(device, "cpu")) isa = device;
    if (isa) return run(name, isa, tests, count);
    int failed = 0, passed = 0, skipped = 0;
    /* Under the slow sanitizers (ISOMOE_FAST) the best one alone: the source is the same. */
    bool best_only = getenv("ISOMOE_FAST") != NULL;
    for (int i = ISAS - 1; i >= 0 && !(best_only && passed + failed > 0); i--) {
        int result = run_apart(name, isa_names[i], tests, count);
        failed += result > 0 ? result : 0;
        passed += result < 0 ? 0 : (int)count - result;
        skipped += result < 0 ? (int)count : 0;
    }
    /* the sums, in cmocka's words, for what reads the log */
    printf("[==========] %s on all instruction sets\n[  PASSED  ] %d test(s).\n", name, passed);
    if (skipped) printf("[  SKIPPED ] lacking: %d test(s).\n", skipped);
    if (failed) printf("[  FAILED  ] in all: %d test(s).\n", failed);
    return failed;
}
