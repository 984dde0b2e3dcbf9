/* Symbols of objects that are already loaded, found without any function of the dynamic linker. */
#ifndef MIGRRDMA_ELF_H
#define MIGRRDMA_ELF_H

#include <elf.h>
#include <link.h>
#include <stdint.h>

struct mig_elf {
	ElfW(Addr) base, end;
	const char *name;
	const char *soname;
	const ElfW(Sym) *symbols;
	const char *strings;
	const ElfW(Half) *versions;	/* of each symbol; NULL: none */
	const ElfW(Verdef) *definitions;
	uint32_t count;			/* of symbols */
	const ElfW(Rela) *relocations, *jumps; /* what refers to symbols; sizes in bytes */
	size_t relocations_size, jumps_size;
};

struct dl_phdr_info;

/* What the dynamic linker says of one object; ENOENT if that has no symbols. */
int mig_elf_read(const struct dl_phdr_info *info, struct mig_elf *object);

/* The first object whose soname begins so, the first besides this library that defines symbol, or the one holding address;
 * ENOENT when there is none. */
int mig_elf_named(const char *begins, struct mig_elf *object);
int mig_elf_defining(const char *symbol, const char *version, struct mig_elf *object);
int mig_elf_holding(const void *address, struct mig_elf *object);

/* With a version that very definition, else the default one. NULL: not defined. */
void *mig_elf_symbol(const struct mig_elf *object, const char *name, const char *version);

/* The variables of that name, of all objects that define one: to which of them an object's reference leads is the linker's
 * affair. At most `most` are put into `found`; how many there are. */
uint32_t mig_elf_variables(const char *name, void **found, uint32_t most);

/* The first definition in any other object than this library: as a reference of ours would be resolved, were it not
 * for a process that may lack it; or in those loaded after this library, then in any. */
void *mig_elf_global_symbol(const char *name);
void *mig_elf_next_symbol(const char *name);

/* Calls each for every function the object defines. */
void mig_elf_functions(const struct mig_elf *object,
			  void (*each)(const char *name, const char *version, void *argument), void *argument);

/* The build id of this library; all zero if it was linked without one. */
void mig_elf_build_id(uint8_t id[20]);

#endif
