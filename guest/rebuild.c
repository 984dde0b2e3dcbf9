#include "rebuild.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "eventfd.h"
#include "keymap.h"
#include "log.h"
#include "object.h"
#include "pages.h"
#include "leftover_maps.h"
#include "world.h"

/* Set while the objects behind `real` are not this process's any more: it was restored from a checkpoint. */
static int restored_objects;

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

	if (context)
		MIG_EACH(&context->qps, qp, struct mig_qp, link)
			if (qp->ibv.qp_num == vqpn)
				return qp;
	return NULL;
}

#define EACH_CONTEXT(context) MIG_EACH(&mig.contexts, context, struct mig_context, link)
#define EACH(context, list, entry, type) MIG_EACH(&context->list, entry, struct type, link)

int mig_park(void)
{
	int error = mig_world_stop(1000);

	if (error)
		return error;
	EACH_CONTEXT(context) {
		MIG_SET_GATE(context->parked, 1);
		EACH(context, cqs, cq, mig_cq)
			mig_cq_gate(cq, 1);
		EACH(context, qps, qp, mig_qp)
			mig_recv_close(qp);
	}
	mig_synchronize();
	/* From here on receives are only recorded, and nobody polls: what is in the queues now is the rest. */
	EACH_CONTEXT(context) {
		EACH(context, qps, qp, mig_qp)
			mig_recv_park(qp);
		EACH(context, cqs, cq, mig_cq)
			if (!error)
				error = mig_cq_collect(cq, 1);
		EACH(context, channels, channel, mig_channel)
			mig_channel_take_events(channel);
	}
	mig.state = MIG_STATE_PARKED;
	return error;
}

/* Tells the device where an event is awaited. */
static int ask_for_events(struct mig_cq *cq, struct ibv_cq *real)
{
	int asked = __atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE);

	return asked && cq->ibv.channel ? real->context->ops.req_notify_cq(real, asked == 1) : 0;
}

/*
 * The application may have asked for an event while there was nobody to ask, after completions had come. So ask,
 * then look: what came before is owed an event by us, what comes later raises its own.
 */
static void catch_up_on_events(struct mig_cq *cq)
{
	if (!__atomic_load_n(&cq->asked, __ATOMIC_ACQUIRE) || !cq->ibv.channel)
		return;
	if (ask_for_events(cq, cq->real) || mig_cq_collect(cq, 0))
		mig_log(MIG_LOG_ERROR, "a CQ may miss an event: %s", strerror(errno));
	mig_lock(&cq->lock);
	int waiting = cq->ring_head != cq->ring_tail;
	mig_unlock(&cq->lock);
	if (waiting)
		mig_channel_owe(mig_comp_channel(cq->ibv.channel), cq);
}

/* Everything is in its place: the real objects may be used again. 0 or an errno. */
static int unpark(struct mig_qp_name *which)
{
	int error = 0;

	EACH_CONTEXT(context) {
		if (!context->parked)
			continue;
		MIG_SET_GATE(context->parked, 0);
		/* Who asks for an event from here on asks the device; who asked before has left a note by now. */
		mig_synchronize();
		EACH(context, qps, qp, mig_qp) {
			int failed = mig_recv_open(qp);

			if (failed)
				*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			error = error ? error : failed;
		}
		EACH(context, cqs, cq, mig_cq) {
			catch_up_on_events(cq);
			mig_cq_gate(cq, -1);
		}
	}
	return error;
}

/* The numbers of the application's GID index on the next device. */
static const struct mig_gid_map *next_gid(const struct mig_context *context, uint32_t port, uint32_t index)
{
	for (int i = 0; i < context->next_gid_count; i++)
		if (context->next_gids[i].port == port && context->next_gids[i].index == index)
			return &context->next_gids[i];
	return NULL;
}

static int to_init(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp_attr attr = qp->attr;
	const struct mig_gid_map *gid = next_gid(context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index);

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

	EACH(context, mrs, mr, mig_mr)
		count += mr->ibv.lkey != mr->next->lkey;
	if (!count)
		return 0;
	context->next_lkeys = mig_keymap_new(count);
	if (!context->next_lkeys)
		return ENOMEM;
	EACH(context, mrs, mr, mig_mr)
		if (mr->ibv.lkey != mr->next->lkey && mig_keymap_set(context->next_lkeys, mr->ibv.lkey, mr->next->lkey))
			return ENOSPC;
	return 0;
}

static int build(struct mig_context *context, const char **what)
{
	const struct mig_real *real = mig_real();

	*what = "completion channel";
	EACH(context, channels, channel, mig_channel)
		if (!(channel->next = real->ibv_create_comp_channel(context->next)))
			return errno;
	*what = "protection domain";
	EACH(context, pds, pd, mig_pd)
		if (!(pd->next = real->ibv_alloc_pd(context->next)))
			return errno;
	*what = "memory region";
	EACH(context, mrs, mr, mig_mr)
		if (!(mr->next = register_again(mr)))
			return errno;
	*what = "key map";
	int error = map_keys(context);
	if (error)
		return error;
	*what = "completion queue";
	EACH(context, cqs, cq, mig_cq) {
		struct mig_channel *channel = mig_comp_channel(cq->ibv.channel);

		cq->next = mig_cq_make(cq, context->next, channel ? channel->next : NULL);
		if (!cq->next)
			return errno;
		/* Before anybody can send: no event can be missed. */
		if ((error = ask_for_events(cq, cq->next)))
			return error;
	}
	*what = "queue pair";
	EACH(context, qps, qp, mig_qp) {
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

/* Gives the next objects of a context up, as far as they were made. */
static void give_up(struct mig_context *context)
{
	const struct mig_real *real = mig_real();

	EACH(context, qps, qp, mig_qp) {
		if (qp->next) {
			if (!context->next && mig_qp_by_pqpn(context, qp->next->qp_num) == qp)
				mig_qpn_set(context, qp->next->qp_num, NULL);
			real->ibv_destroy_qp(qp->next);
		}
		qp->next = NULL;
		qp->next_rkeys = NULL;
	}
	if (!context->next)
		return;
	EACH(context, cqs, cq, mig_cq) {
		if (cq->next)
			real->ibv_destroy_cq(cq->next);
		cq->next = NULL;
	}
	EACH(context, mrs, mr, mig_mr) {
		if (mr->next)
			real->ibv_dereg_mr(mr->next);
		mr->next = NULL;
	}
	EACH(context, pds, pd, mig_pd) {
		if (pd->next)
			real->ibv_dealloc_pd(pd->next);
		pd->next = NULL;
	}
	EACH(context, channels, channel, mig_channel) {
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
static int is_live(const struct mig_context *context)
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

	*what = "context";
	if (!context || context->next)
		return context ? EALREADY : ENOENT;
	/* To take one case for the other would kill live connections, or touch what is not there. */
	*what = restored ? "a live device where a restored process has none" : "no live device";
	if (is_live(context) == restored)
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
			EACH(context, qps, qp, mig_qp)
				if (qp->attr.ah_attr.port_num == gids[i].port &&
				    qp->attr.ah_attr.grh.sgid_index == gids[i].index)
					known[i] = qp->sgid;
		context->next_gids[i] = (struct mig_gid_map){ gids[i].port, gids[i].index, gids[i].new_port,
							      gids[i].new_index, known[i] };
	}
	context->next_gid_count = (int)count;
	*what = "device";
	context->next = mig_open_by_name(device);
	if (!context->next)
		return errno;
	snprintf(context->next_device, sizeof(context->next_device), "%s", device);
	restored_objects = restored;
	mig.restored |= restored;
	error = build(context, what);
	if (error) {
		give_up(context);
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
	EACH_CONTEXT(context) {
		EACH(context, qps, qp, mig_qp) {
			if (error || context->next || qp->next || !mig_selects(selection, context, qp))
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
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
		EACH_CONTEXT(context)
			if (!context->next)
				give_up(context);
	mig_world_go();
	return error;
}

static int connect_one(struct mig_context *context, struct mig_qp *qp, const struct mig_connect_record *record)
{
	struct ibv_qp_attr attr = qp->attr;
	const struct mig_gid_map *gid = next_gid(context, attr.ah_attr.port_num, attr.ah_attr.grh.sgid_index);
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
	attr.rq_psn = record->rq_psn & 0xffffff;
	attr.sq_psn = record->sq_psn & 0xffffff;
	attr.qp_state = IBV_QPS_RTR;
	error = mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_RTR]);
	if (error || !qp->masks[IBV_QPS_RTS])
		return error;
	attr.qp_state = IBV_QPS_RTS;
	return mig_real()->ibv_modify_qp(qp->next, &attr, qp->masks[IBV_QPS_RTS]);
}

int mig_connect(const struct mig_connect_record *records, uint32_t count, struct mig_qp_name *which)
{
	int parked = mig.state >= MIG_STATE_PARKED;
	int error = parked ? 0 : mig_world_stop(1000);

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
		mig_world_go();
	return error;
}

/* A map that arrives in parts. */
static struct {
	struct mig_key_record *records;
	uint32_t count, room;
	uint64_t peer;
} arriving;

#define MAX_KEYS (1u << 22)

static int collect_keys(uint64_t peer, const struct mig_key_record *records, uint32_t count)
{
	if (peer != arriving.peer)
		arriving.count = 0;
	arriving.peer = peer;
	if (count > MAX_KEYS - arriving.count)
		return E2BIG;
	if (arriving.count + count > arriving.room) {
		uint32_t room = (arriving.count + count) * 2;
		struct mig_key_record *larger = mig_pages_alloc(room * sizeof(*larger));

		if (!larger)
			return ENOMEM;
		if (arriving.count)
			memcpy(larger, arriving.records, arriving.count * sizeof(*larger));
		mig_pages_free(arriving.records);
		arriving.records = larger;
		arriving.room = room;
	}
	if (count)
		memcpy(arriving.records + arriving.count, records, count * sizeof(*records));
	arriving.count += count;
	return 0;
}

/* Must be unreachable for readers: taken from its QPs before the last grace period. */
static void drop_map(struct mig_keymap *map)
{
	if (map && --map->references <= 0)
		mig_keymap_free(map);
}

int mig_keys(uint64_t peer, const struct mig_key_record *records, uint32_t count, int more)
{
	int error = collect_keys(peer, records, count), used = 0;
	struct mig_keymap *map;

	if (error || more)
		return error;
	map = mig_keymap_new(arriving.count);
	for (uint32_t i = 0; map && i < arriving.count && !error; i++)
		if (arriving.records[i].vrkey != arriving.records[i].prkey)
			error = mig_keymap_set(map, arriving.records[i].vrkey, arriving.records[i].prkey);
	mig_pages_free(arriving.records);
	memset(&arriving, 0, sizeof(arriving));
	if (!map)
		return ENOMEM;

	int parked = mig.state >= MIG_STATE_PARKED;
	if (!error && !parked)
		error = mig_world_stop(1000);
	if (!error) {
		EACH_CONTEXT(context) {
			EACH(context, qps, qp, mig_qp) {
				if (qp->peer != peer || !qp->next)
					continue;
				drop_map(qp->next_rkeys);
				qp->next_rkeys = map;
				map->references++;
				used = 1;
			}
		}
		if (!parked)
			mig_world_go();
	}
	if (!used)
		mig_keymap_free(map);
	return error;
}

/* Old real objects, still alive, from the last made to the first. */
static void destroy_old(struct mig_context *context, struct ibv_context *old)
{
	const struct mig_real *real = mig_real();

	/* The exchange has left the old ones in `next`. */
	EACH(context, qps, qp, mig_qp)
		real->ibv_destroy_qp(qp->next);
	EACH(context, cqs, cq, mig_cq)
		real->ibv_destroy_cq(cq->next);
	EACH(context, mrs, mr, mig_mr)
		real->ibv_dereg_mr(mr->next);
	EACH(context, pds, pd, mig_pd)
		real->ibv_dealloc_pd(pd->next);
	EACH(context, channels, channel, mig_channel)
		real->ibv_destroy_comp_channel(channel->next);
	real->ibv_close_device(old);
}

/*
 * Old real objects of a process that was restored: the kernel does not know them, and their queues are
 * placeholders. Their structures stay behind in the heap; descriptors and mappings go.
 */
static void forget_old(struct mig_context *context, struct ibv_context *old)
{
	EACH(context, mrs, mr, mig_mr)
		if (mig_real()->dofork_range && !(mr->access & IBV_ACCESS_ON_DEMAND))
			mig_real()->dofork_range(mr->ibv.addr, mr->ibv.length);
	EACH(context, channels, channel, mig_channel)
		close(channel->next->fd);
	close(old->async_fd);
	close(old->cmd_fd);
}

#define EXCHANGE(a, b)                                                                                     \
	do {                                                                                               \
		__typeof__(a) kept_ = (a);                                                                 \
		(a) = (b);                                                                                 \
		(b) = kept_;                                                                               \
	} while (0)

static void exchange_qp(struct mig_context *context, struct mig_qp *qp)
{
	MIG_LOCKED(&qp->send_lock);
	EXCHANGE(qp->real, qp->next);
	if (qp->next_dest_pqpn)
		qp->dest_pqpn = qp->next_dest_pqpn;
	qp->next_dest_pqpn = 0;
	qp->parked_at = qp->reposted;
	/* Its new queue is empty. */
	MIG_SET_GATE(qp->send_gate, qp->send_gate | MIG_GATE_FRESH);
	mig_qpn_set(context, qp->real->qp_num, qp);
	qp->ibv.handle = qp->real->handle;
	if (qp->real->qp_num != qp->ibv.qp_num || qp->dest_pqpn != qp->attr.dest_qp_num)
		MIG_SET_GATE(context->translate, 1);
}

/* Replaces a QP's map of its peer's keys. The QP is quiesced, so no section reads it. */
static void exchange_rkeys(struct mig_qp *qp)
{
	if (!qp->next_rkeys)
		return;
	drop_map(qp->rkeys);
	qp->rkeys = qp->next_rkeys;
	qp->next_rkeys = NULL;
}

/* Receives that were posted after the context was rebuilt; what comes later yet is for mig_recv_open. */
static int repost_rest(struct mig_qp *qp, const struct mig_keymap *lkeys)
{
	MIG_LOCKED(&qp->recv_lock);
	return mig_recv_repost(qp, qp->next, lkeys, &qp->reposted);
}

static int exchange_context(struct mig_context *context, struct mig_qp_name *which)
{
	struct ibv_context *old = context->real;
	struct mig_keymap *old_keys = context->lkeys;
	int error = mig_eventfd_exchange(&context->async, context->next->async_fd);

	EACH(context, qps, qp, mig_qp) {
		*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
		if (!error)
			error = repost_rest(qp, context->next_lkeys);
	}
	EACH(context, channels, channel, mig_channel)
		if (!error)
			error = mig_eventfd_exchange(&channel->event, channel->next->fd);
	if (error)
		return error;

	/* Nothing below can fail. */
	for (int i = 0; i < MIG_QPN_PAGE; i++)
		if (context->qpns[i])
			memset(context->qpns[i], 0, MIG_QPN_PAGE * sizeof(*context->qpns[i]));
	context->real = context->next;
	context->next = NULL;
	context->lkeys = context->next_lkeys;
	context->next_lkeys = NULL;
	memcpy(context->gids, context->next_gids, sizeof(context->gids));
	context->gid_count = context->next_gid_count;
	MIG_SET_GATE(context->translate, context->lkeys != NULL);
	EACH(context, channels, channel, mig_channel)
		EXCHANGE(channel->real, channel->next);
	EACH(context, pds, pd, mig_pd) {
		EXCHANGE(pd->real, pd->next);
		pd->ibv.handle = pd->real->handle;
	}
	EACH(context, mrs, mr, mig_mr) {
		EXCHANGE(mr->real, mr->next);
		mr->ibv.handle = mr->real->handle;
		if (mr->real->rkey != mr->ibv.rkey)
			MIG_SET_GATE(context->translate, 1);
	}
	EACH(context, cqs, cq, mig_cq) {
		EXCHANGE(cq->real, cq->next);
		cq->poll = cq->real->context->ops.poll_cq;
		cq->ibv.handle = cq->real->handle;
	}
	EACH(context, qps, qp, mig_qp) {
		exchange_qp(context, qp);
		exchange_rkeys(qp);
		mig_qp_set_operations(qp);
	}
	context->verbs.context.cmd_fd = context->real->cmd_fd;
	snprintf(context->device->real_name, sizeof(context->device->real_name), "%s", context->next_device);

	if (restored_objects)
		forget_old(context, old);
	else
		destroy_old(context, old);
	EACH(context, channels, channel, mig_channel)
		channel->next = NULL;
	EACH(context, pds, pd, mig_pd)
		pd->next = NULL;
	EACH(context, mrs, mr, mig_mr)
		mr->next = NULL;
	EACH(context, cqs, cq, mig_cq)
		cq->next = NULL;
	EACH(context, qps, qp, mig_qp)
		qp->next = NULL;
	mig_keymap_free(old_keys);
	return 0;
}

/* A peer has moved: this QP continues as another one of the same context. */
static int exchange_partner(struct mig_context *context, struct mig_qp *qp)
{
	struct ibv_qp *old = qp->real;
	int error;

	mig_recv_close(qp);
	mig_synchronize();
	/* The peer had drained before it moved: what the old QP has received is in the queue by now. */
	error = mig_cq_collect(mig_cq(qp->ibv.recv_cq), 0);
	if (error)
		return error;
	mig_lock(&qp->recv_lock);
	qp->reposted = __atomic_load_n(&qp->head, __ATOMIC_ACQUIRE);
	error = mig_recv_repost(qp, qp->next, context->lkeys, &qp->reposted);
	if (!error) {
		exchange_qp(context, qp);
		exchange_rkeys(qp);
		qp->post_recv = qp->real->context->ops.post_recv;
	}
	/* Of a parked process the rest follows with mig_recv_open. */
	qp->recv_closed = qp->recv_parked;
	mig_unlock(&qp->recv_lock);
	if (error)
		return error;
	mig_qp_set_operations(qp);
	qp->next = NULL;
	if (old->qp_num != qp->real->qp_num && mig_qp_by_pqpn(context, old->qp_num) == qp)
		mig_qpn_set(context, old->qp_num, NULL);
	mig_real()->ibv_destroy_qp(old);
	return 0;
}

int mig_resume(struct mig_qp_name *which)
{
	int error = mig_world_stop(1000), exchanged = 0;

	if (error)
		return error;
	EACH_CONTEXT(context) {
		if (context->next) {
			error = error ? error : exchange_context(context, which);
			exchanged = 1;
			continue;
		}
		EACH(context, qps, qp, mig_qp) {
			if (error || !qp->next)
				continue;
			*which = (struct mig_qp_name){ context->id, qp->ibv.qp_num };
			error = exchange_partner(context, qp);
		}
	}
	if (error) {
		if (mig.state < MIG_STATE_PARKED)
			mig_world_go();
		return error;
	}
	if (exchanged && restored_objects)
		mig_unmap_placeholders();
	restored_objects = 0;
	error = unpark(which);
	mig_quiesce_end();
	mig_world_go();
	return error;
}

int mig_abort(void)
{
	struct mig_qp_name which;
	int error = mig_world_stop(1000);

	if (error)
		return error;
	EACH_CONTEXT(context)
		if (context->parked && !is_live(context))
			return EXDEV;
	EACH_CONTEXT(context)
		give_up(context);
	error = unpark(&which);
	mig_quiesce_end();
	mig_world_go();
	return error;
}
