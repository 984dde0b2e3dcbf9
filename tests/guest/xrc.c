/*
 * XRC, one step at a time: a small shell for verbs, as states.c. There are two sides, 0 and 1, each a device with a completion
 * queue for sends and one for receives. A queue pair is named by a letter, a shared receive queue and a region by a digit. Commands on
 * stdin, each answered by a line: "ok" or an errno if nothing else is said.
 *
 *     domain SIDE [FILE [FLAGS]]  opens the side's XRC domain; of that file, which is closed at once; close SIDE
 *     queue N SIDE [1]     a shared receive queue; its number. With 1 in another protection domain. end N
 *     sender A SIDE, target A SIDE    a QP; its number. destroy A. built 1: their sends are posted by ibv_wr_*
 *     open A B SIDE        a handle of the target B by its number
 *     init A, rtr A B, rts A, reset A, err A, state A
 *     recv N COUNT         receives of that queue, numbered; post A: a receive of a queue pair, which has none
 *     send A N COUNT       sends to that queue, numbered. Requests begin where the sender's last one ended
 *     region N SIDE [1]    memory of 8 bytes that others may write; its rkey
 *     write A N Q          a WRITE to the region N that names the queue Q; what is there, which is taken away: show N
 *     window SIDE          a memory window; bind A: to nothing, by a request of A; drop: it ends
 *     poll SIDE            takes everything: A:send:status:number, or B:N:status:number of what came by B to the queue N
 *     made WHAT            how many of these the devices have; reuse 1: they hand out numbers again; restore: they are another host's
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH 24

static struct side {
	struct ibv_context *context;
	struct ibv_cq *sends, *receives;
	struct ibv_pd *pds[2];
	struct ibv_mr *mrs[2]; /* of all memory here */
	struct ibv_xrcd *xrcd;
} sides[2];

static struct pair {
	struct ibv_qp *qp;
	struct side *side;
	uint32_t number;
	unsigned int sent;
} pairs[26];

static struct queue {
	struct ibv_srq *srq;
	struct side *side;
	uint32_t number, lkey;
	unsigned int posted;
} queues[10];

static struct ibv_mr *regions[10];
static struct ibv_mw *the_window;
static uint64_t memory[64], contents[10];
static int is_built;

static struct pair *named(char name)
{
	return &pairs[(name - 'A') % 26];
}

static int open_side(struct side *side, struct ibv_device *device)
{
	side->context = ibv_open_device(device);
	side->sends = ibv_create_cq(side->context, 256, NULL, NULL, 0);
	side->receives = ibv_create_cq(side->context, 256, NULL, NULL, 0);
	for (int i = 0; i < 2; i++) {
		side->pds[i] = ibv_alloc_pd(side->context);
		side->mrs[i] = ibv_reg_mr(side->pds[i], memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
		if (!side->mrs[i])
			return errno;
	}
	return side->receives ? 0 : errno;
}

static int open_domain(struct side *side, const char *file, int flags)
{
	int fd = file ? open(file, O_RDONLY | O_CREAT, 0600) : -1;
	struct ibv_xrcd_init_attr attr = { .comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS, .fd = fd,
					   .oflags = flags ? flags : O_CREAT };

	side->xrcd = ibv_open_xrcd(side->context, &attr);
	int error = errno;
	if (fd != -1)
		close(fd);
	return side->xrcd ? 0 : error;
}

static int show_number(const void *made, uint32_t number)
{
	if (!made)
		return errno;
	printf("%u\n", number);
	return -1;
}

static int make_queue(struct queue *queue, struct side *side, int which)
{
	struct ibv_srq_init_attr_ex init = { .attr = { DEPTH, 1, 0 }, .srq_type = IBV_SRQT_XRC, .pd = side->pds[which],
					     .xrcd = side->xrcd, .cq = side->receives,
					     .comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
							  IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ };

	*queue = (struct queue){ .side = side, .srq = ibv_create_srq_ex(side->context, &init), .lkey = side->mrs[which]->lkey };
	if (queue->srq && ibv_get_srq_num(queue->srq, &queue->number))
		return EBADF;
	return show_number(queue->srq, queue->number);
}

static int make(struct pair *pair, struct side *side, int is_target)
{
	struct ibv_qp_init_attr_ex init = { .qp_type = is_target ? IBV_QPT_XRC_RECV : IBV_QPT_XRC_SEND };

	if (is_target) {
		init.comp_mask = IBV_QP_INIT_ATTR_XRCD;
		init.xrcd = side->xrcd;
	} else {
		init.comp_mask = IBV_QP_INIT_ATTR_PD | (is_built ? IBV_QP_INIT_ATTR_SEND_OPS_FLAGS : 0);
		init.pd = side->pds[0];
		init.send_cq = side->sends;
		init.cap.max_send_wr = DEPTH;
		init.cap.max_send_sge = 1;
		init.send_ops_flags = IBV_QP_EX_WITH_RDMA_WRITE | IBV_QP_EX_WITH_SEND;
	}
	*pair = (struct pair){ .side = side, .qp = ibv_create_qp_ex(side->context, &init) };
	if (pair->qp)
		pair->number = pair->qp->qp_num;
	return show_number(pair->qp, pair->number);
}

static int open_target(struct pair *pair, const struct pair *other, struct side *side)
{
	struct ibv_qp_open_attr attr = { .comp_mask = IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE,
					 .qp_num = other->number, .xrcd = side->xrcd, .qp_type = IBV_QPT_XRC_RECV };

	*pair = (struct pair){ .side = side, .qp = ibv_open_qp(side->context, &attr) };
	return pair->qp ? 0 : errno;
}

static int change(struct pair *pair, enum ibv_qp_state to, struct pair *peer)
{
	struct ibv_qp_attr attr = { .qp_state = to };
	int mask = IBV_QP_STATE, sends = pair->qp->qp_type == IBV_QPT_XRC_SEND;

	switch (to) {
	case IBV_QPS_INIT:
		attr.port_num = 1;
		attr.qp_access_flags = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ;
		mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
		break;
	case IBV_QPS_RTR:
		attr.path_mtu = IBV_MTU_1024;
		attr.max_dest_rd_atomic = 4;
		attr.dest_qp_num = peer->number;
		attr.rq_psn = peer->number * 7 & 0xffffff;
		attr.ah_attr = (struct ibv_ah_attr){ .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } };
		if (ibv_query_gid(peer->side->context, 1, 1, &attr.ah_attr.grh.dgid))
			return EINVAL;
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
		mask |= sends ? 0 : IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
		break;
	case IBV_QPS_RTS:
		attr.rnr_retry = 7;
		attr.timeout = 14;
		attr.retry_cnt = 7;
		attr.sq_psn = pair->number * 7 & 0xffffff;
		attr.max_rd_atomic = 4;
		mask |= IBV_QP_TIMEOUT | IBV_QP_SQ_PSN;
		mask |= sends ? IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC : 0;
		break;
	default:
		pair->sent = 0;
		break;
	}
	return ibv_modify_qp(pair->qp, &attr, mask);
}

static int state(struct pair *pair)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	int error = ibv_query_qp(pair->qp, &attr, IBV_QP_STATE, &init);

	if (!error)
		printf("%d\n", attr.qp_state);
	return error ? error : -1;
}

static int receive(struct queue *queue, int count)
{
	int error = 0;

	while (count-- && !error) {
		struct ibv_sge sge = { (uintptr_t)&memory[32 + queue->posted % 32], 8, queue->lkey };
		struct ibv_recv_wr *bad, wr = { .wr_id = (uint64_t)(queue - queues) << 32 | queue->posted, .sg_list = &sge, .num_sge = 1 };

		error = ibv_post_srq_recv(queue->srq, &wr, &bad);
		queue->posted += !error;
	}
	return error;
}

static int receive_by_pair(struct pair *pair)
{
	struct ibv_recv_wr wr = { .wr_id = 1 }, *bad;

	return ibv_post_recv(pair->qp, &wr, &bad);
}

static int build(struct ibv_qp_ex *ex, const struct ibv_send_wr *wr)
{
	ibv_wr_start(ex);
	ex->wr_id = wr->wr_id;
	ex->wr_flags = wr->send_flags;
	if (wr->opcode == IBV_WR_SEND)
		ibv_wr_send(ex);
	else
		ibv_wr_rdma_write(ex, wr->wr.rdma.rkey, wr->wr.rdma.remote_addr);
	ibv_wr_set_xrc_srqn(ex, wr->qp_type.xrc.remote_srqn);
	ibv_wr_set_sge(ex, wr->sg_list->lkey, wr->sg_list->addr, wr->sg_list->length);
	return ibv_wr_complete(ex);
}

static int post(struct pair *pair, struct ibv_mr *region, const struct queue *queue)
{
	struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(pair->qp);
	struct ibv_sge sge = { (uintptr_t)&memory[pair->sent % 32], 8, pair->side->mrs[0]->lkey };
	struct ibv_send_wr *bad, wr = { .wr_id = pair->sent, .sg_list = &sge, .num_sge = 1, .send_flags = IBV_SEND_SIGNALED,
					.opcode = region ? IBV_WR_RDMA_WRITE : IBV_WR_SEND };

	memory[pair->sent % 32] = 4711;
	wr.qp_type.xrc.remote_srqn = queue->number;
	if (region) {
		wr.wr.rdma.remote_addr = (uintptr_t)region->addr;
		wr.wr.rdma.rkey = region->rkey;
	}
	int error = ex ? build(ex, &wr) : ibv_post_send(pair->qp, &wr, &bad);
	pair->sent += !error;
	return error;
}

static int send_some(struct pair *pair, const struct queue *queue, int count)
{
	int error = 0;

	while (count-- && !error)
		error = post(pair, NULL, queue);
	return error;
}

static int region(int place, struct side *side, int which)
{
	contents[place] = 0;
	regions[place] = ibv_reg_mr(side->pds[which], &contents[place], 8, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	return show_number(regions[place], regions[place] ? regions[place]->rkey : 0);
}

static int bind_to_nothing(struct pair *pair)
{
	struct ibv_mw_bind bind = { .wr_id = pair->sent, .send_flags = IBV_SEND_SIGNALED };
	int error = ibv_bind_mw(pair->qp, the_window, &bind);

	pair->sent += !error;
	return error;
}

static int show(int place)
{
	printf("%llu\n", (unsigned long long)contents[place]);
	contents[place] = 0;
	return -1;
}

static char letter_of(uint32_t number, const struct side *side)
{
	for (int i = 0; i < 26; i++)
		if (pairs[i].number == number && pairs[i].side == side)
			return (char)('A' + i);
	return '?';
}

static int poll_queue(struct side *side, struct ibv_cq *cq, int receives)
{
	struct ibv_wc wc;
	int count;

	while ((count = ibv_poll_cq(cq, 1, &wc)) > 0) {
		char letter = letter_of(wc.qp_num, side);

		if (receives)
			printf("%c:%u:%d:%u ", letter, (unsigned int)(wc.wr_id >> 32), wc.status, (unsigned int)wc.wr_id);
		else
			printf("%c:send:%d:%u ", letter, wc.status, (unsigned int)wc.wr_id);
	}
	return count;
}

static int poll_side(struct side *side)
{
	int error = poll_queue(side, side->sends, 0);

	return error ? error : poll_queue(side, side->receives, 1);
}

static int end_queue(struct queue *queue)
{
	return ibv_destroy_srq(queue->srq);
}

static int destroy(struct pair *pair)
{
	return ibv_destroy_qp(pair->qp);
}

#define HARDWARE(type, name) ((type)(uintptr_t)dlsym(RTLD_DEFAULT, name))

/* -1: it has answered already. */
static int obey(const char *line)
{
	char word[16], a, b;
	char file[256];
	int n, m, k, got;

	if (sscanf(line, "%15s", word) != 1)
		return EINVAL;
#define IS(name) (!strcmp(word, name))
	if (IS("domain") && (got = sscanf(line, "%*s %d %255s %i", &n, file, &m)) >= 1)
		return open_domain(&sides[n], got > 1 ? file : NULL, got > 2 ? m : 0);
	if (IS("close") && sscanf(line, "%*s %d", &n) == 1)
		return ibv_close_xrcd(sides[n].xrcd);
	if (IS("queue") && (got = sscanf(line, "%*s %d %d %d", &n, &m, &k)) >= 2)
		return make_queue(&queues[n], &sides[m], got > 2 ? k : 0);
	if (IS("end") && sscanf(line, "%*s %d", &n) == 1)
		return end_queue(&queues[n]);
	if ((IS("sender") || IS("target")) && sscanf(line, "%*s %c %d", &a, &n) == 2)
		return make(named(a), &sides[n], IS("target"));
	if (IS("open") && sscanf(line, "%*s %c %c %d", &a, &b, &n) == 3)
		return open_target(named(a), named(b), &sides[n]);
	if (IS("destroy") && sscanf(line, "%*s %c", &a) == 1)
		return destroy(named(a));
	if (IS("built") && sscanf(line, "%*s %d", &is_built) == 1)
		return 0;
	if (IS("init") && sscanf(line, "%*s %c", &a) == 1)
		return change(named(a), IBV_QPS_INIT, NULL);
	if (IS("rtr") && sscanf(line, "%*s %c %c", &a, &b) == 2)
		return change(named(a), IBV_QPS_RTR, named(b));
	if (IS("rts") && sscanf(line, "%*s %c", &a) == 1)
		return change(named(a), IBV_QPS_RTS, NULL);
	if (IS("reset") && sscanf(line, "%*s %c", &a) == 1)
		return change(named(a), IBV_QPS_RESET, NULL);
	if (IS("err") && sscanf(line, "%*s %c", &a) == 1)
		return change(named(a), IBV_QPS_ERR, NULL);
	if (IS("state") && sscanf(line, "%*s %c", &a) == 1)
		return state(named(a));
	if (IS("recv") && sscanf(line, "%*s %d %d", &n, &m) == 2)
		return receive(&queues[n], m);
	if (IS("post") && sscanf(line, "%*s %c", &a) == 1)
		return receive_by_pair(named(a));
	if (IS("send") && sscanf(line, "%*s %c %d %d", &a, &n, &m) == 3)
		return send_some(named(a), &queues[n], m);
	if (IS("region") && (got = sscanf(line, "%*s %d %d %d", &n, &m, &k)) >= 2)
		return region(n, &sides[m], got > 2 ? k : 0);
	if (IS("write") && sscanf(line, "%*s %c %d %d", &a, &n, &m) == 3)
		return post(named(a), regions[n], &queues[m]);
	if (IS("show") && sscanf(line, "%*s %d", &n) == 1)
		return show(n);
	if (IS("window") && sscanf(line, "%*s %d", &n) == 1)
		return (the_window = ibv_alloc_mw(sides[n].pds[0], IBV_MW_TYPE_1)) ? 0 : errno;
	if (IS("bind") && sscanf(line, "%*s %c", &a) == 1)
		return bind_to_nothing(named(a));
	if (IS("drop"))
		return ibv_dealloc_mw(the_window);
	if (IS("poll") && sscanf(line, "%*s %d", &n) == 1)
		return poll_side(&sides[n]);
	if (IS("reuse") && sscanf(line, "%*s %d", &n) == 1)
		return HARDWARE(void (*)(int), "fake_reuse_numbers")(n), 0;
	if (IS("restore"))
		return HARDWARE(void (*)(void), "fake_restore")(), 0;
	if (IS("made") && sscanf(line, "%*s %255s", file) == 1)
		return printf("%llu\n", (unsigned long long)HARDWARE(uint64_t (*)(const char *), "fake_count")(file)), -1;
	return ENOTRECOVERABLE;
}

int main(void)
{
	struct ibv_device **devices = ibv_get_device_list(NULL);
	char line[512];

	for (int i = 0; i < 2; i++)
		if (!devices || !devices[0] || !devices[1] || open_side(&sides[i], devices[i]))
			return 1;
	puts("ready");
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin)) {
		int error = obey(line);

		if (error >= 0)
			printf("%s\n", error ? strerrorname_np(error) : "ok");
		fflush(stdout);
	}
	return 0;
}
