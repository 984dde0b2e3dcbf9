/*
 * Memory that was unmapped while it was registered. UCX does that all the time: it takes regions out of its cache when their
 * memory is unmapped, and ends them when it next has something to do with the cache.
 */
#include "objects/mr_left.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of whoever has no memory left: it lies where no memory of the application can have been. */
static char nothing[1];

static int is_mapped(uintptr_t from, uintptr_t to)
{
	/* Nothing is written: that is all that the kernel looks at. By hand, as libc's is a cancellation point. */
	return from == to || !syscall(SYS_msync, from, to - from, MS_ASYNC);
}

/* How many of the pages from here on, or up to here, are mapped without a hole between them. */
static size_t mapped_pages(uintptr_t start, uintptr_t end, size_t page, int from_the_end)
{
	size_t mapped = 0, not_mapped = (end - start) / page + 1;

	while (not_mapped - mapped > 1) {
		size_t some = mapped + (not_mapped - mapped) / 2, bytes = some * page;
		int found = from_the_end ? is_mapped(end - bytes, end) : is_mapped(start, start + bytes);

		*(found ? &mapped : &not_mapped) = some;
	}
	return mapped;
}

struct ibv_mr *mig_mr_ask_for_what_is_left(enum mig_mr_way way, struct ibv_pd *pd, void *addr, size_t length, uint64_t iova,
					   unsigned int access)
{
	int error = errno;
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)addr, end = begin + length;
	uintptr_t first = begin & ~(page - 1), last = (end + page - 1) & ~(page - 1);

	if (end < begin || last < first || is_mapped(first, last)) {
		errno = error;
		return NULL;
	}
	uintptr_t head = first + mapped_pages(first, last, page, 0) * page;
	uintptr_t tail = last - mapped_pages(first, last, page, 1) * page;

	/* Where addresses count from the beginning of the region, it must be the beginning. */
	if (head > first && (head - first >= last - tail || access & IBV_ACCESS_ZERO_BASED))
		return mig_mr_ask(way, pd, addr, head - begin, iova, access);
	if (tail < last && !(access & IBV_ACCESS_ZERO_BASED))
		return mig_mr_ask(way, pd, (char *)addr + (tail - begin), end - tail, iova + (tail - begin), access);
	return mig_mr_ask(MIG_MR_PLAIN, pd, nothing, sizeof(nothing), (uintptr_t)nothing, 0);
}
