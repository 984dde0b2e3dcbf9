#include "decision.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "command_line.h"
#include "settings.h"
#include "words.h"

#define PATH_ROOM 8192

static bool creates_plain_container(const char *bundle)
{
	char path[PATH_ROOM];

	if (!bundle || !*bundle)
		bundle = ".";
	if (snprintf(path, sizeof(path), "%s/config.json", bundle) >= (int)sizeof(path))
		return false;
	return words_of_spec(path) == WORDS_NONE;
}

/* The path of a file that the low-level runtime keeps of a container; false if there is no room for it. */
static bool find_kept(const char *root, const char *id, const char *runtime, const char *name,
		      char path[static PATH_ROOM])
{
	char kept[PATH_ROOM];

	if (!root || !*root) {
		if (!low_level_default_root(runtime, kept, sizeof(kept)))
			return false;
		root = kept;
	}
	return snprintf(path, PATH_ROOM, "%s/%s/%s", root, id, name) < PATH_ROOM;
}

typedef enum words look(const char *path);

/* Whether nothing that `look` looks for is in what the low-level runtime keeps of a container. */
static bool is_kept_without(look *look, const char *root, const char *id, const char *runtime)
{
	static const char *const names[] = { "state.json", "config.json" }; /* runc's and crun's */
	char path[PATH_ROOM];

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!find_kept(root, id, runtime, names[i], path))
			return false;
		enum words words = look(path);
		if (words != WORDS_NONE && words != WORDS_NO_FILE)
			return false;
	}
	return true;
}

/* A root that a killed restore has left mounted there would be emptied: shim/left_root.py. */
static bool deletes_no_root(const char *root, const char *id, const char *runtime)
{
	char path[PATH_ROOM];

	return find_kept(root, id, runtime, "criu-root", path) && access(path, F_OK);
}

/* A checkpoint that waits for this container would be restored, and a link whose images have gone taken away:
 * shim/staged.py. */
static bool has_nothing_staged(const char *folder, const char *id)
{
	char path[PATH_ROOM];
	struct stat status;

	return snprintf(path, sizeof(path), "%s/%s", folder, id) < (int)sizeof(path) && lstat(path, &status);
}

bool decision_passes(char *const *args, char runtime[static LOW_LEVEL_MAX])
{
	struct settings settings;
	struct command_line line = command_line_read(args);

	if (line.kind == COMMAND_UNCERTAIN || !settings_read(&settings) || !low_level_find(settings.runtime, runtime))
		return false;
	if (line.kind == COMMAND_CREATES)
		return has_nothing_staged(settings.staged_dir, line.id) && creates_plain_container(line.bundle);
	if (line.kind == COMMAND_EXECS)
		return is_kept_without(words_of_state, line.root, line.id, runtime);
	if (line.kind == COMMAND_DELETES)
		return deletes_no_root(line.root, line.id, runtime);
	if (line.kind == COMMAND_STARTS)
		return is_kept_without(words_of_adopted, line.root, line.id, runtime);
	return true;
}
