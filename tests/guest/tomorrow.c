/* Verbs that no libibverbs has yet: each refuses objects that are not its own library's. */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Only the guest library's have something in this place. */
static int is_foreign(const struct ibv_context *context) { return context->ops._compat_alloc_pd != NULL; }

/* More than there are registers for, of both kinds. */
EXPORT double ibv_weigh(struct ibv_qp *qp, int one, double two, struct ibv_pd *pd, long three, struct ibv_cq *cq,
			struct ibv_mr *mr, long four, short five, struct ibv_srq *none);
double ibv_weigh(struct ibv_qp *qp, int one, double two, struct ibv_pd *pd, long three, struct ibv_cq *cq,
		 struct ibv_mr *mr, long four, short five, struct ibv_srq *none)
{
	if (is_foreign(qp->context) || is_foreign(pd->context) || is_foreign(cq->context) || is_foreign(mr->context) || none)
		return -1;
	errno = 4711;
	return one + two + (double)three + (double)four + five;
}

EXPORT struct ibv_context *ibv_whose(struct ibv_context *context);
struct ibv_context *ibv_whose(struct ibv_context *context) { return is_foreign(context) ? NULL : context; }

EXPORT int ibv_of_nobody(unsigned long number, const char *text);
int ibv_of_nobody(unsigned long number, const char *text) { return (int)(number + strlen(text)); }

EXPORT const char *ibv_call_it(struct ibv_device *device);
const char *ibv_call_it(struct ibv_device *device)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	const char *name = "a stranger";

	for (int i = 0; list && list[i]; i++)
		if (list[i] == device)
			name = device->name;
	ibv_free_device_list(list);
	return name;
}
