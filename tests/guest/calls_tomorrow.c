/*
 * A program that knows more verbs than the guest library does (tomorrow.c). It is built with all references resolved at its start or
 * each at the first call; LOOKED_UP: it has none, and asks for them by name.
 *
 * Commands on stdin, each answered by a line:
 *     whose, weigh, nobody, name      what the verb of that name has said
 *     end                             everything is ended
 */
#include <dlfcn.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef double weigh(struct ibv_qp *, int, double, struct ibv_pd *, long, struct ibv_cq *, struct ibv_mr *, long, short,
		     struct ibv_srq *);
typedef struct ibv_context *whose(struct ibv_context *);
typedef int of_nobody(unsigned long, const char *);
typedef const char *call_it(struct ibv_device *);

#ifdef LOOKED_UP
#define VERB(name) ((name *)(uintptr_t)dlsym(library, "ibv_" #name))
static void *library;
#else
weigh ibv_weigh;
whose ibv_whose;
of_nobody ibv_of_nobody;
call_it ibv_call_it;
#define VERB(name) ibv_##name
#endif

int main(void)
{
	static char memory[4096];
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = ibv_open_device(list[0]);
	struct ibv_pd *pd = ibv_alloc_pd(context);
	struct ibv_cq *cq = ibv_create_cq(context, 8, NULL, NULL, 0);
	struct ibv_mr *mr = ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE);
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };
	struct ibv_qp *qp = ibv_create_qp(pd, &init);
	char line[64];

#ifdef LOOKED_UP
	library = dlopen("libibverbs.so.1", RTLD_NOW);
#endif
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts(mr && qp ? "ready" : "failed");
	while (fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = 0;
		errno = 0;
		if (!strcmp(line, "whose")) {
			struct ibv_context *real = VERB(whose)(context);

			puts(!real ? "foreign" : real == context ? "the same" : "another");
		} else if (!strcmp(line, "weigh")) {
			double weight = VERB(weigh)(qp, 1, 2.5, pd, 4, cq, mr, 8, -16, NULL);

			printf("%.1f %d\n", weight, errno);
		} else if (!strcmp(line, "nobody")) {
			printf("%d\n", VERB(of_nobody)(38, "four"));
		} else if (!strcmp(line, "name")) {
			puts(VERB(call_it)(list[0]));
		} else {
			int error = ibv_destroy_qp(qp) || ibv_dereg_mr(mr) || ibv_destroy_cq(cq) || ibv_dealloc_pd(pd);

			puts(error ? strerror(errno) : "ok");
		}
	}
	return 0;
}
