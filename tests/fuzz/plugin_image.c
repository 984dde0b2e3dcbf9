/*
 * Whatever stands in migrrdma.img: it is refused with a reason in the log, or what is found in it is within its bounds.
 * With an odd first byte the header is made to fit what follows it, so that more than the header is looked at.
 */
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image.h"
#include "log.h"

static int said;

void print_on_level(unsigned int level, const char *format, ...)
{
	(void)format;
	said += level == CRIU_LOG_ERROR;
}

static uint32_t crc32(const uint8_t *byte, size_t size)
{
	uint32_t crc = UINT32_MAX;

	while (size--) {
		crc ^= *byte++;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320U & -(crc & 1));
	}
	return ~crc;
}

static void look_for_everything(const struct image *image)
{
	for (size_t i = 0; i < image->files.count; i++) {
		const struct image_file *file = &image->files.items[i];
		if (image_find_file(image, file->id) != file || strlen(file->node) >= DEVICE_NAME ||
		    strlen(file->ibdev) >= DEVICE_NAME)
			abort();
	}
	for (size_t i = 0; i < image->mappings.count; i++) {
		const struct image_mapping *mapping = &image->mappings.items[i];
		if (image_find_mapping(image, mapping->vpid, mapping->start) != mapping || !mapping->length ||
		    mapping->length > IMAGE_MAPPED_MAX || strlen(mapping->node) >= DEVICE_NAME)
			abort();
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct image image;
	struct image_header header;
	bool mends = size && data[0] & 1;

	if (!size)
		return 0;
	data++;
	size--;
	uint8_t *bytes = malloc(size + !size); /* its end is watched */
	if (!bytes)
		abort();
	memcpy(bytes, data, size);
	if (mends && size >= sizeof(header)) {
		memcpy(&header, bytes, sizeof(header));
		memcpy(header.magic, IMAGE_MAGIC, sizeof(header.magic));
		header.version = IMAGE_VERSION;
		header.header_size = sizeof(header);
		header.body_size = size - sizeof(header);
		header.crc = crc32(bytes + sizeof(header), header.body_size);
		memcpy(bytes, &header, sizeof(header));
	}
	said = 0;
	enum image_found found = image_parse(&image, bytes, size);
	free(bytes);
	if (found == IMAGE_LOADED)
		look_for_everything(&image);
	else if (found != IMAGE_BAD || !said || image.files.items || image.mappings.items)
		abort();
	image_free(&image);
	return 0;
}
