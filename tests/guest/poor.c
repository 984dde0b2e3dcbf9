/*
 * A program whose guest library runs out of memory (scarce.c). Commands on stdin, each answered by a line:
 *
 *     arm N       the N-th allocation from now on fails
 *     disarm      how many have
 *     make        everything, from the list of devices to connected QPs: "ok", or "VERB ERRNO" and all is ended again
 *     work        a receive, a send (kept while the process is quiesced): "ok" or "VERB ERRNO"
 *     settle      takes completions until all that was accepted has arrived, in order: "ok"
 *     end         what was made
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct side {
	struct ibv_context *context;
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_cq_ex *walked;
	struct ibv_mr *mr;
	struct ibv_qp *qp;
	uint64_t posted, completed;
} sides[2];

static char memory[64];
static char failure[64];

/* Pointers come with errno, numbers are errno. */
#define MADE(verb, value) ((value) ? 1 : (snprintf(failure, sizeof(failure), "%s %d", verb, errno), 0))
#define DID(verb, call) did(verb, call)

static int did(const char *verb, int error)
{
	if (error)
		snprintf(failure, sizeof(failure), "%s %d", verb, error);
	return !error;
}

static int open_side(struct side *side, struct ibv_device *device)
{
	struct ibv_cq_init_attr_ex extended = { .cqe = 16 };
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { 8, 8, 2, 2, 16 } };

	errno = 0;
	if (!MADE("open_device", side->context = ibv_open_device(device)) ||
	    !MADE("alloc_pd", side->pd = ibv_alloc_pd(side->context)) ||
	    !MADE("create_comp_channel", side->channel = ibv_create_comp_channel(side->context)) ||
	    !MADE("create_cq", side->cq = ibv_create_cq(side->context, 32, NULL, side->channel, 0)) ||
	    !MADE("create_cq_ex", side->walked = ibv_create_cq_ex(side->context, &extended)) ||
	    !MADE("reg_mr", side->mr = ibv_reg_mr(side->pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE)))
		return 0;
	init.send_cq = init.recv_cq = side->cq;
	return MADE("create_qp", side->qp = ibv_create_qp(side->pd, &init)) &&
	       DID("req_notify_cq", ibv_req_notify_cq(side->cq, 0));
}

static int connect_side(struct side *side, const struct side *peer)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT, .port_num = 1 };

	if (!DID("INIT", ibv_modify_qp(side->qp, &attr,
				       IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS)))
		return 0;
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024,
				     .dest_qp_num = peer->qp->qp_num,
				     .ah_attr = { .is_global = 1, .port_num = 1, .grh = { .sgid_index = 1 } } };
	if (!DID("query_gid", ibv_query_gid(peer->context, 1, 1, &attr.ah_attr.grh.dgid)) ||
	    !DID("RTR", ibv_modify_qp(side->qp, &attr,
				      IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					      IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER)))
		return 0;
	attr = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .rnr_retry = 7 };
	return DID("RTS", ibv_modify_qp(side->qp, &attr,
					IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
						IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
}

static void end_side(struct side *side)
{
	int wrong = (side->qp && ibv_destroy_qp(side->qp)) || (side->mr && ibv_dereg_mr(side->mr)) ||
		    (side->cq && ibv_destroy_cq(side->cq)) ||
		    (side->walked && ibv_destroy_cq(ibv_cq_ex_to_cq(side->walked))) ||
		    (side->channel && ibv_destroy_comp_channel(side->channel)) || (side->pd && ibv_dealloc_pd(side->pd)) ||
		    (side->context && ibv_close_device(side->context));

	if (wrong)
		abort();
	memset(side, 0, sizeof(*side));
}

static int make(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	int made = MADE("get_device_list", list) && open_side(&sides[0], list[0]) && open_side(&sides[1], list[1]) &&
		   connect_side(&sides[0], &sides[1]) && connect_side(&sides[1], &sides[0]);

	if (list)
		ibv_free_device_list(list);
	if (!made) {
		end_side(&sides[0]);
		end_side(&sides[1]);
	}
	return made;
}

static void *work(void *done)
{
	struct ibv_sge sge = { (uintptr_t)memory, 8, sides[1].mr->lkey };
	struct ibv_recv_wr recv = { .wr_id = sides[1].posted, .sg_list = &sge, .num_sge = 1 }, *bad_recv = NULL;
	struct ibv_send_wr send = { .wr_id = sides[0].posted, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND,
				    .send_flags = IBV_SEND_SIGNALED }, *bad_send = NULL;
	int error = ibv_post_recv(sides[1].qp, &recv, &bad_recv);

	if (error && bad_recv != &recv)
		abort();
	if (!DID("post_recv", error))
		return NULL;
	sides[1].posted++;
	sge.lkey = sides[0].mr->lkey;
	error = ibv_post_send(sides[0].qp, &send, &bad_send);
	if (error && bad_send != &send)
		abort();
	if (!DID("post_send", error))
		return NULL;
	sides[0].posted++;
	*(int *)done = 1;
	return NULL;
}

/* In a thread of its own, which is new to the library. */
static int work_in_thread(void)
{
	pthread_t thread;
	int done = 0;

	if (pthread_create(&thread, NULL, work, &done) || pthread_join(thread, NULL))
		abort();
	return done;
}

static int settle(void)
{
	time_t limit = time(NULL) + 10;

	/* A receive that was posted without its send stays for the next round. */
	while (sides[0].completed < sides[0].posted || sides[1].completed < sides[0].posted) {
		for (int s = 0; s < 2; s++) {
			struct ibv_wc wc;
			int count = ibv_poll_cq(sides[s].cq, 1, &wc);

			if (count < 0 || (count && (wc.status != IBV_WC_SUCCESS || wc.qp_num != sides[s].qp->qp_num ||
						    wc.wr_id != sides[s].completed))) {
				snprintf(failure, sizeof(failure), "completion %d %d %lu instead of %lu on %d", count,
					 count > 0 ? (int)wc.status : 0, (unsigned long)wc.wr_id,
					 (unsigned long)sides[s].completed, s);
				return 0;
			}
			sides[s].completed += (unsigned int)count;
		}
		if (time(NULL) > limit) {
			snprintf(failure, sizeof(failure), "%lu sent, %lu and %lu completed",
				 (unsigned long)sides[0].posted, (unsigned long)sides[0].completed,
				 (unsigned long)sides[1].completed);
			return 0;
		}
	}
	return 1;
}

int main(void)
{
	void (*arm)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "scarce_arm");
	int (*disarm)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "scarce_disarm");
	char line[32];
	int number;

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		int good = 1;

		if (sscanf(line, "arm %d", &number) == 1) {
			arm(number);
		} else if (!strcmp(line, "disarm\n")) {
			printf("%d\n", disarm());
			continue;
		} else if (!strcmp(line, "make\n")) {
			good = make();
		} else if (!strcmp(line, "work\n")) {
			good = work_in_thread();
		} else if (!strcmp(line, "settle\n")) {
			good = settle();
		} else if (!strcmp(line, "end\n")) {
			end_side(&sides[0]);
			end_side(&sides[1]);
		}
		puts(good ? "ok" : failure);
	}
	return 0;
}
