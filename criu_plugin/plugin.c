/*
 * The CRIU plugin: lets CRIU dump a process that holds RDMA devices, and restore it with placeholders.
 *
 *	stage		hook			what it does
 *	both		init			has the runtime watch over CRIU (death_watch.h)
 *	dump		CHECKPOINT_DEVICES	proves that the guest can be restored before all else goes on (rehearsal.h)
 *	dump		HANDLE_DEVICE_VMA	claims mappings of uverbs devices
 *	dump		DUMP_EXT_FILE		claims uverbs and event descriptors, records them in migrrdma.img
 *	restore		init			reads migrrdma.img and refuses what it cannot restore
 *	restore		RESTORE_EXT_FILE	supplies a descriptor
 *	restore		UPDATE_VMA_MAP		supplies memory for a mapping
 *	restore		RESUME_DEVICES_LATE	holds the processes until the restore is committed (late.h)
 *	restore		exit			says whether they go on
 *
 * The dump takes nothing from the process or the device: its queue pairs stay connected, and to undo it is to let
 * the process go on. Rebuilding is the guest library's work, in the process itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "criu.h"
#include "death_watch.h"
#include "device.h"
#include "fault_points.h"
#include "image.h"
#include "late.h"
#include "log.h"
#include "placeholder.h"
#include "process.h"
#include "rehearsal.h"
#include "scope.h"

/* One dump or one restore; CRIU does one of them and ends. */
static struct {
	enum criu_stage stage;
	/* dump: 1 once the processes have been looked at and may be dumped, -1 once they may not */
	int verdict;
	int rehearsed; /* likewise of the rehearsal */
	struct proved proved;
	struct holdings holdings;
	struct image_writer writer;
	/* restore */
	bool has_image;
	bool has_inventory; /* whether it is known if there should be one */
	struct image image;
	bool is_late; /* RESUME_DEVICES_LATE has come */
} state;

static bool holds_rdma(const struct holdings *holdings, size_t process)
{
	for (size_t i = 0; i < holdings->files.count; i++)
		if (holdings->files.items[i].process == process)
			return true;
	for (size_t i = 0; i < holdings->mappings.count; i++)
		if (holdings->mappings.items[i].process == process)
			return true;
	return false;
}

static int judge_files(const struct holdings *holdings)
{
	int ret = 0;

	for (size_t i = 0; i < holdings->files.count; i++) {
		const struct held_file *held = &holdings->files.items[i];
		const struct process *process = &holdings->processes.items[held->process];

		if (held->device.kind == DEVICE_UVERBS || held->device.kind == DEVICE_EVENTS)
			continue;
		pr_err("process %d (%s): descriptor %d is %s, and a process that holds one cannot be checkpointed",
		       process->pid, process->comm, held->fd, device_kind_name(held->device.kind));
		ret = -1;
	}
	return ret;
}

static int judge_mappings(const struct holdings *holdings)
{
	int ret = 0;

	for (size_t i = 0; i < holdings->mappings.count; i++) {
		const struct held_mapping *held = &holdings->mappings.items[i];
		const struct process *process = &holdings->processes.items[held->process];

		if (held->shared)
			continue;
		pr_err("process %d (%s): the mapping of %s at %#llx is private, and CRIU would save its content",
		       process->pid, process->comm, held->device.node, (unsigned long long)held->start);
		ret = -1;
	}
	return ret;
}

static int judge_processes(const struct holdings *holdings)
{
	int ret = 0;

	for (size_t i = 0; i < holdings->processes.count; i++) {
		const struct process *process = &holdings->processes.items[i];

		if (process->has_guest || !holds_rdma(holdings, i))
			continue;
		pr_err("process %d (%s) holds an RDMA device but runs without libmigrrdma.so: nothing could "
		       "rebuild its connections; run the container with the runtime migrrdma",
		       process->pid, process->comm);
		ret = -1;
	}
	return ret;
}

static int record_mappings(const struct holdings *holdings, struct image_writer *writer)
{
	for (size_t i = 0; i < holdings->mappings.count; i++) {
		const struct held_mapping *held = &holdings->mappings.items[i];
		const struct process *process = &holdings->processes.items[held->process];
		struct image_mapping mapping = {
			.pid = process->pid,
			.vpid = process->vpid,
			.start = held->start,
			.length = held->length,
			.offset = held->offset,
			.prot = held->prot,
			.major = major(held->number),
			.minor = minor(held->number),
		};
		memcpy(mapping.node, held->device.node, sizeof(mapping.node));
		pr_info("process %d (%s): %s is mapped at %#llx, %llu bytes", process->pid, process->comm,
			held->device.node, (unsigned long long)held->start, (unsigned long long)held->length);
		if (image_add_mapping(writer, &mapping))
			return -1;
	}
	return 0;
}

/* Every reason is logged, not only the first: whoever asked can mend them all at once. */
static int judge(const struct holdings *holdings)
{
	int files = judge_files(holdings);
	int mappings = judge_mappings(holdings);
	int processes = judge_processes(holdings);

	return files || mappings || processes ? -1 : 0;
}

static int begin_dump(void)
{
	if (holdings_collect(&state.holdings, SYSFS) || judge(&state.holdings))
		return -1;
	if (state.stage == CRIU_STAGE_PRE_DUMP)
		return 0;
	if (fault_before(PLUGIN_CREATE_IMAGE) || image_create(&state.writer, criu_get_image_dir()) ||
	    record_mappings(&state.holdings, &state.writer) || fault_after(PLUGIN_CREATE_IMAGE))
		return -1;
	for (size_t i = 0; i < state.proved.processes.count; i++)
		if (image_add_proved(&state.writer, &state.proved.processes.items[i]))
			return -1;
	/* Without the plugin such a checkpoint must not be restored: CRIU would open the devices by their path. */
	if (add_inventory_plugin && add_inventory_plugin(PLUGIN_NAME)) {
		pr_err("CRIU did not take this plugin into its inventory");
		return -1;
	}
	return 0;
}

/*
 * Looks at all processes the first time one turns out to hold something of ours; they are stopped by then.
 * A dump without RDMA never gets here. The verdict is for all of them and final.
 */
static bool may_dump(void)
{
	if (!state.verdict)
		state.verdict = begin_dump() ? -1 : 1;
	return state.verdict > 0;
}

/*
 * CRIU calls this for one process after the other, when all of them are stopped and nothing of them has been looked at: at the
 * first call all is done for all. Another plugin may have something to do as well.
 */
static int checkpoint_devices(int pid)
{
	(void)pid;
	if (!state.rehearsed)
		state.rehearsed = fault_before(PLUGIN_PROVE) || rehearse(&state.proved) || fault_after(PLUGIN_PROVE) ? -1 : 1;
	return state.rehearsed < 0 ? -EAGAIN : -ENOTSUP;
}

static int handle_device_vma(int fd, const struct stat *status)
{
	struct device device;

	(void)fd; /* opened with O_PATH: `status` says as much */
	if (!S_ISCHR(status->st_mode))
		return -ENOTSUP;
	device_of_number(SYSFS, status->st_rdev, &device);
	if (device.kind != DEVICE_UVERBS)
		return -ENOTSUP;
	if (may_dump())
		return 0;
	errno = EPERM; /* CRIU adds its text to a line of its own */
	return -EPERM;
}

/* What our descriptor is that CRIU asks about. */
static void open_device(int fd, struct device *device, dev_t *number)
{
	char path[32], link[PATH_MAX];
	struct stat status;

	*device = (struct device){ .kind = DEVICE_OTHER };
	*number = 0;
	if (fstat(fd, &status))
		return;
	if (S_ISCHR(status.st_mode)) {
		*number = status.st_rdev;
		device_of_number(SYSFS, status.st_rdev, device);
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ssize_t length = readlink(path, link, sizeof(link) - 1);
	if (length <= 0)
		return;
	link[length] = '\0';
	device->kind = device_of_link(link);
}

static bool has_event(int fd)
{
	struct pollfd events = { .fd = fd, .events = POLLIN };

	return poll(&events, 1, 0) > 0 && events.revents & POLLIN;
}

static int record_file(int fd, uint32_t id, const struct device *device, dev_t number,
		       const struct held_file *held, const struct process *process)
{
	int flags = fcntl(fd, F_GETFL);
	bool pending = device->kind == DEVICE_EVENTS && has_event(fd);
	struct image_file file = {
		.id = id,
		.kind = device->kind == DEVICE_UVERBS ? IMAGE_FILE_DEVICE : IMAGE_FILE_EVENTS,
		.flags = flags < 0 ? 0 : (uint32_t)flags,
		.state = pending ? IMAGE_FILE_PENDING : 0,
		.pid = process->pid,
		.vpid = process->vpid,
		.fd = held->fd,
		.major = major(number),
		.minor = minor(number),
	};

	memcpy(file.node, device->node, sizeof(file.node));
	memcpy(file.ibdev, device->ibdev, sizeof(file.ibdev));
	pr_info("process %d (%s): descriptor %d, file %#x, is %s %s", process->pid, process->comm, held->fd, id,
		device_kind_name(device->kind), device->node);
	if (pending)
		pr_warn("process %d (%s): an event on descriptor %d is unread; if the guest library has not kept it, "
			"it is lost on restore",
			process->pid, process->comm, held->fd);
	if (fault_before(PLUGIN_WRITE_FILE) || image_add_file(&state.writer, &file))
		return -1;
	return fault_after(PLUGIN_WRITE_FILE);
}

/* CRIU calls this once for each open file, however many descriptors lead to it. */
static int dump_ext_file(int fd, int id)
{
	struct device device;
	dev_t number;

	open_device(fd, &device, &number);
	if (device.kind == DEVICE_OTHER)
		return -ENOTSUP;
	if (!may_dump())
		return -EPERM;

	const struct held_file *held = holdings_owner(&state.holdings, fd, device.kind);
	if (!held) {
		pr_err("file %#x, %s %s, is held by no process: it is under way in a unix socket, from where no "
		       "guest library could replace it",
		       (unsigned int)id, device_kind_name(device.kind), device.node);
		return -EPERM;
	}
	return record_file(fd, (uint32_t)id, &device, number, held,
			   &state.holdings.processes.items[held->process]);
}

static int restore_ext_file(int id)
{
	const struct image_file *file = state.has_image ? image_find_file(&state.image, (uint32_t)id) : NULL;

	if (!file) {
		if (!state.has_image && !state.has_inventory)
			pr_warn("if file %#x was an RDMA device, %s is missing from the image directory",
				(unsigned int)id, IMAGE_NAME);
		return -ENOTSUP;
	}
	return placeholder_file(file);
}

/* 1: map `plugin_fd` at `new_offset` instead. Runs in the process that is being restored. */
static int update_vma_map(const char *path, uint64_t address, uint64_t old_offset, uint64_t *new_offset,
			  int *plugin_fd)
{
	const struct image_mapping *mapping =
		state.has_image ? image_find_mapping(&state.image, getpid(), address) : NULL;

	if (!mapping)
		return -ENOTSUP;
	if (mapping->offset != old_offset) {
		pr_err("%s says that %s was mapped at %#llx of process %d with offset %#llx, CRIU's image says "
		       "%#llx: they are not of one checkpoint",
		       IMAGE_NAME, path, (unsigned long long)address, mapping->vpid,
		       (unsigned long long)mapping->offset, (unsigned long long)old_offset);
		return -EINVAL;
	}
	*new_offset = 0;
	*plugin_fd = placeholder_memory(mapping);
	return *plugin_fd < 0 ? -ENOMEM : 1;
}

enum inventory {
	INVENTORY_NONE, /* CRIU, or the checkpoint, is older than 4.1 */
	INVENTORY_WITHOUT_US,
	INVENTORY_WITH_US,
};

/* To a checkpoint without an inventory of plugins CRIU says yes, for ever; to one that names us, once. */
static enum inventory ask_inventory(void)
{
	static const size_t length = sizeof(PLUGIN_NAME) - 1;

	if (!check_and_remove_inventory_plugin)
		return INVENTORY_NONE;
	if (!check_and_remove_inventory_plugin(PLUGIN_NAME, length))
		return INVENTORY_WITHOUT_US;
	return check_and_remove_inventory_plugin(PLUGIN_NAME, length) ? INVENTORY_NONE : INVENTORY_WITH_US;
}

static int begin_restore(void)
{
	enum inventory inventory = ask_inventory();

	state.has_inventory = inventory != INVENTORY_NONE;
	switch (image_load(&state.image, criu_get_image_dir())) {
	case IMAGE_LOADED:
		state.has_image = true;
		pr_info("%zu files and %zu mappings of RDMA devices get placeholders", state.image.files.count,
			state.image.mappings.count);
		return 0;
	case IMAGE_ABSENT:
		if (inventory != INVENTORY_WITH_US)
			return 0;
		pr_err("the checkpoint holds RDMA devices, but its %s is missing: it was not copied whole",
		       IMAGE_NAME);
		return -1;
	case IMAGE_BAD:
		break;
	}
	return -1;
}

/*
 * CRIU calls this for one process after the other, when all of them stand at their last instruction: at the first call all
 * is done for all. It does not look at the answer, and another plugin may have something to do as well.
 */
static int resume_devices_late(int pid)
{
	if (state.has_image && !state.is_late) {
		state.is_late = true;
		late_commit(pid, &state.image);
	}
	return -ENOTSUP;
}

static int plugin_init(int stage)
{
	state.stage = stage;
	state.is_late = false;
	state.verdict = 0;
	state.rehearsed = 0;
	state.writer = IMAGE_WRITER_NONE;
	state.has_image = false;
	if (stage != CRIU_STAGE_PRE_DUMP && !fault_before(PLUGIN_ASK_WATCH)) {
		death_watch_ask();
		if (fault_after(PLUGIN_ASK_WATCH))
			return -1;
	}
	if (stage == CRIU_STAGE_DUMP && !add_inventory_plugin && getenv(REHEARSAL_WANTED))
		pr_info("CRIU before 4.1 has no place to prove that a restore can be committed before the first instruction: it is "
			"committed after CRIU has let the processes go");
	if (stage == CRIU_STAGE_RESTORE)
		return fault_before(PLUGIN_LOAD_IMAGE) || begin_restore() || fault_after(PLUGIN_LOAD_IMAGE) ? -1 : 0;
	return image_remove(criu_get_image_dir());
}

static void plugin_exit(int stage, int ret)
{
	if (stage == CRIU_STAGE_RESTORE)
		late_end(!ret);
	image_close(&state.writer);
	holdings_free(&state.holdings);
	image_free(&state.image);
	array_free(&state.proved.processes);
	state.has_image = false;
}

__attribute__((visibility("default"))) struct criu_plugin_desc CR_PLUGIN_DESC = {
	.name = PLUGIN_NAME,
	.init = plugin_init,
	.exit = plugin_exit,
	.version = CRIU_PLUGIN_VERSION,
	.max_hooks = CRIU_HOOKS,
	.hooks = {
		.dump_ext_file = dump_ext_file,
		.restore_ext_file = restore_ext_file,
		.handle_device_vma = handle_device_vma,
		.update_vma_map = update_vma_map,
		.resume_devices_late = resume_devices_late,
		.checkpoint_devices = checkpoint_devices,
	},
};

/* Before CRIU reads it. */
__attribute__((constructor)) static void announce(void)
{
	if (!add_inventory_plugin)
		CR_PLUGIN_DESC.max_hooks = CRIU_HOOKS_BEFORE_4;
}
