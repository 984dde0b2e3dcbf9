/*
 * What no device here has, as far as it takes to see it begin and end: each object looks whether it comes back as it was made,
 * and with the device's own objects around it.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

/* Only the guest library's have something in this place. */
static int is_foreign(const struct ibv_context *context) { return context->ops._compat_alloc_pd != NULL; }

static void *made(struct ibv_context *context, size_t size)
{
	struct ibv_td *object = is_foreign(context) ? NULL : calloc(1, size);

	if (object)
		object->context = context; /* as all of these begin */
	else
		errno = EFAULT;
	return object;
}

/* Once, and at the second attempt: what could not be ended goes on. */
static int ended(struct ibv_context *context, void *object)
{
	static void *refused;

	if (is_foreign(context))
		return EFAULT;
	if (refused != object) {
		refused = object;
		return EBUSY;
	}
	refused = NULL;
	free(object);
	return 0;
}

#define BEGIN_AND_END(type, make, end, attributes)                                                         \
	static struct type *make(struct ibv_context *context, struct attributes *attr)                     \
	{                                                                                                  \
		(void)attr;                                                                                \
		return made(context, sizeof(struct type));                                                 \
	}                                                                                                  \
	static int end(struct type *object) { return ended(object->context, object); }
BEGIN_AND_END(ibv_counters, create_counters, destroy_counters, ibv_counters_init_attr)
BEGIN_AND_END(ibv_flow_action, create_flow_action_esp, destroy_flow_action, ibv_flow_action_esp_attr)
BEGIN_AND_END(ibv_wq, create_wq, destroy_wq, ibv_wq_init_attr)
BEGIN_AND_END(ibv_rwq_ind_table, create_rwq_ind_table, destroy_rwq_ind_table, ibv_rwq_ind_table_init_attr)

/* A page that reads as zeros, and whose writes nobody looks at: enough for who stays within it. */
static struct ibv_mr *alloc_null_mr(struct ibv_pd *pd)
{
	static char nothing[4096];

	return ibv_reg_mr(pd, nothing, sizeof(nothing), IBV_ACCESS_LOCAL_WRITE);
}

static struct ibv_flow *create_flow(struct ibv_qp *qp, struct ibv_flow_attr *attr)
{
	struct ibv_flow *flow = made(qp->context, sizeof(*flow));

	(void)attr;
	if (!flow)
		return NULL;
	flow->comp_mask = 0;
	flow->context = qp->context;
	return flow;
}

static int destroy_flow(struct ibv_flow *flow) { return ended(flow->context, flow); }

void soft_fill_more(struct verbs_context *verbs);
void soft_fill_more(struct verbs_context *verbs)
{
	verbs->create_counters = create_counters;
	verbs->destroy_counters = destroy_counters;
	verbs->create_flow_action_esp = create_flow_action_esp;
	verbs->destroy_flow_action = destroy_flow_action;
	verbs->create_wq = create_wq;
	verbs->destroy_wq = destroy_wq;
	verbs->create_rwq_ind_table = create_rwq_ind_table;
	verbs->destroy_rwq_ind_table = destroy_rwq_ind_table;
	verbs->alloc_null_mr = alloc_null_mr;
	verbs->ibv_create_flow = create_flow;
	verbs->ibv_destroy_flow = destroy_flow;
}

/* Of newer libraries. */
EXPORT void *ibv_alloc_dmah(struct ibv_context *context, void *attr);
void *ibv_alloc_dmah(struct ibv_context *context, void *attr)
{
	(void)attr;
	return made(context, sizeof(struct ibv_td));
}

EXPORT int ibv_dealloc_dmah(struct ibv_td *object);
int ibv_dealloc_dmah(struct ibv_td *object) { return ended(object->context, object); }

EXPORT void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, void **buffer);
void *ibv_alloc_buf(struct ibv_pd *pd, size_t size, void **buffer)
{
	return *buffer = made(pd->context, size + sizeof(struct ibv_td));
}

EXPORT void ibv_free_buf(void *buffer);
void ibv_free_buf(void *buffer) { free(buffer); }
