/*
 * Ringing a doorbell that is a system call, from a thread other than the one that opened the device.
 *
 * Soft-RoCE and siw put a send into the mapped queue and then write(2) a command to the device. Of such a write
 * the kernel demands the very credentials that the device was opened with (ib_safe_file_access() in
 * drivers/infiniband/core/uverbs.h): the same object, not equal ones. Threads share one from their creation on,
 * so nobody notices, but CRIU gives each thread of a restored process credentials of its own. There the write of
 * every thread but ours, which has opened the new device, fails with EACCES. The ioctl(2) way to the same command
 * has no such demand.
 */
#include <errno.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <sys/ioctl.h>

#include "real/doorbell.h"

enum { COMMAND, REQUEST, RESPONSE, ATTRIBUTES };

/* The command POST_SEND without a single work request: have the device look into its queue. */
static int ring(const struct ibv_qp *real, uint16_t driver)
{
	struct ib_uverbs_post_send_resp response = { 0 };
	struct ib_uverbs_post_send request = {
		.response = (uintptr_t)&response,
		.qp_handle = real->handle,
		.wqe_size = sizeof(struct ib_uverbs_send_wr),
	};
	struct {
		struct ib_uverbs_ioctl_hdr header;
		struct ib_uverbs_attr attributes[ATTRIBUTES];
	} command = {
		.header = {
			.length = sizeof(command),
			.object_id = UVERBS_OBJECT_DEVICE,
			.method_id = UVERBS_METHOD_INVOKE_WRITE,
			.num_attrs = ATTRIBUTES,
			.driver_id = driver,
		},
		.attributes = {
			[COMMAND] = { .attr_id = UVERBS_ATTR_WRITE_CMD, .len = sizeof(uint64_t),
				      .data = IB_USER_VERBS_CMD_POST_SEND },
			[REQUEST] = { .attr_id = UVERBS_ATTR_CORE_IN, .len = sizeof(request),
				      .data = (uintptr_t)&request },
			[RESPONSE] = { .attr_id = UVERBS_ATTR_CORE_OUT, .len = sizeof(response),
				       .data = (uintptr_t)&response },
		},
	};

	for (int i = 0; i < ATTRIBUTES; i++)
		command.attributes[i].flags = UVERBS_ATTR_F_MANDATORY;
	return ioctl(real->context->cmd_fd, RDMA_VERBS_IOCTL, &command) ? errno : 0;
}

/* The drivers with such a doorbell; the kernel refuses a command that names another than its own. */
static int ring_whatever_it_is(const struct ibv_qp *real)
{
	static const uint16_t drivers[] = { RDMA_DRIVER_RXE, RDMA_DRIVER_SIW };
	int error = EINVAL;

	for (unsigned int i = 0; error == EINVAL && i < sizeof(drivers) / sizeof(drivers[0]); i++)
		error = ring(real, drivers[i]);
	return error;
}

void mig_ring(const struct ibv_qp *real)
{
	int before = errno;

	ring_whatever_it_is(real);
	errno = before;
}

/* Librxe changes the window's number when all has gone well. */
int mig_bind_and_ring(struct ibv_qp *real, struct ibv_mw *mw, struct ibv_mw_bind *bind)
{
	int before = errno;
	int error = real->context->ops.bind_mw(real, mw, bind);

	if (error != EACCES)
		return error;
	error = ring_whatever_it_is(real);
	if (error)
		return error;
	mw->rkey = ibv_inc_rkey(mw->rkey);
	errno = before;
	return 0;
}

int mig_complete_and_ring(struct ibv_qp_ex *real)
{
	int before = errno;
	int error = real->wr_complete(real);

	if (error != EACCES)
		return error;
	error = ring_whatever_it_is(&real->qp_base);
	errno = error ? errno : before;
	return error;
}

int mig_post_and_ring(struct ibv_qp *real, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	int before = errno;

	*bad = NULL;
	int error = real->context->ops.post_send(real, wr, bad);
	if (error != EACCES)
		return error;
	error = ring_whatever_it_is(real);
	if (error)
		return error;
	/* The refused doorbell has hidden why a request did not get into the queue; mostly it was full. */
	if (*bad)
		return ENOMEM;
	errno = before;
	return 0;
}
