#include "mark.h"

#include <elf.h>

/* The linker puts notes right behind the headers, where lowlevel.py and low_level.c look. */
static const struct {
	Elf64_Nhdr header; /* the same for 32 bits */
	char name[12];
	char content[sizeof(MARK) + 3 - (sizeof(MARK) + 3) % 4];
} note __attribute__((used, section(".note.migrrdma"), aligned(4))) = {
	.header = { .n_namesz = sizeof("migrrdma"), .n_descsz = sizeof(note.content), .n_type = 1 },
	.name = "migrrdma",
	.content = MARK,
};
