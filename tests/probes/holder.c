/*
 * A process that holds RDMA objects and uses them ten times a second, for looking at from outside.
 *
 *	holder OUTPUT [fork] [nested] [leave-unread]
 *
 * It connects two queue pairs of its own to each other and has one write into the other's memory, waiting for
 * the completion as a server does: epoll, completion channel. Each round appends a line to OUTPUT:
 *
 *	device N		round N went through the device
 *	placeholder N bytes	the descriptors are no longer the device's; N bytes of the queues' memory are readable
 *	broken WHAT		something failed that must not; then it ends
 *
 * fork: a child that sleeps holds everything, too. nested: between the epoll set and the completion channel
 * stands a second epoll set, as the guest library has it. leave-unread: a completion event stays unread
 * throughout.
 */
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define BYTES 65536

static FILE *output;

static struct {
	struct ibv_context *context;
	struct ibv_comp_channel *channel, *unread;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qp[2];
	union ibv_gid gid;
	int gid_index;
	int epoll, watched; /* watched: the channel, or the set that holds it */
} rdma;

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(output, format, arguments);
	va_end(arguments);
	fputc('\n', output);
	fflush(output);
}

static void __attribute__((noreturn)) broken(const char *what)
{
	say("broken %s: %s", what, strerror(errno));
	exit(1);
}

static bool is_device(void)
{
	struct stat status;
	return !fstat(rdma.context->cmd_fd, &status) && S_ISCHR(status.st_mode);
}

static struct ibv_qp *make_qp(struct ibv_pd *pd)
{
	struct ibv_qp_init_attr init = {
		.send_cq = rdma.cq,
		.recv_cq = rdma.cq,
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 16, .max_recv_wr = 16, .max_send_sge = 1, .max_recv_sge = 1 },
	};
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	if (!qp)
		broken("ibv_create_qp");
	return qp;
}

static void connect_qp(struct ibv_qp *qp, uint32_t to)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_REMOTE_WRITE,
	};
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		broken("to INIT");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTR,
		.path_mtu = IBV_MTU_1024,
		.dest_qp_num = to,
		.max_dest_rd_atomic = 1,
		.min_rnr_timer = 12,
		.ah_attr = { .is_global = 1,
			     .port_num = 1,
			     .grh = { .dgid = rdma.gid, .sgid_index = (uint8_t)rdma.gid_index, .hop_limit = 64 } },
	};
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				     IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		broken("to RTR");
	attr = (struct ibv_qp_attr){
		.qp_state = IBV_QPS_RTS, .timeout = 14, .retry_cnt = 7, .rnr_retry = 7, .max_rd_atomic = 1 };
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC))
		broken("to RTS");
}

/* The last GID: on RoCE an IPv4 address, where there is one, comes after the link-local one. */
static void choose_gid(void)
{
	union ibv_gid gid;
	static const union ibv_gid none;

	rdma.gid_index = -1;
	for (int i = 0; i < 16; i++)
		if (!ibv_query_gid(rdma.context, 1, i, &gid) && memcmp(&gid, &none, sizeof(gid))) {
			rdma.gid = gid;
			rdma.gid_index = i;
		}
	if (rdma.gid_index < 0)
		broken("no GID");
}

static void watch(int set, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	if (epoll_ctl(set, EPOLL_CTL_ADD, fd, &event))
		broken("epoll_ctl");
}

static void set_up(bool nested)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	if (!list || !list[0])
		broken("no RDMA device");
	rdma.context = ibv_open_device(list[0]);
	if (!rdma.context)
		broken("ibv_open_device");
	ibv_free_device_list(list);

	struct ibv_pd *pd = ibv_alloc_pd(rdma.context);
	rdma.channel = ibv_create_comp_channel(rdma.context);
	rdma.unread = ibv_create_comp_channel(rdma.context);
	if (!pd || !rdma.channel || !rdma.unread)
		broken("ibv_create_comp_channel");
	fcntl(rdma.channel->fd, F_SETFL, fcntl(rdma.channel->fd, F_GETFL) | O_NONBLOCK);
	rdma.cq = ibv_create_cq(rdma.context, 64, NULL, rdma.channel, 0);
	rdma.mr = ibv_reg_mr(pd, aligned_alloc(4096, BYTES), BYTES, IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!rdma.cq || !rdma.mr || ibv_req_notify_cq(rdma.cq, 0))
		broken("ibv_create_cq, ibv_reg_mr");
	choose_gid();
	rdma.qp[0] = make_qp(pd);
	rdma.qp[1] = make_qp(pd);
	connect_qp(rdma.qp[0], rdma.qp[1]->qp_num);
	connect_qp(rdma.qp[1], rdma.qp[0]->qp_num);
	rdma.epoll = epoll_create1(EPOLL_CLOEXEC);
	rdma.watched = rdma.channel->fd;
	if (nested) {
		rdma.watched = epoll_create1(EPOLL_CLOEXEC);
		watch(rdma.watched, rdma.channel->fd);
	}
	watch(rdma.epoll, rdma.context->async_fd);
	watch(rdma.epoll, rdma.watched);
}

static int post(struct ibv_qp *qp)
{
	struct ibv_sge sge = { (uintptr_t)rdma.mr->addr, 1024, rdma.mr->lkey };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE,
		.send_flags = IBV_SEND_SIGNALED,
		.sg_list = &sge,
		.num_sge = 1,
		.wr.rdma = { (uintptr_t)rdma.mr->addr + BYTES / 2, rdma.mr->rkey },
	};
	return ibv_post_send(qp, &wr, &bad);
}

/* Whether a round went through; false: the device is not there any more. */
static bool round_trip(void)
{
	struct epoll_event event;
	struct ibv_cq *cq;
	struct ibv_wc wc;
	void *ignored;

	if (post(rdma.qp[0]))
		return is_device() ? (broken("ibv_post_send"), false) : false;
	for (;;) {
		int ready = epoll_wait(rdma.epoll, &event, 1, 1000);
		if (!is_device())
			return false;
		if (ready < 0 && errno == EINTR)
			continue;
		if (ready != 1)
			broken("no completion in a second");
		if (event.data.fd != rdma.watched)
			broken("an event that nobody expected");
		if (!ibv_get_cq_event(rdma.channel, &cq, &ignored))
			break;
	}
	ibv_ack_cq_events(cq, 1);
	if (ibv_req_notify_cq(cq, 0))
		broken("ibv_req_notify_cq");
	int got = ibv_poll_cq(cq, 1, &wc);
	if (!is_device())
		return false;
	if (got != 1 || wc.status)
		broken(got == 1 ? ibv_wc_status_str(wc.status) : "ibv_poll_cq");
	return true;
}

/* What stands in the devices' place, found once: the test lists this process's descriptors from then on. */
static struct range {
	const volatile char *start, *end;
} placeholders[64];
static unsigned int ranges;

static void find_placeholders(void)
{
	char line[512];
	unsigned long start, end;
	FILE *maps = fopen("/proc/self/maps", "re");

	while (maps && fgets(line, sizeof(line), maps)) {
		if (!strstr(line, "migrrdma-device") || sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		if (ranges == sizeof(placeholders) / sizeof(*placeholders))
			broken("more placeholders than this probe has room for");
		placeholders[ranges++] = (struct range){ (const char *)start, (const char *)end };
	}
	if (maps)
		fclose(maps);
}

/* Reads every byte of the placeholders, and says how many there are; at first they are zeros. */
static unsigned long placeholder_bytes(void)
{
	bool first = !ranges;
	unsigned long bytes = 0;

	if (first)
		find_placeholders();
	for (unsigned int i = 0; i < ranges; i++) {
		for (const volatile char *at = placeholders[i].start; at < placeholders[i].end; at++)
			if (*at && first)
				broken("placeholder memory is not zero");
		bytes += placeholders[i].end - placeholders[i].start;
	}
	return bytes;
}

static void look_at_placeholders(void)
{
	struct epoll_event event;
	struct ibv_wc wc;
	char byte;
	uint64_t command = 0;

	unsigned long bytes = placeholder_bytes();
	/* What a thread does that was late: nothing of it may crash, block, or seem to have worked. */
	if (write(rdma.context->cmd_fd, &command, sizeof(command)) != -1)
		broken("the placeholder took a command");
	if (read(rdma.context->cmd_fd, &byte, 1) != 0)
		broken("the placeholder had something to read");
	if (!post(rdma.qp[0]) || ibv_poll_cq(rdma.cq, 1, &wc) > 0)
		broken("the placeholder worked");
	if (epoll_wait(rdma.epoll, &event, 1, 0) != 0)
		broken("an event from nowhere");
	say("placeholder %lu bytes", bytes);
}

int main(int count, char **arguments)
{
	bool leave_unread = false, forking = false, nested = false;
	const struct timespec tenth = { .tv_nsec = 100000000 };

	for (int i = 2; i < count; i++) {
		forking = forking || !strcmp(arguments[i], "fork");
		nested = nested || !strcmp(arguments[i], "nested");
		leave_unread = leave_unread || !strcmp(arguments[i], "leave-unread");
	}
	output = count > 1 ? fopen(arguments[1], "we") : NULL;
	if (!output)
		return 2;
	set_up(nested);
	if (forking && !fork())
		for (;;)
			pause();
	if (leave_unread) {
		watch(rdma.epoll, rdma.unread->fd);
		struct ibv_cq *cq = ibv_create_cq(rdma.context, 1, NULL, rdma.unread, 0);
		struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
						 .cap = { .max_send_wr = 1, .max_send_sge = 1 } };
		struct ibv_qp *qp = cq ? ibv_create_qp(rdma.qp[0]->pd, &init) : NULL;
		if (!qp || ibv_req_notify_cq(cq, 0))
			broken("the unread channel");
		connect_qp(qp, rdma.qp[1]->qp_num);
		/* In the error state a work request is flushed at once: a completion without a partner. */
		struct ibv_qp_attr error = { .qp_state = IBV_QPS_ERR };
		if (ibv_modify_qp(qp, &error, IBV_QP_STATE) || post(qp))
			broken("the unread completion");
	}
	for (unsigned long round = 1;; round++) {
		if (leave_unread)
			say("device unread");
		else if (is_device() && round_trip())
			say("device %lu", round);
		if (!is_device())
			look_at_placeholders();
		while (leave_unread && is_device())
			nanosleep(&tenth, NULL);
		nanosleep(&tenth, NULL);
	}
}
