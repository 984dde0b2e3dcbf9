/* What a function opened is closed when it returns, whichever way it returns. */
#ifndef MIGRRDMA_PLUGIN_SCOPE_H
#define MIGRRDMA_PLUGIN_SCOPE_H

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void scope_close(int *fd)
{
	if (*fd >= 0) {
		int saved = errno;
		close(*fd);
		errno = saved;
	}
}

static inline void scope_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

static inline void scope_closedir(DIR **directory)
{
	if (*directory)
		closedir(*directory);
}

static inline void scope_free(void *pointer)
{
	free(*(void **)pointer);
}

#define scoped_fd __attribute__((cleanup(scope_close))) int
#define scoped_file __attribute__((cleanup(scope_fclose))) FILE *
#define scoped_dir __attribute__((cleanup(scope_closedir))) DIR *
#define scoped_memory __attribute__((cleanup(scope_free)))

/* Takes the value out of a scoped_fd, so that the scope leaves it open. */
static inline int scope_keep(int *fd)
{
	int kept = *fd;
	*fd = -1;
	return kept;
}

#endif
