/*
 * The OCI runtime's launcher: what Docker runs. A call that is the low-level runtime's alone, as nearly all are, becomes
 * that runtime at once; every other call, and every one that is not understood for certain, becomes Python's.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "decision.h"

#define PATH_ROOM 4096

/* In PREFIX/bin lies this program, here the script that starts Python. */
static const char script_below_prefix[] = "libexec/migrrdma/runtime.py";

/* Cut the last component off a path; whether there was one. */
static int cut(char *path)
{
	char *slash = strrchr(path, '/');

	if (!slash)
		return 0;
	*slash = '\0';
	return 1;
}

/* The path of the script; NULL and errno if it cannot be known. */
static const char *find_script(void)
{
	static char path[PATH_ROOM + sizeof(script_below_prefix) + 1];
	/* With " (deleted)" behind it if an upgrade has replaced this program meanwhile; the name is cut off anyway. */
	ssize_t length = readlink("/proc/self/exe", path, PATH_ROOM);

	if (length < 0)
		return NULL;
	if (length == PATH_ROOM) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	path[length] = '\0';
	if (!cut(path) || !cut(path)) {
		errno = ENOENT;
		return NULL;
	}
	strcat(strcat(path, "/"), script_below_prefix);
	return path;
}

int main(int argc, char **argv)
{
	static char runtime[LOW_LEVEL_MAX];
	char *none[] = { NULL, NULL };

	if (argc < 1) /* kernels before 5.18 allow it */
		argv = none;
	if (decision_passes(argv + 1, runtime)) {
		argv[0] = runtime;
		execv(runtime, argv); /* if it fails, Python says why */
	}
	const char *script = find_script();
	if (script) {
		argv[0] = (char *)script;
		execv(script, argv);
	}
	fprintf(stderr, "migrrdma-runtime: cannot run %s: %s; run `migrrdma install`\n",
		script ? script : "/proc/self/exe", strerror(errno));
	return 1;
}
