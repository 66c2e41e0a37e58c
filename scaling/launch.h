/* scaling/launch.h - starting and ending trainers: as processes of this machine with cores of their
 * own, under mpirun, as Slurm jobs. */
#ifndef ISOMOE_SCALING_LAUNCH_H
#define ISOMOE_SCALING_LAUNCH_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/io.h"

enum { LAUNCH_WORDS = 512, LAUNCH_STOPS = 2 };

/* How trainers are started. The words of `start` are separated by blanks; in each of them
 * {threads}, {ranks}, {id}, {name}, {folder} and {output} are replaced. The word {command} becomes
 * the trainer's words, {quoted} one word that makes a shell become the trainer. */
typedef struct LaunchMode {
    const char *name;   /* of --launch: local, mpi, srun, sbatch */
    const char *start;
    const char *stop[LAUNCH_STOPS]; /* commands that ask it to end, where SIGTERM to its process
                                       does not; NULL: none */
    const char *kill;   /* ends one that does not heed them; NULL: none */
    bool pinned;        /* the process gets cores of its own */
    int ask;            /* signal by which the process ends its trainer in good order; 0: the
                           commands of `stop` do. Where it is not SIGTERM the process only stands
                           for a trainer, and takes that with it at a SIGTERM, not a SIGKILL */
    int death;          /* signal that the process gets when the one that started it dies;
                           0: SIGTERM */
    const char *const *environment; /* NAME=VALUE..., NULL; what is set keeps its value */
} LaunchMode;

/* NULL: no such mode. launch_mode_at(i) is NULL behind the last one. */
const LaunchMode *launch_mode_find(const char *name);
const LaunchMode *launch_mode_at(int i);

typedef struct LaunchJob {
    const char *const *command; /* (n_command) the trainer's words, program first */
    int n_command;
    const char *id, *name, *folder;
    const char *output;         /* file that stdout and stderr are appended to */
    int threads, ranks;
    int first_core;             /* of `threads`, among those this process may use; -1: not pinned */
    int lock;                   /* descriptor that stays open in the trainer, or -1 */
} LaunchJob;

/* Starts it. The child gets mode->death when this process dies, even by SIGKILL. *pid is a process
 * of this machine: the trainer, or mpirun, srun, sbatch. Err: no such program (found by PATH where
 * it has no slash), too many words, no process. */
int launch_start(const LaunchMode *mode, const LaunchJob *job, pid_t *pid, Err *e);

/* Runs the mode's stop commands, if it has any, or the one that kills; one that takes more than
 * 10 s is killed. */
void launch_stop(const LaunchMode *mode, const LaunchJob *job);
void launch_kill(const LaunchMode *mode, const LaunchJob *job);

/* Cores this process may use. */
int launch_cores(void);

/* Takes path (made if need be) by flock for this process and the children that inherit it: *fd, or
 * -1 while a process holds it that an earlier driver left. */
int launch_lock(const char *path, int *fd, Err *e);

/* The last lines that a trainer wrote to path behind `from` bytes, in one line, at most size - 1
 * bytes; empty if there are none. */
void launch_last_words(const char *path, off_t from, char *out, size_t size);

#endif
