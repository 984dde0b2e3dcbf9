/*
 * Whatever arrives at the control socket: nothing may be touched but what the message's own length covers.
 * Every input is a series of messages, each behind its length in two bytes, to a process that holds real objects
 * of the fake device. A fixed header is put before them half of the time, or the fuzzer would never get past it.
 */
#include <infiniband/verbs.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "control/answer.h"
#include "control/message.h"
#include "control/thread.h"
#include "shadow/process.h"
#include "wire/control.h"

static int drop(struct mig_session *session, const void *message, size_t length)
{
	(void)session, (void)message;
	return length > MIG_MESSAGE_MAX ? abort(), 1 : 0;
}

/* No control thread: the fuzzer takes its place. */
void mig_thread_start(void)
{
}

void mig_thread_after_fork(void)
{
}

/* Who sends datagrams to both devices and takes them, receives that are shared, and a window. */
static void make_others(struct ibv_pd *pd, struct ibv_qp_init_attr init)
{
	struct ibv_srq_init_attr shared = { .attr = { 16, 1, 0 } };
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = 7 };
	struct ibv_ah_attr to = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1, .hop_limit = 64 } };

	init.qp_type = IBV_QPT_UD;
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	if (!qp || ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY))
		abort();
	attr.qp_state = IBV_QPS_RTR;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE) || ibv_query_gid(pd->context, 1, 1, &to.grh.dgid) || !ibv_create_ah(pd, &to))
		abort();
	memset(to.grh.dgid.raw, 1, sizeof(to.grh.dgid.raw));
	if (!ibv_create_ah(pd, &to))
		abort();
	init.qp_type = IBV_QPT_RC;
	if (!(init.srq = ibv_create_srq(pd, &shared)) || !ibv_create_qp(pd, &init) || !ibv_alloc_mw(pd, IBV_MW_TYPE_2))
		abort();
}

static void make_objects(void)
{
	static char memory[4096];
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int device = 0; device < 2; device++) {
		struct ibv_context *context = ibv_open_device(list[device]);
		struct ibv_pd *pd = ibv_alloc_pd(context);
		struct ibv_comp_channel *channel = ibv_create_comp_channel(context);
		struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, channel, 0);
		struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
						 .cap = { 16, 16, 1, 1, 0 } };

		if (!ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE))
			abort();
		for (int i = 0; i < 3; i++)
			if (!ibv_create_qp(pd, &init))
				abort();
		make_others(pd, init);
	}
	ibv_free_device_list(list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int ready;
	static union {
		uint64_t aligned;
		uint8_t bytes[MIG_MESSAGE_MAX + 64];
	} message;
	struct mig_session session = { .send = drop, .fd = -1 };

	if (!ready) {
		make_objects();
		ready = 1;
	}
	while (size >= 2) {
		size_t length = (size_t)data[0] | (size_t)(data[1] & 0x7f) << 8;
		int helped = data[1] >> 7;

		data += 2;
		size -= 2;
		if (length > size)
			length = size;
		memcpy(message.bytes, data, length);
		if (helped && length >= sizeof(struct mig_header)) {
			struct mig_header *header = (struct mig_header *)message.bytes;

			header->magic = MIG_CONTROL_MAGIC;
			header->version = MIG_CONTROL_VERSION;
			header->type %= MIG_MESSAGE_TYPES;
			header->flags &= MIG_FLAG_MORE;
			header->reserved = 0;
			header->count &= 7;
		}
		/* At the very end of the memory, so that a byte too many is seen. */
		uint8_t *exact = malloc(length ? length : 1);

		memcpy(exact, message.bytes, length);
		if (mig_message_handle(&session, exact, length))
			session = (struct mig_session){ .send = drop, .fd = -1 };
		free(exact);
		for (int i = 0; i < 3; i++)
			mig_message_tick(&session);
		data += length;
		size -= length;
	}
	/* The next series finds a process that lives. */
	mig_message_lost(&session);
	if (mig.state >= MIG_STATE_PARKED) {
		struct mig_header abort_message = { .magic = MIG_CONTROL_MAGIC, .version = MIG_CONTROL_VERSION, .type = 13 };

		mig_message_handle(&session, &abort_message, sizeof(abort_message));
	}
	return 0;
}
