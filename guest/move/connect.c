#include "move/connect.h"

#include <errno.h>
#include <string.h>

#include "base/keymap.h"
#include "base/verb_gate.h"
#include "move/arriving.h"
#include "move/places.h"
#include "objects/mw.h"
#include "objects/qp.h"
#include "objects/qp_options.h"
#include "path/hold.h"
#include "real/real.h"
#include "shadow/find.h"
#include "shadow/process.h"

static int connect_one(struct mig_context *context, struct mig_qp *qp, const struct mig_connect_record *record)
{
	struct ibv_qp_attr attr = qp->attr;
	const struct mig_gid_map *gid = mig_next_gid(context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index);
	int error;

	if (!qp->masks[IBV_QPS_RTR])
		return 0;
	attr.qp_access_flags |= mig_extra_access;
	attr.dest_qp_num = record->dest_pqpn;
	memcpy(attr.ah_attr.grh.dgid.raw, record->dgid, sizeof(record->dgid));
	if (gid) {
		attr.ah_attr.port_num = (uint8_t)gid->new_port;
		attr.ah_attr.grh.sgid_index = (uint8_t)gid->new_index;
	}
	/* Asked now: after the exchange nothing may fail. */
	if (mig_real()->ibv_query_gid(qp->next->context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index,
				      &qp->next_psgid) &&
	    !mig_is_dead(qp))
		return errno ? errno : EINVAL;
	qp->next_pdgid = attr.ah_attr.grh.dgid;
	/* It stays in the error state; its other end, which need not know, finds it there. */
	if (mig_is_dead(qp))
		return 0;
	attr.rq_psn = record->rq_psn & 0xffffff;
	attr.sq_psn = qp->next_sq_psn = record->sq_psn & 0xffffff;
	attr.qp_state = IBV_QPS_RTR;
	error = mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_RTR]);
	if (error || !qp->masks[IBV_QPS_RTS])
		return error;
	attr.qp_state = IBV_QPS_RTS;
	error = mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_RTS]);
	if (!error)
		error = mig_qp_limit_rate_again(qp);
	if (!error && context->next)
		error = mig_mw_bind_again(context, qp);
	if (error || qp->ibv.state != IBV_QPS_SQD)
		return error;
	attr.qp_state = IBV_QPS_SQD;
	return mig_real()->ibv_modify_qp(qp->next, &attr, IBV_QP_STATE);
}

int mig_connect(const struct mig_connect_record *records, uint32_t count, struct mig_qp_name *which)
{
	int parked = mig.state >= MIG_STATE_PARKED;
	int error = parked ? 0 : mig_verb_gate_close(1000);

	for (uint32_t i = 0; i < count && !error; i++) {
		struct mig_qp *qp = mig_qp_by_name(records[i].context, records[i].vqpn);

		*which = (struct mig_qp_name){ records[i].context, records[i].vqpn };
		error = qp && qp->next ? connect_one(mig_context_by_id(records[i].context), qp, &records[i]) : ENOENT;
		if (!error) {
			qp->next_dest_pqpn = records[i].dest_pqpn;
			qp->peer = records[i].peer;
		}
	}
	if (!parked)
		mig_verb_gate_open();
	return error;
}

/* A map that arrives in parts. */
static struct mig_arriving arriving;
static uint64_t whose;
static int of_what;

#define MAX_KEYS (1u << 22)

static struct mig_keymap **map_to_come(struct mig_qp *qp, int of_srqs)
{
	return of_srqs ? &qp->next_srqns : &qp->next_rkeys;
}

int mig_keys(uint64_t peer, const struct mig_key_record *records, uint32_t count, int more, int of_srqs)
{
	if (peer != whose || of_srqs != of_what)
		arriving.count = 0;
	whose = peer;
	of_what = of_srqs;
	int error = mig_arriving_add(&arriving, records, count, sizeof(*records), MAX_KEYS), used = 0;

	if (error || more)
		return error;
	const struct mig_key_record *all = arriving.records;
	struct mig_keymap *map = mig_keymap_new(arriving.count);
	for (uint32_t i = 0; map && i < arriving.count && !error; i++)
		if (all[i].vrkey != all[i].prkey)
			error = mig_keymap_set(map, all[i].vrkey, all[i].prkey);
	mig_arriving_forget(&arriving);
	whose = 0;
	if (!map)
		return ENOMEM;

	int parked = mig.state >= MIG_STATE_PARKED;
	if (!error && !parked)
		error = mig_verb_gate_close(1000);
	if (!error) {
		MIG_EACH_CONTEXT(context) {
			MIG_EACH_OF(context, qps, qp, mig_qp) {
				if (qp->peer != peer || !qp->next || (of_srqs && qp->ibv.qp_type != IBV_QPT_XRC_SEND))
					continue;
				mig_keymap_drop(*map_to_come(qp, of_srqs));
				*map_to_come(qp, of_srqs) = map;
				__atomic_add_fetch(&map->references, 1, __ATOMIC_RELAXED);
				used = 1;
			}
		}
		if (!parked)
			mig_verb_gate_open();
	}
	if (!used)
		mig_keymap_free(map);
	return error;
}

int mig_is_prepared(void)
{
	int quiesced = 0;

	MIG_EACH_CONTEXT(context)
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			if (!mig_is_held(qp) || !qp->masks[IBV_QPS_RTR])
				continue;
			if (!qp->next || !qp->next_dest_pqpn || !qp->next_rkeys)
				return 0;
			quiesced = 1;
		}
	return quiesced || mig_places_are_ready();
}
