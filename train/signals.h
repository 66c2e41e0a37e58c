/* train/signals.h - SIGTERM, SIGINT and SIGUSR1, which mpirun and srun hand on, ask the training
 * loop to stop after the current step. */
#ifndef ISOMOE_TRAIN_SIGNALS_H
#define ISOMOE_TRAIN_SIGNALS_H

/* From now on the first of them only sets a flag; the second ends the process at once, as if
 * nothing had been installed. A write beyond a file size limit becomes an error of that write. With
 * ISOMOE_END_WITH_PARENT in the environment the process is killed when its parent dies: a killed
 * mpirun would leave it running without the cell's lock (scaling/launch.h). */
void signals_install(void);

/* Number of the signal that asked to stop, or 0. */
int signals_stop(void);

#endif
