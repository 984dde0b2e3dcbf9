/* A program that uses verbs which the libibverbs it was built against has not: completion counters. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define FIND(name) ((void *(*)())(uintptr_t)dlvsym(RTLD_DEFAULT, name, "IBVERBS_1.18"))
#define ANSWER(name) ((int (*)())(uintptr_t)dlvsym(RTLD_DEFAULT, name, "IBVERBS_1.18"))

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list ? ibv_open_device(list[0]) : NULL;
	struct ibv_pd *pd = context ? ibv_alloc_pd(context) : NULL;
	struct ibv_cq *cq = pd ? ibv_create_cq(context, 8, NULL, NULL, 0) : NULL;
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_qp *qp = cq ? ibv_create_qp(pd, &init) : NULL;
	void *counter = NULL;
	char line[16], attr[64] = "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(qp ? "ready" : "no");
	while (fgets(line, sizeof(line), stdin)) {
		int failed;

		if (!strcmp(line, "create\n")) {
			failed = ANSWER("_ibv_query_comp_cntr_caps")(context, attr, sizeof(attr)) ||
				 FIND("ibv_create_comp_cntr")(context, NULL);
			counter = FIND("ibv_create_comp_cntr")(context, attr);
			failed = failed || !counter;
		} else if (!strcmp(line, "attach\n")) {
			failed = ANSWER("ibv_qp_attach_comp_cntr")(qp, counter, attr);
		} else if (!strcmp(line, "end QP\n")) {
			failed = ibv_destroy_qp(qp);
		} else {
			failed = ANSWER("ibv_destroy_comp_cntr")(counter);
		}
		puts(failed ? "no" : "ok");
	}
	return 0;
}
