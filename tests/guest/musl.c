/*
 * A program that looks for a libibverbs by itself, and has else nothing to do with verbs. What it prints, and its exit
 * code, are compared with and without the guest library. It does what a library that is loaded before it could spoil:
 * threads with words of their own, a fork, errno, symbols looked up by name.
 *
 *     musl WORD    whose: says whether the verbs it has found are those that were loaded first
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Not of every C library: whether it is there must not change what a program gets that asks before it calls. */
extern void *dlvsym(void *restrict, const char *restrict, const char *restrict) __attribute__((weak));

static __thread int own = 5;

static void *add(void *argument)
{
	char *memory = malloc(1 << 20);

	memset(memory, 1, 1 << 20);
	own += *(int *)argument + memory[4711];
	free(memory);
	return (void *)(intptr_t)own;
}

static void look_for_verbs(int whose)
{
	void *library = dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL);
	void **(*list)(int *) = library ? (void **(*)(int *))dlsym(library, "ibv_get_device_list") : NULL;
	void *(*open)(void *) = library ? (void *(*)(void *))dlsym(library, "ibv_open_device") : NULL;
	int (*close)(void *) = library ? (int (*)(void *))dlsym(library, "ibv_close_device") : NULL;
	int count = 0;
	void **devices = list ? list(&count) : NULL;
	void *context = devices ? open(devices[0]) : NULL;

	printf("%s verbs, %d devices, %s\n", library ? "some" : "no", count,
	       !context ? "none opened" : close(context) ? "not closed" : "closed");
	if (whose)
		puts((void *)open == dlsym(RTLD_DEFAULT, "ibv_open_device") ? "loaded first" : "their own");
}

int main(int argc, char **argv)
{
	pthread_t threads[8];
	int numbers[8], status;

	printf("%d arguments, errno %d\n", argc, errno);
	for (int i = 0; i < 8; i++) {
		numbers[i] = i;
		if (pthread_create(&threads[i], NULL, add, &numbers[i]))
			return 1;
	}
	for (int i = 0; i < 8; i++) {
		void *result;

		pthread_join(threads[i], &result);
		printf("thread %d: %d\n", i, (int)(intptr_t)result);
	}
	printf("own %d, strlen %d, nothing %d\n", own, dlsym(RTLD_DEFAULT, "strlen") == (void *)strlen,
	       dlsym(RTLD_DEFAULT, "no_such_function") == NULL);
	if (dlvsym && (!dlvsym(RTLD_DEFAULT, "strlen", "GLIBC_2.2.5") || dlvsym(RTLD_DEFAULT, "no_such_function", "X_1")))
		return 2;
	look_for_verbs(argc > 1 && !strcmp(argv[1], "whose"));
	fflush(stdout);
	pid_t child = fork();
	if (!child)
		_exit(pthread_create(&threads[0], NULL, add, &numbers[3]) || pthread_join(threads[0], NULL) ? 1 : 42);
	if (waitpid(child, &status, 0) != child)
		return 3;
	printf("child %d\n", WEXITSTATUS(status));
	fprintf(stderr, "to the end with %s\n", argv[1]);
	return 7;
}
