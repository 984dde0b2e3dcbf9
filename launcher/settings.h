#pragma once

#include <stdbool.h>

#define RUNTIME_MAX 4096

struct settings {
	char runtime[RUNTIME_MAX];    /* a name, or an absolute path */
	char staged_dir[RUNTIME_MAX]; /* an absolute path */
};

/*
 * Read the configuration in force ($MIGRRDMA_CONFIG, else CONFIG_FILE). False if it holds anything that this launcher
 * does not understand for certain, a mistake among them: then it is for base/config.py to read.
 */
bool settings_read(struct settings *settings);
