/* An application that looks the verbs up itself, as NCCL and UCX do. The exit code says which step went wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ibv_device;

int main(void)
{
	void *before = dlsym(RTLD_DEFAULT, "ibv_open_device");
	void *handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!handle)
		return 1;
	struct ibv_device **(*list)(int *) = dlvsym(handle, "ibv_get_device_list", "IBVERBS_1.1");
	void *(*open)(void *) = dlvsym(handle, "ibv_open_device", "IBVERBS_1.1");
	int (*close)(void *) = dlsym(handle, "ibv_close_device");
	if (!list || (void *)open != before || !close)
		return 2;
	/* What we do not define is the real library's, and what nobody has stays unknown. */
	if (!dlsym(handle, "ibv_wc_status_str") || dlsym(handle, "ibv_no_such_verb") ||
	    dlvsym(handle, "ibv_open_device", "IBVERBS_9.9"))
		return 3;
	int count = 0;
	void *context = open(((void **)list(&count))[0]);
	if (count != 2 || !context || close(context))
		return 4;
	return dlclose(handle);
}
