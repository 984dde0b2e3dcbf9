/* An application whose child opens a device of its own; commands and answers are lines. */
#include <infiniband/verbs.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static struct ibv_context *open_first(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	struct ibv_context *context = list ? ibv_open_device(list[0]) : NULL;

	if (list)
		ibv_free_device_list(list);
	return context;
}

int main(void)
{
	char line[8];
	struct ibv_context *context = open_first();
	int status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!context)
		return 1;
	puts("ready");
	if (!fgets(line, sizeof(line), stdin))
		return 2;
	if (!fork()) {
		struct ibv_context *own = open_first();
		struct ibv_pd *pd = own ? ibv_alloc_pd(own) : NULL;

		puts(pd ? "child" : "failed");
		if (!fgets(line, sizeof(line), stdin))
			_exit(3);
		_exit(ibv_dealloc_pd(pd) || ibv_close_device(own));
	}
	if (wait(&status) < 0 || status)
		return 4;
	puts("parent");
	return ibv_close_device(context);
}
