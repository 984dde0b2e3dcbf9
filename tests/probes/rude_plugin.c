/*
 * A CRIU plugin that answers for what is not its own, as amdgpu_plugin 4.1 does on a host without /dev/kfd: whoever
 * comes after it is not asked.
 */
#include "criu.h"

static int handle_device_vma(int fd, const struct stat *status)
{
	(void)fd;
	(void)status;
	return -1;
}

static int update_vma_map(const char *path, uint64_t address, uint64_t old_offset, uint64_t *new_offset,
			  int *plugin_fd)
{
	(void)path;
	(void)address;
	(void)old_offset;
	(void)new_offset;
	(void)plugin_fd;
	return 0;
}

static int init(int stage)
{
	(void)stage;
	return 0;
}

static void end(int stage, int ret)
{
	(void)stage;
	(void)ret;
}

struct criu_plugin_desc CR_PLUGIN_DESC = {
	.name = "rude_plugin",
	.init = init,
	.exit = end,
	.version = CRIU_PLUGIN_VERSION,
	.max_hooks = CRIU_HOOKS,
	.hooks = { .handle_device_vma = handle_device_vma, .update_vma_map = update_vma_map },
};
