/*
 * Why not dlsym: the library exports dlsym itself (dl.c), so a reference to it would find its own; and a
 * lookup by handle depends on how the application loaded libibverbs, which a walk over the objects does not.
 */
#define _GNU_SOURCE
#include "base/elf.h"

#include <errno.h>
#include <string.h>

/* glibc turns the addresses of the dynamic section into pointers, musl and the vDSO leave them relative. */
static const void *dynamic_pointer(const struct dl_phdr_info *info, ElfW(Addr) value)
{
	return (const void *)(value < info->dlpi_addr ? value + info->dlpi_addr : value);
}

/* The table has no length of its own: the end of the last chain is the end of the symbols. */
static uint32_t count_by_gnu_hash(const uint32_t *table)
{
	uint32_t buckets = table[0], first = table[1], bloom = table[2], last = 0;
	const uint32_t *bucket = table + 4 + bloom * (sizeof(ElfW(Addr)) / 4);
	const uint32_t *chain = bucket + buckets;

	for (uint32_t i = 0; i < buckets; i++)
		if (bucket[i] > last)
			last = bucket[i];
	if (last < first)
		return first;
	while (!(chain[last - first] & 1))
		last++;
	return last + 1;
}

int mig_elf_read(const struct dl_phdr_info *info, struct mig_elf *object)
{
	const ElfW(Dyn) *dynamic = NULL;
	const void *gnu_hash = NULL;
	const uint32_t *hash = NULL;
	const ElfW(Rela) *jumps = NULL;
	ElfW(Addr) soname = 0;
	int named = 0, has_addends = 0;

	memset(object, 0, sizeof(*object));
	object->base = info->dlpi_addr;
	object->name = info->dlpi_name ? info->dlpi_name : "";
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type == PT_DYNAMIC)
			dynamic = (const void *)(info->dlpi_addr + header->p_vaddr);
		if (header->p_type == PT_LOAD && info->dlpi_addr + header->p_vaddr + header->p_memsz > object->end)
			object->end = info->dlpi_addr + header->p_vaddr + header->p_memsz;
	}
	if (!dynamic)
		return ENOENT;
	for (; dynamic->d_tag != DT_NULL; dynamic++) {
		switch (dynamic->d_tag) {
		case DT_SYMTAB:
			object->symbols = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_STRTAB:
			object->strings = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_VERSYM:
			object->versions = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_VERDEF:
			object->definitions = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_GNU_HASH:
			gnu_hash = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_HASH:
			hash = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_RELA:
			object->relocations = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_RELASZ:
			object->relocations_size = dynamic->d_un.d_val;
			break;
		case DT_JMPREL:
			jumps = dynamic_pointer(info, dynamic->d_un.d_ptr);
			break;
		case DT_PLTRELSZ:
			object->jumps_size = dynamic->d_un.d_val;
			break;
		case DT_PLTREL:
			has_addends = dynamic->d_un.d_val == DT_RELA;
			break;
		case DT_SONAME:
			soname = dynamic->d_un.d_val;
			named = 1;
			break;
		}
	}
	if (!object->symbols || !object->strings || (!gnu_hash && !hash))
		return ENOENT;
	object->jumps = has_addends ? jumps : NULL;
	object->jumps_size = object->jumps ? object->jumps_size : 0;
	object->count = hash ? hash[1] : count_by_gnu_hash(gnu_hash);
	object->soname = named ? object->strings + soname : "";
	return 0;
}

static const char *version_name(const struct mig_elf *object, uint32_t index)
{
	const ElfW(Verdef) *definition = object->definitions;

	while (definition) {
		if (definition->vd_ndx == index) {
			const ElfW(Verdaux) *name = (const void *)((const char *)definition + definition->vd_aux);
			return object->strings + name->vda_name;
		}
		if (!definition->vd_next)
			break;
		definition = (const void *)((const char *)definition + definition->vd_next);
	}
	return "";
}

static int is_defined(const ElfW(Sym) *symbol, unsigned type)
{
	unsigned its_type = symbol->st_info & 0xf, binding = symbol->st_info >> 4;

	return symbol->st_shndx != SHN_UNDEF && its_type == type && binding != STB_LOCAL;
}

static int is_function(const ElfW(Sym) *symbol)
{
	return is_defined(symbol, STT_FUNC);
}

void *mig_elf_symbol(const struct mig_elf *object, const char *name, const char *version)
{
	for (uint32_t i = 1; i < object->count; i++) {
		const ElfW(Sym) *symbol = &object->symbols[i];

		if (!is_function(symbol) || strcmp(object->strings + symbol->st_name, name))
			continue;
		if (object->versions) {
			uint32_t index = object->versions[i];

			if (version ? strcmp(version_name(object, index & 0x7fff), version) != 0
				    : (index & 0x8000) != 0)
				continue;
		}
		return (void *)(object->base + symbol->st_value);
	}
	return NULL;
}

void mig_elf_functions(const struct mig_elf *object,
			  void (*each)(const char *name, const char *version, void *argument), void *argument)
{
	for (uint32_t i = 1; i < object->count; i++) {
		const ElfW(Sym) *symbol = &object->symbols[i];

		if (is_function(symbol))
			each(object->strings + symbol->st_name,
			     object->versions ? version_name(object, object->versions[i] & 0x7fff) : "", argument);
	}
}

static int holds(const struct mig_elf *object, const void *address)
{
	return (ElfW(Addr))address >= object->base && (ElfW(Addr))address < object->end;
}

static int is_this_library(const struct mig_elf *object)
{
	return holds(object, (const void *)(uintptr_t)mig_elf_next_symbol);
}

struct search {
	const char *soname_begins, *symbol, *version;
	const void *address;
	struct mig_elf *object;
	void *found;
	int passed_self, found_after;
};

static int search_object(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct search *search = argument;
	struct mig_elf object;

	(void)size;
	if (mig_elf_read(info, &object))
		return 0;
	if (search->soname_begins ? !strncmp(object.soname, search->soname_begins, strlen(search->soname_begins)) :
				    holds(&object, search->address)) {
		*search->object = object;
		return 1;
	}
	return 0;
}

int mig_elf_named(const char *begins, struct mig_elf *object)
{
	struct search search = { .soname_begins = begins, .object = object };

	return dl_iterate_phdr(search_object, &search) ? 0 : ENOENT;
}

static int search_definition(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct search *search = argument;
	struct mig_elf object;

	(void)size;
	if (mig_elf_read(info, &object) || is_this_library(&object) ||
	    !mig_elf_symbol(&object, search->symbol, search->version))
		return 0;
	*search->object = object;
	return 1;
}

int mig_elf_defining(const char *symbol, const char *version, struct mig_elf *object)
{
	struct search search = { .symbol = symbol, .version = version, .object = object };

	return dl_iterate_phdr(search_definition, &search) ? 0 : ENOENT;
}

int mig_elf_holding(const void *address, struct mig_elf *object)
{
	struct search search = { .address = address, .object = object };

	return dl_iterate_phdr(search_object, &search) ? 0 : ENOENT;
}

struct variables {
	const char *name;
	void **found;
	uint32_t most, count;
};

static int search_variable(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct variables *variables = argument;
	struct mig_elf object;

	(void)size;
	if (mig_elf_read(info, &object))
		return 0;
	for (uint32_t i = 1; i < object.count; i++) {
		const ElfW(Sym) *symbol = &object.symbols[i];

		if (!is_defined(symbol, STT_OBJECT) || strcmp(object.strings + symbol->st_name, variables->name))
			continue;
		if (variables->count < variables->most)
			variables->found[variables->count] = (void *)(object.base + symbol->st_value);
		variables->count++;
		break;
	}
	return 0;
}

uint32_t mig_elf_variables(const char *name, void **found, uint32_t most)
{
	struct variables variables = { name, found, most, 0 };

	dl_iterate_phdr(search_variable, &variables);
	return variables.count;
}

static int search_symbol(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct search *search = argument;
	struct mig_elf object;

	(void)size;
	if (mig_elf_read(info, &object))
		return 0;
	if (is_this_library(&object)) {
		search->passed_self = 1;
		return 0;
	}
	void *found = mig_elf_symbol(&object, search->symbol, NULL);
	if (found && (!search->found || (search->passed_self && !search->found_after))) {
		search->found = found;
		search->found_after = search->passed_self;
	}
	return search->found_after;
}

void *mig_elf_next_symbol(const char *name)
{
	struct search search = { .symbol = name };

	dl_iterate_phdr(search_symbol, &search);
	return search.found;
}

void *mig_elf_global_symbol(const char *name)
{
	/* As if this library stood before all others. */
	struct search search = { .symbol = name, .passed_self = 1 };

	dl_iterate_phdr(search_symbol, &search);
	return search.found;
}

static int read_build_id(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct mig_elf object;

	(void)size;
	if (mig_elf_read(info, &object) || !is_this_library(&object))
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		const char *note = (const char *)(info->dlpi_addr + header->p_vaddr);
		const char *end = note + header->p_memsz;

		while (header->p_type == PT_NOTE && note + sizeof(ElfW(Nhdr)) <= end) {
			const ElfW(Nhdr) *head = (const void *)note;
			const char *name = note + sizeof(*head);
			const char *value = name + ((head->n_namesz + 3) & ~3u);

			if (head->n_type == NT_GNU_BUILD_ID && head->n_namesz == 4 && !memcmp(name, "GNU", 4)) {
				memcpy(argument, value, head->n_descsz < 20 ? head->n_descsz : 20);
				return 1;
			}
			note = value + ((head->n_descsz + 3) & ~3u);
		}
	}
	return 1;
}

void mig_elf_build_id(uint8_t id[20])
{
	memset(id, 0, 20);
	dl_iterate_phdr(read_build_id, id);
}
