#include "content.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAGIC 0x4d696752u
#define BLANK 0xc5

struct header {
	uint32_t magic, length;
	uint64_t stream, number;
	uint64_t checksum; /* of everything with this field 0 */
};
_Static_assert(sizeof(struct header) == CONTENT_LEAST, "the header's size");

static uint64_t checksum(const uint8_t *bytes, size_t length)
{
	uint64_t sum = length, word;

	for (; length; bytes += sizeof(word)) {
		size_t part = length < sizeof(word) ? length : sizeof(word);

		word = 0;
		memcpy(&word, bytes, part);
		sum = (sum ^ word) * 0x100000001b3u;
		sum ^= sum >> 29;
		length -= part;
	}
	return sum;
}

void content_fill(void *memory, const struct operation *operation)
{
	struct header header = { MAGIC, operation->length, operation->stream, operation->number, 0 };
	uint64_t noise = scramble(operation->stream + operation->number);
	uint8_t *bytes = memory;

	memcpy(bytes, &header, sizeof(header));
	for (size_t at = sizeof(header); at < operation->length; at += sizeof(noise)) {
		size_t part = operation->length - at;

		noise = scramble(noise);
		memcpy(bytes + at, &noise, part < sizeof(noise) ? part : sizeof(noise));
	}
	header.checksum = checksum(bytes, operation->length);
	memcpy(bytes, &header, sizeof(header));
}

static size_t first_difference(const uint8_t *memory, const uint8_t *expected, size_t length)
{
	size_t at = 0;

	while (at < length && memory[at] == expected[at])
		at++;
	return at;
}

/* Whether memory holds a sound operation; one of the same stream that is longer than memory is believed. */
static bool is_sound(const uint8_t *memory, size_t size, uint64_t stream, struct header *header)
{
	static const uint64_t none;
	uint8_t copy[size];

	memcpy(header, memory, sizeof(*header));
	if (header->magic != MAGIC || header->length < sizeof(*header))
		return false;
	if (header->length > size)
		return header->stream == stream;
	memcpy(copy, memory, header->length);
	memcpy(copy + offsetof(struct header, checksum), &none, sizeof(none));
	return checksum(copy, header->length) == header->checksum;
}

bool content_is(const void *memory, size_t size, const struct operation *operation, char *why, size_t why_size)
{
	const uint8_t *bytes = memory;
	uint8_t expected[operation->length];
	struct header header;
	size_t at, nowhere;

	content_fill(expected, operation);
	at = first_difference(bytes, expected, operation->length);
	if (at == operation->length)
		return true;
	if (is_blank(bytes, operation->length, &nowhere))
		snprintf(why, why_size, "nothing is there");
	else if (!is_sound(bytes, size, operation->stream, &header) ||
	    (header.stream == operation->stream && header.number == operation->number))
		snprintf(why, why_size, "byte %zu of %" PRIu32 " is corrupted: 0x%02x, not 0x%02x", at,
			 operation->length, bytes[at], expected[at]);
	else if (header.stream != operation->stream)
		snprintf(why, why_size, "operation %" PRIu64 " of another QP is there", header.number);
	else if (header.number < operation->number)
		snprintf(why, why_size, "the earlier operation %" PRIu64 " is there, duplicated or out of order",
			 header.number);
	else
		snprintf(why, why_size, "the later operation %" PRIu64 " is there, this one is lost or out of order",
			 header.number);
	return false;
}

void blank(void *memory, size_t size)
{
	memset(memory, BLANK, size);
}

bool is_blank(const void *memory, size_t size, size_t *where)
{
	const uint8_t *bytes = memory;

	for (*where = 0; *where < size; ++*where)
		if (bytes[*where] != BLANK)
			return false;
	return true;
}
