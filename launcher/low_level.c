#include "low_level.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mark.h"

/* Looked into after $PATH: container daemons are often started with a short one. */
#ifndef USUAL_DIRS
#define USUAL_DIRS "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec:/usr/local/libexec"
#endif

static bool is_program(const char *path)
{
	struct stat status;

	return !access(path, X_OK) && !stat(path, &status) && !S_ISDIR(status.st_mode);
}

/* Whether it is a launcher of ours, in Python or in C; to exec it would be to exec ourselves for ever. */
static bool is_ours(const char *path)
{
	char start[MARK_WITHIN];
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false; /* executable but not readable: then it is no script */
	ssize_t size = read(fd, start, sizeof(start));
	close(fd);
	return size > 0 && memmem(start, (size_t)size, MARK, strlen(MARK));
}

enum found { NOT_HERE, HERE, UNCERTAIN };

/* Look for `name` in the directories of a list like $PATH. */
static enum found look_into(const char *folders, const char *name, char *path)
{
	while (*folders) {
		size_t length = strcspn(folders, ":");
		/* Relative entries are skipped: root must not run what lies in the current directory. */
		if (*folders == '/') {
			if (snprintf(path, LOW_LEVEL_MAX, "%.*s/%s", (int)length, folders, name) >= LOW_LEVEL_MAX)
				return UNCERTAIN;
			if (is_program(path))
				return is_ours(path) ? UNCERTAIN : HERE;
		}
		folders += length;
		folders += *folders == ':';
	}
	return NOT_HERE;
}

bool low_level_find(const char *name, char path[static LOW_LEVEL_MAX])
{
	const char *folders = getenv("PATH");

	if (*name == '/') {
		if (strlen(name) >= LOW_LEVEL_MAX)
			return false;
		strcpy(path, name);
		return is_program(path) && !is_ours(path);
	}
	enum found found = folders ? look_into(folders, name, path) : NOT_HERE;
	if (found == NOT_HERE)
		found = look_into(USUAL_DIRS, name, path);
	return found == HERE;
}

bool low_level_default_root(const char *path, char *root, size_t room)
{
	const char *name = strstr(strrchr(path, '/'), "crun") ? "crun" : "runc";
	const char *xdg = getenv("XDG_RUNTIME_DIR");

	/* Real root ignores XDG_RUNTIME_DIR, which sudo and su leave pointing at a user's directory. */
	if (!xdg || !*xdg || !geteuid())
		xdg = "/run";
	return snprintf(root, room, "%s/%s", xdg, name) < (int)room;
}
