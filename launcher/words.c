#include "words.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

/*
 * A JSON text can spell each character of these words in two ways: as it is, or as \u and its number in hexadecimal.
 * The words have lower-case letters (0x61 to 0x7a) and the dot (0x2e), and JSON's short escapes (\n, \/, …) stand
 * for none of them. So a file with none of all these byte strings has none of the words, however it is parsed.
 */
static const char *const spec_words[] = { "infiniband", "org.migrrdma", "\\u006", "\\u007", "\\u002e", "\\u002E", NULL };

/* The runtimes write their state themselves, and no letter as an escape. */
static const char *const state_words[] = { "org.migrrdma.guest", NULL };

static const char *const adopted_words[] = { "org.migrrdma.adopted", NULL };

#define LONGEST 20 /* of the words above */
#ifndef CHUNK
#define CHUNK (128 << 10) /* a spec that Docker writes has 10 to 100 KB */
#endif

static char buffer[LONGEST + CHUNK];

static bool is_space(char character)
{
	return character == ' ' || character == '\t' || character == '\n' || character == '\r';
}

struct ends {
	char first, last; /* of all characters that are not blank; '\0' if there is none */
};

static void note_ends(struct ends *ends, const char *bytes, size_t size)
{
	size_t begin = 0;

	while (begin < size && is_space(bytes[begin]))
		begin++;
	while (size > begin && is_space(bytes[size - 1]))
		size--;
	if (begin == size)
		return;
	if (!ends->first)
		ends->first = bytes[begin];
	ends->last = bytes[size - 1];
}

static bool has_any(const char *const *words, const char *bytes, size_t size)
{
	for (; *words; words++)
		if (memmem(bytes, size, *words, strlen(*words)))
			return true;
	return false;
}

/* Look for the words through the whole file; what was read before is kept far enough for a word in two chunks. */
static enum words scan(const char *path, const char *const *words, struct ends *ends)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t kept = 0;
	ssize_t got;

	if (fd < 0)
		return errno == ENOENT ? WORDS_NO_FILE : WORDS_UNREADABLE;
	while ((got = read(fd, buffer + kept, CHUNK)) > 0) {
		size_t size = kept + (size_t)got;
		if (has_any(words, buffer, size)) {
			close(fd);
			return WORDS_OURS;
		}
		note_ends(ends, buffer + kept, (size_t)got);
		kept = size < LONGEST ? size : LONGEST;
		memmove(buffer, buffer + size - kept, kept);
	}
	close(fd);
	return got ? WORDS_UNREADABLE : WORDS_NONE;
}

enum words words_of_spec(const char *path)
{
	struct ends ends = { 0 };
	enum words words = scan(path, spec_words, &ends);

	return words != WORDS_NONE || (ends.first == '{' && ends.last == '}') ? words : WORDS_OURS;
}

enum words words_of_state(const char *path)
{
	struct ends ends = { 0 };

	return scan(path, state_words, &ends);
}

enum words words_of_adopted(const char *path)
{
	struct ends ends = { 0 };

	return scan(path, adopted_words, &ends);
}
