/*
 * Two sides, each with a UD queue pair on a device of its own, that know each other by the numbers that they have told at first.
 *
 * Commands on stdin, each answered by "ok" or by what is wrong unless something else is said:
 *     post SIDE N          receives
 *     send SIDE WORD       to the other side; to itself, with "self" before the word; "wrong" with another Q_Key
 *     poll SIDE            everything that has completed: "sent:STATUS", and for what was received the word, and from whom and to
 *                          whom it is: "WORD:other:mine", where anything else is named by its numbers
 *     reply SIDE WORD      to whom the last datagram came from, by what came with it; the handle is ended again
 *     join SIDE, leave SIDE, shout SIDE WORD     a multicast group
 *     handle SIDE          another handle for the other side, from which the next ones are sent; the one before is ended
 *     failing SIDE         a send from memory that nobody has registered; go_on SIDE: from SQE to RTS
 *     stop SIDE            SQD
 *     fail SIDE            to the error state; again SIDE: from there to RESET, and to RTS as at first
 *     spare SIDE           a protection domain with a queue pair that sends once, by a handle that is ended at once; then all end
 *     shared SIDE          its receives are a shared queue's from now on, with another queue pair
 *     built SIDE           its sends are posted by ibv_wr_* from now on, with another queue pair
 *     begin SIDE           ibv_wr_start; finish SIDE WORD: the rest of a send to the other side
 *     region SIDE          memory whose addresses are not the process's
 *     numbers DEVICE QPN, restore, end
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../workloads/built.h"

#define NEED(condition)                                                                                    \
	do {                                                                                               \
		if (!(condition)) {                                                                        \
			printf("line %d: %s: %s\n", __LINE__, #condition, strerror(errno));                \
			return -1;                                                                         \
		}                                                                                          \
	} while (0)

#define QKEY 0x1234
#define SLOT 128
#define SLOTS 64

static const union ibv_gid group = { .raw = { 0xff, 0x0e, [10] = 0xff, 0xff, 0xe0, 0, 0, 7 } };

static struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	struct ibv_srq *srq;
	struct ibv_mr *mr;
	struct ibv_ah *ah, *to_self, *to_group;
	union ibv_gid gid; /* as it has been told to the other side, once */
	uint32_t qpn;
	unsigned int posted;
	struct ibv_wc last;
	int is_built;
	char memory[SLOTS][SLOT], word[SLOT];
} sides[2];

static struct side *other(const struct side *side)
{
	return &sides[side == sides];
}

static struct ibv_ah *handle(struct side *side, const union ibv_gid *to)
{
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1, .grh = { .dgid = *to, .sgid_index = 1, .hop_limit = 64 } };

	return ibv_create_ah(side->pd, &attr);
}

static int begin(struct side *side)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY };

	NEED(!ibv_modify_qp(side->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY));
	attr.qp_state = IBV_QPS_RTR;
	NEED(!ibv_modify_qp(side->qp, &attr, IBV_QP_STATE));
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS };
	NEED(!ibv_modify_qp(side->qp, &attr, IBV_QP_STATE | IBV_QP_SQ_PSN));
	return 0;
}

static int make(struct side *side)
{
	struct ibv_qp_init_attr init = { .send_cq = side->cq, .recv_cq = side->cq, .qp_type = IBV_QPT_UD,
					 .srq = side->srq, .cap = { 16, SLOTS, 1, 2, 0 } };

	NEED(side->qp = (side->is_built ? create_to_build : ibv_create_qp)(side->pd, &init));
	side->qpn = side->qp->qp_num;
	return begin(side);
}

static int open_all(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int i = 0; i < 2; i++) {
		struct side *side = &sides[i];

		NEED(side->context = ibv_open_device(list[i]));
		NEED(side->pd = ibv_alloc_pd(side->context));
		NEED(side->cq = ibv_create_cq(side->context, 128, NULL, NULL, 0));
		NEED(side->mr = ibv_reg_mr(side->pd, side->memory, sizeof(side->memory) + SLOT, IBV_ACCESS_LOCAL_WRITE));
		NEED(!ibv_query_gid(side->context, 1, 1, &side->gid));
		if (make(side))
			return -1;
	}
	for (int i = 0; i < 2; i++) {
		NEED(sides[i].ah = handle(&sides[i], &other(&sides[i])->gid));
		NEED(sides[i].to_self = handle(&sides[i], &sides[i].gid));
		NEED(sides[i].to_group = handle(&sides[i], &group));
	}
	ibv_free_device_list(list);
	return 0;
}

static int post(struct side *side, int count)
{
	while (count--) {
		unsigned int at = side->posted++ % SLOTS;
		uintptr_t memory = (uintptr_t)side->memory[at];
		/* The header may be scattered as the message is. */
		struct ibv_sge sges[] = { { memory, at % 2 ? 24 : SLOT / 2, side->mr->lkey },
					  { memory + (at % 2 ? 24 : SLOT / 2), SLOT / 2, side->mr->lkey } };
		struct ibv_recv_wr wr = { .wr_id = at, .sg_list = sges, .num_sge = 2 }, *bad;
		int error = side->srq ? ibv_post_srq_recv(side->srq, &wr, &bad) : ibv_post_recv(side->qp, &wr, &bad);

		if (error)
			return error;
	}
	return 0;
}

static int send_to(struct side *side, struct ibv_ah *ah, uint32_t qpn, uint32_t qkey, const char *word, uint32_t lkey)
{
	struct ibv_sge sge = { (uintptr_t)side->word, (uint32_t)strlen(word) + 1, lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
				  .wr.ud = { ah, qpn, qkey } }, *bad;

	strcpy(side->word, word);
	return post_built(side->qp, &wr, &bad);
}

static int begin_to_build(struct side *side)
{
	ibv_wr_start(ibv_qp_to_qp_ex(side->qp));
	return 0;
}

static int finish(struct side *side, const char *word)
{
	struct ibv_sge sge = { (uintptr_t)side->word, (uint32_t)strlen(word) + 1, side->mr->lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND, .send_flags = IBV_SEND_SIGNALED,
				  .wr.ud = { side->ah, other(side)->qpn, QKEY } };

	strcpy(side->word, word);
	NEED(build_one(ibv_qp_to_qp_ex(side->qp), &wr));
	return ibv_wr_complete(ibv_qp_to_qp_ex(side->qp));
}

static const char *who(const struct side *side, const union ibv_gid *gid)
{
	static char name[INET6_ADDRSTRLEN];

	if (!memcmp(gid, &side->gid, 16))
		return "mine";
	if (!memcmp(gid, &other(side)->gid, 16))
		return "other";
	if (!memcmp(gid, &group, 16))
		return "group";
	snprintf(name, sizeof(name), "%d.%d.%d.%d", gid->raw[12], gid->raw[13], gid->raw[14], gid->raw[15]);
	return name;
}

/* As libibverbs reads the header: it says by itself from whom it is, and the device finds to which of its addresses. */
static int show(struct side *side, struct ibv_wc *wc)
{
	char *memory = side->memory[wc->wr_id];
	struct ibv_ah_attr attr;
	union ibv_gid to = { .raw = { [10] = 0xff, 0xff } };

	memcpy(to.raw + 12, memory + 36, 4);
	if (to.raw[12] == 0xe0)
		to = group;
	else if (ibv_init_ah_from_wc(side->context, 1, wc, (struct ibv_grh *)(void *)memory, &attr))
		return printf("%s:unknown ", memory + 40);
	else if (attr.grh.sgid_index != 1 || attr.port_num != 1)
		return printf("%s:index %d ", memory + 40, attr.grh.sgid_index);
	if (to.raw[12] == 0xe0) {
		printf("%s:group ", memory + 40);
		return 0;
	}
	const char *from = who(side, &attr.grh.dgid);
	uint32_t expected = !strcmp(from, "mine") ? side->qpn : other(side)->qpn;

	if (wc->src_qp == expected)
		printf("%s:%s:", memory + 40, from);
	else
		printf("%s:%s 0x%x:", memory + 40, from, wc->src_qp);
	printf("%s ", who(side, &to));
	return 0;
}

static int poll_all(struct side *side)
{
	struct ibv_wc wc;
	int count;

	while ((count = ibv_poll_cq(side->cq, 1, &wc)) == 1) {
		if (wc.qp_num != side->qpn)
			printf("QP 0x%x? ", wc.qp_num);
		if (wc.status != IBV_WC_SUCCESS || !(wc.opcode & IBV_WC_RECV)) {
			printf("sent:%d ", wc.status);
			continue;
		}
		side->last = wc;
		show(side, &wc);
	}
	printf("%s\n", count ? "error" : "ok");
	return -1;
}

static int reply(struct side *side, const char *word)
{
	struct ibv_grh *grh = (struct ibv_grh *)(void *)side->memory[side->last.wr_id];
	struct ibv_ah *ah = ibv_create_ah_from_wc(side->pd, &side->last, grh, 1);

	NEED(ah);
	int error = send_to(side, ah, side->last.src_qp, QKEY, word, side->mr->lkey);
	NEED(!ibv_destroy_ah(ah));
	return error;
}

static int another_handle(struct side *side)
{
	struct ibv_ah *former = side->ah;

	NEED(side->ah = handle(side, &other(side)->gid));
	NEED(!ibv_destroy_ah(former));
	return 0;
}

static int to_state(struct side *side, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr = { .qp_state = state };

	return ibv_modify_qp(side->qp, &attr, IBV_QP_STATE);
}

static int share(struct side *side)
{
	struct ibv_srq_init_attr init = { .attr = { .max_wr = SLOTS, .max_sge = 2 } };

	NEED(!ibv_destroy_qp(side->qp));
	NEED(side->srq = ibv_create_srq(side->pd, &init));
	return make(side);
}

static int make_to_build(struct side *side)
{
	NEED(!ibv_destroy_qp(side->qp));
	side->is_built = 1;
	return make(side);
}

static int spare(struct side *side)
{
	struct side other_one = { .context = side->context, .cq = side->cq, .is_built = side->is_built };
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND }, *bad;

	NEED(other_one.pd = ibv_alloc_pd(side->context));
	if (make(&other_one))
		return -1;
	NEED(other_one.ah = handle(&other_one, &other(side)->gid));
	wr.wr.ud.ah = other_one.ah;
	wr.wr.ud.remote_qpn = other(side)->qpn;
	NEED(!post_built(other_one.qp, &wr, &bad));
	NEED(!ibv_destroy_ah(other_one.ah) && !ibv_destroy_qp(other_one.qp) && !ibv_dealloc_pd(other_one.pd));
	return 0;
}

static int other_memory(struct side *side)
{
	static char memory[4096];

	NEED(ibv_reg_mr_iova(side->pd, memory, sizeof(memory), 0x10000, IBV_ACCESS_LOCAL_WRITE));
	return 0;
}

static int end_all(void)
{
	for (int i = 0; i < 2; i++) {
		struct side *side = &sides[i];

		NEED(!ibv_destroy_ah(side->ah) && !ibv_destroy_ah(side->to_self) && !ibv_destroy_ah(side->to_group));
		NEED(!ibv_destroy_qp(side->qp) && (!side->srq || !ibv_destroy_srq(side->srq)));
		NEED(!ibv_destroy_cq(side->cq) && !ibv_dereg_mr(side->mr) && !ibv_dealloc_pd(side->pd));
		NEED(!ibv_close_device(side->context));
	}
	return 0;
}

static int answer(const char *line)
{
	int number = 0, count = 0;
	char verb[16] = "", word[32] = "", last[32] = "";

	if (!strcmp(line, "restore"))
		return ((void (*)(void))(uintptr_t)dlsym(RTLD_DEFAULT, "fake_restore"))(), 0;
	if (!strcmp(line, "end"))
		return end_all();
	if (sscanf(line, "numbers %d %i", &number, &count) == 2)
		return ((void (*)(int, uint32_t, uint32_t))(uintptr_t)dlsym(RTLD_DEFAULT, "fake_set_numbers"))(number, (uint32_t)count, 0), 0;
	if (sscanf(line, "%15s %d %31s %31s", verb, &number, word, last) < 2)
		return ENOTRECOVERABLE;

	struct side *side = &sides[number];

	if (!strcmp(verb, "post"))
		return post(side, atoi(word));
	if (!strcmp(verb, "send") && !strcmp(word, "self"))
		return send_to(side, side->to_self, side->qpn, QKEY, last, side->mr->lkey);
	if (!strcmp(verb, "send"))
		return send_to(side, side->ah, other(side)->qpn, strcmp(word, "wrong") ? QKEY : QKEY + 2, word, side->mr->lkey);
	if (!strcmp(verb, "poll"))
		return poll_all(side);
	if (!strcmp(verb, "reply"))
		return reply(side, word);
	if (!strcmp(verb, "join"))
		return ibv_attach_mcast(side->qp, &group, 0);
	if (!strcmp(verb, "leave"))
		return ibv_detach_mcast(side->qp, &group, 0);
	if (!strcmp(verb, "shout"))
		return send_to(side, side->to_group, 0xffffff, QKEY, word, side->mr->lkey);
	if (!strcmp(verb, "handle"))
		return another_handle(side);
	if (!strcmp(verb, "failing"))
		return send_to(side, side->ah, other(side)->qpn, QKEY, "failing", 0x7777);
	if (!strcmp(verb, "go_on"))
		return to_state(side, IBV_QPS_RTS);
	if (!strcmp(verb, "stop"))
		return to_state(side, IBV_QPS_SQD);
	if (!strcmp(verb, "fail"))
		return to_state(side, IBV_QPS_ERR);
	if (!strcmp(verb, "again"))
		return to_state(side, IBV_QPS_RESET) ? errno : begin(side);
	if (!strcmp(verb, "spare"))
		return spare(side);
	if (!strcmp(verb, "shared"))
		return share(side);
	if (!strcmp(verb, "built"))
		return make_to_build(side);
	if (!strcmp(verb, "begin"))
		return begin_to_build(side);
	if (!strcmp(verb, "finish"))
		return finish(side, word);
	if (!strcmp(verb, "region"))
		return other_memory(side);
	return ENOTRECOVERABLE;
}

int main(void)
{
	char line[64];

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (open_all())
		return 1;
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		int error = answer(line);

		if (error >= 0)
			puts(error ? strerror(error) : "ok");
	}
	return 0;
}
