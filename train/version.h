/* train/version.h - which code this program was built from: goes into logs and checkpoints. */
#ifndef ISOMOE_TRAIN_VERSION_H
#define ISOMOE_TRAIN_VERSION_H

/* `git describe` at build time, or "unknown". */
const char *version_text(void);

#endif
