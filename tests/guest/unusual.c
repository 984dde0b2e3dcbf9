/* What programs do with the libraries they load themselves, and with processes. The exit code says what went wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct verbs {
	void *handle;
	void **(*list)(int *count);
	void (*free_list)(void **list);
	void *(*open)(void *device);
	int (*close)(void *context);
	int (*fork_init)(void);
};

static int load(struct verbs *verbs)
{
	verbs->handle = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	if (!verbs->handle)
		return 1;
	verbs->list = (void **(*)(int *))dlsym(verbs->handle, "ibv_get_device_list");
	verbs->free_list = (void (*)(void **))dlvsym(verbs->handle, "ibv_free_device_list", "IBVERBS_1.1");
	verbs->open = (void *(*)(void *))dlsym(verbs->handle, "ibv_open_device");
	verbs->close = (int (*)(void *))dlsym(verbs->handle, "ibv_close_device");
	verbs->fork_init = (int (*)(void))dlsym(verbs->handle, "ibv_fork_init");
	return !verbs->list || !verbs->free_list || !verbs->open || !verbs->close || !verbs->fork_init;
}

static int use(struct verbs *verbs)
{
	void **list = verbs->list(NULL);
	void *context = list ? verbs->open(list[0]) : NULL;

	if (list)
		verbs->free_list(list);
	return !context || verbs->close(context);
}

/* Loaded, used and unloaded again and again, with something else in the place in between. */
static int open_close_open(void)
{
	for (int i = 0; i < 3; i++) {
		struct verbs verbs;

		if (load(&verbs) || use(&verbs))
			return 10 + i;
		if (dlclose(verbs.handle))
			return 20 + i;
		dlopen(i ? "libdl.so.2" : "libm.so.6", RTLD_NOW);
	}
	return 0;
}

static int wait_for(pid_t child)
{
	int status;

	return child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ? 1 : WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
	struct verbs verbs;

	if (argc < 2)
		return 1;
	if (!strcmp(argv[1], "open-close-open"))
		return open_close_open();
	if (load(&verbs))
		return 2;
	if (!strcmp(argv[1], "exec")) {
		void **list = verbs.list(NULL);

		/* With a device open, which the new program knows nothing of. */
		if (!list || !verbs.open(list[0]))
			return 3;
		execv("/proc/self/exe", (char *[]){ argv[0], "fork-init", NULL });
		return 4;
	}
	if (!strcmp(argv[1], "fork-init")) {
		if (verbs.fork_init())
			return 5;
		void **list = verbs.list(NULL);
		void *context = list ? verbs.open(list[0]) : NULL;

		/* Children that use no verbs, before and after the parent does. */
		for (int i = 0; context && i < 3; i++) {
			pid_t child = fork();

			if (!child)
				_exit(i == 2 ? execl("/bin/true", "true", NULL), 9 : 0);
			if (wait_for(child))
				return 6;
			if (use(&verbs))
				return 7;
		}
		return !context || verbs.close(context);
	}
	return 8;
}
