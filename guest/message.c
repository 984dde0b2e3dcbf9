#include "message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alone.h"
#include "descriptors.h"
#include "loaded.h"
#include "log.h"
#include "mig.h"
#include "rebuild.h"
#include "world.h"

enum type {
	MIG_MSG_NONE,
#define MIG_TYPE(number, name, body, record, reply) MIG_MSG_##name = number,
	MIG_MESSAGES(MIG_TYPE)
#undef MIG_TYPE
};

struct shape {
	enum type type, reply;
	uint32_t body, record;
	const char *name;
};

static const struct shape shapes[] = {
#define MIG_SHAPE(number, name, body, record, reply)                                                       \
	[number] = { MIG_MSG_##name, MIG_MSG_##reply, sizeof(struct body), sizeof(struct record), #name },
	MIG_MESSAGES(MIG_SHAPE)
#undef MIG_SHAPE
};

#define SHAPES (sizeof(shapes) / sizeof(shapes[0]))

/* A message under construction; it is sent whenever it is full. Only the control thread has one. */
struct writer {
	struct mig_session *session;
	const struct shape *shape;
	int error;
	size_t used;
	union {
		struct mig_header header;
		unsigned char bytes[MIG_MESSAGE_MAX];
	};
};

static struct writer writer;

static void begin(struct mig_session *session, enum type type, uint32_t id, const void *body)
{
	writer.session = session;
	writer.shape = &shapes[type];
	writer.error = 0;
	writer.header = (struct mig_header){ .magic = MIG_CONTROL_MAGIC,
					     .version = MIG_CONTROL_VERSION,
					     .type = (uint16_t)type,
					     .id = id };
	writer.used = sizeof(struct mig_header) + writer.shape->body;
	if (writer.shape->body)
		memcpy(writer.bytes + sizeof(struct mig_header), body, writer.shape->body);
}

static void flush(uint32_t flags)
{
	writer.header.flags = flags;
	if (!writer.error)
		writer.error = writer.session->send(writer.session, writer.bytes, writer.used);
	writer.header.count = 0;
	writer.used = sizeof(struct mig_header) + writer.shape->body;
}

static void put(const void *record)
{
	if (writer.used + writer.shape->record > MIG_MESSAGE_MAX)
		flush(MIG_FLAG_MORE);
	memcpy(writer.bytes + writer.used, record, writer.shape->record);
	writer.used += writer.shape->record;
	writer.header.count++;
}

static int finish(void)
{
	flush(0);
	return writer.error;
}

static int done(struct mig_session *session, uint32_t id, int error, const char *text,
		const struct mig_qp_name *names, uint32_t count)
{
	struct mig_done body = { .error = error };

	snprintf((char *)body.text, sizeof(body.text), "%s", error ? text : "");
	if (error)
		mig_log(MIG_LOG_WARN, "%s: %s", text, strerror(error));
	begin(session, MIG_MSG_DONE, id, &body);
	for (uint32_t i = 0; i < count; i++)
		put(&names[i]);
	return finish();
}

int mig_message_hello(struct mig_session *session)
{
	struct mig_hello hello = { .token = mig.token, .pid = (uint32_t)getpid(), .state = mig.state };

	mig_build_id(hello.build_id);
	mig_lock(&mig.lock);
	MIG_EACH(&mig.contexts, context, struct mig_context, link)
		hello.contexts++;
	mig_unlock(&mig.lock);
	begin(session, MIG_MSG_HELLO, 0, &hello);
	return finish();
}

/* A snapshot: the application may be posting and polling. */
static uint32_t outstanding(const struct mig_qp *qp)
{
	return __atomic_load_n(&qp->tail, __ATOMIC_RELAXED) - __atomic_load_n(&qp->head, __ATOMIC_RELAXED);
}

/* The lists below are walked with the world stopped: it must be, or this stops it for the while. */
static int stop(int *stopped_here)
{
	*stopped_here = mig.state < MIG_STATE_PARKED;
	return *stopped_here ? mig_world_stop(1000) : 0;
}

static void go(int stopped_here)
{
	if (stopped_here)
		mig_world_go();
}

#define EACH_CONTEXT(context) MIG_EACH(&mig.contexts, context, struct mig_context, link)
#define EACH(context, list, entry, type) MIG_EACH(&context->list, entry, struct type, link)

static uint32_t length_of(const struct mig_link *list)
{
	uint32_t length = 0;

	for (const struct mig_link *link = list->next; link != list; link = link->next)
		length++;
	return length;
}

static int inventory(struct mig_session *session, uint32_t id, int holds_rdma_cm)
{
	static const char rdma_cm[MIG_TEXT] = "an open /dev/infiniband/rdma_cm: what librdmacm made cannot be moved";
	struct mig_inventory body = { .state = mig.state };

	EACH_CONTEXT(context) {
		body.contexts++;
		body.pds += length_of(&context->pds);
		body.mrs += length_of(&context->mrs);
		body.channels += length_of(&context->channels);
		body.cqs += length_of(&context->cqs);
		body.qps += length_of(&context->qps);
		EACH(context, mrs, mr, mig_mr)
			body.mr_bytes += mr->ibv.length;
		EACH(context, qps, qp, mig_qp)
			body.receives += outstanding(qp);
	}
	mig_lock(&mig.lock);
	body.migratable = !mig.reasons && !holds_rdma_cm;
	begin(session, MIG_MSG_INVENTORY_IS, id, &body);
	for (int i = 0; i < mig.reasons; i++)
		put(mig.reason[i]);
	/* Not kept: a program may close it once its connections are made by other means. */
	if (holds_rdma_cm)
		put(rdma_cm);
	mig_unlock(&mig.lock);
	return finish();
}

static int list_contexts(struct mig_session *session, uint32_t id)
{
	begin(session, MIG_MSG_CONTEXTS, id, NULL);
	EACH_CONTEXT(context) {
		struct mig_context_record record = { .context = context->id,
						     .cmd_fd = context->real->cmd_fd,
						     .async_fd = context->async.inner };

		snprintf((char *)record.device, sizeof(record.device), "%s", context->device->ibv.name);
		snprintf((char *)record.real_device, sizeof(record.real_device), "%s", context->device->real_name);
		put(&record);
	}
	return finish();
}

static int list_qps(struct mig_session *session, uint32_t id)
{
	begin(session, MIG_MSG_QPS, id, NULL);
	EACH_CONTEXT(context) {
		EACH(context, qps, qp, mig_qp) {
			struct mig_qp_record record = { .context = context->id,
							.vqpn = qp->ibv.qp_num,
							.pqpn = qp->real->qp_num,
							.next_pqpn = qp->next ? qp->next->qp_num : 0,
							.type = qp->ibv.qp_type,
							.state = qp->ibv.state,
							.dest_vqpn = qp->attr.dest_qp_num,
							.dest_pqpn = qp->dest_pqpn,
							.sq_psn = qp->attr.sq_psn,
							.rq_psn = qp->attr.rq_psn,
							.port = qp->attr.ah_attr.port_num,
							.sgid_index = qp->attr.ah_attr.grh.sgid_index,
							.path_mtu = qp->attr.path_mtu,
							.receives = outstanding(qp) };

			memcpy(record.sgid, qp->psgid.raw, sizeof(record.sgid));
			memcpy(record.dgid, qp->pdgid.raw, sizeof(record.dgid));
			put(&record);
		}
	}
	return finish();
}

static int list_mrs(struct mig_session *session, uint32_t id)
{
	begin(session, MIG_MSG_MRS, id, NULL);
	EACH_CONTEXT(context) {
		EACH(context, mrs, mr, mig_mr) {
			/* Before the exchange already in the numbers that will hold after it. */
			const struct ibv_mr *real = mr->next ? mr->next : mr->real;
			struct mig_mr_record record = { .addr = (uintptr_t)mr->ibv.addr,
							.length = mr->ibv.length,
							.context = context->id,
							.access = mr->access,
							.vlkey = mr->ibv.lkey,
							.vrkey = mr->ibv.rkey,
							.plkey = real->lkey,
							.prkey = real->rkey };

			put(&record);
		}
	}
	return finish();
}

static int handle_quiesce(struct mig_session *session, uint32_t id, const struct mig_scope *scope,
			  const struct mig_qp_name *names, uint32_t count)
{
	struct mig_selection selection = { (enum mig_scope_kind)scope->kind, scope->context, names, count };
	struct mig_qp_name which = { 0, 0 };
	int error = EBUSY;

	if (mig.reasons)
		return done(session, id, ENOTSUP, "the process holds objects that cannot be migrated", NULL, 0);
	if (mig.state == MIG_STATE_RUNNING || mig.state == MIG_STATE_QUIESCED)
		error = mig_quiesce_begin(&selection, scope->timeout_ms, &which);
	if (error)
		return done(session, id, error,
			    error == EIO   ? "a QP is in an error state"
			    : error == EBUSY ? "another quiesce is under way"
					     : "a verb took too long to return",
			    &which, which.vqpn != 0);
	session->quiescing = 1;
	session->quiesce_id = id;
	mig_alone_allow(scope->alone_s);
	return mig_message_tick(session);
}

int mig_message_tick(struct mig_session *session)
{
	static struct mig_qp_name names[1024];
	uint32_t count;

	if (!session->quiescing)
		return 0;
	int error = mig_quiesce_step(names, sizeof(names) / sizeof(names[0]), &count);
	if (error == EINPROGRESS)
		return 0;
	session->quiescing = 0;
	return done(session, session->quiesce_id, error,
		    error == ETIMEDOUT ? "QPs did not drain in time"
		    : error == EIO     ? "QPs failed while they were drained"
				       : "the drain failed",
		    names, error ? count : 0);
}

void mig_message_lost(struct mig_session *session)
{
	session->quiescing = 0;
	mig_alone_passed(0, 0);
}

static int handle_rebuild(struct mig_session *session, uint32_t id, const struct mig_rebuild *body,
			  const struct mig_gid_record *gids, uint32_t count)
{
	const char *what = "process is not parked";
	char text[MIG_TEXT];
	int error = EBUSY;

	if (mig.state == MIG_STATE_PARKED || mig.state == MIG_STATE_REBUILT)
		error = mig_rebuild(body->context, (const char *)body->device,
				    (body->flags & MIG_REBUILD_RESTORED) != 0, gids, count, &what);
	if (!error)
		return list_qps(session, id);
	snprintf(text, sizeof(text), "rebuild on %.60s: %s", (const char *)body->device, what);
	return done(session, id, error, text, NULL, 0);
}

static int handle_partner(struct mig_session *session, uint32_t id, const struct mig_scope *scope,
			  const struct mig_qp_name *names, uint32_t count)
{
	struct mig_selection selection = { (enum mig_scope_kind)scope->kind, scope->context, names, count };
	struct mig_qp_name which = { 0, 0 };
	int error = mig.state < MIG_STATE_PARKED ? mig_partner(&selection, &which) : EBUSY;
	int stopped = 0;

	if (!error)
		error = stop(&stopped);
	if (error)
		return done(session, id, error, "a QP for the peer's new place", &which, which.vqpn != 0);
	error = list_qps(session, id);
	go(stopped);
	return error;
}

static int dispatch(struct mig_session *session, const struct mig_header *header, const void *body,
		    const void *records)
{
	uint32_t id = header->id, count = header->count;
	struct mig_qp_name which = { 0, 0 };
	int stopped, error, holds_rdma_cm = 0;

	switch ((enum type)header->type) {
	case MIG_MSG_INVENTORY:
		/* As long as the world still turns: it takes a while with many descriptors. */
		holds_rdma_cm = mig_holds_rdma_cm();
		/* fall through */
	case MIG_MSG_LIST_CONTEXTS:
	case MIG_MSG_LIST_QPS:
	case MIG_MSG_LIST_MRS:
		error = stop(&stopped);
		if (error)
			return done(session, id, error, "a verb took too long to return", NULL, 0);
		error = header->type == MIG_MSG_INVENTORY	? inventory(session, id, holds_rdma_cm)
			: header->type == MIG_MSG_LIST_CONTEXTS ? list_contexts(session, id)
			: header->type == MIG_MSG_LIST_QPS	? list_qps(session, id)
								: list_mrs(session, id);
		go(stopped);
		return error;
	case MIG_MSG_QUIESCE:
		return handle_quiesce(session, id, body, records, count);
	case MIG_MSG_ABORT:
		session->quiescing = 0;
		error = mig_abort();
		return done(session, id, error, "the old objects are gone: the process was restored", NULL, 0);
	case MIG_MSG_PARK:
		error = mig.state == MIG_STATE_QUIESCED ? mig_park() : EBUSY;
		session->closing = !error && ((const struct mig_park *)body)->flags & MIG_PARK_CLOSE;
		return done(session, id, error, "parking", NULL, 0);
	case MIG_MSG_REBUILD:
		return handle_rebuild(session, id, body, records, count);
	case MIG_MSG_PARTNER:
		return handle_partner(session, id, body, records, count);
	case MIG_MSG_CONNECT:
		error = mig_connect(records, count, &which);
		return done(session, id, error, "connecting a QP", &which, error && which.vqpn);
	case MIG_MSG_KEYS:
		error = mig_keys(((const struct mig_keys *)body)->peer, records, count,
				 (header->flags & MIG_FLAG_MORE) != 0);
		return done(session, id, error, "a peer's keys", NULL, 0);
	case MIG_MSG_RESUME:
		error = session->quiescing || mig.state == MIG_STATE_QUIESCING ? EBUSY : mig_resume(&which);
		return done(session, id, error, "resuming", &which, error && which.vqpn);
	case MIG_MSG_WELCOME:
		session->welcome = 1;
		return 0;
	default:
		return EPROTO; /* an answer, which nobody asked for */
	}
}

/* Everything a body says of itself is checked here, so that what follows can rely on it. */
static int check_body(const struct mig_header *header, const void *body)
{
	switch ((enum type)header->type) {
	case MIG_MSG_QUIESCE:
	case MIG_MSG_PARTNER: {
		const struct mig_scope *scope = body;

		return scope->kind <= MIG_SCOPE_LISTED && scope->timeout_ms <= 86400000 &&
		       (header->type == MIG_MSG_QUIESCE ? scope->alone_s <= 100000000 : !scope->alone_s) &&
		       (scope->kind == MIG_SCOPE_LISTED || !header->count);
	}
	case MIG_MSG_PARK:
		return !(((const struct mig_park *)body)->flags & ~(uint32_t)MIG_PARK_CLOSE);
	case MIG_MSG_REBUILD: {
		const struct mig_rebuild *rebuild = body;

		return !(rebuild->flags & ~(uint32_t)MIG_REBUILD_RESTORED) &&
		       memchr(rebuild->device, 0, sizeof(rebuild->device)) != NULL;
	}
	default:
		return 1;
	}
}

int mig_message_handle(struct mig_session *session, const void *message, size_t length)
{
	const struct mig_header *header = message;

	if (length < sizeof(*header) || length > MIG_MESSAGE_MAX || header->magic != MIG_CONTROL_MAGIC ||
	    header->version != MIG_CONTROL_VERSION || header->reserved || header->type >= SHAPES ||
	    !shapes[header->type].name)
		return EPROTO;

	const struct shape *shape = &shapes[header->type];
	size_t payload = length - sizeof(*header);

	if (payload < shape->body || header->count > (shape->record ? MIG_MESSAGE_MAX / shape->record : 0) ||
	    payload - shape->body != (size_t)header->count * shape->record ||
	    header->flags & ~(uint32_t)(header->type == MIG_MSG_KEYS ? MIG_FLAG_MORE : 0))
		return EPROTO;

	const char *body = (const char *)message + sizeof(*header);
	if (!check_body(header, body))
		return EPROTO;
	mig_log(MIG_LOG_DEBUG, "%s, %u records", shape->name, header->count);
	mig_alone_heard();
	return dispatch(session, header, body, body + shape->body);
}
