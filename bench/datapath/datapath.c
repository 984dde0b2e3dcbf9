/*
 * What one call of the data path costs: with a device whose functions do nothing, so that all that is left is the
 * call, and the guest library if it is there.
 *
 *     datapath post_send|post_recv|poll_empty|poll_full COUNT
 *
 * Prints nanoseconds per call. Under callgrind the instructions of two runs with different counts, subtracted, are
 * those of the calls alone (bench/datapath/measure.py).
 */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct ibv_qp *make(struct ibv_context *context, struct ibv_cq **cq, struct ibv_mr **mr)
{
	static char memory[4096];
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_qp_init_attr init = { .qp_type = IBV_QPT_RC, .cap = { 64, 64, 1, 1, 0 } };

	*cq = init.send_cq = init.recv_cq = ibv_create_cq(context, 256, NULL, NULL, 0);
	*mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	return *cq && *mr ? ibv_create_qp(pd, &init) : NULL;
}

int main(int argc, char **argv)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list ? ibv_open_device(list[0]) : NULL;
	struct ibv_cq *cq;
	struct ibv_mr *mr;
	struct ibv_qp *qp = context && argc == 3 ? make(context, &cq, &mr) : NULL;
	long count = argc == 3 ? atol(argv[2]) : 0;
	struct timespec begin, end;

	if (!qp || count < 1)
		return 2;
	struct ibv_sge sge = { (uintptr_t)mr->addr, 8, mr->lkey };
	struct ibv_send_wr send = { .wr_id = 1, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND }, *bad_send;
	struct ibv_recv_wr recv = { .wr_id = 1, .sg_list = &sge, .num_sge = 1 }, *bad_recv;
	struct ibv_wc wc[16];
	long failed = 0;

	/* The first calls of a thread and of a queue do more than the others. */
	failed += ibv_post_send(qp, &send, &bad_send) + ibv_post_recv(qp, &recv, &bad_recv);
	failed += ibv_poll_cq(cq, 0, wc) + ibv_poll_cq(cq, 0, wc);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (!strcmp(argv[1], "post_send"))
		for (long i = 0; i < count; i++)
			failed += ibv_post_send(qp, &send, &bad_send);
	else if (!strcmp(argv[1], "post_recv"))
		/* Every receive is completed, or the memory of them would grow. */
		for (long i = 0; i < count; i++)
			failed += ibv_post_recv(qp, &recv, &bad_recv) + (ibv_poll_cq(cq, 1, wc) != 1);
	else if (!strcmp(argv[1], "poll_empty"))
		for (long i = 0; i < count; i++)
			failed += ibv_poll_cq(cq, 0, wc);
	else if (!strcmp(argv[1], "poll_full"))
		for (long i = 0; i < count; i++)
			failed += ibv_poll_cq(cq, 1, wc) != 1;
	else
		return 2;
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.2f\n", ((double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec)) /
				 (double)count);
	return failed != 0;
}
