#include "path/datagram.h"

#include <string.h>

#include "base/section.h"
#include "path/grh.h"
#include "shadow/ah.h"
#include "shadow/places.h"

static struct ibv_ah *way_to(const struct mig_ah *ah, const union ibv_gid *gid)
{
	const struct mig_way *way = __atomic_load_n(&ah->ways, __ATOMIC_ACQUIRE);

	while (way && !mig_gid_is(&way->gid, gid))
		way = __atomic_load_n(&way->following, __ATOMIC_ACQUIRE);
	return way && way->real ? way->real : ah->real;
}

void mig_datagram_translate(struct ibv_send_wr *wr)
{
	const struct mig_places *places = MIG_GATE(mig_places);
	const struct mig_ah *ah = mig_ah_find(wr->wr.ud.ah);

	if (!ah)
		return;
	const struct mig_place *place = places ? mig_place_named(places, &ah->attr.grh.dgid, wr->wr.ud.remote_qpn) : NULL;

	wr->wr.ud.ah = place ? way_to(ah, &place->now_gid) : ah->real;
	if (place)
		wr->wr.ud.remote_qpn = place->now_qpn;
}

/* Copies between the header and the memory that it is scattered over; 0 if that is too short. */
static int copy_header(unsigned char *grh, const struct ibv_sge *sges, uint32_t num_sge, int back)
{
	uint32_t done = 0;

	for (uint32_t i = 0; i < num_sge && done < MIG_GRH_BYTES; i++) {
		uint32_t part = sges[i].length < MIG_GRH_BYTES - done ? sges[i].length : MIG_GRH_BYTES - done;
		unsigned char *memory = (unsigned char *)(uintptr_t)sges[i].addr;

		if (back)
			memcpy(memory, grh + done, part);
		else
			memcpy(grh + done, memory, part);
		done += part;
	}
	return done == MIG_GRH_BYTES;
}

/* What the application takes a GID of the device of the moment for. */
static const union ibv_gid *own_gid(const struct mig_context *context, const union ibv_gid *gid)
{
	for (int i = 0; i < context->gid_count; i++)
		if (mig_gid_is(&context->gids[i].now, gid))
			return &context->gids[i].gid;
	return gid;
}

void mig_datagram_received(const struct mig_context *context, struct ibv_wc *wc, const struct ibv_sge *sges, uint32_t num_sge)
{
	const struct mig_places *places = MIG_GATE(mig_places);
	unsigned char grh[MIG_GRH_BYTES];
	union ibv_gid from, to;

	if (!(wc->wc_flags & IBV_WC_GRH) || !copy_header(grh, sges, num_sge, 0))
		return;
	mig_grh_read(grh, &from, &to);
	const struct mig_place *place = places ? mig_place_at(places, &from, wc->src_qp) : NULL;
	const union ibv_gid *own = own_gid(context, &to);

	if (place)
		wc->src_qp = place->qpn;
	if (!place && own == &to)
		return;
	mig_grh_write(grh, place ? &place->gid : &from, own);
	copy_header(grh, sges, num_sge, 1);
}
