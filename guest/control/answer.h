/* The messages' shapes, and what the agent is told. Only the control thread answers. */
#ifndef MIGRRDMA_ANSWER_H
#define MIGRRDMA_ANSWER_H

#include "control/session.h"
#include "wire/control.h"

enum mig_message_type {
	MIG_MSG_NONE,
#define MIG_TYPE(number, name, body, record, reply) MIG_MSG_##name = number,
	MIG_MESSAGES(MIG_TYPE)
#undef MIG_TYPE
	MIG_MESSAGE_TYPES,
};

struct mig_shape {
	enum mig_message_type type, reply;
	uint32_t body, record;
	const char *name; /* NULL: there is no such message */
};

extern const struct mig_shape mig_shapes[MIG_MESSAGE_TYPES];

/* What a guest says first. 0, or the errno of sending. */
int mig_answer_hello(struct mig_session *session);

/* Likewise; `text` says what has failed, `names` which QPs. */
int mig_answer_done(struct mig_session *session, uint32_t id, int error, const char *text,
		    const struct mig_qp_name *names, uint32_t count);

#define MIG_HIDDEN                                                                                                             \
	"a root or a mount of its own that hides /dev/migrrdma/agent: it would not hear that it may go on after a restore"

/*
 * Composes one; the verb gate must be closed. It is sent when the gate has been opened: an agent may ask and not read, and
 * no verb must wait for it.
 */
/* `hidden`: the process cannot see what an agent calls it by. */
void mig_answer_inventory(struct mig_session *session, uint32_t id, int holds_rdma_cm, int hidden);
void mig_answer_contexts(struct mig_session *session, uint32_t id);
void mig_answer_qps(struct mig_session *session, uint32_t id);
void mig_answer_found(struct mig_session *session, uint32_t id, const struct mig_find *find);
void mig_answer_mrs(struct mig_session *session, uint32_t id);
void mig_answer_addresses(struct mig_session *session, uint32_t id);

/* Sends what was composed last. 0, or the errno of sending. */
int mig_answer_send(void);

#endif
