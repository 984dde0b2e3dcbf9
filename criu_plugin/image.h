/*
 * migrrdma.img, this plugin's image in CRIU's image directory: which descriptors and mappings it took over.
 *
 *	header		struct image_header
 *	record …	struct image_record, then struct image_file, image_mapping or image_proved
 *
 * Little endian, no padding, records back to back. The header is rewritten after every record, so that a dump
 * which ends early leaves a file that says so or a file that is whole. docs/criu.md describes the fields.
 */
#ifndef MIGRRDMA_PLUGIN_IMAGE_H
#define MIGRRDMA_PLUGIN_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "array.h"
#include "device.h"

#define IMAGE_NAME "migrrdma.img"
#define IMAGE_MAGIC "MIGRRDMA"
#define IMAGE_VERSION 2
#define IMAGE_VERSION_OLDEST 1 /* without IMAGE_PROVED */

/* Far above what any process needs (a record has 176 bytes), far below what hurts to read. */
#define IMAGE_BYTES_MAX (64U << 20)

/* The longest mapping of a device that is believed: it becomes the size of a memfd. */
#define IMAGE_MAPPED_MAX (UINT64_C(1) << 40)

struct image_header {
	char magic[8];
	uint32_t version;
	uint32_t header_size;
	uint32_t records;
	uint32_t crc; /* CRC-32 (IEEE 802.3) of the body */
	uint64_t body_size;
};

enum image_record_type {
	IMAGE_FILE = 1,
	IMAGE_MAPPING = 2,
	IMAGE_PROVED = 3,
};

struct image_record {
	uint32_t type;
	uint32_t size; /* with this header */
};

enum image_file_kind {
	IMAGE_FILE_DEVICE = 1, /* uverbsN */
	IMAGE_FILE_EVENTS = 2, /* a completion channel or the asynchronous events */
};

enum image_file_state {
	IMAGE_FILE_PENDING = 1, /* it had an event that nobody had read */
};

/* One open file; several descriptors, in several processes, may share it. */
struct image_file {
	uint32_t id; /* CRIU's */
	uint32_t kind;
	uint32_t flags; /* of open(2), as F_GETFL gave them */
	uint32_t state;
	int32_t pid; /* the process that it was found in, as the host saw it … */
	int32_t vpid; /* … and as the process sees itself */
	int32_t fd;
	uint32_t major;
	uint32_t minor;
	uint32_t reserved;
	char node[DEVICE_NAME];
	char ibdev[DEVICE_NAME];
};

struct image_mapping {
	int32_t pid;
	int32_t vpid;
	uint64_t start;
	uint64_t length;
	uint64_t offset;
	uint32_t prot;
	uint32_t reserved;
	uint32_t major;
	uint32_t minor;
	char node[DEVICE_NAME];
};

/* A process whose guest's thread can make the connections again while all others stand (rehearsal.h). */
struct image_proved {
	int32_t pid;
	int32_t vpid;
};

/* An image that is being written; `fd` is -1 while there is none. */
struct image_writer {
	int fd;
	struct image_header header;
};

#define IMAGE_WRITER_NONE ((struct image_writer){ .fd = -1 })

/* Each returns 0, or -1 with the reason in the log. */
int image_create(struct image_writer *writer, int directory);
int image_add_file(struct image_writer *writer, const struct image_file *file);
int image_add_mapping(struct image_writer *writer, const struct image_mapping *mapping);
int image_add_proved(struct image_writer *writer, const struct image_proved *proved);
void image_close(struct image_writer *writer);

/* No image of an earlier dump may be taken for this one's. */
int image_remove(int directory);

/* A valid image in memory: files by id, mappings by process and address. */
struct image {
	ARRAY(struct image_file) files;
	ARRAY(struct image_mapping) mappings;
	ARRAY(struct image_proved) proved;
};

enum image_found {
	IMAGE_ABSENT,
	IMAGE_LOADED,
	IMAGE_BAD, /* the reason is in the log */
};

enum image_found image_load(struct image *image, int directory);
enum image_found image_parse(struct image *image, const void *bytes, size_t size);
void image_free(struct image *image);

const struct image_file *image_find_file(const struct image *image, uint32_t id);
bool image_is_proved(const struct image *image, int32_t vpid);
const struct image_mapping *image_find_mapping(const struct image *image, int32_t vpid, uint64_t start);

#endif
