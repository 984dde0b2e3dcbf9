/*
 * Whatever stands in the files that a launcher reads, and on its command line: it stays within its buffers, and a word
 * of ours in a spec is never overlooked. The first byte says what the rest is.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "command_line.h"
#include "settings.h"
#include "words.h"

static int file;
static char path[64];

static void write_file(const uint8_t *data, size_t size)
{
	if (ftruncate(file, 0) || pwrite(file, data, size, 0) != (ssize_t)size)
		abort();
}

static int holds(const uint8_t *data, size_t size, const char *word)
{
	return memmem(data, size, word, strlen(word)) != NULL;
}

static void check_spec(const uint8_t *data, size_t size)
{
	static const char *const words[] = { "infiniband", "org.migrrdma", "\\u006", "\\u007", "\\u002e", "\\u002E" };
	int ours = 0;

	write_file(data, size);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		ours |= holds(data, size, words[i]);
	enum words found = words_of_spec(path);
	/* What is none must begin and end as an object does; the words alone decide otherwise. */
	if (found == WORDS_NONE ? ours || !size || !memchr(data, '{', size) : found != WORDS_OURS)
		abort();
	if (words_of_state(path) != (holds(data, size, "org.migrrdma.guest") ? WORDS_OURS : WORDS_NONE))
		abort();
}

static void check_settings(const uint8_t *data, size_t size)
{
	struct settings settings;

	write_file(data, size);
	if (settings_read(&settings) && (!*settings.runtime || (strchr(settings.runtime, '/') && *settings.runtime != '/')))
		abort();
}

static void check_command_line(const uint8_t *data, size_t size)
{
	char *words = malloc(size + 1), *args[66];
	int count = 0;

	if (!words)
		abort();
	memcpy(words, data, size);
	words[size] = '\0';
	for (char *word = words; word <= words + size && count < 65; word += strlen(word) + 1)
		args[count++] = word;
	args[count] = NULL;
	struct command_line line = command_line_read(args);
	int named = line.kind >= COMMAND_CREATES;
	if (named && (!line.id || line.id < words || line.id > words + size || strchr(line.id, '/') || !*line.id))
		abort();
	free(words);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!file) {
		file = memfd_create("fuzzed", 0);
		if (file < 0)
			abort();
		snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
		setenv("MIGRRDMA_CONFIG", path, 1);
	}
	if (!size)
		return 0;
	switch (data[0] % 3) {
	case 0:
		check_spec(data + 1, size - 1);
		break;
	case 1:
		check_settings(data + 1, size - 1);
		break;
	case 2:
		check_command_line(data + 1, size - 1);
		break;
	}
	return 0;
}
