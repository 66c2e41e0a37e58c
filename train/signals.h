/* train/signals.h - SIGTERM and SIGINT ask the training loop to stop after the current step. */
#ifndef ISOMOE_TRAIN_SIGNALS_H
#define ISOMOE_TRAIN_SIGNALS_H

/* From now on the first SIGTERM or SIGINT only sets a flag; the second ends the process at once, as
 * if nothing had been installed. A write beyond a file size limit becomes an error of that write.
 */
void signals_install(void);

/* Number of the signal that asked to stop, or 0. */
int signals_stop(void);

#endif
