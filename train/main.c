/* train/main.c - the program; everything is behind command_main (train/commands.c). */
#include <stdlib.h>
#include <unistd.h>

#include "train/command.h"

/* libgomp's threads wait by spinning for milliseconds unless told otherwise when the program is
 * loaded. When anything else wants one of the cores, they burn the time that the one they wait
 * for needs: with a busy core beside two threads, training made fewer than 10 steps where short
 * spinning made 10 to 39 (docs/LOG.md). So the program starts itself anew with a short spin, unless
 * the user has chosen. */
static void spin_shortly(char **argv)
{
    if (getenv("GOMP_SPINCOUNT") || getenv("OMP_WAIT_POLICY")) return;
    if (!setenv("GOMP_SPINCOUNT", "2000", 1)) execv("/proc/self/exe", argv);
    /* where that fails, the long spin is only slower */
}

int main(int argc, char **argv)
{
    spin_shortly(argv);
    return command_main(argc, argv);
}
