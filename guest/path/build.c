/*
 * Posting sends by ibv_wr_*.
 *
 * From ibv_wr_start to ibv_wr_complete an application may take its time, and call other verbs. So it is in no section
 * meanwhile: it says in `building` that it holds the real queue, and a drain waits for it. The fast way tells the real
 * functions at once. If sends are kept it tells nobody: copies are made, which are kept or posted in the end together, or none
 * of them.
 *
 * What the application says of the next request is in the QP itself, which the real one's lock makes its own. Who builds to
 * keep has that lock not: it makes everybody else go this way, waits for those who are on the other, and holds a lock of ours.
 */
#include "path/build.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/likely.h"
#include "base/section.h"
#include "path/datagram.h"
#include "path/kept.h"
#include "path/replay.h"
#include "path/translate.h"
#include "path/window.h"

#define QUIESCED (MIG_GATE_KEEP | MIG_GATE_FLUSH)
/* Setters do it as they are called. */
#define TRANSLATES (MIG_GATE_TRANSLATE | MIG_GATE_SRQNS | MIG_GATE_DATAGRAM)

static inline struct mig_qp *builder(struct ibv_qp_ex *ex)
{
	return MIG_CONTAINER(ex, struct mig_qp, ex);
}

static inline void set_building(struct mig_qp *qp, enum mig_building how)
{
	__atomic_store_n(&qp->building, how, __ATOMIC_RELEASE);
}

static void begin_copies(struct mig_build *build)
{
	build->first = build->last = NULL;
	build->end = &build->first;
	build->count = 0;
	build->error = 0;
}

/* In a section: whoever closes the gate waits for it, and then for what is built. */
static inline void begin_directly(struct mig_qp *qp)
{
	qp->real_ex->wr_start(qp->real_ex);
	if (MIG_UNLIKELY(MIG_CONTAINER(qp->ibv.context, struct mig_context, verbs.context)->has_windows)) {
		begin_copies(qp->build);
		set_building(qp, MIG_BUILDING_COPIES);
	} else {
		set_building(qp, MIG_BUILDING_DIRECTLY);
	}
}

/*
 * Whether somebody holds the real queue already. Who would wait for its lock does so outside of a section: the one who holds
 * it may call a verb that waits for all sections.
 */
static inline int is_taken(const struct mig_qp *qp)
{
	return __atomic_load_n(&qp->building, __ATOMIC_ACQUIRE) != MIG_BUILDING_NOTHING;
}

static void end_keeping(struct mig_qp *qp)
{
	set_building(qp, MIG_BUILDING_NOTHING);
	mig_send_gate(qp, 0, MIG_GATE_BUILD);
	mig_unlock(&qp->build->lock);
}

/* Whether it is so: not if sends are not kept any more. */
static int begin_to_keep(struct mig_qp *qp, const struct mig_section *section)
{
	mig_lock(&qp->build->lock);
	mig_send_gate(qp, MIG_GATE_BUILD, 0);
	if (section && !(MIG_GATE(qp->send_gate) & QUIESCED)) {
		end_keeping(qp);
		return 0;
	}
	mig_synchronize();
	/* As it would wait for the real lock. */
	while (is_taken(qp))
		sched_yield();
	begin_copies(qp->build);
	qp->build->error = section ? 0 : ENOMEM;
	set_building(qp, MIG_BUILDING_TO_KEEP);
	return 1;
}

static void start_slowly(struct mig_qp *qp)
{
	struct mig_section *section = mig_section_get();

	for (;;) {
		uint32_t gate = MIG_GATE(qp->send_gate);

		if (gate & MIG_GATE_FRESH)
			mig_send_gate(qp, 0, MIG_GATE_FRESH);
		if (!section || gate & (QUIESCED | MIG_GATE_BUILD)) {
			if (begin_to_keep(qp, section))
				return;
			continue;
		}
		if (is_taken(qp)) {
			sched_yield();
			continue;
		}
		uint64_t outer = mig_section_enter_nested(section);
		int is_open = !(MIG_GATE(qp->send_gate) & ~(uint32_t)TRANSLATES);

		if (is_open)
			begin_directly(qp);
		mig_section_leave_nested(section, outer);
		if (is_open)
			return;
	}
}

static void wr_start(struct ibv_qp_ex *ex)
{
	struct mig_qp *qp = builder(ex);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(!mig_section_is_free(section))) {
		start_slowly(qp);
		return;
	}
	mig_section_enter(section);
	if (MIG_UNLIKELY(MIG_GATE(qp->send_gate) & ~(uint32_t)TRANSLATES || is_taken(qp))) {
		mig_section_leave(section);
		start_slowly(qp);
		return;
	}
	begin_directly(qp);
	mig_section_leave(section);
}

/* Keeps them, or posts them if sends are not kept any more; takes them. */
static int keep_or_post(struct mig_qp *qp, struct mig_send *first, struct mig_send **end, uint32_t count)
{
	struct mig_section *section = mig_section_get();
	struct mig_send *done = NULL;

	for (;;) {
		uint32_t gate = MIG_GATE(qp->send_gate);

		if (gate & MIG_GATE_FRESH)
			mig_send_gate(qp, 0, MIG_GATE_FRESH);
		if (gate & QUIESCED) {
			int result = mig_send_keep_all(qp, first, end, count);

			if (result < 0)
				continue;
			if (result)
				mig_send_free(first);
			else if (gate & MIG_GATE_FLUSH)
				mig_send_flush(qp, &done);
			mig_send_free(done);
			return result;
		}
		uint64_t outer = mig_section_enter_nested(section);
		int is_open = !(MIG_GATE(qp->send_gate) & (QUIESCED | MIG_GATE_FRESH)), result = 0;

		if (is_open) {
			qp->real_ex->wr_start(qp->real_ex);
			result = mig_replay(qp, first);
		}
		mig_section_leave_nested(section, outer);
		if (!is_open)
			continue;
		mig_send_free(first);
		return result;
	}
}

static int complete_kept(struct mig_qp *qp)
{
	struct mig_build *build = qp->build;
	int error = build->error;

	if (error)
		mig_send_free(build->first);
	else if (build->count)
		error = keep_or_post(qp, build->first, build->end, build->count);
	end_keeping(qp);
	return error;
}

static int complete_slowly(struct mig_qp *qp)
{
	if (qp->building == MIG_BUILDING_TO_KEEP)
		return complete_kept(qp);

	struct mig_section *section = mig_section_get();
	int copied = qp->building == MIG_BUILDING_COPIES, error = copied ? qp->build->error : 0;
	struct mig_send *first = copied ? qp->build->first : NULL;
	uint64_t outer = mig_section_enter_nested(section);

	set_building(qp, MIG_BUILDING_NOTHING);
	if (error)
		qp->real_ex->wr_abort(qp->real_ex);
	else
		error = copied ? mig_replay(qp, first) : qp->complete(qp->real_ex);
	mig_section_leave_nested(section, outer);
	mig_send_free(first);
	return error;
}

static int wr_complete(struct ibv_qp_ex *ex)
{
	struct mig_qp *qp = builder(ex);
	struct mig_section *section = mig_section_mine;

	if (MIG_UNLIKELY(qp->building != MIG_BUILDING_DIRECTLY || !mig_section_is_free(section)))
		return complete_slowly(qp);
	/* Said before it is so, as the lock is another one's afterwards; the section holds off who believes it. */
	mig_section_enter(section);
	set_building(qp, MIG_BUILDING_NOTHING);
	int error = qp->complete(qp->real_ex);
	mig_section_leave(section);
	return error;
}

static void wr_abort(struct ibv_qp_ex *ex)
{
	struct mig_qp *qp = builder(ex);
	struct mig_send *first = qp->building == MIG_BUILDING_DIRECTLY ? NULL : qp->build->first;

	if (qp->building == MIG_BUILDING_TO_KEEP) {
		end_keeping(qp);
	} else {
		struct mig_section *section = mig_section_get();
		uint64_t outer = mig_section_enter_nested(section);

		set_building(qp, MIG_BUILDING_NOTHING);
		qp->real_ex->wr_abort(qp->real_ex);
		mig_section_leave_nested(section, outer);
	}
	mig_send_free(first);
}

/* The real one, told what the application says of the next request; NULL: copies are made. */
static inline struct ibv_qp_ex *direct(struct mig_qp *qp)
{
	if (MIG_UNLIKELY(qp->building != MIG_BUILDING_DIRECTLY))
		return NULL;
	/* Only now: while copies are made it may be exchanged. */
	struct ibv_qp_ex *real = qp->real_ex;

	real->wr_id = qp->ex.wr_id;
	real->wr_flags = qp->ex.wr_flags;
	return real;
}

static inline uint32_t peer_key(const struct mig_qp *qp, uint32_t rkey)
{
	return mig_keymap_get(qp->rkeys, rkey);
}

static inline uint32_t own_key(const struct mig_qp *qp, uint32_t lkey)
{
	return mig_keymap_get(MIG_CONTAINER(qp->ibv.context, struct mig_context, verbs.context)->lkeys, lkey);
}

static void fail(struct mig_build *build, int error)
{
	if (!build->error)
		build->error = error;
}

/* One more, with room for all that its setters may say. */
static void copy(struct mig_qp *qp, const struct ibv_send_wr *wr)
{
	struct mig_build *build = qp->build;
	struct mig_send *send = NULL;
	size_t sges = (qp->cap.max_send_sge + 1) * sizeof(send->sges[0]);

	if (!build->error)
		send = malloc(sizeof(*send) + sges + qp->cap.max_inline_data);
	build->last = send;
	if (!send) {
		fail(build, ENOMEM);
		return;
	}
	send->next = NULL;
	send->wr = *wr;
	mig_window_note(&send->wr);
	send->wr.wr_id = qp->ex.wr_id;
	send->wr.send_flags = qp->ex.wr_flags & ~(unsigned int)IBV_SEND_INLINE;
	send->wr.sg_list = send->sges;
	*build->end = send;
	build->end = &send->next;
	build->count++;
}

static void copy_remote(struct mig_qp *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr, __be32 imm)
{
	struct ibv_send_wr wr = { .opcode = opcode, .imm_data = imm };

	wr.wr.rdma.remote_addr = addr;
	wr.wr.rdma.rkey = rkey;
	copy(qp, &wr);
}

static void copy_atomic(struct mig_qp *qp, enum ibv_wr_opcode opcode, uint32_t rkey, uint64_t addr, uint64_t compare_add,
			uint64_t swap)
{
	struct ibv_send_wr wr = { .opcode = opcode };

	wr.wr.atomic.remote_addr = addr;
	wr.wr.atomic.compare_add = compare_add;
	wr.wr.atomic.swap = swap;
	wr.wr.atomic.rkey = rkey;
	copy(qp, &wr);
}

static void wr_rdma_write(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_rdma_write(real, peer_key(qp, rkey), addr);
	else
		copy_remote(qp, IBV_WR_RDMA_WRITE, rkey, addr, 0);
}

static void wr_rdma_write_imm(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, __be32 imm)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_rdma_write_imm(real, peer_key(qp, rkey), addr, imm);
	else
		copy_remote(qp, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, addr, imm);
}

static void wr_rdma_read(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_rdma_read(real, peer_key(qp, rkey), addr);
	else
		copy_remote(qp, IBV_WR_RDMA_READ, rkey, addr, 0);
}

static void wr_send(struct ibv_qp_ex *ex)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_send(real);
	else
		copy_remote(qp, IBV_WR_SEND, 0, 0, 0);
}

static void wr_send_imm(struct ibv_qp_ex *ex, __be32 imm)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_send_imm(real, imm);
	else
		copy_remote(qp, IBV_WR_SEND_WITH_IMM, 0, 0, imm);
}

static void wr_send_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND_WITH_INV };

	if (MIG_LIKELY(real != NULL)) {
		real->wr_send_inv(real, peer_key(qp, rkey));
		return;
	}
	wr.invalidate_rkey = rkey;
	copy(qp, &wr);
}

static void wr_atomic_cmp_swp(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, uint64_t compare, uint64_t swap)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_atomic_cmp_swp(real, peer_key(qp, rkey), addr, compare, swap);
	else
		copy_atomic(qp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, addr, compare, swap);
}

static void wr_atomic_fetch_add(struct ibv_qp_ex *ex, uint32_t rkey, uint64_t addr, uint64_t add)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);

	if (MIG_LIKELY(real != NULL))
		real->wr_atomic_fetch_add(real, peer_key(qp, rkey), addr, add);
	else
		copy_atomic(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, addr, add, 0);
}

/* The last two are followed if they are about windows: as long as there is none, the number is somebody else's. */
static void wr_local_inv(struct ibv_qp_ex *ex, uint32_t rkey)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);
	struct ibv_send_wr wr = { .opcode = IBV_WR_LOCAL_INV };

	if (real) {
		real->wr_local_inv(real, rkey);
		return;
	}
	wr.invalidate_rkey = rkey;
	copy(qp, &wr);
}

static void wr_bind_mw(struct ibv_qp_ex *ex, struct ibv_mw *mw, uint32_t rkey, const struct ibv_mw_bind_info *info)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_qp_ex *real = direct(qp);
	struct ibv_send_wr wr = { .opcode = IBV_WR_BIND_MW };

	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = rkey;
	wr.bind_mw.bind_info = *info;
	if (!real) {
		copy(qp, &wr);
		return;
	}
	/* The first window was made since ibv_wr_start. */
	mig_window_posted(qp, &wr);
	mig_window_note(&wr);
	mig_window_translate(mig_context(qp->ibv.context), &wr);
	real->wr_bind_mw(real, wr.bind_mw.mw, wr.bind_mw.rkey, &wr.bind_mw.bind_info);
}

static void copy_sges(struct mig_qp *qp, size_t count, const struct ibv_sge *sges)
{
	struct mig_send *send = qp->build->last;

	if (!send)
		return;
	if (count > qp->cap.max_send_sge) {
		fail(qp->build, EINVAL);
		return;
	}
	send->wr.num_sge = (int)count;
	for (size_t i = 0; i < count; i++)
		mig_copy_sge(&send->sges[i], &sges[i]);
}

static void wr_set_sge(struct ibv_qp_ex *ex, uint32_t lkey, uint64_t addr, uint32_t length)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_sge sge = { addr, length, lkey };

	if (MIG_LIKELY(qp->building == MIG_BUILDING_DIRECTLY))
		qp->real_ex->wr_set_sge(qp->real_ex, own_key(qp, lkey), addr, length);
	else
		copy_sges(qp, 1, &sge);
}

static void wr_set_sge_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_sge *list)
{
	struct mig_qp *qp = builder(ex);
	const struct mig_keymap *lkeys = mig_context(qp->ibv.context)->lkeys;
	struct ibv_sge sges[MIG_MOST_SGES];

	if (qp->building != MIG_BUILDING_DIRECTLY) {
		copy_sges(qp, count, list);
		return;
	}
	/* A list too long for the queue is the real library's to refuse, before it is read. */
	if (lkeys && count <= qp->cap.max_send_sge) {
		mig_translate_sges(lkeys, sges, list, (int)count);
		list = sges;
	}
	qp->real_ex->wr_set_sge_list(qp->real_ex, count, list);
}

/* The application may reuse its buffers at once. */
static void copy_inline(struct mig_qp *qp, size_t count, const struct ibv_data_buf *buffers)
{
	struct mig_send *send = qp->build->last;
	size_t length = 0;

	if (!send)
		return;
	char *data = (char *)&send->sges[qp->cap.max_send_sge + 1];
	/* As many as they were, where there is room: the real library may have another way for a list. */
	int is_one = !count || count > qp->cap.max_send_sge;

	for (size_t i = 0; i < count; i++) {
		if (buffers[i].length > qp->cap.max_inline_data - length) {
			fail(qp->build, EINVAL);
			return;
		}
		memcpy(data + length, buffers[i].addr, buffers[i].length);
		if (!is_one)
			send->sges[i] = (struct ibv_sge){ .addr = (uintptr_t)data + length,
							  .length = (uint32_t)buffers[i].length };
		length += buffers[i].length;
	}
	if (is_one)
		send->sges[0] = (struct ibv_sge){ .addr = (uintptr_t)data, .length = (uint32_t)length };
	send->wr.num_sge = is_one ? 1 : (int)count;
	send->wr.send_flags |= IBV_SEND_INLINE;
}

static void wr_set_inline_data(struct ibv_qp_ex *ex, void *addr, size_t length)
{
	struct mig_qp *qp = builder(ex);
	struct ibv_data_buf buffer = { addr, length };

	if (MIG_LIKELY(qp->building == MIG_BUILDING_DIRECTLY))
		qp->real_ex->wr_set_inline_data(qp->real_ex, addr, length);
	else
		copy_inline(qp, 1, &buffer);
}

static void wr_set_inline_data_list(struct ibv_qp_ex *ex, size_t count, const struct ibv_data_buf *buffers)
{
	struct mig_qp *qp = builder(ex);

	if (MIG_LIKELY(qp->building == MIG_BUILDING_DIRECTLY))
		qp->real_ex->wr_set_inline_data_list(qp->real_ex, count, buffers);
	else
		copy_inline(qp, count, buffers);
}

/*
 * To whom it goes is looked up now: that may change while somebody builds, as no queue pair of a partner rests for it. Real
 * functions take of the handle what they need.
 */
static void set_moved_address(struct mig_qp *qp, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	struct ibv_send_wr wr = { .wr.ud = { ah, qpn, qkey } };
	struct mig_section *section = mig_section_get();
	uint64_t outer = mig_section_enter_nested(section);

	mig_datagram_translate(&wr);
	qp->real_ex->wr_set_ud_addr(qp->real_ex, wr.wr.ud.ah, wr.wr.ud.remote_qpn, qkey);
	mig_section_leave_nested(section, outer);
}

static void wr_set_ud_addr(struct ibv_qp_ex *ex, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey)
{
	struct mig_qp *qp = builder(ex);

	/* Of no meaning to other kinds. */
	if (!mig_is_datagram(qp))
		return;
	if (MIG_LIKELY(qp->building == MIG_BUILDING_DIRECTLY)) {
		if (MIG_LIKELY(!(MIG_GATE(qp->send_gate) & MIG_GATE_DATAGRAM)))
			qp->real_ex->wr_set_ud_addr(qp->real_ex, ah, qpn, qkey);
		else
			set_moved_address(qp, ah, qpn, qkey);
	} else if (qp->build->last) {
		qp->build->last->wr.wr.ud.ah = ah;
		qp->build->last->wr.wr.ud.remote_qpn = qpn;
		qp->build->last->wr.wr.ud.remote_qkey = qkey;
	}
}

static void wr_set_xrc_srqn(struct ibv_qp_ex *ex, uint32_t srqn)
{
	struct mig_qp *qp = builder(ex);

	/* Of no meaning to other kinds. */
	if (qp->ibv.qp_type != IBV_QPT_XRC_SEND)
		return;
	if (MIG_LIKELY(qp->building == MIG_BUILDING_DIRECTLY))
		qp->real_ex->wr_set_xrc_srqn(qp->real_ex, mig_keymap_get(qp->srqns, srqn));
	else if (qp->build->last)
		qp->build->last->wr.qp_type.xrc.remote_srqn = srqn;
}

void mig_build_offer(struct mig_qp *qp)
{
	struct ibv_qp_ex *ex = &qp->ex;

	ex->wr_start = wr_start;
	ex->wr_complete = wr_complete;
	ex->wr_abort = wr_abort;
	ex->wr_rdma_write = wr_rdma_write;
	ex->wr_rdma_write_imm = wr_rdma_write_imm;
	ex->wr_rdma_read = wr_rdma_read;
	ex->wr_send = wr_send;
	ex->wr_send_imm = wr_send_imm;
	ex->wr_send_inv = wr_send_inv;
	ex->wr_atomic_cmp_swp = wr_atomic_cmp_swp;
	ex->wr_atomic_fetch_add = wr_atomic_fetch_add;
	ex->wr_local_inv = wr_local_inv;
	ex->wr_bind_mw = wr_bind_mw;
	ex->wr_set_sge = wr_set_sge;
	ex->wr_set_sge_list = wr_set_sge_list;
	ex->wr_set_inline_data = wr_set_inline_data;
	ex->wr_set_inline_data_list = wr_set_inline_data_list;
	ex->wr_set_ud_addr = wr_set_ud_addr;
	ex->wr_set_xrc_srqn = wr_set_xrc_srqn;
}
