/* What the agent is told: answers in messages as large as they may be, and in as many as it takes. */
#include "control/answer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/elf.h"
#include "base/log.h"
#include "base/pages.h"
#include "objects/kinds.h"
#include "objects/qp.h"
#include "objects/srq.h"
#include "path/hold.h"
#include "path/recv.h"
#include "shadow/ah.h"
#include "shadow/find.h"
#include "shadow/mr.h"
#include "shadow/mw.h"
#include "shadow/pd.h"
#include "shadow/places.h"
#include "shadow/process.h"
#include "shadow/qp.h"
#include "shadow/xrcd.h"

const struct mig_shape mig_shapes[MIG_MESSAGE_TYPES] = {
#define MIG_SHAPE(number, name, body, record, reply)                                                       \
	[number] = { MIG_MSG_##name, MIG_MSG_##reply, sizeof(struct body), sizeof(struct record), #name },
	MIG_MESSAGES(MIG_SHAPE)
#undef MIG_SHAPE
};

/*
 * An answer under construction: its last message, and those before it, which are full. Only the control thread has one.
 */
struct writer {
	struct mig_session *session;
	const struct mig_shape *shape;
	int error;
	size_t used;
	union {
		struct mig_header header;
		unsigned char bytes[MIG_MESSAGE_MAX];
	};
	struct full {
		struct full *next;
		size_t length;
		unsigned char bytes[MIG_MESSAGE_MAX];
	} *full, **full_end;
};

static struct writer writer;

static void answer_begin(struct mig_session *session, enum mig_message_type type, uint32_t id, const void *body)
{
	writer.session = session;
	writer.shape = &mig_shapes[type];
	writer.error = 0;
	writer.full_end = &writer.full;
	writer.header = (struct mig_header){ .magic = MIG_CONTROL_MAGIC,
					     .version = MIG_CONTROL_VERSION,
					     .type = (uint16_t)type,
					     .id = id };
	writer.used = sizeof(struct mig_header) + writer.shape->body;
	if (writer.shape->body)
		memcpy(writer.bytes + sizeof(struct mig_header), body, writer.shape->body);
}

static void answer_keep_full(void)
{
	struct full *full = writer.error ? NULL : mig_pages_alloc(sizeof(*full));

	if (full) {
		writer.header.flags = MIG_FLAG_MORE;
		memcpy(full->bytes, writer.bytes, writer.used);
		full->length = writer.used;
		*writer.full_end = full;
		writer.full_end = &full->next;
	} else {
		writer.error = ENOMEM;
	}
	writer.header.flags = 0;
	writer.header.count = 0;
	writer.used = sizeof(struct mig_header) + writer.shape->body;
}

static void answer_put(const void *record)
{
	if (writer.used + writer.shape->record > MIG_MESSAGE_MAX)
		answer_keep_full();
	memcpy(writer.bytes + writer.used, record, writer.shape->record);
	writer.used += writer.shape->record;
	writer.header.count++;
}

int mig_answer_send(void)
{
	struct mig_session *session = writer.session;
	int error = 0, lacking = writer.error;
	uint32_t id = writer.header.id;

	while (writer.full) {
		struct full *first = writer.full;

		if (!error && !lacking)
			error = session->send(session, first->bytes, first->length);
		writer.full = first->next;
		mig_pages_free(first);
	}
	if (lacking)
		return mig_answer_done(session, id, lacking, "an answer of many parts", NULL, 0);
	return error ? error : session->send(session, writer.bytes, writer.used);
}

int mig_answer_done(struct mig_session *session, uint32_t id, int error, const char *text,
		    const struct mig_qp_name *names, uint32_t count)
{
	struct mig_done body = { .error = error };

	snprintf((char *)body.text, sizeof(body.text), "%s", error ? text : "");
	if (error)
		mig_log(MIG_LOG_WARN, "%s: %s", text, strerror(error));
	answer_begin(session, MIG_MSG_DONE, id, &body);
	for (uint32_t i = 0; i < count; i++)
		answer_put(&names[i]);
	return mig_answer_send();
}

int mig_answer_hello(struct mig_session *session)
{
	struct mig_hello hello = { .token = mig.token, .pid = (uint32_t)getpid(), .state = mig.state,
				   .differs = (uint32_t)(mig.restored || mig.differs) };

	mig_elf_build_id(hello.build_id);
	mig_lock(&mig.lock);
	MIG_EACH_CONTEXT(context)
		hello.contexts++;
	mig_unlock(&mig.lock);
	answer_begin(session, MIG_MSG_HELLO, 0, &hello);
	return mig_answer_send();
}

/* Whoever sends to it has not been sent to, and would never hear where it is. */
static int only_receives(const struct mig_context *context)
{
	MIG_EACH_OF(context, qps, qp, mig_qp)
		if (mig_is_datagram(qp) && !context->own_gid_count && !qp->groups && qp->ibv.state >= IBV_QPS_RTR &&
		    qp->ibv.state <= IBV_QPS_SQE && !mig_is_dead(qp) && (qp->shares || mig_recv_outstanding(qp)))
			return 1;
	return 0;
}

void mig_answer_inventory(struct mig_session *session, uint32_t id, int holds_rdma_cm, int hidden)
{
	static const char no_socket[MIG_TEXT] = MIG_HIDDEN;
	static const char rdma_cm[MIG_TEXT] = "an open /dev/infiniband/rdma_cm: what librdmacm made cannot be moved";
	static const char receiver[MIG_TEXT] = "a UD QP that has received and never sent: nobody knows who would have to be told";
	struct mig_inventory body = { .state = mig.state };
	int receives = 0;

	MIG_EACH_CONTEXT(context) {
		body.contexts++;
		mig_kinds_count(context, &body);
		receives |= only_receives(context);
	}
	mig_lock(&mig.lock);
	body.migratable = !mig.reasons && !holds_rdma_cm && !receives && !hidden;
	answer_begin(session, MIG_MSG_INVENTORY_IS, id, &body);
	for (int i = 0; i < mig.reasons; i++)
		answer_put(mig.reason[i]);
	/* Not kept: a program may close it once its connections are made by other means. */
	if (holds_rdma_cm)
		answer_put(rdma_cm);
	if (receives)
		answer_put(receiver);
	if (hidden)
		answer_put(no_socket);
	mig_unlock(&mig.lock);
}

void mig_answer_contexts(struct mig_session *session, uint32_t id)
{
	answer_begin(session, MIG_MSG_CONTEXTS, id, NULL);
	MIG_EACH_CONTEXT(context) {
		struct mig_context_record record = { .context = context->id,
						     .cmd_fd = context->real->cmd_fd,
						     .async_fd = context->async.inner };

		snprintf((char *)record.device, sizeof(record.device), "%s", context->device->ibv.name);
		snprintf((char *)record.real_device, sizeof(record.real_device), "%s", context->device->real_name);
		answer_put(&record);
	}
}

/* In which its other end reaches memory. */
static uint32_t domain_of(const struct mig_qp *qp)
{
	if (mig_is_target(qp))
		return qp->xrcd->id;
	return qp->ibv.qp_type == IBV_QPT_XRC_SEND ? 0 : mig_pd(qp->ibv.pd)->id;
}

static struct mig_qp_record describe_qp(const struct mig_context *context, struct mig_qp *qp)
{
	struct mig_qp_record record = { .context = context->id,
					.vqpn = qp->ibv.qp_num,
					.pqpn = qp->real->qp_num,
					.next_pqpn = qp->next ? qp->next->qp_num : 0,
					.type = qp->ibv.qp_type,
					.state = mig_is_dead(qp) ? IBV_QPS_ERR : qp->ibv.state,
					.dest_vqpn = qp->attr.dest_qp_num,
					.dest_pqpn = qp->dest_pqpn,
					.sq_psn = qp->attr.sq_psn,
					.rq_psn = qp->attr.rq_psn,
					.port = qp->attr.ah_attr.port_num,
					.sgid_index = qp->attr.ah_attr.grh.sgid_index,
					.path_mtu = qp->attr.path_mtu,
					.receives = mig_recv_outstanding(qp),
					.pd = domain_of(qp) };

	memcpy(record.sgid, qp->psgid.raw, sizeof(record.sgid));
	memcpy(record.dgid, qp->pdgid.raw, sizeof(record.dgid));
	return record;
}

void mig_answer_qps(struct mig_session *session, uint32_t id)
{
	answer_begin(session, MIG_MSG_QPS, id, NULL);
	MIG_EACH_CONTEXT(context) {
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			/* One that fails later is found by the drain; in the stop there is no time for it. */
			if (mig.state == MIG_STATE_RUNNING)
				mig_qp_look(qp);
			struct mig_qp_record record = describe_qp(context, qp);

			answer_put(&record);
		}
	}
}

/* Where the application's GID is now; zero if it is none of those that have moved. */
static union ibv_gid place_of(const struct mig_context *context, const uint8_t *vgid)
{
	for (int i = 0; i < context->gid_count; i++)
		if (!memcmp(context->gids[i].gid.raw, vgid, sizeof(context->gids[i].gid.raw)))
			return context->gids[i].now;
	return (union ibv_gid){ .raw = { 0 } };
}

void mig_answer_found(struct mig_session *session, uint32_t id, const struct mig_find *find)
{
	answer_begin(session, MIG_MSG_QPS, id, NULL);
	MIG_EACH_CONTEXT(context) {
		struct mig_qp *qp = mig_numbers_find(&context->vqpns, find->vqpn);

		if (!qp)
			continue;
		struct mig_qp_record record = describe_qp(context, qp);
		union ibv_gid now = place_of(context, find->vgid);

		memcpy(record.sgid, now.raw, sizeof(record.sgid));
		answer_put(&record);
	}
}

static void answer_address(const struct mig_context *context, enum mig_address_kind kind, const union ibv_gid *vgid,
			   const union ibv_gid *gid, const struct mig_own_gid *own)
{
	struct mig_address_record record = { .context = context->id, .kind = kind, .port = own ? own->port : 0,
					     .index = own ? own->index : 0 };

	memcpy(record.vgid, vgid->raw, sizeof(record.vgid));
	memcpy(record.gid, gid->raw, sizeof(record.gid));
	answer_put(&record);
}

static void answer_own_gids(const struct mig_context *context)
{
	for (int i = 0; i < context->own_gid_count; i++) {
		const struct mig_own_gid *own = &context->own_gids[i];
		const struct mig_gid_map *map = mig_gid_find(context, own->port, own->index);

		answer_address(context, MIG_ADDRESS_OWN, &own->gid, map ? &map->now : &own->gid, own);
	}
}

/* Of its first device. */
static void answer_known_gids(const struct mig_context *context)
{
	for (int i = 0; i < context->gid_count; i++) {
		const struct mig_gid_map *map = &context->gids[i];
		struct mig_own_gid own = { .port = map->port, .index = map->index };

		answer_address(context, MIG_ADDRESS_KNOWN, &map->gid, &map->now, &own);
	}
	for (int i = 0; i < context->told_gid_count; i++) {
		const struct mig_own_gid *own = &context->told_gids[i];

		if (!mig_gid_find(context, own->port, own->index))
			answer_address(context, MIG_ADDRESS_TOLD, &own->gid, &own->gid, own);
	}
}

/* Where whom it talks to is now. Of those who have moved the old place may be gone, and is asked if it is there. */
static void answer_peer(const struct mig_context *context, enum mig_address_kind kind, const union ibv_gid *gid)
{
	if (gid->raw[0] == 0xff)
		return;
	for (uint32_t i = 0; mig_places && i < mig_places->count; i++) {
		const struct mig_place *place = &mig_places->list[i];

		if (!mig_gid_is(&place->gid, gid))
			continue;
		answer_address(context, kind, gid, &place->now_gid, NULL);
		kind = MIG_ADDRESS_FORMER;
	}
	answer_address(context, kind, gid, gid, NULL);
}

static int takes_datagrams_that_do_not_move(const struct mig_process *process)
{
	for (int i = 0; i < process->reasons; i++)
		if (!strncmp(process->reason[i], "a UD QP", 7))
			return 1;
	return 0;
}

/* The header of a datagram is written to where the application reads it, which is where its address is only in plain memory. */
static int has_other_memory(const struct mig_context *context)
{
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		if (!mr->is_null && (mr->dm || mr->iova != (uintptr_t)mr->ibv.addr))
			return 1;
	return 0;
}

void mig_answer_addresses(struct mig_session *session, uint32_t id)
{
	static const union ibv_gid none;
	int blind;

	mig_lock(&mig.lock);
	blind = takes_datagrams_that_do_not_move(&mig);
	mig_unlock(&mig.lock);
	answer_begin(session, MIG_MSG_ADDRESSES, id, NULL);
	MIG_EACH_CONTEXT(context) {
		if (blind || (context->datagram_qps && has_other_memory(context)))
			answer_address(context, MIG_ADDRESS_BLIND, &none, &none, NULL);
		answer_known_gids(context);
		if (!context->datagram_qps && !blind)
			continue;
		answer_own_gids(context);
		MIG_EACH_OF(context, ahs, ah, mig_ah)
			if (ah->attr.is_global)
				answer_peer(context, MIG_ADDRESS_PEER, &ah->attr.grh.dgid);
		for (uint32_t i = 0; i < context->formers_made && i < MIG_FORMERS; i++)
			answer_peer(context, MIG_ADDRESS_FORMER, &context->formers[i]);
	}
}

/*
 * Windows are regions without memory of their own, and each has many keys: a peer may be given any of them. Those that are the
 * same on the device are not worth a word.
 */
static void answer_window(const struct mig_context *context, const struct mig_mw *mw, uint32_t domain)
{
	uint32_t pindex = mw->next ? mw->next->rkey >> 8 : mw->pindex;
	uint32_t variant = mw->next ? mw->next_variant : mw->variant;

	if (mw->has_ended || (pindex == mw->index && !variant))
		return;
	for (uint32_t i = 0; i < MIG_MW_VARIANTS; i++) {
		struct mig_mr_record record = { .context = context->id,
						.access = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ,
						.vrkey = mw->index << 8 | i,
						.prkey = pindex << 8 | ((i + variant) & 0xff),
						.pd = domain };

		answer_put(&record);
	}
}

static uint32_t id_of(struct ibv_pd *ibv)
{
	/* Of a region that was registered anew in an imported one there is none, and it is not moved. */
	const struct mig_pd *pd = mig_pd(ibv);

	return pd ? pd->id : 0;
}

/* Of this domain, as if it had no memory: what has is said once, with its own domain. */
static void answer_region(const struct mig_context *context, const struct mig_mr *mr, uint32_t domain, int has_memory)
{
	/* Before the exchange already in the numbers that will hold after it. */
	const struct ibv_mr *real = mr->next ? mr->next : mr->real;
	struct mig_mr_record record = { .addr = has_memory ? (uintptr_t)mr->ibv.addr : 0,
					.length = has_memory ? mr->ibv.length : 0,
					.context = context->id,
					.access = mr->access,
					.vlkey = mr->ibv.lkey,
					.vrkey = mr->ibv.rkey,
					.plkey = real->lkey,
					.prkey = real->rkey,
					.pd = domain };

	answer_put(&record);
}

/* What is reached by an XRC domain's targets: its queues; and memory of every domain, as each message says by its queue of which. */
static void answer_xrc_domain(const struct mig_context *context, const struct mig_xrcd *xrcd)
{
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		answer_region(context, mr, xrcd->id, 0);
	MIG_EACH_OF(context, mws, mw, mig_mw)
		answer_window(context, mw, xrcd->id);
	MIG_EACH_OF(context, srqs, srq, mig_srq) {
		struct mig_mr_record record = { .context = context->id, .vrkey = srq->number, .pd = xrcd->id, .kind = MIG_NUMBER_SRQ };

		if (srq->xrcd != xrcd)
			continue;
		record.prkey = mig_srq_physical_number(srq->next ? srq->next : srq->real);
		answer_put(&record);
	}
}

void mig_answer_mrs(struct mig_session *session, uint32_t id)
{
	answer_begin(session, MIG_MSG_MRS, id, NULL);
	MIG_EACH_CONTEXT(context) {
		MIG_EACH_OF(context, mrs, mr, mig_mr)
			answer_region(context, mr, id_of(mr->ibv.pd), !mr->dm);
		MIG_EACH_OF(context, mws, mw, mig_mw)
			answer_window(context, mw, id_of(mw->ibv.pd));
		MIG_EACH_OF(context, xrcds, xrcd, mig_xrcd)
			answer_xrc_domain(context, xrcd);
	}
}
