/*
 * Ask the launcher for many decisions in one process. On stdin, for each call: the number of its arguments in
 * decimal and a newline, then each argument and a NUL. On stdout, for each: the path of the low-level runtime that the
 * call is passed to, or nothing for one that is left to Python; then a NUL.
 */
#include <stdio.h>
#include <stdlib.h>

#include "decision.h"

static char *read_word(void)
{
	char *word = NULL;
	size_t room = 0;

	if (getdelim(&word, &room, '\0', stdin) < 0)
		exit(2);
	return word;
}

int main(void)
{
	int count;

	while (scanf("%d", &count) == 1 && getchar() == '\n') {
		char **args = calloc((size_t)count + 1, sizeof(*args));
		char runtime[LOW_LEVEL_MAX];

		if (!args)
			return 2;
		for (int i = 0; i < count; i++)
			args[i] = read_word();
		fputs(decision_passes(args, runtime) ? runtime : "", stdout);
		putchar('\0');
		fflush(stdout);
		for (int i = 0; i < count; i++)
			free(args[i]);
		free(args);
	}
	return 0;
}
