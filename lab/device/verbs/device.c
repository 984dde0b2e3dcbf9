/* Which devices there are; opening and closing them. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "export.h"
#include "soft.h"

extern bool verbs_allow_disassociate_destroy;

static pthread_mutex_t devices_lock = PTHREAD_MUTEX_INITIALIZER;
static struct soft_device *devices;

/* Applications keep pointers to devices across lists: one stands for its name as long as the process lives. */
static struct soft_device *device_of(const struct rnic_listed *listed)
{
	struct soft_device *device;

	for (device = devices; device; device = device->next)
		if (!strcmp(device->listed.name, listed->name))
			break;
	if (!device) {
		if (!(device = calloc(1, sizeof(*device))))
			return NULL;
		device->next = devices;
		devices = device;
	}
	device->listed = *listed;
	device->ibv.node_type = IBV_NODE_CA;
	device->ibv.transport_type = IBV_TRANSPORT_IB;
	memcpy(device->ibv.name, listed->name, sizeof(device->ibv.name));
	memcpy(device->ibv.dev_name, listed->node, sizeof(device->ibv.dev_name));
	snprintf(device->ibv.dev_path, sizeof(device->ibv.dev_path), "/sys/class/infiniband_verbs/%.63s", listed->node);
	snprintf(device->ibv.ibdev_path, sizeof(device->ibv.ibdev_path), "/sys/class/infiniband/%.63s", listed->name);
	return device;
}

EXPORT struct ibv_device **ibv_get_device_list(int *count)
{
	struct rnic_listed listed[RNIC_MOST_DEVICES];
	struct ibv_device **list = NULL;
	int found = 0;
	int error = device_link_list(listed, RNIC_MOST_DEVICES, &found);

	if (!error && !(list = calloc((size_t)found + 1, sizeof(*list))))
		error = ENOMEM;
	pthread_mutex_lock(&devices_lock);
	for (int i = 0; !error && i < found; i++) {
		struct soft_device *device = device_of(&listed[i]);

		if (device)
			list[i] = &device->ibv;
		else
			error = ENOMEM;
	}
	pthread_mutex_unlock(&devices_lock);
	if (error) {
		free(list);
		list = NULL;
		errno = error;
	}
	if (count)
		*count = list ? found : 0;
	return list;
}

EXPORT void ibv_free_device_list(struct ibv_device **list)
{
	free(list);
}

EXPORT const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

EXPORT __be64 ibv_get_device_guid(struct ibv_device *device)
{
	return ((struct soft_device *)device)->listed.guid;
}

EXPORT int ibv_get_device_index(struct ibv_device *device)
{
	return (int)((struct soft_device *)device)->listed.index;
}

EXPORT struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	struct soft_device *device = (struct soft_device *)ibv;
	struct soft_context *context = calloc(1, sizeof(*context));
	struct rnic_listed listed;

	if (!context) {
		errno = ENOMEM;
		return NULL;
	}
	pthread_mutex_lock(&devices_lock);
	listed = device->listed;
	pthread_mutex_unlock(&devices_lock);
	int error = device_link_open(&listed, &context->link);
	if (error) {
		free(context);
		errno = error;
		return NULL;
	}
	context->async.queue = context->link->async;
	context->async.fd = context->link->async_fd;
	pthread_mutex_init(&context->async.lock, NULL);
	pthread_mutex_init(&context->async_lock, NULL);

	struct verbs_context *verbs = &context->verbs;
	verbs->sz = sizeof(*verbs);
	verbs->context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	verbs->context.device = ibv;
	verbs->context.cmd_fd = context->link->cmd_fd;
	verbs->context.async_fd = context->link->async_fd;
	verbs->context.num_comp_vectors = 2;
	pthread_mutex_init(&verbs->context.mutex, NULL);
	soft_fill_query(verbs);
	soft_fill_memory(verbs);
	soft_fill_cq(verbs);
	soft_fill_srq(verbs);
	soft_fill_qp(verbs);
	soft_fill_send(verbs);
	if (soft_fill_more)
		soft_fill_more(verbs);
	return &verbs->context;
}

EXPORT int ibv_close_device(struct ibv_context *ibv)
{
	struct soft_context *context = soft_context(ibv);
	struct rnic_call call = { .name = CALL_CLOSE };
	int error = device_link_call(soft_link(ibv, "close_device"), &call);

	if (error)
		return error;
	device_link_close(context->link);
	free(context);
	return 0;
}

/* As libibverbs does: by its own public list, and then behind the public part of what is in it. */
EXPORT struct ibv_context *ibv_import_device(int fd)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = NULL;
	int error = list ? EOPNOTSUPP : errno;

	(void)fd;
	if (list && list[0] && !((struct soft_device *)list[0])->listed.index) {
		context = ibv_open_device(list[0]);
		error = context ? 0 : errno;
		if (context && !(soft_context(context)->link->ways & RNIC_IMPORTS)) {
			ibv_close_device(context);
			context = NULL;
			error = EOPNOTSUPP;
		}
	}
	if (list)
		ibv_free_device_list(list);
	errno = error;
	return context;
}

/* What the kernel says of what is at the place of the device's descriptor. */
static bool fails_with_eio(int fd)
{
	uint64_t command[3] = { 0 };

	return ioctl(fd, _IOWR(0x1b, 1, uint64_t[3]), command) == -1 && errno == EIO;
}

bool soft_ends_alone(struct ibv_context *context, const char *function)
{
	bool alone = verbs_allow_disassociate_destroy && device_link_is_gone(soft_context(context)->link);

	if (!alone)
		soft_link(context, function);
	return alone;
}

int soft_end(struct ibv_context *context, uint32_t name, uint32_t handle, const char *function)
{
	struct rnic_call call = { .name = name, .handle = handle };

	if (soft_ends_alone(context, function))
		return fails_with_eio(context->cmd_fd) ? 0 : ENOTTY;
	return device_link_call(soft_context(context)->link, &call);
}

int soft_ask_fault(struct device_link *link, const char *verb)
{
	struct rnic_call call = { .name = CALL_DATA_PATH };

	snprintf(call.text, sizeof(call.text), "%s", verb);
	return device_link_call(link, &call);
}
