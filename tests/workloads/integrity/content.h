/* The bytes of an operation: a header, then noise that follows from the stream and the operation's number. */
#ifndef INTEGRITY_CONTENT_H
#define INTEGRITY_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stream.h"

#define CONTENT_LEAST 32u /* the header */

void content_fill(void *memory, const struct operation *operation);

/* Whether memory holds the operation's bytes; if not, why says what it holds instead. */
bool content_is(const void *memory, size_t size, const struct operation *operation, char *why, size_t why_size);

/* Memory that nobody may have written. */
void blank(void *memory, size_t size);
bool is_blank(const void *memory, size_t size, size_t *where);

#endif
