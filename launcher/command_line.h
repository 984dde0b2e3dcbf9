#pragma once

/* What a command line asks for, as far as that is certain; shim/argv.py reads the rest. */
enum command_kind {
	COMMAND_UNCERTAIN, /* everything this launcher does not know for certain: Python reads it */
	COMMAND_PASSES,    /* the low-level runtime's alone, whatever its arguments */
	COMMAND_CREATES,   /* create or run: the spec in the bundle decides */
	COMMAND_EXECS,     /* exec: what is kept of the container decides */
	COMMAND_DELETES,   /* delete: what a killed restore has left decides */
	COMMAND_STARTS,	   /* start: what is kept of the container decides */
};

struct command_line {
	enum command_kind kind;
	const char *root;   /* the value of --root; NULL if not given */
	const char *bundle; /* the value of --bundle; NULL if not given */
	const char *id;     /* the container; set for the last four, and one that runc would take */
};

/* Read the arguments behind argv[0], which end with NULL. */
struct command_line command_line_read(char *const *args);
