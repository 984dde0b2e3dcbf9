#include "objects/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "objects/strangers.h"
#include "real/export.h"
#include "shadow/find.h"
#include "shadow/process.h"

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
	if (real->stranger_count && mig_strangers_interpose(real)) {
		mig_cannot_migrate("libibverbs exports %s, which the guest library does not know", real->strangers[0]);
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

	if (list && list[0] && !mig_device(list[0]) && real)
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
	struct mig_device *device = mig_device(ibv);

	return device ? device->guid : mig_real()->ibv_get_device_guid(ibv);
}

int ibv_get_device_index(struct ibv_device *ibv)
{
	struct mig_device *device = mig_device(ibv);

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
