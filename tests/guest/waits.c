/*
 * A partner that has connections and sends nothing on them: its other ends may be anything, even a test that only
 * says that it has queue pairs.
 *
 *     waits COUNT
 *
 * Commands on stdin, each answered by a line: "connect A.B.C.D QPN" connects its QPs to QPN, QPN + 1, … there and
 * names its own; "see" says what an application sees of them.
 */
#include <arpa/inet.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 16

static struct ibv_qp *qps[MOST];

static void require(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

static void connect_to(struct ibv_qp *qp, const char *address, uint32_t qpn)
{
	struct ibv_qp_attr init = { .qp_state = IBV_QPS_INIT, .port_num = 1 };
	struct ibv_qp_attr rtr = { .qp_state = IBV_QPS_RTR, .path_mtu = IBV_MTU_1024, .dest_qp_num = qpn,
				   .ah_attr = { .is_global = 1, .port_num = 1, .grh.sgid_index = 1 } };
	struct ibv_qp_attr rts = { .qp_state = IBV_QPS_RTS };
	unsigned char *dgid = rtr.ah_attr.grh.dgid.raw;

	memset(dgid + 10, 0xff, 2);
	require(inet_pton(AF_INET, address, dgid + 12) == 1, "address");
	require(!ibv_modify_qp(qp, &init, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS), "INIT");
	require(!ibv_modify_qp(qp, &rtr,
			       IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				       IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER),
		"RTR");
	require(!ibv_modify_qp(qp, &rts,
			       IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
				       IBV_QP_MAX_QP_RD_ATOMIC),
		"RTS");
}

static void see(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr;
	struct ibv_qp_init_attr init;
	char address[INET_ADDRSTRLEN];

	require(!ibv_query_qp(qp, &attr, IBV_QP_AV | IBV_QP_DEST_QPN, &init), "query_qp");
	inet_ntop(AF_INET, attr.ah_attr.grh.dgid.raw + 12, address, sizeof(address));
	printf("%u>%s:%u ", qp->qp_num, address, attr.dest_qp_num);
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;
	struct ibv_device **list = ibv_get_device_list(NULL);
	char line[128], address[64];
	unsigned int qpn;

	require(list && list[0] && count <= MOST, "devices");
	struct ibv_context *context = ibv_open_device(list[0]);
	require(context != NULL, "open_device");
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 64, NULL, NULL, 0);
	for (int i = 0; i < count; i++) {
		struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
						 .cap = { 4, 4, 1, 1, 0 } };

		qps[i] = ibv_create_qp(pd, &init);
		require(qps[i] != NULL, "create_qp");
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("ready");
	while (fgets(line, sizeof(line), stdin)) {
		int connect = sscanf(line, "connect %63s %u", address, &qpn) == 2;

		for (int i = 0; i < count; i++) {
			if (connect)
				connect_to(qps[i], address, qpn + (unsigned int)i);
			see(qps[i]);
		}
		puts("");
	}
	return 0;
}
