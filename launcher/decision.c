#include "decision.h"

#include <stdio.h>

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

static bool joins_plain_container(const char *root, const char *id, const char *runtime)
{
	static const char *const names[] = { "state.json", "config.json" }; /* runc's and crun's */
	char kept[PATH_ROOM], path[PATH_ROOM];

	if (!root || !*root) {
		if (!low_level_default_root(runtime, kept, sizeof(kept)))
			return false;
		root = kept;
	}
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (snprintf(path, sizeof(path), "%s/%s/%s", root, id, names[i]) >= (int)sizeof(path))
			return false;
		enum words words = words_of_state(path);
		if (words != WORDS_NONE && words != WORDS_NO_FILE)
			return false;
	}
	return true;
}

bool decision_passes(char *const *args, char runtime[static LOW_LEVEL_MAX])
{
	struct settings settings;
	struct command_line line = command_line_read(args);

	if (line.kind == COMMAND_UNCERTAIN || !settings_read(&settings) || !low_level_find(settings.runtime, runtime))
		return false;
	if (line.kind == COMMAND_CREATES)
		return creates_plain_container(line.bundle);
	if (line.kind == COMMAND_EXECS)
		return joins_plain_container(line.root, line.id, runtime);
	return true;
}
