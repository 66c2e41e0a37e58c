/* train/version.c - see version.h. The build passes -DISOMOE_VERSION to this file alone, so that a
 * new commit recompiles one object. */
#include "train/version.h"

#ifndef ISOMOE_VERSION
#define ISOMOE_VERSION "unknown"
#endif

const char *version_text(void) { return ISOMOE_VERSION; }
