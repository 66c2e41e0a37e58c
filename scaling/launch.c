/* scaling/launch.c - see launch.h. */
#include "scaling/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"

enum { WORD_MAX = 8192, TAIL = 4096, EXIT_NO_EXEC = 127, HIGH_FD = 200 };

#define STOP_SECONDS 10.0 /* for one of a mode's stop commands */

/* Open MPI by itself refuses root and more ranks than cores, puts the first rank of every mpirun on
 * the first core, and its own words behind the trainer's last ones. Names of version 4, and of 5,
 * which was not tried; another MPI does not read them. The last one: train/signals.h. */
static const char *const mpi_environment[] = {
    "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
    "OMPI_MCA_rmaps_base_oversubscribe=1", "PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe",
    "OMPI_MCA_hwloc_base_binding_policy=none", "PRTE_MCA_hwloc_default_binding_policy=none",
    "OMPI_MCA_orte_execute_quiet=1", "ISOMOE_END_WITH_PARENT=1", NULL};

static const LaunchMode modes[] = {
    {"local", "{command}", {NULL}, NULL, true, SIGTERM, SIGTERM, NULL},
    /* At a SIGTERM of its own mpirun gives its ranks a second, then kills them; SIGUSR1 it hands
     * on. */
    {"mpi", "mpirun -np {ranks} {command}", {NULL}, NULL, false, SIGUSR1, SIGUSR1,
     mpi_environment},
    /* At a SIGTERM of its own srun kills its tasks outright; SIGUSR1 it hands on. */
    {"srun", "srun --ntasks={ranks} --cpus-per-task={threads} --job-name=isomoe-{id} {command}",
     {"scancel --state=PENDING --name=isomoe-{id}", "scancel --signal=TERM --name=isomoe-{id}"},
     "scancel --name=isomoe-{id}", false, 0, SIGUSR1, NULL},
    /* One job of a name at a time: what an earlier driver left ends before the next one begins. */
    {"sbatch",
     "sbatch --wait --parsable --dependency=singleton --ntasks={ranks} --cpus-per-task={threads}"
     " --job-name=isomoe-{id} --open-mode=append --output={output} --wrap {quoted}",
     {"scancel --state=PENDING --name=isomoe-{id}",
      "scancel --full --signal=TERM --name=isomoe-{id}"}, "scancel --name=isomoe-{id}", false, 0,
     SIGTERM, NULL},
};

const LaunchMode *launch_mode_at(int i)
{
    return i >= 0 && i < (int)(sizeof modes / sizeof *modes) ? &modes[i] : NULL;
}

const LaunchMode *launch_mode_find(const char *name)
{
    const LaunchMode *m;
    for (int i = 0; (m = launch_mode_at(i)); i++)
        if (!strcmp(m->name, name)) return m;
    return NULL;
}

/* ---- Words ------------------------------------------------------------------------------------*/

/* The words of a command; one block that is freed at once. */
typedef struct Words {
    char *word[LAUNCH_WORDS + 1]; /* ends with NULL */
    int count;
    char *text; /* all of them */
    size_t used, room;
} Words;

/* Text goes to the end of the last word; failed: no room. */
static bool put(Words *w, const char *text, size_t n)
{
    if (w->used + n + 1 > w->room) return false;
    memcpy(w->text + w->used, text, n);
    w->used += n;
    w->text[w->used] = 0;
    return true;
}

static bool next_word(Words *w)
{
    if (w->count == LAUNCH_WORDS || w->used + 2 > w->room) return false;
    if (w->count) w->used++;
    w->word[w->count++] = w->text + w->used;
    w->text[w->used] = 0;
    return true;
}

/* In single quotes, a quote as '\'' . */
static bool put_quoted(Words *w, const char *word)
{
    bool ok = put(w, "'", 1);
    for (const char *p = word; ok && *p; p++)
        ok = *p == '\'' ? put(w, "'\\''", 4) : put(w, p, 1);
    return ok && put(w, "'", 1);
}

/* The value of a name in braces, or NULL. */
static const char *value_of(const LaunchJob *j, const char *name, size_t n, char number[24])
{
    const struct { const char *name, *text; int number; } values[] = {
        {"id", j->id, 0}, {"name", j->name, 0}, {"folder", j->folder, 0}, {"output", j->output, 0},
        {"threads", NULL, j->threads}, {"ranks", NULL, j->ranks},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        if (strlen(values[i].name) != n || memcmp(values[i].name, name, n)) continue;
        snprintf(number, 24, "%d", values[i].number);
        return values[i].text ? values[i].text : number;
    }
    return NULL;
}

/* One word of a template of n bytes with its braces filled in; unknown ones stay. */
static bool put_filled(Words *w, const LaunchJob *j, const char *word, size_t n)
{
    char number[24];
    bool ok = next_word(w);
    for (size_t i = 0; ok && i < n; i++) {
        const char *end = word[i] == '{' ? memchr(word + i, '}', n - i) : NULL;
        size_t length = end ? (size_t)(end - word) - i - 1 : 0;
        const char *value = end ? value_of(j, word + i + 1, length, number) : NULL;
        ok = value ? put(w, value, strlen(value)) : put(w, word + i, 1);
        if (value) i += length + 1;
    }
    return ok;
}

static bool is_word(const char *word, size_t n, const char *name)
{
    return n == strlen(name) && !memcmp(word, name, n);
}

static bool put_command(Words *w, const LaunchJob *j, bool quoted)
{
    bool ok = !quoted || (next_word(w) && put(w, "exec", 4));
    for (int i = 0; ok && i < j->n_command; i++) {
        const char *word = j->command[i];
        if (quoted)
            ok = put(w, " ", 1) && put_quoted(w, word);
        else
            ok = next_word(w) && put(w, word, strlen(word));
    }
    return ok;
}

static int fill(Words *w, const char *template, const LaunchJob *j, Err *e)
{
    *w = (Words){.room = (size_t)256 << 10};
    w->text = malloc(w->room);
    bool ok = w->text != NULL;
    for (const char *p = template; ok && *p;) {
        p += strspn(p, " \t");
        size_t n = strcspn(p, " \t");
        if (!n) break;
        if (is_word(p, n, "{command}") || is_word(p, n, "{quoted}"))
            ok = put_command(w, j, is_word(p, n, "{quoted}"));
        else
            ok = put_filled(w, j, p, n);
        p += n;
    }
    w->word[w->count] = NULL;
    if (ok && w->count) return 0;
    free(w->text);
    w->text = NULL;
    if (ok) return err_set(e, "the template of the start command is empty");
    return err_set(e, "the start command of the cell %s has more than %d words or %zu bytes",
                   j->name, LAUNCH_WORDS, w->room);
}

/* ---- Processes --------------------------------------------------------------------------------*/

int launch_cores(void)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

/* The cores first .. first + n - 1 of those that may be used. */
static void pin(int first, int n)
{
    cpu_set_t may, mine;
    int seen = 0;
    CPU_ZERO(&may);
    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof may, &may)) return;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &may)) continue;
        if (seen >= first && seen < first + n) CPU_SET(i, &mine);
        seen++;
    }
    if (CPU_COUNT(&mine) == n) sched_setaffinity(0, sizeof mine, &mine);
}

/* For the program that comes next, with a number that shells do not use for their own. */
static void keep_open(int fd)
{
    if (fcntl(fd, F_DUPFD, HIGH_FD) < 0) fcntl(fd, F_SETFD, 0);
}

/* This process's environment and what the mode adds; freed by the caller, its entries are not.
 * NULL: out of memory. */
static char **make_environment(const LaunchMode *mode)
{
    const char *const *add = mode->environment;
    size_t n = 0, more = 0;
    while (environ[n]) n++;
    while (add && add[more]) more++;
    char **out = malloc((n + more + 1) * sizeof *out);
    if (!out) return NULL;
    memcpy(out, environ, n * sizeof *out);
    for (size_t i = 0; i < more; i++) {
        char name[64] = "";
        snprintf(name, sizeof name, "%.*s", (int)strcspn(add[i], "="), add[i]);
        if (!getenv(name)) out[n++] = (char *)add[i];
    }
    out[n] = NULL;
    return out;
}

/* What a child becomes. */
typedef struct Program {
    Words words;
    char **environment;
    int death; /* signal that it gets when its parent dies */
} Program;

/* In the child: nothing of the parent but the lock and the output stays. Never returns. */
static void become(const Program *p, const LaunchJob *j, pid_t parent, int report)
{
    sigset_t none;
    struct sigaction normal = {.sa_handler = SIG_DFL};
    for (int s = 1; s < NSIG; s++) sigaction(s, &normal, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    prctl(PR_SET_PDEATHSIG, p->death);
    if (getppid() != parent) _exit(EXIT_NO_EXEC); /* it died before the line above */
    int in = open("/dev/null", O_RDONLY);
    int out = open(j->output, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (in >= 0 && out >= 0) {
        dup2(in, 0);
        dup2(out, 1);
        dup2(out, 2);
        close(in);
        close(out);
        if (j->lock >= 0) keep_open(j->lock);
        if (j->first_core >= 0) pin(j->first_core, j->threads);
        setpgid(0, 0); /* a Ctrl-C at the terminal is the driver's to hand on */
        execvpe(p->words.word[0], p->words.word, p->environment);
    }
    int why = errno;
    ssize_t n = write(report, &why, sizeof why);
    _exit(n == (ssize_t)sizeof why ? EXIT_NO_EXEC : EXIT_NO_EXEC + 1);
}

/* Starts it; waits until it has begun or failed to. */
static int start(const Program *p, const LaunchJob *j, pid_t *pid, Err *e)
{
    const char *name = p->words.word[0];
    int report[2], why = 0;
    pid_t parent = getpid();
    sigset_t all, before;
    if (pipe2(report, O_CLOEXEC)) return err_errno(e, "no pipe");
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before); /* no handler of the parent's runs in the child */
    *pid = fork();
    if (!*pid) become(p, j, parent, report[1]);
    sigprocmask(SIG_SETMASK, &before, NULL);
    int rc = *pid < 0 ? err_errno(e, "%s: no process", name) : 0;
    close(report[1]);
    while (!rc && read(report[0], &why, sizeof why) < 0 && errno == EINTR) continue;
    close(report[0]);
    if (rc || !why) return rc;
    waitpid(*pid, NULL, 0);
    *pid = -1;
    errno = why;
    return err_errno(e, "%s: cannot be started, or %s not be written", name, j->output);
}

int launch_start(const LaunchMode *mode, const LaunchJob *job, pid_t *pid, Err *e)
{
    Program *p = malloc(sizeof *p);
    *pid = -1;
    if (!p) return err_set(e, "out of memory");
    p->death = mode->death ? mode->death : SIGTERM;
    p->environment = make_environment(mode);
    int rc = fill(&p->words, mode->start, job, e);
    if (!rc && !p->environment) rc = err_set(e, "out of memory");
    if (!rc) rc = start(p, job, pid, e);
    free(p->words.text);
    free(p->environment);
    free(p);
    return rc;
}

/* Until a process has ended; after so many seconds it is killed, with its group. */
static void wait_or_kill(pid_t pid, double seconds)
{
    double until = log_seconds() + seconds;
    pid_t got;
    while ((got = waitpid(pid, NULL, WNOHANG)) == 0 && log_seconds() < until) usleep(2000);
    if (got) return;
    kill(-pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void run_command(const LaunchMode *mode, const char *command, const LaunchJob *job)
{
    LaunchMode one = {.name = mode->name, .start = command};
    LaunchJob quiet = *job;
    pid_t pid;
    quiet.lock = quiet.first_core = -1;
    if (!launch_start(&one, &quiet, &pid, NULL)) wait_or_kill(pid, STOP_SECONDS);
}

void launch_stop(const LaunchMode *mode, const LaunchJob *job)
{
    for (int i = 0; i < LAUNCH_STOPS && mode->stop[i]; i++) run_command(mode, mode->stop[i], job);
}

void launch_kill(const LaunchMode *mode, const LaunchJob *job)
{
    if (mode->kill) run_command(mode, mode->kill, job);
}

int launch_lock(const char *path, int *fd, Err *e)
{
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) return err_errno(e, "%s: cannot be opened", path);
    if (!flock(*fd, LOCK_EX | LOCK_NB)) return 0;
    int why = errno;
    close(*fd);
    *fd = -1;
    if (why == EWOULDBLOCK) return 0;
    errno = why;
    return err_errno(e, "%s: cannot be locked", path);
}

/* ---- Last words -------------------------------------------------------------------------------*/

/* Lines become one, joined by " | "; what is not printable ASCII becomes '?'. */
void launch_last_words(const char *path, off_t from, char *out, size_t size)
{
    char text[TAIL];
    struct stat info;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    out[0] = 0;
    if (fd < 0) return;
    off_t end = fstat(fd, &info) ? 0 : info.st_size;
    size_t want = size < sizeof text ? size : sizeof text;
    if (end - from > (off_t)want) from = end - (off_t)want;
    ssize_t n = pread(fd, text, want, from);
    close(fd);
    size_t used = 0;
    while (n > 0 && text[n - 1] == '\n') n--;
    for (ssize_t i = 0; i < n && used + 4 < size; i++) {
        bool line = text[i] == '\n';
        if (line && used) used += (size_t)snprintf(out + used, size - used, " | ");
        if (!line) out[used++] = text[i] >= ' ' && text[i] <= '~' ? text[i] : '?';
    }
    out[used] = 0;
}
