/*
 * A program that makes and ends, one by one, objects that cannot be moved. Commands on stdin: "make NAME" and "end NAME", each
 * answered by "ok" or the errno.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>

static struct ibv_context *context;
static struct ibv_pd *pd;
static struct ibv_qp *qp;
static struct ibv_cq *cq;

#define NEWER(name, version) dlvsym(RTLD_DEFAULT, name, version)

static void *make_counters(void) { return ibv_create_counters(context, &(struct ibv_counters_init_attr){ 0 }); }
static int end_counters(void *it) { return ibv_destroy_counters(it); }
static void *make_flow(void) { return ibv_create_flow(qp, &(struct ibv_flow_attr){ 0 }); }
static int end_flow(void *it) { return ibv_destroy_flow(it); }
static void *make_action(void) { return ibv_create_flow_action_esp(context, &(struct ibv_flow_action_esp_attr){ 0 }); }
static int end_action(void *it) { return ibv_destroy_flow_action(it); }
static void *make_wq(void) { return ibv_create_wq(context, &(struct ibv_wq_init_attr){ .pd = pd, .cq = cq }); }
static int end_wq(void *it) { return ibv_destroy_wq(it); }
static void *make_table(void) { return ibv_create_rwq_ind_table(context, &(struct ibv_rwq_ind_table_init_attr){ 0 }); }
static int end_table(void *it) { return ibv_destroy_rwq_ind_table(it); }
static void *make_dm(void) { return ibv_alloc_dm(context, &(struct ibv_alloc_dm_attr){ .length = 64 }); }
static int end_dm(void *it) { return ibv_free_dm(it); }
static void *make_td(void) { return ibv_alloc_td(context, &(struct ibv_td_init_attr){ 0 }); }
static int end_td(void *it) { return ibv_dealloc_td(it); }
static void *make_parent(void) { return ibv_alloc_parent_domain(context, &(struct ibv_parent_domain_init_attr){ .pd = pd }); }
static int end_pd(void *it) { return ibv_dealloc_pd(it); }

static void *make_dmah(void)
{
	void *(*make)(struct ibv_context *, void *) = (void *(*)(struct ibv_context *, void *))NEWER("ibv_alloc_dmah", "IBVERBS_1.15");

	return make(context, NULL);
}

static int end_dmah(void *it) { return ((int (*)(void *))NEWER("ibv_dealloc_dmah", "IBVERBS_1.15"))(it); }

static void *make_buffer(void)
{
	void *(*make)(struct ibv_pd *, size_t, void **) = (void *(*)(struct ibv_pd *, size_t, void **))NEWER("ibv_alloc_buf", "IBVERBS_1.17");
	void *buffer;

	return make(pd, 64, &buffer) ? buffer : NULL;
}

static int end_buffer(void *it)
{
	((void (*)(void *))NEWER("ibv_free_buf", "IBVERBS_1.17"))(it);
	return 0;
}

static void *make_import(void) { return ibv_import_pd(context, pd->handle); }
static int unimport(void *it) { return ibv_unimport_pd(it), 0; }

static struct kind {
	const char *name;
	void *(*make)(void);
	int (*end)(void *);
	void *it;
} kinds[] = {
	{ "counters", make_counters, end_counters, NULL },
	{ "flow steering", make_flow, end_flow, NULL },
	{ "a flow action", make_action, end_action, NULL },
	{ "a work queue", make_wq, end_wq, NULL },
	{ "a receive work queue table", make_table, end_table, NULL },
	{ "device memory", make_dm, end_dm, NULL },
	{ "a thread domain", make_td, end_td, NULL },
	{ "a parent domain", make_parent, end_pd, NULL },
	{ "a DMA handle", make_dmah, end_dmah, NULL },
	{ "a buffer made by ibv_alloc_buf", make_buffer, end_buffer, NULL },
	{ "an imported protection domain", make_import, unimport, NULL },
};

static int answer(struct kind *kind, int make)
{
	if (!make)
		return kind->end(kind->it);
	kind->it = kind->make();
	return kind->it ? 0 : errno;
}

int main(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	char line[64];

	context = list ? ibv_open_device(list[0]) : NULL;
	pd = context ? ibv_alloc_pd(context) : NULL;
	cq = pd ? ibv_create_cq(context, 8, NULL, NULL, 0) : NULL;
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	qp = cq ? ibv_create_qp(pd, &init) : NULL;
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(qp ? "ready" : "no");
	while (fgets(line, sizeof(line), stdin)) {
		int make = !strncmp(line, "make ", 5), error = ENOENT;

		line[strcspn(line, "\n")] = 0;
		for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
			if (!strcmp(strchr(line, ' ') + 1, kinds[i].name))
				error = answer(&kinds[i], make);
		puts(error ? strerrorname_np(error) : "ok");
	}
	return 0;
}
