/* The rig, and the program that runs one case by its name. */
#include "rig.h"

#include <errno.h>

uint64_t rig_time;
struct test_case *test_cases;

static uint64_t now(void *clock)
{
	(void)clock;
	return rig_time;
}

/* Only the process's own memory is mapped. */
static bool is_mapped(const struct party *party, const struct rnic_span *span)
{
	uint64_t start = (uintptr_t)party->memory;

	return span->address >= start && span->address + span->length <= start + MEMORY;
}

static int read_memory(void *process, const struct rnic_span *spans, int count, void *buffer)
{
	unsigned char *to = buffer;

	for (int i = 0; i < count; to += spans[i++].length) {
		if (!is_mapped(process, &spans[i]))
			return EFAULT;
		memcpy(to, (void *)(uintptr_t)spans[i].address, spans[i].length);
	}
	return 0;
}

static int write_memory(void *process, const struct rnic_span *spans, int count, const void *buffer)
{
	const unsigned char *from = buffer;

	for (int i = 0; i < count; from += spans[i++].length) {
		if (!is_mapped(process, &spans[i]))
			return EFAULT;
		memcpy((void *)(uintptr_t)spans[i].address, from, spans[i].length);
	}
	return 0;
}

static void completion_event(void *process, uint64_t cookie)
{
	(void)cookie;
	((struct party *)process)->completion_events++;
}

static void async_event(void *process, enum ibv_event_type type, enum rnic_kind kind, uint64_t cookie)
{
	struct party *party = process;

	CHECK(party->event_count < EVENTS);
	party->events[party->event_count++] = (struct seen){ type, kind, cookie };
}

static const struct rnic_sinks sinks = { read_memory, write_memory, completion_event, async_event };

struct rnic_ring *ring_new(uint32_t depth, uint32_t stride)
{
	size_t size = (rnic_ring_size(depth, stride) + RNIC_LINE - 1) / RNIC_LINE * RNIC_LINE;
	struct rnic_ring *ring = aligned_alloc(RNIC_LINE, size);

	CHECK(ring);
	memset(ring, 0, size);
	rnic_ring_init(ring, depth, stride);
	return ring;
}

void party_open(struct party *party, struct rnic_device *device)
{
	*party = (struct party){ .device = device };
	party->memory = calloc(1, MEMORY);
	party->context = rnic_open(device, &sinks, party);
	CHECK(party->memory && party->context);
	SAME(rnic_alloc_pd(party->context, &party->pd), 0);
	SAME(rnic_reg_mr(party->context, party->pd, (uintptr_t)party->memory, MEMORY, (uintptr_t)party->memory,
			 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
				 IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND,
			 &party->mr, &party->lkey, &party->rkey),
	     0);
	party->cq_ring = ring_new(64, sizeof(struct rnic_completion));
	SAME(rnic_create_cq(party->context, party->cq_ring, 77, &party->cq), 0);
}

static void party_close(struct party *party)
{
	if (party->context)
		rnic_close(party->context);
	free(party->memory);
	free(party->cq_ring);
}

static void host_gid(uint8_t gid[16], uint8_t host)
{
	memcpy(gid, (uint8_t[16]){ [10] = 0xff, [11] = 0xff, 10, 0, 0, host }, 16);
}

static struct rnic_device *host_new(struct rnic_fabric *fabric, const char *host, uint8_t number)
{
	struct rnic_device *device = rnic_device_new(fabric, "soft0", host);
	uint8_t gid[16];

	CHECK(device);
	host_gid(gid, number);
	SAME(rnic_gid_set(device, 1, gid, 1, 2), 0);
	return device;
}

void rig_up(struct rig *rig)
{
	rig_time = 1000;
	*rig = (struct rig){ .fabric = rnic_fabric_new(now, NULL) };
	party_open(&rig->left, host_new(rig->fabric, "left", 1));
	party_open(&rig->right, host_new(rig->fabric, "right", 2));
}

void rig_down(struct rig *rig)
{
	party_close(&rig->left);
	party_close(&rig->right);
	rnic_fabric_free(rig->fabric);
}

void end_new(struct end *end, struct party *party, enum ibv_qp_type type, uint32_t srq)
{
	struct rnic_qp_init init = { .type = type, .pd = party->pd, .send_cq = party->cq, .recv_cq = party->cq, .srq = srq,
				     .xrcd = RNIC_NONE, .cookie = 55,
				     .cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 4, .max_recv_sge = 4,
					      .max_inline_data = 64 } };
	uint32_t sq_stride, rq_stride;

	*end = (struct end){ .party = party, .type = type, .mtu = IBV_MTU_1024, .gid_index = 1 };
	SAME(rnic_qp_caps(party->device, type, &init.cap, &sq_stride, &rq_stride), 0);
	init.sq = end->sq = ring_new(16, sq_stride);
	init.rq = end->rq = ring_new(16, rq_stride);
	SAME(rnic_create_qp(party->context, &init, &end->qp, &end->qpn), 0);
}

int end_modify(struct end *end, struct ibv_qp_attr *attr, int mask)
{
	return rnic_modify_qp(end->party->context, end->qp, attr, mask);
}

void end_init(struct end *end, unsigned int access)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = access, .qkey = 0x1234 };

	SAME(end_modify(end, &attr,
			IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
				(end->type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS)),
	     0);
}

void end_rtr(struct end *end, const struct end *other)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTR, .path_mtu = end->mtu, .rq_psn = 0xfffff0,
				    .max_dest_rd_atomic = 4, .min_rnr_timer = 12,
				    .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = end->gid_index, .hop_limit = 64 } } };
	int mask = IBV_QP_STATE;

	if (end->type != IBV_QPT_UD) {
		attr.dest_qp_num = other->qpn;
		SAME(rnic_gid_get(other->party->device, 1, attr.ah_attr.grh.dgid.raw, NULL, NULL), 0);
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	}
	if (end->type == IBV_QPT_RC || end->type == IBV_QPT_XRC_RECV)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	SAME(end_modify(end, &attr, mask), 0);
}

void end_rts(struct end *end, uint8_t retry_cnt, uint8_t rnr_retry)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RTS, .sq_psn = 0xfffff0, .timeout = 10, .retry_cnt = retry_cnt,
				    .rnr_retry = rnr_retry, .max_rd_atomic = 4 };
	int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;

	if (end->type == IBV_QPT_RC || end->type == IBV_QPT_XRC_SEND)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
	if (end->type == IBV_QPT_XRC_RECV)
		mask |= IBV_QP_TIMEOUT;
	SAME(end_modify(end, &attr, mask), 0);
}

void connect_ends(struct end *one, struct end *other)
{
	const unsigned int all = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

	end_init(one, all);
	end_init(other, all);
	end_rtr(one, other);
	end_rtr(other, one);
	end_rts(one, 7, 7);
	end_rts(other, 7, 7);
}

void rc_pair(struct rig *rig, struct end *left, struct end *right)
{
	rig_up(rig);
	end_new(left, &rig->left, IBV_QPT_RC, RNIC_NONE);
	end_new(right, &rig->right, IBV_QPT_RC, RNIC_NONE);
	connect_ends(left, right);
}

void end_destroy(struct end *end)
{
	/* A party that was closed took its QPs along. */
	if (end->party->context)
		rnic_destroy_qp(end->party->context, end->qp);
	free(end->sq);
	free(end->rq);
}

struct rnic_send *request(struct end *end, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length)
{
	struct rnic_send *wr = rnic_ring_free(end->sq, 0);

	CHECK(wr);
	memset(wr, 0, sizeof(*wr));
	wr->wr_id = wr_id;
	wr->opcode = opcode;
	wr->flags = IBV_SEND_SIGNALED;
	wr->num_sge = length ? 1 : 0;
	if (length)
		wr->sges[0] = (struct rnic_sge){ (uintptr_t)end->party->memory + offset, length, end->party->lkey };
	return wr;
}

void post(struct end *end)
{
	rnic_ring_give(end->sq, 1);
	SAME(rnic_doorbell(end->party->context, end->qp), 0);
}

void send_now(struct end *end, uint64_t wr_id, enum ibv_wr_opcode opcode, uint32_t offset, uint32_t length, const struct end *to,
	      uint32_t remote_offset)
{
	struct rnic_send *wr = request(end, wr_id, opcode, offset, length);

	wr->rdma.address = (uintptr_t)to->party->memory + remote_offset;
	wr->rdma.rkey = to->party->rkey;
	post(end);
}

void ring_receive(struct rnic_ring *ring, struct party *party, uint64_t wr_id, uint32_t offset, uint32_t length)
{
	struct rnic_receive *wr = rnic_ring_free(ring, 0);

	CHECK(wr);
	wr->wr_id = wr_id;
	wr->num_sge = length ? 1 : 0;
	if (length)
		wr->sges[0] = (struct rnic_sge){ (uintptr_t)party->memory + offset, length, party->lkey };
	rnic_ring_give(ring, 1);
}

void receive(struct end *end, uint64_t wr_id, uint32_t offset, uint32_t length)
{
	ring_receive(end->rq, end->party, wr_id, offset, length);
	SAME(rnic_doorbell(end->party->context, end->qp), 0);
}

void run(struct rig *rig)
{
	for (int i = 0; rnic_run(rig->fabric, 7); i++)
		CHECK(i < 1000000);
}

void run_for(struct rig *rig, uint64_t ns)
{
	uint64_t end = rig_time + ns;

	run(rig);
	for (uint64_t next; (next = rnic_next(rig->fabric)) <= end; run(rig))
		if (next > rig_time)
			rig_time = next;
	rig_time = end;
	run(rig);
}

bool poll_one(struct party *party, struct rnic_completion *completion)
{
	struct rnic_completion *oldest = rnic_ring_oldest(party->cq_ring, 0);

	if (!oldest)
		return false;
	*completion = *oldest;
	rnic_ring_take(party->cq_ring, 1);
	return true;
}

struct rnic_completion expect(struct party *party, uint64_t wr_id, enum ibv_wc_status status)
{
	struct rnic_completion completion;

	if (!poll_one(party, &completion)) {
		fprintf(stderr, "no completion, and %llu was to come\n", (unsigned long long)wr_id);
		exit(1);
	}
	if (completion.wr_id != wr_id || completion.status != status) {
		fprintf(stderr, "completion of %llu with status %u, not of %llu with %u\n", (unsigned long long)completion.wr_id,
			completion.status, (unsigned long long)wr_id, status);
		exit(1);
	}
	return completion;
}

void expect_none(struct party *party)
{
	struct rnic_completion completion;

	CHECK(!poll_one(party, &completion));
}

void expect_event(struct party *party, enum ibv_event_type type)
{
	for (int i = 0; i < party->event_count; i++)
		if (party->events[i].type == type) {
			memmove(&party->events[i], &party->events[i + 1],
				(size_t)(--party->event_count - i) * sizeof(party->events[0]));
			return;
		}
	fprintf(stderr, "no event %d among %d\n", type, party->event_count);
	exit(1);
}

void state_is(struct end *end, enum ibv_qp_state state)
{
	struct ibv_qp_attr attr;

	SAME(rnic_query_qp(end->party->context, end->qp, &attr), 0);
	SAME(attr.qp_state, state);
}

int main(int argc, char **argv)
{
	for (struct test_case *one = test_cases; one; one = one->next) {
		if (argc < 2)
			printf("%s\n", one->name);
		else if (!strcmp(one->name, argv[1])) {
			one->run();
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}
