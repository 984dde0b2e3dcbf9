/*
 * Uses RDMA past everything that is loaded before it: a libibverbs in a namespace of its own, as a static one would be.
 * Makes a queue pair, says so, and waits to be ended.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <unistd.h>

#define FIND(name) __typeof__(name) *name##_ = (__typeof__(name) *)dlsym(handle, #name)

int main(void)
{
	void *handle = dlmopen(LM_ID_NEWLM, "libibverbs.so.1", RTLD_NOW);

	if (!handle) {
		puts(dlerror());
		return 1;
	}
	FIND(ibv_get_device_list);
	FIND(ibv_open_device);
	FIND(ibv_alloc_pd);
	FIND(ibv_create_cq);
	FIND(ibv_create_qp);
	struct ibv_device **devices = ibv_get_device_list_(NULL);
	struct ibv_context *context = devices && devices[0] ? ibv_open_device_(devices[0]) : NULL;
	struct ibv_pd *pd = context ? ibv_alloc_pd_(context) : NULL;
	struct ibv_cq *cq = pd ? ibv_create_cq_(context, 4, NULL, NULL, 0) : NULL;
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 1, 1, 1, 1, 0 } };

	puts(cq && ibv_create_qp_(pd, &init) ? "made" : "failed");
	fflush(stdout);
	pause();
	return 0;
}
