#include "objects/rdma_cm.h"

#include <string.h>

#include "base/descriptors.h"

static void look_for_rdma_cm(int fd, const char *target, void *argument)
{
	static const char name[] = "/rdma_cm";
	size_t length = strlen(target);
	struct stat stat;

	if (length >= sizeof(name) - 1 && !strcmp(target + length - (sizeof(name) - 1), name) &&
	    !mig_stat_descriptor(fd, &stat) && S_ISCHR(stat.st_mode))
		*(int *)argument = 1;
}

int mig_holds_rdma_cm(void)
{
	int found = 0;

	mig_each_descriptor(look_for_rdma_cm, &found);
	return found;
}
