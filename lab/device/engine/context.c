/* Openings of a device, and the objects that merely hold others together: PDs, XRC domains, address handles. */
#include <fcntl.h>

#include "internal.h"

struct rnic_context *rnic_open(struct rnic_device *device, const struct rnic_sinks *sinks, void *process)
{
	struct rnic_context *context = calloc(1, sizeof(*context));

	if (!context)
		return NULL;
	context->device = device;
	context->sinks = sinks;
	context->process = process;
	rnic_list_add(&device->contexts, &context->node);
	return context;
}

void *rnic_find(const struct rnic_context *context, enum rnic_kind kind, uint32_t handle)
{
	return rnic_handle_find(&context->handles[kind], handle);
}

/* Of the kinds whose number nothing else bounds. */
static bool is_room(const struct rnic_device *device, enum rnic_kind kind)
{
	switch (kind) {
	case RNIC_PD: return device->made[kind] < device->settings[RNIC_SET_MAX_PD];
	case RNIC_AH: return device->made[kind] < device->settings[RNIC_SET_MAX_AH];
	case RNIC_MW: return device->made[kind] < device->settings[RNIC_SET_MAX_MW];
	case RNIC_XRCD: return device->made[kind] < device->settings[RNIC_SET_MAX_XRCD];
	default: return true;
	}
}

void *rnic_make(struct rnic_context *context, enum rnic_kind kind, size_t size)
{
	struct rnic_object *object = is_room(context->device, kind) ? calloc(1, size) : NULL;

	if (!object)
		return NULL;
	object->context = context;
	context->device->made[kind]++;
	if (rnic_handle_take(&context->handles[kind], object, &object->handle)) {
		context->device->made[kind]--;
		free(object);
		return NULL;
	}
	return object;
}

void rnic_unmake(enum rnic_kind kind, void *object)
{
	struct rnic_object *one = object;

	rnic_handle_give(&one->context->handles[kind], one->handle);
	one->context->device->made[kind]--;
	free(one);
}

static void end_xrcd(struct rnic_xrcd *xrcd)
{
	struct rnic_domain *domain = xrcd->domain;

	if (--domain->users == 0) {
		rnic_list_remove(&domain->node);
		free(domain);
	}
	rnic_unmake(RNIC_XRCD, xrcd);
}

static void end_ah(struct rnic_ah *ah)
{
	ah->pd->object.users--;
	rnic_unmake(RNIC_AH, ah);
}

static void end(enum rnic_kind kind, void *object)
{
	switch (kind) {
	case RNIC_QP: rnic_end_qp_ref(object); break;
	case RNIC_SRQ: rnic_end_srq(object); break;
	case RNIC_CQ: rnic_end_cq(object); break;
	case RNIC_MW: rnic_end_mw(object); break;
	case RNIC_MR: rnic_end_mr(object); break;
	case RNIC_AH: end_ah(object); break;
	case RNIC_XRCD: end_xrcd(object); break;
	default: rnic_unmake(kind, object); break;
	}
}

void rnic_close(struct rnic_context *context)
{
	/* What holds others goes before them. */
	static const enum rnic_kind order[] = { RNIC_QP, RNIC_SRQ, RNIC_CQ, RNIC_MW, RNIC_MR, RNIC_AH, RNIC_XRCD, RNIC_PD };

	for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		struct rnic_handles *handles = &context->handles[order[i]];

		for (uint32_t handle = 0; handle < handles->size; handle++)
			if (handles->objects[handle])
				end(order[i], handles->objects[handle]);
		free(handles->objects);
	}
	rnic_list_remove(&context->node);
	free(context);
}

int rnic_alloc_pd(struct rnic_context *context, uint32_t *handle)
{
	struct rnic_pd *pd = rnic_make(context, RNIC_PD, sizeof(*pd));

	if (!pd)
		return ENOMEM;
	*handle = pd->object.handle;
	return 0;
}

int rnic_dealloc_pd(struct rnic_context *context, uint32_t handle)
{
	struct rnic_pd *pd = rnic_find(context, RNIC_PD, handle);

	if (!pd)
		return EINVAL;
	if (pd->object.users)
		return EBUSY;
	rnic_unmake(RNIC_PD, pd);
	return 0;
}

static struct rnic_domain *find_domain(struct rnic_device *device, uint64_t name)
{
	for (struct rnic_node *node = device->domains.next; node != &device->domains; node = node->next) {
		struct rnic_domain *domain = rnic_of(node, struct rnic_domain, node);

		if (domain->name == name)
			return domain;
	}
	return NULL;
}

/* A domain of name 0 is nobody else's; the others are found again by their file, as ib_uverbs_open_xrcd does. */
int rnic_open_xrcd(struct rnic_context *context, uint64_t name, int flags, uint32_t *handle)
{
	struct rnic_device *device = context->device;
	struct rnic_domain *domain = name ? find_domain(device, name) : NULL;
	struct rnic_xrcd *xrcd;

	if (!device->settings[RNIC_SET_MAX_XRCD])
		return EOPNOTSUPP;
	if (domain ? (flags & O_CREAT && flags & O_EXCL) : !(flags & O_CREAT))
		return domain ? EINVAL : EAGAIN;
	xrcd = rnic_make(context, RNIC_XRCD, sizeof(*xrcd));
	if (!xrcd)
		return ENOMEM;
	if (!domain) {
		domain = calloc(1, sizeof(*domain));
		if (!domain) {
			rnic_unmake(RNIC_XRCD, xrcd);
			return ENOMEM;
		}
		domain->name = name;
		rnic_list_add(&device->domains, &domain->node);
	}
	domain->users++;
	xrcd->domain = domain;
	*handle = xrcd->object.handle;
	return 0;
}

int rnic_close_xrcd(struct rnic_context *context, uint32_t handle)
{
	struct rnic_xrcd *xrcd = rnic_find(context, RNIC_XRCD, handle);

	if (!xrcd)
		return EINVAL;
	if (xrcd->object.users)
		return EBUSY;
	end_xrcd(xrcd);
	return 0;
}

int rnic_create_ah(struct rnic_context *context, uint32_t pd_handle, const struct rnic_route *route, uint32_t *handle)
{
	struct rnic_pd *pd = rnic_find(context, RNIC_PD, pd_handle);
	struct rnic_ah *ah;

	/* RoCE knows no route without a global header. */
	if (!pd || route->port != 1 || !route->is_global || route->sgid_index >= context->device->settings[RNIC_SET_GID_TABLE])
		return EINVAL;
	ah = rnic_make(context, RNIC_AH, sizeof(*ah));
	if (!ah)
		return ENOMEM;
	ah->pd = pd;
	pd->object.users++;
	*handle = ah->object.handle;
	return 0;
}

int rnic_destroy_ah(struct rnic_context *context, uint32_t handle)
{
	struct rnic_ah *ah = rnic_find(context, RNIC_AH, handle);

	if (!ah)
		return EINVAL;
	end_ah(ah);
	return 0;
}
