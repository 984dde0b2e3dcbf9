#include "control/message.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/verb_gate.h"
#include "control/answer.h"
#include "control/call.h"
#include "control/fault.h"
#include "move/alone.h"
#include "move/connect.h"
#include "move/decision.h"
#include "move/park.h"
#include "move/places.h"
#include "move/quiesce.h"
#include "move/rebuild.h"
#include "objects/rdma_cm.h"
#include "shadow/process.h"
#include "shadow/where.h"

/* The lists (control/answer.c) are walked with the verb gate closed: it is already, or this closes it for the while. */
static int close_for_lists(int *closed_here)
{
	*closed_here = mig.state < MIG_STATE_PARKED;
	return *closed_here ? mig_verb_gate_close(1000) : 0;
}

static void open_after_lists(int closed_here)
{
	if (closed_here)
		mig_verb_gate_open();
}

static int handle_quiesce(struct mig_session *session, uint32_t id, const struct mig_scope *scope,
			  const struct mig_qp_name *names, uint32_t count)
{
	struct mig_selection selection = { (enum mig_scope_kind)scope->kind, scope->context, names, count };
	struct mig_qp_name which = { 0, 0 };
	const char *why = "";
	int error = EBUSY;

	/* What pins this process does not pin another one whose other ends are here, unless it is these queue pairs. */
	if (mig.cannot_quiesce || (mig.reasons && scope->kind != MIG_SCOPE_LISTED))
		return mig_answer_done(session, id, ENOTSUP, "the process holds objects that cannot be migrated", NULL, 0);
	if (mig.state == MIG_STATE_RUNNING || mig.state == MIG_STATE_QUIESCED)
		error = mig_quiesce_begin(&selection, scope->timeout_ms, &which, &why);
	if (error)
		return mig_answer_done(session, id, error,
			    error == EIO   ? "a QP is in an error state"
			    : error == ENOTSUP ? why
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

	struct mig_qp_name which;
	int stuck = mig.state == MIG_STATE_QUIESCING;

	/* Its deadline has passed while a verb was under way, so that not even a look was possible. */
	if (stuck)
		mig_decide(MIG_DECISION_UNDO, &which);
	return mig_answer_done(session, session->quiesce_id, error,
		    stuck		 ? "a verb took too long to return"
		    : error == ETIMEDOUT ? "QPs did not drain in time"
				       : "the drain failed",
		    names, error ? count : 0);
}

void mig_message_lost(struct mig_session *session)
{
	session->quiescing = 0;
	mig_alone_passed(0, 0);
}

/* Asked again it only hangs up: the agent looks at what there is in between, when nothing changes. */
static int handle_park(struct mig_session *session, uint32_t id, const struct mig_park *body)
{
	struct mig_qp_name which = { 0, 0 };
	const char *what = "parking";
	/* Asked again it only hangs up: the agent looks at what there is in between, when nothing changes. */
	int hidden = mig.state == MIG_STATE_QUIESCED && !mig_call_can_come();
	int error = hidden			       ? ENOTSUP :
		    mig.state == MIG_STATE_QUIESCED ? mig_park(&which) :
		    mig.state == MIG_STATE_PARKED      ? 0 :
							 EBUSY;

	if (error == ENOTSUP)
		what = hidden ? MIG_HIDDEN : mig.reason[0];
	else if (error == ETIMEDOUT && which.vqpn)
		what = "a QP in the error state does not flush what was posted to it";
	session->closing = !error && body->flags & MIG_PARK_CLOSE;
	return mig_answer_done(session, id, error, what, &which, error && which.vqpn);
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
	if (!error) {
		mig_answer_qps(session, id);
		return mig_answer_send();
	}
	snprintf(text, sizeof(text), "rebuild on %.60s: %s", (const char *)body->device, what);
	return mig_answer_done(session, id, error, text, NULL, 0);
}

static int handle_prepare(struct mig_session *session, uint32_t id, const struct mig_scope *scope,
			  const struct mig_qp_name *names, uint32_t count)
{
	struct mig_selection selection = { (enum mig_scope_kind)scope->kind, scope->context, names, count };
	struct mig_qp_name which = { 0, 0 };
	int error = mig.state < MIG_STATE_PARKED ? mig_prepare(&selection, &which) : EBUSY;
	int closed = 0;

	if (!error)
		error = close_for_lists(&closed);
	if (error)
		return mig_answer_done(session, id, error, "a QP for the peer's new place", &which, which.vqpn != 0);
	mig_answer_qps(session, id);
	open_after_lists(closed);
	return mig_answer_send();
}

/* DONE, also of what is still to be done: the agent asks again. */
static int handle_decision(struct mig_session *session, uint32_t id, enum mig_decision decision)
{
	struct mig_qp_name which = { 0, 0 };
	int error = mig_decide(decision, &which);

	return mig_answer_done(session, id, error,
		    error == EINPROGRESS ? "it is decided, and is done when a verb that is under way has returned"
		    : error == EBUSY     ? "the other way has been decided"
		    : error == EXDEV     ? "the old objects are gone: the process was restored"
		    : decision == MIG_DECISION_UNDO ? "going back"
						    : "resuming",
		    &which, error && which.vqpn);
}

/* While a process is away nobody can be told where its queue pairs are. */
static int handle_find(struct mig_session *session, uint32_t id, const struct mig_find *find)
{
	int error = mig.state < MIG_STATE_PARKED ? mig_verb_gate_close(1000) : EBUSY;

	if (error)
		return mig_answer_done(session, id, error, "a verb took too long to return", NULL, 0);
	mig_answer_found(session, id, find);
	mig_verb_gate_open();
	return mig_answer_send();
}

/* What makes no sense between a decision and its end. */
static int waits_for_decision(uint16_t type)
{
	return mig_decision_open() != MIG_DECISION_NONE &&
	       (type == MIG_MSG_QUIESCE || type == MIG_MSG_PARK || type == MIG_MSG_PREPARE || type == MIG_MSG_CONNECT ||
		type == MIG_MSG_KEYS || type == MIG_MSG_PLACES);
}

static int dispatch(struct mig_session *session, const struct mig_header *header, const void *body,
		    const void *records)
{
	uint32_t id = header->id, count = header->count;
	struct mig_qp_name which = { 0, 0 };
	int closed, error, holds_rdma_cm = 0, hidden = 0;

	if (waits_for_decision(header->type))
		return mig_answer_done(session, id, EBUSY, "what was decided before waits for a verb to return", NULL, 0);
	switch ((enum mig_message_type)header->type) {
	case MIG_MSG_INVENTORY:
		/* While verbs still go through: it takes a while with many descriptors. */
		holds_rdma_cm = mig_holds_rdma_cm();
		hidden = !mig_call_can_come();
		/* fall through */
	case MIG_MSG_LIST_CONTEXTS:
	case MIG_MSG_LIST_QPS:
	case MIG_MSG_LIST_MRS:
	case MIG_MSG_LIST_ADDRESSES:
		error = close_for_lists(&closed);
		if (error)
			return mig_answer_done(session, id, error, "a verb took too long to return", NULL, 0);
		if (header->type == MIG_MSG_INVENTORY)
			mig_answer_inventory(session, id, holds_rdma_cm, hidden);
		else if (header->type == MIG_MSG_LIST_CONTEXTS)
			mig_answer_contexts(session, id);
		else if (header->type == MIG_MSG_LIST_QPS)
			mig_answer_qps(session, id);
		else if (header->type == MIG_MSG_LIST_ADDRESSES)
			mig_answer_addresses(session, id);
		else
			mig_answer_mrs(session, id);
		open_after_lists(closed);
		return mig_answer_send();
	case MIG_MSG_QUIESCE:
		return handle_quiesce(session, id, body, records, count);
	case MIG_MSG_UNDO:
		session->quiescing = 0;
		return handle_decision(session, id, MIG_DECISION_UNDO);
	case MIG_MSG_PARK:
		return handle_park(session, id, body);
	case MIG_MSG_REBUILD:
		return handle_rebuild(session, id, body, records, count);
	case MIG_MSG_PREPARE:
		return handle_prepare(session, id, body, records, count);
	case MIG_MSG_CONNECT:
		error = mig_connect(records, count, &which);
		return mig_answer_done(session, id, error, "connecting a QP", &which, error && which.vqpn);
	case MIG_MSG_KEYS:
		error = mig_keys(((const struct mig_keys *)body)->peer, records, count, (header->flags & MIG_FLAG_MORE) != 0,
				 (header->flags & MIG_FLAG_SRQS) != 0);
		return mig_answer_done(session, id, error, "a peer's keys", NULL, 0);
	case MIG_MSG_PLACES:
		error = mig_places_prepare(records, count, (header->flags & MIG_FLAG_MORE) != 0);
		return mig_answer_done(session, id, error, "where queue pairs for datagrams are", NULL, 0);
	case MIG_MSG_RESUME:
		if (session->quiescing || mig.state == MIG_STATE_QUIESCING)
			return mig_answer_done(session, id, EBUSY, "resuming", NULL, 0);
		return handle_decision(session, id, MIG_DECISION_RESUME);
	case MIG_MSG_WELCOME:
		session->welcome = 1;
		if (((const struct mig_welcome *)body)->answers)
			mig_where_open(session->fd);
		else
			mig_where_nobody();
		return 0;
	case MIG_MSG_FIND:
		return handle_find(session, id, body);
	case MIG_MSG_THERE:
		return mig_where_answered(id, body, records, count, (header->flags & MIG_FLAG_MORE) != 0);
	default:
		return EPROTO; /* an answer, which nobody asked for */
	}
}

/* Everything a body says of itself is checked here, so that what follows can rely on it. */
static int check_body(const struct mig_header *header, const void *body)
{
	switch ((enum mig_message_type)header->type) {
	case MIG_MSG_QUIESCE:
	case MIG_MSG_PREPARE: {
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

static uint32_t flags_of(uint16_t type)
{
	switch (type) {
	case MIG_MSG_KEYS:
		return MIG_FLAG_MORE | MIG_FLAG_SRQS;
	case MIG_MSG_PLACES:
	case MIG_MSG_THERE:
		return MIG_FLAG_MORE;
	default:
		return 0;
	}
}

int mig_message_handle(struct mig_session *session, const void *message, size_t length)
{
	const struct mig_header *header = message;

	if (length < sizeof(*header) || length > MIG_MESSAGE_MAX || header->magic != MIG_CONTROL_MAGIC ||
	    header->version != MIG_CONTROL_VERSION || header->reserved || header->type >= MIG_MESSAGE_TYPES ||
	    !mig_shapes[header->type].name)
		return EPROTO;

	const struct mig_shape *shape = &mig_shapes[header->type];
	size_t payload = length - sizeof(*header);

	if (payload < shape->body || header->count > (shape->record ? MIG_MESSAGE_MAX / shape->record : 0) ||
	    payload - shape->body != (size_t)header->count * shape->record ||
	    header->flags & ~flags_of(header->type))
		return EPROTO;

	const char *body = (const char *)message + sizeof(*header);
	if (!check_body(header, body))
		return EPROTO;
	mig_log(MIG_LOG_DEBUG, "%s, %u records", shape->name, header->count);
	mig_alone_heard();
	if (mig_fault_strikes(shape->name, "before"))
		return mig_answer_done(session, header->id, EIO, "an error was planted", NULL, 0);
	int error = dispatch(session, header, body, body + shape->body);
	if (!error && mig_fault_strikes(shape->name, "after"))
		return EIO;
	return error;
}
