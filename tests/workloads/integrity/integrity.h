#ifndef INTEGRITY_H
#define INTEGRITY_H

#include <stdio.h>

#include "options.h"

/* One end, from the meeting with the other to the verdict on `out`; the exit code. */
int integrity(const struct options *options, FILE *out);

/* For a signal handler: stops all that runs in this process. */
void integrity_stop(void);

#endif
