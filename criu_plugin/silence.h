/*
 * Cuts restored processes off before they are killed: their kernel would tell their TCP peers that they have gone, and the
 * image is restored once more. The runtime's twin, for processes that have gone on: migrrdma_runtime/shim/silence.py.
 */
#ifndef MIGRRDMA_PLUGIN_SILENCE_H
#define MIGRRDMA_PLUGIN_SILENCE_H

#include <sys/types.h>

#include "tracee.h"

/*
 * Takes the links of the network of process `root` down, if nobody but the tracees is in it: others go on, as in a pod. What
 * cannot be done is left, and said in the log: they are killed anyway.
 */
void silence(pid_t root, const struct tracees *tracees);

#endif
