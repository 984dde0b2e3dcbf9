#include "device.h"

#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "scope.h"

static bool starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* The last component of what the link points to. */
static bool link_name(const char *path, char *name, size_t size)
{
	char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);
	if (length <= 0)
		return false;
	target[length] = '\0';

	const char *slash = strrchr(target, '/');
	const char *last = slash ? slash + 1 : target;
	return (size_t)snprintf(name, size, "%s", last) < size;
}

static void read_line(const char *path, char *line, size_t size)
{
	line[0] = '\0';
	scoped_file file = fopen(path, "re");
	if (!file || !fgets(line, (int)size, file)) {
		line[0] = '\0';
		return;
	}
	line[strcspn(line, "\n")] = '\0';
}

static enum device_kind kind_of(const char *subsystem, const char *node)
{
	if (!strcmp(subsystem, "infiniband_verbs"))
		return DEVICE_UVERBS;
	if (!strcmp(subsystem, "infiniband_mad"))
		return starts_with(node, "issm") ? DEVICE_ISSM : DEVICE_UMAD;
	if (!strcmp(subsystem, "misc") && !strcmp(node, "rdma_cm"))
		return DEVICE_RDMA_CM;
	return DEVICE_OTHER;
}

/*
 * By subsystem, not by major number: uverbs, umad and issm share major 231, a host with more than 32 devices has
 * dynamic ones besides, and rdma_cm is one of the miscellaneous devices.
 */
void device_of_number(const char *sysfs, dev_t number, struct device *device)
{
	char path[PATH_MAX];
	char subsystem[NAME_MAX + 1];

	*device = (struct device){ .kind = DEVICE_OTHER };

	int length = snprintf(path, sizeof(path), "%s/dev/char/%u:%u", sysfs, major(number), minor(number));
	if (length < 0 || (size_t)length + sizeof("/subsystem") > sizeof(path))
		return;
	if (!link_name(path, device->node, sizeof(device->node)))
		return;
	strcpy(path + length, "/subsystem");
	if (!link_name(path, subsystem, sizeof(subsystem)))
		return;
	device->kind = kind_of(subsystem, device->node);
	if (device->kind == DEVICE_UVERBS) {
		strcpy(path + length, "/ibdev");
		read_line(path, device->ibdev, sizeof(device->ibdev));
	}
}

/*
 * The kernel gives one name to both kinds of event descriptor, and nothing else that can be seen from outside
 * tells a completion channel from the asynchronous events. The guest knows.
 */
enum device_kind device_of_link(const char *link)
{
	if (!strcmp(link, "anon_inode:[infinibandevent]"))
		return DEVICE_EVENTS;
	if (starts_with(link, "anon_inode:[devx_"))
		return DEVICE_DEVX;
	return DEVICE_OTHER;
}

const char *device_kind_name(enum device_kind kind)
{
	switch (kind) {
	case DEVICE_OTHER:
		break;
	case DEVICE_UVERBS:
		return "an RDMA device";
	case DEVICE_EVENTS:
		return "an event channel of an RDMA device";
	case DEVICE_RDMA_CM:
		return "the RDMA connection manager (rdma_cm)";
	case DEVICE_UMAD:
		return "a management datagram device (umad)";
	case DEVICE_ISSM:
		return "a subnet manager device (issm)";
	case DEVICE_DEVX:
		return "an mlx5 DEVX event channel";
	}
	return "nothing of RDMA";
}
