/*
 * Applications that open libibverbs themselves (NCCL, UCX) look its functions up by handle, which passes a
 * library loaded first by. So dlsym and dlvsym are ours, for one case only: an explicit handle and a name of the
 * verbs libraries. Then the real lookup is made, and its answer replaced if it is a verb that we virtualise.
 * Everything else goes on to the real function *by a jump*: what RTLD_NEXT means depends on the return address.
 *
 * Why not dlopen: it depends on its caller in more ways (search paths, namespaces), and a handle of our own would
 * lack the functions that we do not define.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>

#include "base/elf.h"
#include "entry/replacements.h"
#include "real/export.h"

typedef void *lookup(void *handle, const char *name);
typedef void *versioned_lookup(void *handle, const char *name, const char *version);

static lookup *real_dlsym;
static versioned_lookup *real_dlvsym;

/* Losing the race to fill these in means to fill in the same again. */
static lookup *find_dlsym(void)
{
	lookup *found = __atomic_load_n(&real_dlsym, __ATOMIC_RELAXED);

	if (!found) {
		found = (lookup *)(uintptr_t)mig_elf_next_symbol("dlsym");
		__atomic_store_n(&real_dlsym, found, __ATOMIC_RELAXED);
	}
	return found;
}

static versioned_lookup *find_dlvsym(void)
{
	versioned_lookup *found = __atomic_load_n(&real_dlvsym, __ATOMIC_RELAXED);

	if (!found) {
		found = (versioned_lookup *)(uintptr_t)mig_elf_next_symbol("dlvsym");
		/*
		 * Where there is none (musl), there would be none for a program that asks before it calls, but for ours;
		 * such a C library ignores versions.
		 */
		if (!found)
			found = (versioned_lookup *)(uintptr_t)find_dlsym();
		__atomic_store_n(&real_dlvsym, found, __ATOMIC_RELAXED);
	}
	return found;
}

static int is_ours_to_answer(const void *handle, const char *name)
{
	if (handle == RTLD_NEXT || handle == RTLD_DEFAULT || !name)
		return 0;
	return !strncmp(name, "ibv_", 4) || !strncmp(name, "_ibv_", 5) || !strncmp(name, "mlx5dv_", 7) ||
	       !strncmp(name, "mlx4dv_", 7) || !strncmp(name, "efadv_", 6) || !strncmp(name, "hnsdv_", 6) ||
	       !strncmp(name, "manadv_", 7) || !strncmp(name, "bnxt_re_dv_", 11) || !strncmp(name, "ionic_dv_", 9);
}

/* The calls in tail position must be jumps in every build. */
#if defined(__has_attribute) && __has_attribute(musttail)
#define MIG_JUMP __attribute__((musttail)) return
#define MIG_JUMPS
#else
#define MIG_JUMP return
#define MIG_JUMPS __attribute__((optimize("O2"), no_sanitize_address, no_sanitize_undefined, no_sanitize_thread))
#endif

MIG_EXPORT MIG_JUMPS void *dlsym(void *restrict handle, const char *restrict name)
{
	lookup *real = find_dlsym();

	if (!is_ours_to_answer(handle, name))
		MIG_JUMP real(handle, name);

	void *found = real(handle, name);
	void *ours = found ? mig_replacement(name, found) : NULL;
	return ours ? ours : found;
}

MIG_EXPORT MIG_JUMPS void *dlvsym(void *restrict handle, const char *restrict name, const char *restrict version)
{
	versioned_lookup *real = find_dlvsym();

	if (!is_ours_to_answer(handle, name))
		MIG_JUMP real(handle, name, version);

	void *found = real(handle, name, version);
	void *ours = found ? mig_replacement(name, found) : NULL;
	return ours ? ours : found;
}
