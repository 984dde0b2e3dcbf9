#include "objects/ah.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/section.h"
#include "base/verb_gate.h"
#include "objects/kinds.h"
#include "path/grh.h"
#include "real/export.h"
#include "shadow/find.h"
#include "shadow/marks.h"
#include "shadow/process.h"

static const char too_many[] = "an address handle, beside those at 16 other GIDs of this host";
static const char no_route[] = "an address handle without a global route (LIDs do not move)";

static struct ibv_ah *make_real(struct ibv_pd *pd, const struct ibv_ah_attr *attr, const struct mig_gid_map *gid,
				const union ibv_gid *to)
{
	struct ibv_ah_attr theirs = *attr;

	if (gid) {
		theirs.port_num = (uint8_t)gid->new_port;
		theirs.grh.sgid_index = (uint8_t)gid->new_index;
	}
	theirs.grh.dgid = *to;
	return mig_real()->ibv_create_ah(pd, &theirs);
}

static const struct mig_gid_map *map_of(const struct mig_context *context, const struct ibv_ah_attr *attr, int next)
{
	if (!attr->is_global)
		return NULL;
	return next ? mig_next_gid(context, attr->port_num, attr->grh.sgid_index)
		    : mig_gid_find(context, attr->port_num, attr->grh.sgid_index);
}

/* --- ways --- */

static void end_ways(struct mig_ah *ah)
{
	while (ah->ways) {
		struct mig_way *way = ah->ways;

		ah->ways = way->following;
		if (way->real)
			mig_real()->ibv_destroy_ah(way->real);
		if (way->next)
			mig_real()->ibv_destroy_ah(way->next);
		free(way);
	}
}

static struct mig_way *way_of(const struct mig_ah *ah, const union ibv_gid *gid)
{
	struct mig_way *way = ah->ways;

	while (way && !mig_gid_is(&way->gid, gid))
		way = way->following;
	return way;
}

static int make_way(struct mig_ah *ah, const union ibv_gid *gid)
{
	int next = ah->context->next != NULL;
	struct mig_way *way = way_of(ah, gid), *fresh = way ? NULL : calloc(1, sizeof(*fresh));

	if (!way && !fresh)
		return ENOMEM;
	way = way ? way : fresh;
	struct ibv_ah **real = next ? &way->next : &way->real;

	if (!*real)
		*real = make_real(next ? ah->pd->next : ah->pd->real, &ah->attr, map_of(ah->context, &ah->attr, next), gid);
	if (!*real) {
		free(fresh);
		return errno ? errno : EINVAL;
	}
	if (fresh) {
		fresh->gid = *gid;
		fresh->following = ah->ways;
		__atomic_store_n(&ah->ways, fresh, __ATOMIC_RELEASE);
	}
	return 0;
}

static int make_ways(struct mig_ah *ah, const struct mig_places *places)
{
	int error = 0;

	for (uint32_t i = 0; places && i < places->count && !error; i++) {
		const struct mig_place *place = &places->list[i];

		if (ah->attr.is_global && mig_gid_is(&place->gid, &ah->attr.grh.dgid) &&
		    !mig_gid_is(&place->now_gid, &place->gid))
			error = make_way(ah, &place->now_gid);
	}
	return error;
}

int mig_ah_make_ways(struct mig_context *context, const struct mig_places *places)
{
	int error = 0;

	MIG_EACH_OF(context, ahs, ah, mig_ah)
		if (!error)
			error = make_ways(ah, places);
	return error;
}

/* --- verbs --- */

/* A handle that is another one's name is kept until one is found that is not, so that the library does not give it again. */
static int ah_make_until_unique(struct mig_ah *ah)
{
	struct mig_refused refused = { 0 };
	struct ibv_ah *other;
	int error;

	do {
		ah->handle = ah->real =
			make_real(ah->pd->real, &ah->attr, map_of(ah->context, &ah->attr, 0), &ah->attr.grh.dgid);
		error = ah->real ? mig_ah_add(ah) : errno;
		if (error == EEXIST && mig_refuse(&refused, ah->real))
			error = ENOMEM;
		if (ah->real && error && error != EEXIST)
			mig_real()->ibv_destroy_ah(ah->real);
	} while (error == EEXIST);
	while ((other = mig_refused_next(&refused)))
		mig_real()->ibv_destroy_ah(other);
	return error;
}

/* The GID that it sends from: after a restore the device cannot be asked any more. 0, or ENOSPC. */
static int know_own_gid(struct mig_context *context, uint32_t port, uint32_t index)
{
	struct mig_own_gid own = { .port = port, .index = index };

	mig_lock(&context->lock);
	int i = 0, count = context->own_gid_count;
	while (i < count && (context->own_gids[i].port != port || context->own_gids[i].index != index))
		i++;
	mig_unlock(&context->lock);
	if (i < count)
		return 0;
	if (ibv_query_gid(&context->verbs.context, (uint8_t)port, (int)index, &own.gid))
		return 0;
	/* Another thread may have found the same; then it is there twice. */
	MIG_LOCKED(&context->lock);
	if (context->own_gid_count == MIG_GID_MAPS)
		return ENOSPC;
	context->own_gids[context->own_gid_count++] = own;
	return 0;
}

/* Nobody but who made it knows it yet. */
static void end_unknown(struct mig_ah *ah)
{
	mig_ah_remove(ah);
	if (ah->context->translate)
		mig_synchronize();
	end_ways(ah);
	mig_real()->ibv_destroy_ah(ah->real);
	free(ah);
}

struct ibv_ah *ibv_create_ah(struct ibv_pd *pd, struct ibv_ah_attr *attr)
{
	if (!mig_pd(pd))
		return mig_real()->ibv_create_ah(pd, attr);
	MIG_VERB;
	struct mig_ah *ah = calloc(1, sizeof(*ah));
	if (!ah) {
		errno = ENOMEM;
		return NULL;
	}
	ah->context = mig_context(pd->context);
	ah->pd = mig_pd(pd);
	ah->attr = *attr;
	int error = ah_make_until_unique(ah);
	if (error) {
		free(ah);
		errno = error;
		return NULL;
	}
	error = make_ways(ah, mig_places);
	if (error) {
		end_unknown(ah);
		errno = error;
		return NULL;
	}
	mig_lock(&ah->context->lock);
	mig_list_add(&ah->context->ahs, &ah->link);
	mig_unlock(&ah->context->lock);
	if (!attr->is_global)
		mig_mark(ah->context, ah->handle, no_route);
	else if (know_own_gid(ah->context, attr->port_num, attr->grh.sgid_index))
		mig_mark(ah->context, ah->handle, too_many);
	return ah->handle;
}

/* Whom it talked to is told of a move, too, as far as it is remembered. Must hold the context's lock. */
static void ah_remember(struct mig_context *context, const struct ibv_ah_attr *attr)
{
	if (!attr->is_global)
		return;
	for (uint32_t i = 0; i < context->formers_made && i < MIG_FORMERS; i++)
		if (mig_gid_is(&context->formers[i], &attr->grh.dgid))
			return;
	context->formers[context->formers_made++ % MIG_FORMERS] = attr->grh.dgid;
}

/* Devices take what they need of a handle when a request is posted; one that is kept has not been posted yet. With the lock. */
static int is_named(const struct mig_ah *ah)
{
	struct mig_context *context = ah->context;

	MIG_EACH_OF(context, qps, qp, mig_qp) {
		MIG_LOCKED(&qp->send_lock);
		for (const struct mig_send *send = mig_is_datagram(qp) ? qp->kept : NULL; send; send = send->next)
			if (send->wr.wr.ud.ah == ah->handle)
				return 1;
	}
	return 0;
}

static int is_needed(const struct mig_ah *ah)
{
	struct mig_context *context = ah->context;

	if (!__atomic_load_n(&context->keeping, __ATOMIC_RELAXED))
		return 0;
	MIG_LOCKED(&context->lock);
	return is_named(ah);
}

static int ah_end_now(struct mig_ah *ah)
{
	struct mig_mark *marks = mig_marks_take(ah->handle);

	/* Before: another thread may be given the same address as soon as it is ended. */
	mig_ah_remove(ah);
	int error = mig_real()->ibv_destroy_ah(ah->real);
	mig_marks_settle(marks, error);
	if (error) {
		mig_ah_add(ah);
		return error;
	}
	mig_lock(&ah->context->lock);
	mig_list_remove(&ah->link);
	ah_remember(ah->context, &ah->attr);
	mig_unlock(&ah->context->lock);
	if (ah->context->translate)
		mig_synchronize();
	end_ways(ah);
	free(ah);
	return 0;
}

int ibv_destroy_ah(struct ibv_ah *handle)
{
	MIG_VERB;
	struct mig_ah *ah = mig_ah_find(handle);

	if (!ah)
		return mig_real()->ibv_destroy_ah(handle);
	ah->has_ended = is_needed(ah);
	return ah->has_ended ? 0 : ah_end_now(ah);
}

/* Nobody else ends it: who comes for it next finds it taken. */
static struct mig_ah *take_one_that_has_ended(struct mig_context *context)
{
	MIG_LOCKED(&context->lock);
	MIG_EACH_OF(context, ahs, ah, mig_ah)
		if (ah->has_ended && !is_named(ah)) {
			ah->has_ended = 0;
			return ah;
		}
	return NULL;
}

void mig_ah_end_rest(struct mig_context *context)
{
	struct mig_ah *ah;

	while ((ah = take_one_that_has_ended(context)))
		if (ah_end_now(ah)) {
			ah->has_ended = 1;
			break;
		}
}

/* The header says where the application takes itself to be; the device knows the port by another name, which it is asked by. */
int ibv_init_ah_from_wc(struct ibv_context *ibv, uint8_t port, struct ibv_wc *wc, struct ibv_grh *grh,
			struct ibv_ah_attr *attr)
{
	struct mig_context *context = mig_context(ibv);
	const struct mig_gid_map *map = NULL;
	union ibv_gid from, to;
	struct ibv_grh theirs;

	if (!context)
		return mig_real()->ibv_init_ah_from_wc(ibv, port, wc, grh, attr);
	MIG_VERB;
	if (wc->wc_flags & IBV_WC_GRH) {
		memcpy(&theirs, grh, sizeof(theirs));
		mig_grh_read((const unsigned char *)grh, &from, &to);
		for (int i = 0; i < context->gid_count && !map; i++)
			if (context->gids[i].port == port && mig_gid_is(&context->gids[i].gid, &to))
				map = &context->gids[i];
		if (map)
			mig_grh_write((unsigned char *)&theirs, &from, &map->now);
		grh = &theirs;
	}
	int error = mig_real()->ibv_init_ah_from_wc(context->real, map ? (uint8_t)map->new_port : port, wc, grh, attr);
	if (!error && map) {
		attr->port_num = port;
		attr->grh.sgid_index = (uint8_t)map->index;
	}
	return error;
}

struct ibv_ah *ibv_create_ah_from_wc(struct ibv_pd *pd, struct ibv_wc *wc, struct ibv_grh *grh, uint8_t port)
{
	struct ibv_ah_attr attr;

	if (!mig_pd(pd))
		return mig_real()->ibv_create_ah_from_wc(pd, wc, grh, port);
	return ibv_init_ah_from_wc(pd->context, port, wc, grh, &attr) ? NULL : ibv_create_ah(pd, &attr);
}

struct ibv_ah *mig_ah_to_itself(const struct mig_qp *qp)
{
	const struct mig_context *context = mig_context(qp->ibv.context);
	const struct mig_own_gid *own = context->own_gids;
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = qp->attr.port_num, .grh.hop_limit = 1 };

	if (context->own_gid_count) {
		attr.port_num = (uint8_t)own->port;
		attr.grh.sgid_index = (uint8_t)own->index;
	}
	const struct mig_gid_map *map = map_of(context, &attr, 0);

	if (mig_real()->ibv_query_gid(qp->real->context, map ? (uint8_t)map->new_port : attr.port_num,
				      map ? (int)map->new_index : attr.grh.sgid_index, &attr.grh.dgid))
		return NULL;
	return make_real(qp->real->pd, &attr, map, &attr.grh.dgid);
}

/* --- as a kind --- */

static struct mig_ah *ah_of(struct mig_link *object)
{
	return MIG_CONTAINER(object, struct mig_ah, link);
}

static int ah_make(struct mig_context *context, struct mig_link *object)
{
	struct mig_ah *ah = ah_of(object);
	const struct mig_gid_map *map = map_of(context, &ah->attr, 1);

	ah->next = make_real(ah->pd->next, &ah->attr, map, &ah->attr.grh.dgid);
	if (!ah->next)
		return errno;
	for (struct mig_way *way = ah->ways; way; way = way->following)
		if (!(way->next = make_real(ah->pd->next, &ah->attr, map, &way->gid)))
			return errno;
	return 0;
}

static void end_next(struct ibv_ah **next)
{
	if (*next)
		mig_real()->ibv_destroy_ah(*next);
	*next = NULL;
}

static void ah_end(struct mig_link *object)
{
	struct mig_ah *ah = ah_of(object);

	end_next(&ah->next);
	for (struct mig_way *way = ah->ways; way; way = way->following)
		end_next(&way->next);
}

static void ah_give_up(struct mig_context *context, struct mig_link *object)
{
	(void)context;
	ah_end(object);
}

static void ah_exchange(struct mig_context *context, struct mig_link *object)
{
	struct mig_ah *ah = ah_of(object);

	(void)context;
	MIG_EXCHANGE(ah->real, ah->next);
	for (struct mig_way *way = ah->ways; way; way = way->following)
		MIG_EXCHANGE(way->real, way->next);
}

static void ah_forget(struct mig_link *object)
{
	struct mig_ah *ah = ah_of(object);

	ah->next = NULL;
	for (struct mig_way *way = ah->ways; way; way = way->following)
		way->next = NULL;
}

const struct mig_kind mig_ah_kind = {
	.name = "address handle",
	.list = MIG_LIST_OF(ahs),
	.make = ah_make,
	.give_up = ah_give_up,
	.exchange = ah_exchange,
	.end = ah_end,
	.forget = ah_forget,
};
