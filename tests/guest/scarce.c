/*
 * Goes before the guest library and lets the n-th of its allocations fail, from malloc to mmap; those of the program
 * and of libibverbs are never touched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static uintptr_t low, high;
static int countdown, hits;

void scarce_arm(int nth);
int scarce_disarm(void);
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static int find(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size, (void)unused;
	if (!strstr(info->dlpi_name, "libmigrrdma"))
		return 0;
	low = UINTPTR_MAX;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *part = &info->dlpi_phdr[i];
		uintptr_t begin = info->dlpi_addr + part->p_vaddr;

		if (part->p_type != PT_LOAD)
			continue;
		low = begin < low ? begin : low;
		high = begin + part->p_memsz > high ? begin + part->p_memsz : high;
	}
	return 1;
}

void scarce_arm(int nth)
{
	if (!low)
		dl_iterate_phdr(find, NULL);
	__atomic_store_n(&hits, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&countdown, nth, __ATOMIC_SEQ_CST);
}

/* How many allocations failed. */
int scarce_disarm(void)
{
	__atomic_store_n(&countdown, 0, __ATOMIC_SEQ_CST);
	return low ? __atomic_load_n(&hits, __ATOMIC_SEQ_CST) : -1;
}

static int fails(void *caller)
{
	if ((uintptr_t)caller < low || (uintptr_t)caller >= high || __atomic_load_n(&countdown, __ATOMIC_SEQ_CST) <= 0 ||
	    __atomic_sub_fetch(&countdown, 1, __ATOMIC_SEQ_CST) != 0)
		return 0;
	__atomic_add_fetch(&hits, 1, __ATOMIC_SEQ_CST);
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails(__builtin_return_address(0)) ? NULL : __libc_calloc(count, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size)
{
	*memory = fails(__builtin_return_address(0)) ? NULL : __libc_memalign(alignment, size);
	return *memory ? 0 : ENOMEM;
}

long syscall(long number, ...)
{
	static long (*next)(long, ...);
	va_list list;
	long a[6];

	if (number == SYS_mmap && fails(__builtin_return_address(0)))
		return -1;
	if (!next)
		next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	va_start(list, number);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(list, long);
	va_end(list);
	return next(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
