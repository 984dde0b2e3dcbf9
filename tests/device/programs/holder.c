/*
 * Opens the first device, makes a queue pair and what it needs, and says "open". A line on standard input ends it; the line
 * "exec" has another program take its place, as an application that starts a helper without fork would, and "more" makes
 * another protection domain, and prints the error. With an argument it tries memory that cannot be registered, and prints the errors.
 */
#include <errno.h>
#include <infiniband/verbs.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Three pages, of which the second is not there and the third is only read. */
static void try_memory(struct ibv_pd *pd)
{
	char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const struct {
		int offset, length, access;
	} regions[] = { { 0, 4096, IBV_ACCESS_LOCAL_WRITE }, { 0, 4097, 0 }, { 4096, 1, 0 }, { 8192, 4096, 0 },
			{ 8192, 1, IBV_ACCESS_LOCAL_WRITE } };

	if (pages == MAP_FAILED || munmap(pages + 4096, 4096) || mprotect(pages + 8192, 4096, PROT_READ))
		return;
	for (unsigned int i = 0; i < sizeof(regions) / sizeof(regions[0]); i++) {
		errno = 0;
		ibv_reg_mr(pd, pages + regions[i].offset, (size_t)regions[i].length, regions[i].access);
		printf("%d ", errno == EFAULT ? 1 : errno);
	}
}

int main(int argc, char **argv)
{
	static char memory[4096];
	char line[16];
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list && list[0] ? ibv_open_device(list[0]) : NULL;
	struct ibv_pd *pd = context ? ibv_alloc_pd(context) : NULL;
	struct ibv_comp_channel *channel = context ? ibv_create_comp_channel(context) : NULL;
	struct ibv_cq *cq = channel ? ibv_create_cq(context, 8, NULL, channel, 0) : NULL;
	struct ibv_qp_init_attr init = { .send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC, .cap = { 4, 4, 1, 1, 0 } };

	if (!cq || !ibv_reg_mr(pd, memory, sizeof(memory), IBV_ACCESS_LOCAL_WRITE) || !ibv_create_qp(pd, &init)) {
		perror("holder");
		return 1;
	}
	(void)argv;
	if (argc > 1) {
		try_memory(pd);
		return 0;
	}
	puts("open");
	fflush(stdout);
	if (!fgets(line, sizeof(line), stdin))
		return 0;
	if (!strcmp(line, "exec\n"))
		execl("/bin/cat", "cat", NULL);
	if (!strcmp(line, "more\n"))
		puts(ibv_alloc_pd(context) ? "made" : strerror(errno));
	return 0;
}
