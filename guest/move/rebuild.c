#include "move/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/keymap.h"
#include "base/verb_gate.h"
#include "objects/device.h"
#include "objects/kinds.h"
#include "objects/qp.h"
#include "path/hold.h"
#include "real/real.h"
#include "shadow/cq.h"
#include "shadow/find.h"
#include "shadow/pd.h"
#include "shadow/process.h"
#include "shadow/srq.h"

void mig_give_up(struct mig_context *context)
{
	mig_kinds_give_up(context);
	if (!context->next)
		return;
	if (context->async.inner == context->next->async_fd)
		mig_relay_fd_exchange(&context->async, context->real->async_fd);
	mig_keymap_free(context->next_lkeys);
	context->next_lkeys = NULL;
	mig_keymap_free(context->next_spent_rkeys);
	context->next_spent_rkeys = NULL;
	context->next_gid_count = 0;
	mig_real()->ibv_close_device(context->next);
	context->next = NULL;
}

static int is_none(const union ibv_gid *gid)
{
	static const union ibv_gid none;

	return !memcmp(gid, &none, sizeof(none));
}

static union ibv_gid told_gid(const struct mig_context *context, uint32_t port, uint32_t index)
{
	for (int i = 0; i < context->told_gid_count; i++)
		if (context->told_gids[i].port == port && context->told_gids[i].index == index)
			return context->told_gids[i].gid;
	return (union ibv_gid){ .raw = { 0 } };
}

int mig_rebuild(uint32_t id, const char *device, int restored, const struct mig_gid_record *gids, uint32_t count,
		const char **what)
{
	struct mig_context *context = mig_context_by_id(id);
	union ibv_gid known[MIG_GID_MAPS];
	int error = 0;

	*what = "there is no such context";
	if (!context)
		return ENOENT;
	/* Whoever made the one before may have told its numbers to others. */
	*what = "the context has been rebuilt, and not been given up since";
	if (context->next)
		return EALREADY;
	/* To take one case for the other would kill live connections, or touch what is not there. */
	*what = restored ? "a live device where a restored process has none" : "no live device";
	if (mig_is_live(context) == restored)
		return EINVAL;
	*what = "GID map";
	if (count > MIG_GID_MAPS)
		return E2BIG;
	/* The application keeps seeing the GIDs of its first device. */
	for (uint32_t i = 0; i < count; i++) {
		const struct mig_gid_map *map = mig_gid_find(context, gids[i].port, gids[i].index);

		memset(&known[i], 0, sizeof(known[i]));
		if (map)
			known[i] = map->gid;
		else
			MIG_EACH_OF(context, qps, qp, mig_qp)
				if (qp->attr.ah_attr.port_num == gids[i].port &&
				    qp->attr.ah_attr.grh.sgid_index == gids[i].index)
					known[i] = qp->sgid;
		for (int j = 0; !map && j < context->own_gid_count; j++)
			if (context->own_gids[j].port == gids[i].port && context->own_gids[j].index == gids[i].index)
				known[i] = context->own_gids[j].gid;
		if (!map && is_none(&known[i]))
			known[i] = told_gid(context, gids[i].port, gids[i].index);
		context->next_gids[i] = (struct mig_gid_map){ gids[i].port, gids[i].index, gids[i].new_port,
							      gids[i].new_index, known[i], known[i] };
	}
	context->next_gid_count = (int)count;
	/* Prepared for a peer's move that did not come about; of a restored process not even to be destroyed. */
	MIG_EACH_OF(context, qps, qp, mig_qp) {
		if (restored)
			qp->next = NULL;
		mig_qp_give_up(context, qp);
	}
	*what = "device";
	context->next = mig_open_by_name(device);
	if (!context->next)
		return errno;
	for (int i = 0; i < context->next_gid_count; i++)
		if (mig_real()->ibv_query_gid(context->next, (uint8_t)context->next_gids[i].new_port,
					      (int)context->next_gids[i].new_index, &context->next_gids[i].now))
			error = errno ? errno : EINVAL;
	snprintf(context->next_device, sizeof(context->next_device), "%s", device);
	context->left_behind = restored;
	mig.restored |= restored;
	if (!error)
		error = mig_kinds_make(context, what);
	if (error) {
		mig_give_up(context);
		return error;
	}
	mig.state = MIG_STATE_REBUILT;
	return 0;
}

int mig_prepare(const struct mig_selection *selection, struct mig_qp_name *which)
{
	int error = mig_verb_gate_close(1000);

	if (error)
		return error;
	mig_select(selection);
	MIG_EACH_CONTEXT(context) {
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			if (error || context->next || !qp->selected)
				continue;
			/* Its state was changed while it was quiesced: it is not what the peer knows any more. */
			if (mig.state == MIG_STATE_QUIESCED && !mig_is_held(qp))
				continue;
			if (mig_is_dead(qp))
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			/* Of a restore that came to nothing: it is connected to an end that is gone. */
			mig_qp_give_up(context, qp);
			qp->next = mig_qp_make_beside(qp);
			if (!qp->next) {
				error = errno;
				continue;
			}
			memcpy(context->next_gids, context->gids, sizeof(context->gids));
			context->next_gid_count = context->gid_count;
			error = mig_qpn_reserve(context, qp->next->qp_num);
			if (!error)
				error = mig_qp_to_init(context, qp);
			/* Its first completions may come before the exchange, which polls the queue last. */
			if (!error)
				mig_qpn_set(context, qp->next->qp_num, qp);
		}
	}
	if (error)
		MIG_EACH_CONTEXT(context)
			if (!context->next)
				mig_give_up(context);
	mig_verb_gate_open();
	return error;
}
