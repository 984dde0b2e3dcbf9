#include "image.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the image is little endian and written as it is in memory");
static_assert(sizeof(struct image_header) == 32, "no padding");
static_assert(sizeof(struct image_file) == 168, "no padding");
static_assert(sizeof(struct image_mapping) == 112, "no padding");
static_assert(sizeof(struct image_proved) == 8, "no padding");

#define PAGE UINT64_C(4096) /* the smallest there is; a larger page is a multiple of it */

static uint32_t crc32(uint32_t crc, const void *bytes, size_t size)
{
	const uint8_t *byte = bytes;

	crc = ~crc;
	while (size--) {
		crc ^= *byte++;
		for (int bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ (0xedb88320U & -(crc & 1));
	}
	return ~crc;
}

static int write_at(int fd, const void *bytes, size_t size, uint64_t offset)
{
	const char *from = bytes;

	while (size) {
		ssize_t written = pwrite(fd, from, size, (off_t)offset);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0) {
			pr_err("writing %s: %s", IMAGE_NAME, written ? strerror(errno) : "nothing was written");
			return -1;
		}
		from += written;
		size -= (size_t)written;
		offset += (uint64_t)written;
	}
	return 0;
}

int image_create(struct image_writer *writer, int directory)
{
	*writer = (struct image_writer){
		.fd = openat(directory, IMAGE_NAME, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644),
		.header = { .magic = IMAGE_MAGIC,
			    .version = IMAGE_VERSION,
			    .header_size = sizeof(struct image_header) },
	};
	if (writer->fd < 0) {
		pr_err("creating %s in the image directory: %s", IMAGE_NAME, strerror(errno));
		return -1;
	}
	if (write_at(writer->fd, &writer->header, sizeof(writer->header), 0)) {
		image_close(writer);
		return -1;
	}
	return 0;
}

static int append(struct image_writer *writer, enum image_record_type type, const void *payload, size_t size)
{
	struct image_header *header = &writer->header;
	struct image_record record = { .type = type, .size = (uint32_t)(sizeof(record) + size) };

	if (header->body_size + record.size > IMAGE_BYTES_MAX - sizeof(*header)) {
		pr_err("%s would exceed %u bytes", IMAGE_NAME, IMAGE_BYTES_MAX);
		return -1;
	}
	uint64_t end = sizeof(*header) + header->body_size;
	if (write_at(writer->fd, &record, sizeof(record), end) ||
	    write_at(writer->fd, payload, size, end + sizeof(record)))
		return -1;

	header->crc = crc32(crc32(header->crc, &record, sizeof(record)), payload, size);
	header->body_size += record.size;
	header->records++;
	return write_at(writer->fd, header, sizeof(*header), 0);
}

int image_add_file(struct image_writer *writer, const struct image_file *file)
{
	return append(writer, IMAGE_FILE, file, sizeof(*file));
}

int image_add_mapping(struct image_writer *writer, const struct image_mapping *mapping)
{
	return append(writer, IMAGE_MAPPING, mapping, sizeof(*mapping));
}

int image_add_proved(struct image_writer *writer, const struct image_proved *proved)
{
	return append(writer, IMAGE_PROVED, proved, sizeof(*proved));
}

void image_close(struct image_writer *writer)
{
	if (writer->fd >= 0)
		close(writer->fd);
	*writer = IMAGE_WRITER_NONE;
}

int image_remove(int directory)
{
	if (unlinkat(directory, IMAGE_NAME, 0) && errno != ENOENT) {
		pr_err("removing the %s of an earlier dump: %s", IMAGE_NAME, strerror(errno));
		return -1;
	}
	return 0;
}

#define bad(format, ...) (pr_err("%s is damaged: " format, IMAGE_NAME __VA_OPT__(, ) __VA_ARGS__), false)

static bool terminated(const char name[DEVICE_NAME])
{
	return memchr(name, '\0', DEVICE_NAME) != NULL;
}

static bool valid_file(const struct image_file *file)
{
	if (file->kind != IMAGE_FILE_DEVICE && file->kind != IMAGE_FILE_EVENTS)
		return bad("file %#x is of the unknown kind %u", file->id, file->kind);
	if (!terminated(file->node) || !terminated(file->ibdev))
		return bad("file %#x has a device name without an end", file->id);
	if (file->state & ~(uint32_t)IMAGE_FILE_PENDING)
		return bad("file %#x has the unknown state %#x", file->id, file->state);
	return true;
}

static bool valid_mapping(const struct image_mapping *mapping)
{
	unsigned long long start = mapping->start;

	if (mapping->vpid <= 0)
		return bad("the mapping at %#llx belongs to process %d", start, mapping->vpid);
	if (!mapping->length || (mapping->start | mapping->length | mapping->offset) % PAGE)
		return bad("the mapping at %#llx is not made of whole pages", start);
	if (mapping->length > IMAGE_MAPPED_MAX || mapping->start > UINT64_MAX - mapping->length)
		return bad("the mapping at %#llx has %llu bytes", start, (unsigned long long)mapping->length);
	if (mapping->prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC))
		return bad("the mapping at %#llx has the protection %#x", start, mapping->prot);
	if (!terminated(mapping->node))
		return bad("the mapping at %#llx has a device name without an end", start);
	return true;
}

static bool valid_proved(const struct image *image, const struct image_proved *proved)
{
	if (proved->vpid <= 0 || image_is_proved(image, proved->vpid))
		return bad("process %d is proved twice, or none", proved->vpid);
	return true;
}

static bool take_record(struct image *image, uint32_t version, const struct image_record *record, const char *payload)
{
	size_t size = record->size - sizeof(*record);

	if (record->type == IMAGE_FILE && size == sizeof(struct image_file)) {
		struct image_file file;
		memcpy(&file, payload, sizeof(file));
		return valid_file(&file) && !array_append(&image->files, file);
	}
	if (record->type == IMAGE_MAPPING && size == sizeof(struct image_mapping)) {
		struct image_mapping mapping;
		memcpy(&mapping, payload, sizeof(mapping));
		return valid_mapping(&mapping) && !array_append(&image->mappings, mapping);
	}
	if (version > 1 && record->type == IMAGE_PROVED && size == sizeof(struct image_proved)) {
		struct image_proved proved;
		memcpy(&proved, payload, sizeof(proved));
		return valid_proved(image, &proved) && !array_append(&image->proved, proved);
	}
	return bad("a record of type %u and %u bytes is none of version %u", record->type, record->size, version);
}

static bool take_records(struct image *image, const struct image_header *header, const char *body, size_t size)
{
	for (uint32_t records = header->records; records; records--) {
		struct image_record record;

		if (size < sizeof(record))
			return bad("%u records are missing at its end", records);
		memcpy(&record, body, sizeof(record));
		if (record.size < sizeof(record) || record.size > size)
			return bad("a record claims %u of the %zu bytes left", record.size, size);
		if (!take_record(image, header->version, &record, body + sizeof(record)))
			return false;
		body += record.size;
		size -= record.size;
	}
	return size == 0 || bad("%zu bytes follow its last record", size);
}

static bool valid_header(const struct image_header *header, const char *bytes, size_t size)
{
	if (memcmp(header->magic, IMAGE_MAGIC, sizeof(header->magic)) != 0)
		return bad("it does not begin with %s", IMAGE_MAGIC);
	if (header->version < IMAGE_VERSION_OLDEST || header->version > IMAGE_VERSION) {
		pr_err("%s has version %u, this plugin reads versions %d to %d", IMAGE_NAME, header->version,
		       IMAGE_VERSION_OLDEST, IMAGE_VERSION);
		return false;
	}
	if (header->header_size != sizeof(*header))
		return bad("its header claims %u bytes", header->header_size);
	if (header->body_size != size - sizeof(*header))
		return bad("its header announces %llu bytes and %zu follow", (unsigned long long)header->body_size,
			   size - sizeof(*header));
	if (header->crc != crc32(0, bytes + sizeof(*header), size - sizeof(*header)))
		return bad("its checksum is wrong");
	return true;
}

static int compare(uint64_t left, uint64_t right)
{
	return (left > right) - (left < right);
}

static int by_id(const void *left, const void *right)
{
	const struct image_file *a = left, *b = right;
	return compare(a->id, b->id);
}

static int by_place(const void *left, const void *right)
{
	const struct image_mapping *a = left, *b = right;
	int order = compare((uint64_t)a->vpid, (uint64_t)b->vpid);
	return order ? order : compare(a->start, b->start);
}

/* Sorts, and refuses what would make a search ambiguous. */
static bool put_in_order(struct image *image)
{
	struct image_file *file = image->files.items;
	struct image_mapping *mapping = image->mappings.items;

	if (image->files.count)
		qsort(file, image->files.count, sizeof(*file), by_id);
	for (size_t i = 1; i < image->files.count; i++)
		if (file[i - 1].id == file[i].id)
			return bad("file %#x is there twice", file[i].id);

	if (image->mappings.count)
		qsort(mapping, image->mappings.count, sizeof(*mapping), by_place);
	for (size_t i = 1; i < image->mappings.count; i++)
		if (mapping[i - 1].vpid == mapping[i].vpid &&
		    mapping[i - 1].start + mapping[i - 1].length > mapping[i].start)
			return bad("two mappings of process %d overlap at %#llx", mapping[i].vpid,
				   (unsigned long long)mapping[i].start);
	return true;
}

enum image_found image_parse(struct image *image, const void *bytes, size_t size)
{
	struct image_header header;
	bool good = false;

	*image = (struct image){ 0 };
	if (size < sizeof(header)) {
		good = bad("it has %zu bytes", size);
	} else {
		memcpy(&header, bytes, sizeof(header));
		good = valid_header(&header, bytes, size) &&
		       take_records(image, &header, (const char *)bytes + sizeof(header), size - sizeof(header)) &&
		       put_in_order(image);
	}
	if (!good)
		image_free(image);
	return good ? IMAGE_LOADED : IMAGE_BAD;
}

static int read_whole(int fd, char *bytes, size_t size)
{
	while (size) {
		ssize_t got = read(fd, bytes, size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0) {
			pr_err("reading %s: %s", IMAGE_NAME, got ? strerror(errno) : "it ends early");
			return -1;
		}
		bytes += got;
		size -= (size_t)got;
	}
	return 0;
}

enum image_found image_load(struct image *image, int directory)
{
	struct stat status;
	scoped_fd fd = openat(directory, IMAGE_NAME, O_RDONLY | O_CLOEXEC);

	*image = (struct image){ 0 };
	if (fd < 0 && errno == ENOENT)
		return IMAGE_ABSENT;
	if (fd < 0 || fstat(fd, &status)) {
		pr_err("opening %s in the image directory: %s", IMAGE_NAME, strerror(errno));
		return IMAGE_BAD;
	}
	if (!S_ISREG(status.st_mode) || status.st_size > (off_t)IMAGE_BYTES_MAX) {
		pr_err("%s is not a file of at most %u bytes", IMAGE_NAME, IMAGE_BYTES_MAX);
		return IMAGE_BAD;
	}

	size_t size = (size_t)status.st_size;
	scoped_memory char *bytes = malloc(size ? size : 1);
	if (!bytes) {
		pr_err("out of memory for the %zu bytes of %s", size, IMAGE_NAME);
		return IMAGE_BAD;
	}
	if (read_whole(fd, bytes, size))
		return IMAGE_BAD;
	return image_parse(image, bytes, size);
}

void image_free(struct image *image)
{
	array_free(&image->files);
	array_free(&image->mappings);
	array_free(&image->proved);
}

const struct image_file *image_find_file(const struct image *image, uint32_t id)
{
	struct image_file key = { .id = id };

	if (!image->files.count)
		return NULL;
	return bsearch(&key, image->files.items, image->files.count, sizeof(key), by_id);
}

/* There are as many as processes: no search is worth it. */
bool image_is_proved(const struct image *image, int32_t vpid)
{
	for (size_t i = 0; i < image->proved.count; i++)
		if (image->proved.items[i].vpid == vpid)
			return true;
	return false;
}

const struct image_mapping *image_find_mapping(const struct image *image, int32_t vpid, uint64_t start)
{
	struct image_mapping key = { .vpid = vpid, .start = start };

	if (!image->mappings.count)
		return NULL;
	return bsearch(&key, image->mappings.items, image->mappings.count, sizeof(key), by_place);
}
