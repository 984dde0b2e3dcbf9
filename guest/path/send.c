/*
 * Posting sends.
 *
 * The fast way looks at one word and calls the real function with what the application gave. It counts nothing:
 * whether the queue is empty is found out when it matters, with a marker behind the last send (move/quiesce.c).
 */
#include "path/send.h"

#include <errno.h>

#include "base/likely.h"
#include "base/section.h"
#include "path/kept.h"
#include "path/send_real.h"
#include "path/translate.h"

#define QUIESCED (MIG_GATE_KEEP | MIG_GATE_FLUSH)

static int send_slowly(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_section *section = mig_section_get();

	if (!section) {
		if (bad)
			*bad = wr;
		return ENOMEM;
	}
	for (;;) {
		uint32_t gate = MIG_GATE(qp->send_gate);

		if (gate & MIG_GATE_FRESH)
			mig_send_gate(qp, 0, MIG_GATE_FRESH);
		if (gate & QUIESCED) {
			int result = mig_send_keep(qp, wr, bad);

			if (result >= 0 && gate & MIG_GATE_FLUSH) {
				struct mig_send *done = NULL;

				mig_send_flush(qp, &done);
				mig_send_free(done);
			}
			if (result >= 0)
				return result;
			continue;
		}
		uint64_t outer = mig_section_enter_nested(section);

		gate = MIG_GATE(qp->send_gate);
		if (gate & (QUIESCED | MIG_GATE_FRESH)) {
			mig_section_leave_nested(section, outer);
			continue;
		}
		int result = mig_send_real(qp, gate, wr, bad);
		mig_section_leave_nested(section, outer);
		return result;
	}
}

#define SEND_FEW 4

/* Where else in a request there is a number of the other end. */
enum names { NAMES_NO_MORE, NAMES_A_QUEUE };

/*
 * The usual requests alone in their list: without the loops of the general case, and member by member, because a wide
 * load of what the application has just written in parts would wait for all of it. Ends the caller's section.
 */
static inline __attribute__((always_inline)) int send_one(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad,
							  struct mig_section *section, enum names names)
{
	const struct mig_keymap *lkeys =
		MIG_CONTAINER(qp->ibv.context, struct mig_context, verbs.context)->lkeys;
	struct ibv_send_wr copy, *failed;
	struct ibv_sge sges[SEND_FEW];

	if (!wr || wr->next || (unsigned int)wr->num_sge > SEND_FEW)
		goto unusual;
	if (MIG_LIKELY(wr->opcode <= IBV_WR_RDMA_WRITE_WITH_IMM || wr->opcode == IBV_WR_RDMA_READ)) {
		copy.wr.rdma.remote_addr = wr->wr.rdma.remote_addr;
		copy.wr.rdma.rkey = mig_keymap_get(qp->rkeys, wr->wr.rdma.rkey);
	} else if (wr->opcode != IBV_WR_SEND && wr->opcode != IBV_WR_SEND_WITH_IMM) {
		goto unusual;
	}
	copy.wr_id = wr->wr_id;
	copy.next = NULL;
	copy.sg_list = sges;
	copy.num_sge = wr->num_sge;
	copy.opcode = wr->opcode;
	copy.send_flags = wr->send_flags;
	copy.imm_data = wr->imm_data;
	if (names == NAMES_A_QUEUE)
		copy.qp_type.xrc.remote_srqn = mig_keymap_get(qp->srqns, wr->qp_type.xrc.remote_srqn);
	mig_translate_sges(lkeys, sges, wr->sg_list, wr->num_sge);

	int error = qp->post_send(qp->real, &copy, &failed);
	mig_section_leave(section);
	if (MIG_UNLIKELY(error) && bad)
		*bad = wr;
	return error;

unusual:
	mig_section_leave(section);
	return send_slowly(qp, wr, bad);
}

/* Functions of their own, as the way of those who have not moved would else save their registers. */
static __attribute__((noinline)) int send_one_translated(struct mig_qp *qp, struct ibv_send_wr *wr,
							 struct ibv_send_wr **bad, struct mig_section *section)
{
	return send_one(qp, wr, bad, section, NAMES_NO_MORE);
}

static __attribute__((noinline)) int send_one_of_xrc(struct mig_qp *qp, struct ibv_send_wr *wr, struct ibv_send_wr **bad,
						     struct mig_section *section)
{
	return send_one(qp, wr, bad, section, NAMES_A_QUEUE);
}

int mig_post_send(struct ibv_qp *ibv, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
	struct mig_qp *qp = MIG_CONTAINER(ibv, struct mig_qp, ibv);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!mig_section_is_free(section)))
		return send_slowly(qp, wr, bad);
	mig_section_enter(section);
	uint32_t gate = MIG_GATE(qp->send_gate);
	if (MIG_UNLIKELY(gate)) {
		if (MIG_LIKELY(gate == MIG_GATE_TRANSLATE))
			return send_one_translated(qp, wr, bad, section);
		if (MIG_LIKELY(gate == (MIG_GATE_TRANSLATE | MIG_GATE_SRQNS)))
			return send_one_of_xrc(qp, wr, bad, section);
		mig_section_leave(section);
		return send_slowly(qp, wr, bad);
	}
	int result = qp->post_send(qp->real, wr, bad);
	mig_section_leave(section);
	return result;
}
