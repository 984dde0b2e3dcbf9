/* Finding the real functions. */
#define _GNU_SOURCE
#include "real/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/elf.h"
#include "base/lock.h"
#include "base/log.h"

__thread int mig_inside_real;

static struct mig_lock real_lock;
static struct mig_real real;
static int real_found;

#define MIG_REAL_NAME(result, name, version, parameters) #name,
static const char *const virtualised[] = { MIG_REAL(MIG_REAL_NAME) };

/*
 * Public verbs that never see an object of ours: they take none, or only objects that the real library made
 * and that we hand out as they are (AH, XRCD, DM, DMA handle, buffer, completion counter).
 */
static const char *const harmless[] = {
	"ibv_copy_ah_attr_from_kern", "ibv_copy_path_rec_from_kern", "ibv_copy_path_rec_to_kern",
	"ibv_copy_qp_attr_from_kern",
	"ibv_dm_export_dmabuf_fd", "ibv_dofork_range", "ibv_dontfork_range", "ibv_event_type_str",
	"ibv_export_buf_dmabuf_fd", "ibv_fork_init", "ibv_get_sysfs_path", "ibv_inc_comp_cntr",
	"ibv_inc_err_comp_cntr", "ibv_is_fork_initialized", "ibv_node_type_str",
	"ibv_port_state_str", "ibv_rate_to_mbps", "ibv_rate_to_mult", "ibv_read_comp_cntr",
	"ibv_read_err_comp_cntr", "ibv_read_sysfs_file", "ibv_register_driver", "ibv_set_comp_cntr",
	"ibv_set_err_comp_cntr", "ibv_static_providers",
	"ibv_wc_status_str",
};

static int is_listed(const char *name, const char *const *list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(name, list[i]))
			return 1;
	return 0;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A public verb from after our time could be handed one of our objects and would crash on it. */
static void look_for_stranger(const char *name, const char *version, void *argument)
{
	struct mig_real *found = argument;
	uint32_t known = found->stranger_count < MIG_STRANGERS ? found->stranger_count : MIG_STRANGERS;

	if (strncmp(version, "IBVERBS_1.", 10) || (strncmp(name, "ibv_", 4) && strncmp(name, "_ibv_", 5)))
		return;
	if (is_listed(name, virtualised, COUNT(virtualised)) || is_listed(name, harmless, COUNT(harmless)) ||
	    is_listed(name, found->strangers, known))
		return;
	if (known < MIG_STRANGERS)
		found->strangers[known] = name;
	found->stranger_count++;
}

/*
 * An application may close the libibverbs that it has opened, and open it again in another place: our pointers to it
 * must not outlive it. Where there is no dlopen, nobody can have opened it.
 */
static void pin(const struct mig_elf *library)
{
	void *(*open)(const char *, int) = (void *(*)(const char *, int))(uintptr_t)mig_elf_global_symbol("dlopen");

	if (open)
		open(library->name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
}

#define LIBIBVERBS "libibverbs.so.1"
/* A Python wheel's has a name like libibverbs-1a2b3c4d.so.1.14.48. */
#define ITS_NAMES_BEGIN "libibverbs"
/* What every libibverbs defines, whatever it is called. */
#define ITS_VERB "ibv_open_device"
#define ITS_VERSION "IBVERBS_1.1"

int mig_is_libibverbs(const struct mig_elf *object)
{
	return !strcmp(object->soname, LIBIBVERBS) || mig_elf_symbol(object, ITS_VERB, ITS_VERSION);
}

/*
 * Of several the one that was loaded first, as the dynamic linker has it: the usual one may have come with a driver, for which
 * another one has looked that the application was linked with.
 */
static int find_real(void)
{
	struct mig_elf library;

	if (mig_elf_named(ITS_NAMES_BEGIN, &library) && mig_elf_defining(ITS_VERB, ITS_VERSION, &library))
		return ENOSYS;
	pin(&library);
#define MIG_REAL_FIND(result, name, version, parameters)                                                   \
	real.name = (result(*) parameters)(uintptr_t)mig_elf_symbol(&library, #name, version);
	MIG_REAL(MIG_REAL_FIND)
	real.dofork_range = (int (*)(void *, size_t))(uintptr_t)mig_elf_symbol(&library, "ibv_dofork_range", NULL);
	real.library = library;
	mig_elf_functions(&library, look_for_stranger, &real);
	return 0;
}

const struct mig_real *mig_real(void)
{
	if (!__atomic_load_n(&real_found, __ATOMIC_ACQUIRE)) {
		MIG_LOCKED(&real_lock);
		int error = real_found ? 0 : find_real();

		if (error) {
			errno = error;
			return NULL;
		}
		__atomic_store_n(&real_found, 1, __ATOMIC_RELEASE);
	}
	return &real;
}
