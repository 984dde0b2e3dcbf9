/*
 * The dynamic linker finds a function by its entry in the symbol table of the object that defines it: that entry is changed in this
 * process. References that have been resolved before stand in tables of the objects that make them.
 */
#define _GNU_SOURCE
#include "base/redirect.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static ElfW(Addr) page_of(const void *address)
{
	return (ElfW(Addr))address & ~(ElfW(Addr))4095;
}

/* The words are aligned, so each is on one page. */
static int protect(const void *address, int protection)
{
	return syscall(SYS_mprotect, page_of(address), 4096, protection) ? errno : 0;
}

#if defined(__x86_64__)
#define IS_RESOLVED(type) ((type) == R_X86_64_JUMP_SLOT || (type) == R_X86_64_GLOB_DAT || (type) == R_X86_64_64)
#else
#define IS_RESOLVED(type) 0
#endif

struct redirection {
	const struct mig_elf *object;
	const char *name;
	ElfW(Addr) from, to;
	int error;
};

/* The segment of that type which holds the address; NULL: none does. */
static const ElfW(Phdr) *segment_of(const struct dl_phdr_info *info, uint32_t type, const void *address)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];
		ElfW(Addr) start = info->dlpi_addr + header->p_vaddr;

		if (header->p_type == type && (ElfW(Addr))address >= start && (ElfW(Addr))address < start + header->p_memsz)
			return header;
	}
	return NULL;
}

static int protection_of(const struct dl_phdr_info *info, const void *address)
{
	const ElfW(Phdr) *loaded = segment_of(info, PT_LOAD, address);
	ElfW(Word) flags = loaded ? loaded->p_flags : 0;

	return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) | (flags & PF_X ? PROT_EXEC : 0);
}

/* A page that the linker keeps from writing stays open: it may be at work there for another thread, which has just loaded it. */
static void put_reference(struct redirection *redirection, const struct dl_phdr_info *info, ElfW(Addr) *slot, ElfW(Addr) value)
{
	if (segment_of(info, PT_GNU_RELRO, slot))
		redirection->error = protect(slot, PROT_READ | PROT_WRITE);
	if (!redirection->error)
		__atomic_store_n(slot, value, __ATOMIC_RELEASE);
}

static void put_references(struct redirection *redirection, const struct dl_phdr_info *info, const struct mig_elf *referrer,
			   const ElfW(Rela) *entry, size_t size)
{
	for (const ElfW(Rela) *end = entry + size / sizeof(*entry); entry < end && !redirection->error; entry++) {
		ElfW(Addr) *slot = (ElfW(Addr) *)(info->dlpi_addr + entry->r_offset);
		const ElfW(Sym) *symbol = &referrer->symbols[ELF64_R_SYM(entry->r_info)];

		if (!IS_RESOLVED(ELF64_R_TYPE(entry->r_info)) || strcmp(referrer->strings + symbol->st_name, redirection->name))
			continue;
		ElfW(Addr) addend = ELF64_R_TYPE(entry->r_info) == R_X86_64_64 ? (ElfW(Addr))entry->r_addend : 0;

		if (*slot == redirection->from + addend)
			put_reference(redirection, info, slot, redirection->to + addend);
	}
}

static int redirect_references(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct redirection *redirection = argument;
	struct mig_elf referrer;

	(void)size;
	if (mig_elf_read(info, &referrer))
		return 0;
	put_references(redirection, info, &referrer, referrer.relocations, referrer.relocations_size);
	put_references(redirection, info, &referrer, referrer.jumps, referrer.jumps_size);
	return redirection->error;
}

static int redirect_definition(struct dl_phdr_info *info, size_t size, void *argument)
{
	struct redirection *redirection = argument;
	struct mig_elf object;

	(void)size;
	if (info->dlpi_addr != redirection->object->base || mig_elf_read(info, &object))
		return 0;
	for (uint32_t i = 1; i < object.count && !redirection->error; i++) {
		ElfW(Sym) *symbol = (ElfW(Sym) *)(uintptr_t)&object.symbols[i];
		int protection = protection_of(info, symbol);

		if (symbol->st_shndx == SHN_UNDEF || object.base + symbol->st_value != redirection->from ||
		    strcmp(object.strings + symbol->st_name, redirection->name))
			continue;
		redirection->error = protect(&symbol->st_value, protection | PROT_WRITE);
		if (redirection->error)
			break;
		__atomic_store_n(&symbol->st_value, redirection->to - object.base, __ATOMIC_RELEASE);
		protect(&symbol->st_value, protection);
	}
	return 1;
}

int mig_redirect(const struct mig_elf *object, const char *name, const void *from, const void *to)
{
	struct redirection redirection = { .object = object, .name = name, .from = (ElfW(Addr))from, .to = (ElfW(Addr))to };

	dl_iterate_phdr(redirect_definition, &redirection);
	if (!redirection.error)
		dl_iterate_phdr(redirect_references, &redirection);
	return redirection.error;
}
