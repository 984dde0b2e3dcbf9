#include "settings.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef CONFIG_FILE
#define CONFIG_FILE "/etc/migrrdma/config.toml" /* base/paths.py */
#endif

#ifndef STAGED_DIR
#define STAGED_DIR "/var/lib/migrrdma/staged" /* base/paths.py */
#endif

#define SIZE_MAX_READ (16 << 10) /* what `migrrdma install` writes has 1.5 KiB */

/* The keys of base/config.py, and what makes a value of theirs one that it takes. */
enum key_kind { KEY_RUNTIME, KEY_TEXT, KEY_FOLDER, KEY_STAGED, KEY_BOOLEAN };

static const struct key {
	const char *table, *name;
	enum key_kind kind;
} keys[] = {
	{ "", "runtime", KEY_RUNTIME },	  { "", "guest_dir", KEY_FOLDER }, { "", "hooks_dir", KEY_FOLDER },
	{ "", "run_dir", KEY_FOLDER },	  { "", "criu_plugin", KEY_TEXT }, { "criu", "tcp_established", KEY_BOOLEAN },
	{ "criu", "late_commit", KEY_BOOLEAN }, { "", "staged_dir", KEY_STAGED },
};

#define KEYS (sizeof(keys) / sizeof(*keys))

struct reader {
	struct settings *settings;
	const char *table; /* the one that the line belongs to */
	bool seen[KEYS];   /* TOML allows a key once */
};

static bool is_blank(char character)
{
	return character == ' ' || character == '\t';
}

/* Cut blanks off both ends, in place. */
static char *strip(char *text)
{
	while (is_blank(*text))
		text++;
	for (size_t length = strlen(text); length && is_blank(text[length - 1]);)
		text[--length] = '\0';
	return text;
}

/* Printable ASCII; of other characters only Python knows which are printable. */
static bool is_printable(const char *text)
{
	for (; *text; text++)
		if (*text < ' ' || *text > '~')
			return false;
	return true;
}

/* The text between the quotes, cut out in place; NULL if it is none, or needs more than a look to be read. */
static const char *text_of(char *literal)
{
	size_t length = strlen(literal);

	if (length < 2 || literal[0] != '"' || literal[length - 1] != '"')
		return NULL;
	literal[length - 1] = '\0';
	return strpbrk(literal + 1, "\"\\") || !is_printable(literal + 1) ? NULL : literal + 1;
}

static bool take(struct settings *settings, enum key_kind kind, char *literal)
{
	if (kind == KEY_BOOLEAN)
		return !strcmp(literal, "true") || !strcmp(literal, "false");
	const char *text = text_of(literal);
	if (!text)
		return false;
	if (kind == KEY_FOLDER)
		return text[0] == '/';
	if (kind == KEY_STAGED) {
		if (text[0] != '/' || strlen(text) >= sizeof(settings->staged_dir))
			return false;
		strcpy(settings->staged_dir, text);
	}
	if (kind == KEY_RUNTIME) {
		if (!*text || (text[0] != '/' && strchr(text, '/')) || strlen(text) >= sizeof(settings->runtime))
			return false;
		strcpy(settings->runtime, text);
	}
	return true;
}

static bool read_line(struct reader *reader, char *line)
{
	line = strip(line);
	if (!*line)
		return true;
	if (*line == '#')
		return is_printable(line);
	if (!strcmp(line, "[criu]")) {
		bool first = !*reader->table; /* TOML allows a table once */
		reader->table = "criu";
		return first;
	}
	char *equals = strchr(line, '=');
	if (!equals)
		return false;
	*equals = '\0';
	const char *name = strip(line);
	for (size_t i = 0; i < KEYS; i++) {
		if (strcmp(keys[i].table, reader->table) || strcmp(keys[i].name, name))
			continue;
		if (reader->seen[i])
			return false;
		reader->seen[i] = true;
		return take(reader->settings, keys[i].kind, strip(equals + 1));
	}
	return false;
}

/* Read all of a file; its size, or -1 if it cannot be read or is larger than the buffer. */
static ssize_t read_file(const char *path, char *buffer, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t size = 0;
	ssize_t got = -1;

	if (fd < 0)
		return -1;
	while (size < room && (got = read(fd, buffer + size, room - size)) > 0)
		size += (size_t)got;
	close(fd);
	return got == 0 ? (ssize_t)size : -1;
}

bool settings_read(struct settings *settings)
{
	static char text[SIZE_MAX_READ + 1];
	const char *path = getenv("MIGRRDMA_CONFIG");
	struct reader reader = { .settings = settings, .table = "" };

	strcpy(settings->runtime, "runc");
	strcpy(settings->staged_dir, STAGED_DIR);
	if (!path || !*path)
		path = CONFIG_FILE;
	errno = 0;
	ssize_t size = read_file(path, text, SIZE_MAX_READ);
	if (size < 0)
		return errno == ENOENT;
	text[size] = '\0';
	if (strlen(text) != (size_t)size)
		return false;
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (!read_line(&reader, line))
			return false;
	}
	return true;
}
