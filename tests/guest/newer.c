/* What a libibverbs has that is newer than the software device's: it refuses objects that are not its own. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

static struct counter {
	struct ibv_context *context;
} counter;

/* Only the guest library's have something in this place. */
static int is_foreign(const struct ibv_context *context) { return context->ops._compat_alloc_pd != NULL; }

EXPORT int _ibv_query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size);
EXPORT struct counter *ibv_create_comp_cntr(struct ibv_context *context, void *attr);
EXPORT int ibv_destroy_comp_cntr(struct counter *object);
EXPORT int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct counter *object, void *attr);

int _ibv_query_comp_cntr_caps(struct ibv_context *context, void *caps, size_t size)
{
	(void)caps;
	(void)size;
	return is_foreign(context) ? EFAULT : 0;
}

struct counter *ibv_create_comp_cntr(struct ibv_context *context, void *attr)
{
	/* Without attributes it refuses, as a device may. */
	if (!attr || is_foreign(context)) {
		errno = EINVAL;
		return NULL;
	}
	counter.context = context;
	return &counter;
}

int ibv_destroy_comp_cntr(struct counter *object) { return object == &counter ? 0 : EINVAL; }

int ibv_qp_attach_comp_cntr(struct ibv_qp *qp, struct counter *object, void *attr)
{
	(void)attr;
	return is_foreign(qp->context) || object != &counter || qp->context != object->context ? EFAULT : 0;
}

#define UNUSED(name)                                                                                       \
	EXPORT int name(void);                                                                             \
	int name(void) { return ENOSYS; }
UNUSED(ibv_export_buf_dmabuf_fd)
UNUSED(ibv_inc_comp_cntr)
UNUSED(ibv_inc_err_comp_cntr)
UNUSED(ibv_read_comp_cntr)
UNUSED(ibv_read_err_comp_cntr)
UNUSED(ibv_set_comp_cntr)
UNUSED(ibv_set_err_comp_cntr)
