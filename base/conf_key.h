/* base/conf_key.h - finding a key or a section in a ConfTable, and what to say when there is none.
 *
 * Internal to conf.c and conf_key.c. A section is a dotted name that is followed by more: "model"
 * in "model.d_model".
 */
#ifndef ISOMOE_BASE_CONF_KEY_H
#define ISOMOE_BASE_CONF_KEY_H

#include "base/conf.h"

enum { CONF_KEY = 128, CONF_DEPTH = 4, CONF_LIST = 512 };

/* Row with this key, or -1. */
int conf_find_row(const ConfTable *table, const char *key);

/* First row of the section with this name, or -1. */
int conf_find_section(const ConfTable *table, const char *section);

/* Number of dots in a key. */
int conf_depth(const char *key);

/* Names of the keys directly in a section (the first n letters of `section`; n = 0: at the top). */
void conf_list_section(const ConfTable *table, const char *section, size_t n, char out[CONF_LIST]);

/* Error for a key, or a section, that the table does not have. */
int conf_unknown(const ConfTable *table, const char *where, const char *key, bool section, Err *e);

#endif
