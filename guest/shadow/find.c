#include "shadow/find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shadow/process.h"

const char mig_context_mark = 1;
const struct mig_qp mig_qp_none = { .near = MIG_NO_QPN };
#define NONE ((struct mig_qp *)(uintptr_t)&mig_qp_none)

struct mig_context *mig_context_by_id(uint32_t id)
{
	MIG_EACH_CONTEXT(context)
		if (context->id == id)
			return context;
	return NULL;
}

struct mig_context *mig_context_by_real(const struct ibv_context *real)
{
	MIG_LOCKED(&mig.lock);
	MIG_EACH_CONTEXT(context)
		if (context->real == real)
			return context;
	return NULL;
}

struct mig_qp *mig_qp_by_name(uint32_t id, uint32_t vqpn)
{
	struct mig_context *context = mig_context_by_id(id);

	return context ? mig_numbers_find(&context->vqpns, vqpn) : NULL;
}

static const struct mig_gid_map *find_gid(const struct mig_gid_map *maps, int count, uint32_t port, uint32_t index)
{
	for (int i = 0; i < count; i++)
		if (maps[i].port == port && maps[i].index == index)
			return &maps[i];
	return NULL;
}

const struct mig_gid_map *mig_gid_find(const struct mig_context *context, uint32_t port, uint32_t index)
{
	return find_gid(context->gids, context->gid_count, port, index);
}

const struct mig_gid_map *mig_next_gid(const struct mig_context *context, uint32_t port, uint32_t index)
{
	return find_gid(context->next_gids, context->next_gid_count, port, index);
}

/*
 * The descriptor of a live device leads to a file in /dev; what CRIU put there at a restore does not. By name and
 * not by fstat, which C libraries before 2.33 do not export.
 */
int mig_is_live(const struct mig_context *context)
{
	char link[64], target[8] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", context->real->cmd_fd);
	return readlink(link, target, sizeof(target) - 1) > 0 && !strncmp(target, "/dev/", 5);
}

int mig_qpn_reserve(struct mig_context *context, uint32_t pqpn)
{
	struct mig_qp ***slot = &context->qpns[(pqpn >> 12) & 0xfff];
	struct mig_qp **page, **none = NULL;

	if (__atomic_load_n(slot, __ATOMIC_ACQUIRE))
		return 0;
	page = calloc(MIG_QPN_PAGE, sizeof(*page));
	if (!page)
		return ENOMEM;
	if (!__atomic_compare_exchange_n(slot, &none, page, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		free(page);
	return 0;
}

/* Of two numbers of a QP the later one is found at one look, as of two QPs with the same lower bits. */
void mig_qpn_set(struct mig_context *context, uint32_t pqpn, struct mig_qp *qp)
{
	struct mig_qp **page = context->qpns[(pqpn >> 12) & 0xfff], **near = &context->near_qps[pqpn & 0xfff];

	if (!page)
		return;
	if (qp) {
		uint32_t name = qp->receives == MIG_RECEIVES_FROM_ITS_RING ? pqpn :
				qp->receives == MIG_RECEIVES_FROM_SLOTS	   ? pqpn | MIG_QPN_FROM_SLOTS :
									     MIG_NO_QPN;

		__atomic_store_n(&qp->near, name, __ATOMIC_RELAXED);
		__atomic_store_n(near, qp, __ATOMIC_RELEASE);
	} else if (*near == page[pqpn & 0xfff]) {
		__atomic_store_n(near, NONE, __ATOMIC_RELEASE);
	}
	__atomic_store_n(&page[pqpn & 0xfff], qp, __ATOMIC_RELEASE);
}

void mig_qpn_init(struct mig_context *context)
{
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		context->near_qps[i] = NONE;
}

void mig_qpn_clear(struct mig_context *context)
{
	mig_qpn_init(context);
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		if (context->qpns[i])
			memset(context->qpns[i], 0, MIG_QPN_PAGE * sizeof(*context->qpns[i]));
}

struct mig_device *mig_device(const struct ibv_device *ibv)
{
	MIG_LOCKED(&mig.lock);
	for (struct mig_device *device = mig.devices; device; device = device->next)
		if (&device->ibv == ibv)
			return device;
	return NULL;
}
