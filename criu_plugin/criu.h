/*
 * What this plugin needs of CRIU: the plugin ABI, declared here because Debian 12 has no libcriu-dev.
 *
 * Every number is from CRIU's criu/include/criu-plugin.h, criu/include/log.h and criu/include/image.h; they are
 * the same in v3.17.1, v4.1.1 and v4.2 unless a comment says otherwise.
 */
#ifndef MIGRRDMA_PLUGIN_CRIU_H
#define MIGRRDMA_PLUGIN_CRIU_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* CRIU_PLUGIN_VERSION: 0.2.0 as (major << 16) + (minor << 8) + sublevel. CRIU refuses a greater one. */
#define CRIU_PLUGIN_VERSION 0x000200U

/* CR_PLUGIN_STAGE__* */
enum criu_stage {
	CRIU_STAGE_DUMP = 0,
	CRIU_STAGE_PRE_DUMP = 1,
	CRIU_STAGE_RESTORE = 2,
};

/*
 * The hooks, by their number in CR_PLUGIN_HOOK__*. CRIU asks the plugins in the order in which it loaded them,
 * and the first that answers anything but -ENOTSUP has the last word: a hook must answer -ENOTSUP, not 0, to
 * what is not its own.
 *
 * 4.0 added PAUSE_DEVICES (10) and CHECKPOINT_DEVICES (11). A plugin that brings more hooks than the host knows is refused,
 * and CRIU then does not start: 3.17 knows ten, so these two are only announced where there is an inventory, from 4.1 on.
 * cuda_plugin answers 0 to them for every process, and whoever comes after it never hears of them: ours comes first.
 */
struct criu_hooks {
	int (*dump_unix_sk)(int fd, int id);						/* 0 */
	int (*restore_unix_sk)(int id);							/* 1 */
	int (*dump_ext_file)(int fd, int id);						/* 2 */
	int (*restore_ext_file)(int id);						/* 3 */
	int (*dump_ext_mount)(char *mountpoint, int id);				/* 4 */
	int (*restore_ext_mount)(int id, char *mountpoint, char *old_root, int *is_file); /* 5 */
	int (*dump_ext_link)(int index, int type, char *kind);				/* 6 */
	int (*handle_device_vma)(int fd, const struct stat *stat);			/* 7 */
	int (*update_vma_map)(const char *path, uint64_t address, uint64_t old_offset, uint64_t *new_offset,
			      int *plugin_fd);						/* 8 */
	int (*resume_devices_late)(int pid);						/* 9 */
	int (*pause_devices)(int pid);							/* 10, from 4.0 on */
	int (*checkpoint_devices)(int pid);						/* 11, likewise */
};

/* max_hooks of the descriptor: the length of the array CRIU sees where we have a structure. */
#define CRIU_HOOKS 12U
#define CRIU_HOOKS_BEFORE_4 10U
static_assert(sizeof(struct criu_hooks) == CRIU_HOOKS * sizeof(void *), "CRIU has an array of pointers here");

/* cr_plugin_desc_t; CRIU looks for it under the name CR_PLUGIN_DESC. */
struct criu_plugin_desc {
	const char *name;
	int (*init)(int stage);
	void (*exit)(int stage, int ret);
	unsigned int version;
	unsigned int max_hooks;
	struct criu_hooks hooks;
};
static_assert(offsetof(struct criu_plugin_desc, hooks) == 3 * sizeof(void *) + 2 * sizeof(unsigned int),
	      "no padding before the hooks");

/* The image directory, as a descriptor; valid in every hook and on restore in the restored processes, too. */
extern int criu_get_image_dir(void);

/* LOG_ERROR … LOG_DEBUG */
enum criu_log_level {
	CRIU_LOG_ERROR = 1,
	CRIU_LOG_WARN = 2,
	CRIU_LOG_INFO = 3,
	CRIU_LOG_DEBUG = 4,
};

extern void print_on_level(unsigned int level, const char *format, ...)
	__attribute__((__format__(__printf__, 2, 3)));

/*
 * Since 4.1 the inventory image names the plugins without which a checkpoint cannot be restored. Absent in
 * 3.17 and 4.0, therefore weak.
 */
extern int add_inventory_plugin(const char *name) __attribute__((weak));
extern bool check_and_remove_inventory_plugin(const char *name, size_t length) __attribute__((weak));

#endif
