#pragma once

#include <stdbool.h>

#include "low_level.h"

/*
 * Whether a call (its arguments behind argv[0], ending with NULL) is the low-level runtime's alone, for certain; then
 * `runtime` is its path. Whatever is false here is for Python to read.
 */
bool decision_passes(char *const *args, char runtime[static LOW_LEVEL_MAX]);
