#include "entry/replacements.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/elf.h"
#include "entry/vendor.h"
#include "real/export.h"

#define REPLACEMENTS(array) (sizeof(array) / sizeof((array)[0]))

struct replacement {
	const char *name;
	void *ours;
};

#define MIG_REPLACEMENT(result, name, version, parameters) { #name, (void *)(uintptr_t)name },
static const struct replacement verbs[] = { MIG_REAL(MIG_REPLACEMENT) };
#define MIG_VENDOR_REPLACEMENT(result, name) { #name, (void *)(uintptr_t)name },
static const struct replacement vendors[] = { MIG_VENDOR(MIG_VENDOR_REPLACEMENT) };

void *mig_replacement(const char *name, const void *found)
{
	struct mig_elf object;

	for (size_t i = 0; i < REPLACEMENTS(vendors); i++)
		if (!strcmp(name, vendors[i].name))
			return vendors[i].ours;
	for (size_t i = 0; i < REPLACEMENTS(verbs); i++) {
		if (strcmp(name, verbs[i].name))
			continue;
		/* Only the current version of the verb, and only libibverbs' own. */
		if (mig_elf_holding(found, &object) || !mig_is_libibverbs(&object))
			return NULL;
		return mig_elf_symbol(&object, name, NULL) == found ? verbs[i].ours : NULL;
	}
	return NULL;
}
