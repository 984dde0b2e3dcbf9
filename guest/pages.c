#include "pages.h"

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The length stands in front, in a whole cache line so that what follows is aligned. */
struct head {
	size_t length;
} __attribute__((aligned(64)));

void *mig_pages_alloc(size_t size)
{
	size_t length = size + sizeof(struct head);
	struct head *head = (struct head *)syscall(SYS_mmap, NULL, length, PROT_READ | PROT_WRITE,
						   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

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
		syscall(SYS_munmap, head, head->length);
	}
	errno = saved;
}
