#include "base/pages.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The length stands in front, in a whole cache line so that what follows is aligned. */
struct head {
	size_t length;
} __attribute__((aligned(64)));

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer must see that an address was given back before it is somebody else's. */
#define MAP(length) mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
#define UNMAP(address, length) munmap(address, length)
#else
#define MAP(length) \
	(void *)syscall(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
#define UNMAP(address, length) syscall(SYS_munmap, address, length)
#endif

void *mig_pages_alloc(size_t size)
{
	size_t length = size + sizeof(struct head);
	struct head *head = MAP(length);

	if (head == MAP_FAILED)
		return NULL;
	head->length = length;
	return head + 1;
}

void mig_pages_free(void *pages)
{
	int saved = errno;

	if (pages) {
		struct head *head = (struct head *)pages - 1;
		UNMAP(head, head->length);
	}
	errno = saved;
}
