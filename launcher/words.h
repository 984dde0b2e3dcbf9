#pragma once

#include <stdbool.h>

/* What a look at the raw bytes of a JSON file shows. */
enum words {
	WORDS_NONE,	 /* nothing of ours is in it */
	WORDS_OURS,	 /* something of ours may be in it, or an escape that could hide it */
	WORDS_NO_FILE,	 /* there is no such file */
	WORDS_UNREADABLE /* it cannot be read */
};

/*
 * Whether a spec holds a word that can make its container one of ours: shim/bundle.py's is_plain(), which says why bytes
 * are enough. A spec that does not begin with { and end with } is WORDS_OURS: for Python to judge.
 */
enum words words_of_spec(const char *path);

/* Whether it says that the container was restored in answer to its create: shim/staged.py's mark. */
enum words words_of_adopted(const char *path);

/* Whether what a low-level runtime keeps of a container says that we have edited it: shim/execute.py's rule. */
enum words words_of_state(const char *path);
