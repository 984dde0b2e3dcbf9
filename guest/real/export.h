/* The verbs that the library exports, each in the place of a real one. */
#ifndef MIGRRDMA_EXPORT_H
#define MIGRRDMA_EXPORT_H

#include "real/real.h"

#define MIG_EXPORT __attribute__((visibility("default")))

#define MIG_DECLARE(result, name, version, parameters) MIG_EXPORT result name parameters;
MIG_REAL(MIG_DECLARE)
#endif
