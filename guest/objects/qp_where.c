/* Connecting a queue pair to one that may have moved since its process has told where it is. */
#include <errno.h>
#include <string.h>

#include "base/keymap.h"
#include "base/log.h"
#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "real/real.h"
#include "shadow/find.h"
#include "shadow/where.h"

/* Of one that is being moved the agent says so every few seconds: about a minute in all. */
#define MOST_QUESTIONS 12

/* A link-local address is nobody's that an agent could be asked of. */
static int names_somebody(const struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
	const uint8_t *gid = attr->ah_attr.grh.dgid.raw;

	return (mask & IBV_QP_AV) && (mask & IBV_QP_DEST_QPN) && attr->ah_attr.is_global &&
	       (qp->ibv.qp_type == IBV_QPT_RC || qp->ibv.qp_type == IBV_QPT_UC) &&
	       !(gid[0] == 0xfe && (gid[1] & 0xc0) == 0x80);
}

/* Who asks: as it is called, and as it is at the moment. */
static const struct ibv_qp *introduce(struct mig_qp *qp, const struct ibv_qp_attr *attr, struct mig_where *where)
{
	MIG_VERB_AS("modify_qp");
	struct mig_context *context = mig_context(qp->ibv.context);
	const struct mig_gid_map *map = mig_gid_find(context, attr->ah_attr.port_num, attr->ah_attr.grh.sgid_index);
	union ibv_gid gid = { .raw = { 0 } };

	if (!map)
		mig_real()->ibv_query_gid(context->real, attr->ah_attr.port_num, attr->ah_attr.grh.sgid_index, &gid);
	*where = (struct mig_where){ .context = context->id,
				     .vqpn = qp->ibv.qp_num,
				     .pqpn = qp->real->qp_num,
				     .qpn = attr->dest_qp_num & 0xffffff };
	memcpy(where->vgid, map ? map->gid.raw : gid.raw, sizeof(where->vgid));
	memcpy(where->gid, map ? map->now.raw : gid.raw, sizeof(where->gid));
	memcpy(where->dgid, attr->ah_attr.grh.dgid.raw, sizeof(where->dgid));
	return qp->real;
}

int mig_qp_find_other_end(struct mig_qp *qp, const struct ibv_qp_attr *attr, int mask, struct mig_other_end *end)
{
	struct mig_where where;
	struct mig_found found;
	int questions = 0;

	memset(end, 0, sizeof(*end));
	if (!mig_where_is_answered() || !names_somebody(qp, attr, mask))
		return 0;
	do {
		end->asked_by = introduce(qp, attr, &where);
		mig_where_ask(&where, &found);
		if (found.error)
			mig_keymap_drop(found.rkeys);
	} while (found.error == ESTALE || (found.error == EAGAIN && ++questions < MOST_QUESTIONS));
	if (found.error) {
		mig_log(MIG_LOG_ERROR, "QP 0x%x cannot be connected to QP 0x%x: %s", qp->ibv.qp_num, where.qpn, found.text);
		return found.error == EAGAIN ? ETIMEDOUT : found.error;
	}
	end->qpn = found.qpn;
	end->gid = found.gid;
	end->peer = found.peer;
	end->rkeys = found.rkeys;
	return 0;
}

void mig_qp_face(struct mig_qp *qp, struct mig_other_end *end)
{
	struct mig_context *context = mig_context(qp->ibv.context);

	qp->dest_pqpn = end->qpn;
	qp->pdgid = end->gid;
	qp->peer = end->peer;
	qp->rkeys = end->rkeys;
	if (qp->rkeys)
		qp->rkeys->references = 1;
	end->rkeys = NULL;
	MIG_LOCKED(&context->lock);
	if (qp->dest_pqpn != qp->attr.dest_qp_num)
		mig_look_at_completions(context, MIG_TRANSLATE_NUMBERS);
	if (qp->rkeys)
		mig_qp_set_translation(qp);
}
