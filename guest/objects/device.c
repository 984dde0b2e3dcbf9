/* Devices and contexts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/elf.h"
#include "base/relay_fd.h"
#include "real/export.h"
#include "base/log.h"
#include "objects/object.h"
#include "base/pages.h"
#include "control/thread.h"
#include "base/verb_gate.h"

static struct mig_device *find_device(const struct ibv_device *ibv)
{
	for (struct mig_device *device = mig.devices; device; device = device->next)
		if (&device->ibv == ibv)
			return device;
	return NULL;
}

static struct mig_device *shadow_device(const struct ibv_device *ibv)
{
	MIG_LOCKED(&mig.lock);
	return find_device(ibv);
}

/* The shadow of a real device: the one that stands for it now, whatever the application calls it. */
static struct mig_device *shadow_of(const struct mig_real *real, struct ibv_device *ibv)
{
	struct mig_device *device, *fresh = calloc(1, sizeof(*fresh));

	if (!fresh)
		return NULL;
	fresh->ibv = *ibv;
	memcpy(fresh->real_name, ibv->name, sizeof(fresh->real_name));
	fresh->guid = real->ibv_get_device_guid(ibv);
	fresh->index = real->ibv_get_device_index ? real->ibv_get_device_index(ibv) : -1;

	mig_lock(&mig.lock);
	for (device = mig.devices; device; device = device->next)
		if (!strcmp(device->real_name, ibv->name))
			break;
	if (!device) {
		fresh->next = mig.devices;
		mig.devices = device = fresh;
		fresh = NULL;
	}
	mig_unlock(&mig.lock);
	free(fresh);
	return device;
}

struct ibv_device **ibv_get_device_list(int *count)
{
	const struct mig_real *real = mig_real();
	int devices = 0;

	if (!real) {
		if (count)
			*count = 0;
		return NULL;
	}
	if (mig_inside_real)
		return real->ibv_get_device_list(count);
	if (real->stranger) {
		mig_cannot_migrate("libibverbs exports %s, which the guest library does not know", real->stranger);
		return real->ibv_get_device_list(count);
	}

	struct ibv_device **theirs = real->ibv_get_device_list(&devices);
	struct ibv_device **ours = theirs ? calloc((size_t)devices + 1, sizeof(*ours)) : NULL;

	if (theirs && !ours)
		errno = ENOMEM;
	for (int i = 0; ours && i < devices; i++) {
		struct mig_device *device = shadow_of(real, theirs[i]);

		if (!device) {
			free(ours);
			ours = NULL;
			errno = ENOMEM;
		} else {
			ours[i] = &device->ibv;
		}
	}
	if (theirs)
		real->ibv_free_device_list(theirs);
	if (count)
		*count = ours ? devices : 0;
	return ours;
}

void ibv_free_device_list(struct ibv_device **list)
{
	const struct mig_real *real = mig_real();

	if (list && list[0] && !shadow_device(list[0]) && real)
		real->ibv_free_device_list(list);
	else
		free(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
	return device->name;
}

__be64 ibv_get_device_guid(struct ibv_device *ibv)
{
	struct mig_device *device = shadow_device(ibv);

	return device ? device->guid : mig_real()->ibv_get_device_guid(ibv);
}

int ibv_get_device_index(struct ibv_device *ibv)
{
	struct mig_device *device = shadow_device(ibv);

	return device ? device->index : mig_real()->ibv_get_device_index(ibv);
}

struct ibv_context *mig_open_by_name(const char *name)
{
	const struct mig_real *real = mig_real();
	struct ibv_device **list = real->ibv_get_device_list(NULL);
	struct ibv_context *context = NULL;
	int error = list ? ENODEV : errno;

	for (int i = 0; list && list[i]; i++) {
		if (strcmp(list[i]->name, name))
			continue;
		context = real->ibv_open_device(list[i]);
		error = errno;
		break;
	}
	if (list)
		real->ibv_free_device_list(list);
	errno = error;
	return context;
}

/* In the child of a fork: its parent's objects are the parent's affair, as they are with libibverbs. */
static void start_over_after_fork(void)
{
	mig_readers_after_fork();
	mig_world_after_fork();
	mig.lock.word = 0;
	mig_list_init(&mig.contexts);
	mig.reasons = 0;
	mig.token = 0;
	mig.state = MIG_STATE_RUNNING;
	mig_thread_after_fork();
}

struct ibv_context *ibv_open_device(struct ibv_device *ibv)
{
	const struct mig_real *real = mig_real();
	int pid = getpid();

	if (!real)
		return NULL;
	if (mig.pid && mig.pid != pid)
		start_over_after_fork();

	struct mig_device *device = shadow_device(ibv);
	if (!device)
		return real->ibv_open_device(ibv);

	MIG_VERB;
	struct mig_context *context = calloc(1, sizeof(*context));
	if (!context) {
		errno = ENOMEM;
		return NULL;
	}
	context->real = mig_open_by_name(device->real_name);
	if (!context->real) {
		free(context);
		return NULL;
	}
	int error = mig_eventfd_open(&context->async, context->real->async_fd);
	if (error) {
		real->ibv_close_device(context->real);
		free(context);
		errno = error;
		return NULL;
	}
	context->device = device;
	context->verbs.sz = sizeof(context->verbs);
	context->verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
	context->verbs.context.device = ibv;
	context->verbs.context.cmd_fd = context->real->cmd_fd;
	context->verbs.context.async_fd = context->async.outer;
	context->verbs.context.num_comp_vectors = context->real->num_comp_vectors;
	mig_fill_operations(context);
	mig_list_init(&context->pds);
	mig_list_init(&context->mrs);
	mig_list_init(&context->channels);
	mig_list_init(&context->cqs);
	mig_list_init(&context->qps);

	mig_lock(&mig.lock);
	mig.pid = pid;
	context->id = ++mig.next_context;
	mig_list_add(&mig.contexts, &context->link);
	mig_unlock(&mig.lock);

	if ((error = mig_readers_usable()))
		mig_cannot_migrate("the kernel does not let the process use membarrier: %s", strerror(error));
	mig_thread_start();
	return &context->verbs.context;
}

/* Shadows of objects that were left open stay, unlinked: the application has no business with them any more. */
static void forget_objects(struct mig_link *list)
{
	while (list->next != list)
		mig_list_remove(list->next);
}

int ibv_close_device(struct ibv_context *ibv)
{
	struct mig_context *context = mig_context(ibv);
	const struct mig_real *real = mig_real();

	if (!context)
		return real->ibv_close_device(ibv);

	MIG_VERB;
	int error = real->ibv_close_device(context->real);
	if (error)
		return error;
	mig_lock(&mig.lock);
	mig_list_remove(&context->link);
	mig_unlock(&mig.lock);
	mig_eventfd_close(&context->async);
	mig_pages_free(context->owed);
	forget_objects(&context->pds);
	forget_objects(&context->mrs);
	forget_objects(&context->channels);
	forget_objects(&context->cqs);
	forget_objects(&context->qps);
	mig_numbers_free(&context->vqpns);
	mig_numbers_free(&context->vlkeys);
	mig_numbers_free(&context->vrkeys);
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		free(context->qpns[i]);
	free(context);
	return 0;
}

/* A device that came from another process: its objects are not known here. */
struct ibv_context *ibv_import_device(int fd)
{
	const struct mig_real *real = mig_real();

	if (!real || !real->ibv_import_device) {
		errno = ENOSYS;
		return NULL;
	}
	/* It lists the devices by the public function and looks inside them. */
	mig_inside_real++;
	struct ibv_context *context = real->ibv_import_device(fd);
	mig_inside_real--;
	if (context)
		mig_cannot_migrate("an imported device");
	return context;
}
