/*
 * Making the next real objects: a whole context's on another device, or single queue pairs beside those that a running
 * process has. And giving them up again.
 */
#include "move/rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/keymap.h"
#include "objects/object.h"
#include "base/verb_gate.h"

struct mig_context *mig_context_by_id(uint32_t id)
{
	MIG_EACH(&mig.contexts, context, struct mig_context, link)
		if (context->id == id)
			return context;
	return NULL;
}

struct mig_qp *mig_qp_by_name(uint32_t id, uint32_t vqpn)
{
	struct mig_context *context = mig_context_by_id(id);

	return context ? mig_numbers_find(&context->vqpns, vqpn) : NULL;
}

const struct mig_gid_map *mig_next_gid(const struct mig_context *context, uint32_t port, uint32_t index)
{
	for (int i = 0; i < context->next_gid_count; i++)
		if (context->next_gids[i].port == port && context->next_gids[i].index == index)
			return &context->next_gids[i];
	return NULL;
}

static int to_init(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp_attr attr = qp->attr;
	const struct mig_gid_map *gid = mig_next_gid(context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index);

	if (!qp->masks[IBV_QPS_INIT])
		return 0;
	attr.qp_state = IBV_QPS_INIT;
	attr.qp_access_flags |= mig_extra_access;
	if (gid)
		attr.port_num = (uint8_t)gid->new_port;
	return mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_INIT]);
}

/* Another registration of the same memory with the same rights. */
static struct ibv_mr *register_again(const struct mig_mr *mr)
{
	const struct mig_real *real = mig_real();
	struct ibv_pd *pd = mig_pd(mr->ibv.pd)->next;

	if (mr->iova == (uintptr_t)mr->ibv.addr && !(mr->access & IBV_ACCESS_OPTIONAL_RANGE))
		return real->ibv_reg_mr(pd, mr->ibv.addr, mr->ibv.length, (int)mr->access);
	if (real->ibv_reg_mr_iova2)
		return real->ibv_reg_mr_iova2(pd, mr->ibv.addr, mr->ibv.length, mr->iova, mr->access);
	return real->ibv_reg_mr_iova(pd, mr->ibv.addr, mr->ibv.length, mr->iova, (int)mr->access);
}

/* Virtual to physical, for the regions where they differ; an empty map is none. */
static int map_keys(struct mig_context *context)
{
	uint32_t count = 0;

	MIG_EACH_OF(context, mrs, mr, mig_mr)
		count += mr->ibv.lkey != mr->next->lkey;
	if (!count)
		return 0;
	context->next_lkeys = mig_keymap_new(count);
	if (!context->next_lkeys)
		return ENOMEM;
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		if (mr->ibv.lkey != mr->next->lkey && mig_keymap_set(context->next_lkeys, mr->ibv.lkey, mr->next->lkey))
			return ENOSPC;
	return 0;
}

static int build(struct mig_context *context, const char **what)
{
	const struct mig_real *real = mig_real();

	*what = "completion channel";
	MIG_EACH_OF(context, channels, channel, mig_channel)
		if (!(channel->next = real->ibv_create_comp_channel(context->next)))
			return errno;
	*what = "protection domain";
	MIG_EACH_OF(context, pds, pd, mig_pd)
		if (!(pd->next = real->ibv_alloc_pd(context->next)))
			return errno;
	*what = "memory region";
	MIG_EACH_OF(context, mrs, mr, mig_mr)
		if (!(mr->next = register_again(mr)))
			return errno;
	*what = "key map";
	int error = map_keys(context);
	if (error)
		return error;
	*what = "completion queue";
	MIG_EACH_OF(context, cqs, cq, mig_cq) {
		struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);

		cq->next = mig_cq_make(cq, context->next, channel ? channel->next : NULL);
		if (!cq->next)
			return errno;
		/* Before anybody can send: no event can be missed. */
		if ((error = mig_ask_for_events(cq, cq->next)))
			return error;
	}
	*what = "queue pair";
	MIG_EACH_OF(context, qps, qp, mig_qp) {
		qp->next = mig_qp_make(qp, mig_pd(qp->ibv.pd)->next, mig_cq(qp->ibv.send_cq)->next,
				       mig_cq(qp->ibv.recv_cq)->next);
		if (!qp->next)
			return errno;
		error = mig_qpn_reserve(context, qp->next->qp_num);
		if (!error)
			error = to_init(context, qp);
		if (error)
			return error;
		MIG_LOCKED(&qp->recv_lock);
		qp->reposted = qp->head;
		error = mig_recv_repost(qp, qp->next, context->next_lkeys, &qp->reposted);
		if (error)
			return error;
	}
	return 0;
}

/* Nothing was posted to it, and no application has heard of it. */
static void give_up_qp(struct mig_context *context, struct mig_qp *qp)
{
	if (qp->next) {
		if (!context->next && mig_qp_by_pqpn(context, qp->next->qp_num) == qp)
			mig_qpn_set(context, qp->next->qp_num, NULL);
		mig_real()->ibv_destroy_qp(qp->next);
	}
	qp->next = NULL;
	mig_drop_map(qp->next_rkeys);
	qp->next_rkeys = NULL;
	qp->next_dest_pqpn = 0;
}

void mig_give_up(struct mig_context *context)
{
	const struct mig_real *real = mig_real();

	MIG_EACH_OF(context, qps, qp, mig_qp)
		give_up_qp(context, qp);
	if (!context->next)
		return;
	MIG_EACH_OF(context, cqs, cq, mig_cq) {
		if (cq->next)
			real->ibv_destroy_cq(cq->next);
		cq->next = NULL;
	}
	MIG_EACH_OF(context, mrs, mr, mig_mr) {
		if (mr->next)
			real->ibv_dereg_mr(mr->next);
		mr->next = NULL;
	}
	MIG_EACH_OF(context, pds, pd, mig_pd) {
		if (pd->next)
			real->ibv_dealloc_pd(pd->next);
		pd->next = NULL;
	}
	MIG_EACH_OF(context, channels, channel, mig_channel) {
		if (channel->next)
			real->ibv_destroy_comp_channel(channel->next);
		channel->next = NULL;
	}
	mig_keymap_free(context->next_lkeys);
	context->next_lkeys = NULL;
	context->next_gid_count = 0;
	real->ibv_close_device(context->next);
	context->next = NULL;
}

/*
 * The descriptor of a live device leads to a file in /dev; what CRIU put there at a restore does not. By name and
 * not by fstat, which C libraries before 2.33 do not export.
 */
int mig_is_live(const struct mig_context *context)
{
	char link[64], target[8] = "";

	snprintf(link, sizeof(link), "/proc/self/fd/%d", context->real->cmd_fd);
	return readlink(link, target, sizeof(target) - 1) > 0 && !strncmp(target, "/dev/", 5);
}

int mig_rebuild(uint32_t id, const char *device, int restored, const struct mig_gid_record *gids, uint32_t count,
		const char **what)
{
	struct mig_context *context = mig_context_by_id(id);
	union ibv_gid known[MIG_GID_MAPS];
	int error;

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
		context->next_gids[i] = (struct mig_gid_map){ gids[i].port, gids[i].index, gids[i].new_port,
							      gids[i].new_index, known[i] };
	}
	context->next_gid_count = (int)count;
	/* Prepared for a peer's move that did not come about; of a restored process not even to be destroyed. */
	MIG_EACH_OF(context, qps, qp, mig_qp) {
		if (restored)
			qp->next = NULL;
		give_up_qp(context, qp);
	}
	*what = "device";
	context->next = mig_open_by_name(device);
	if (!context->next)
		return errno;
	snprintf(context->next_device, sizeof(context->next_device), "%s", device);
	context->left_behind = restored;
	mig.restored |= restored;
	error = build(context, what);
	if (error) {
		mig_give_up(context);
		return error;
	}
	mig.state = MIG_STATE_REBUILT;
	return 0;
}

int mig_partner(const struct mig_selection *selection, struct mig_qp_name *which)
{
	int error = mig_world_stop(1000);

	if (error)
		return error;
	mig_select(selection);
	MIG_EACH_CONTEXT(context) {
		MIG_EACH_OF(context, qps, qp, mig_qp) {
			if (error || context->next || !qp->selected)
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			/* Of a restore that came to nothing: it is connected to an end that is gone. */
			give_up_qp(context, qp);
			qp->next = mig_qp_make(qp, mig_real_pd(qp->ibv.pd), mig_real_cq(qp->ibv.send_cq),
					       mig_real_cq(qp->ibv.recv_cq));
			if (!qp->next) {
				error = errno;
				continue;
			}
			memcpy(context->next_gids, context->gids, sizeof(context->gids));
			context->next_gid_count = context->gid_count;
			error = mig_qpn_reserve(context, qp->next->qp_num);
			if (!error)
				error = to_init(context, qp);
			/* Its first completions may come before the exchange, which polls the queue last. */
			if (!error)
				mig_qpn_set(context, qp->next->qp_num, qp);
		}
	}
	if (error)
		MIG_EACH_CONTEXT(context)
			if (!context->next)
				mig_give_up(context);
	mig_world_go();
	return error;
}
