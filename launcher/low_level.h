#pragma once

#include <stdbool.h>
#include <stddef.h>

#define LOW_LEVEL_MAX 4096

/*
 * Find the low-level runtime called `name` (or at the absolute path `name`) as shim/lowlevel.py does.
 * False if there is none, or if the first one is ourselves: then Python goes on looking, or says what is wrong.
 */
bool low_level_find(const char *name, char path[static LOW_LEVEL_MAX]);

/* Where that runtime keeps its containers when --root is not given. False if that is too long for `root`. */
bool low_level_default_root(const char *path, char *root, size_t room);
