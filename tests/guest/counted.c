/*
 * Counts what a libibverbs has allocated and not freed, in a file that a test reads: linked into it, with its calls of the
 * allocator led here (--wrap). Whatever the library of a device keeps of what has ended is seen that way, and nothing else is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void __real_free(void *memory);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
void __wrap_free(void *memory);

static int64_t unread, *count = &unread;

__attribute__((constructor)) static void open_file(void)
{
	const char *path = getenv("COUNTED");
	int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
	void *memory = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	if (memory != MAP_FAILED)
		count = memory;
}

static void *counted(void *memory)
{
	if (memory)
		__atomic_add_fetch(count, 1, __ATOMIC_RELAXED);
	return memory;
}

void *__wrap_malloc(size_t size)
{
	return counted(__real_malloc(size));
}

void *__wrap_calloc(size_t number, size_t size)
{
	return counted(__real_calloc(number, size));
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
	return counted(__real_aligned_alloc(alignment, size));
}

void __wrap_free(void *memory)
{
	if (memory)
		__atomic_sub_fetch(count, 1, __ATOMIC_RELAXED);
	__real_free(memory);
}
