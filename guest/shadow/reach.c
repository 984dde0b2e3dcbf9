#include "shadow/reach.h"

#include <infiniband/verbs.h>
#include <string.h>

#include "shadow/process.h"

struct mig_reach mig_reach;

/* For which the kernel takes the pages writable (ib_access_writable in its rdma/ib_verbs.h). */
#define WRITABLE (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND)

static void remove_pieces(uint32_t first, uint32_t count)
{
	memmove(&mig_reach.pieces[first], &mig_reach.pieces[first + count],
		(mig_reach.count - first - count) * sizeof(mig_reach.pieces[0]));
	mig_reach.count -= count;
}

static void join_the_nearest(void)
{
	uint32_t best = 0;
	uint64_t least = UINT64_MAX;

	for (uint32_t i = 0; i + 1 < mig_reach.count; i++) {
		uint64_t gap = mig_reach.pieces[i + 1].start - mig_reach.pieces[i].end;

		if (gap < least) {
			least = gap;
			best = i;
		}
	}
	mig_reach.pieces[best].end = mig_reach.pieces[best + 1].end;
	remove_pieces(best + 1, 1);
}

static void take_in(uint64_t start, uint64_t end)
{
	uint32_t first = 0, behind;

	while (first < mig_reach.count && mig_reach.pieces[first].end < start)
		first++;
	for (behind = first; behind < mig_reach.count && mig_reach.pieces[behind].start <= end; behind++) {
		if (mig_reach.pieces[behind].start < start)
			start = mig_reach.pieces[behind].start;
		if (mig_reach.pieces[behind].end > end)
			end = mig_reach.pieces[behind].end;
	}
	if (behind == first) {
		memmove(&mig_reach.pieces[first + 1], &mig_reach.pieces[first],
			(mig_reach.count - first) * sizeof(mig_reach.pieces[0]));
		mig_reach.count++;
	} else {
		remove_pieces(first + 1, behind - first - 1);
	}
	mig_reach.pieces[first].start = start;
	mig_reach.pieces[first].end = end;
	/* One place is always free for the next one. */
	if (mig_reach.count == MIG_REACH_PIECES)
		join_the_nearest();
}

void mig_reach_add(const void *addr, size_t length, unsigned int access)
{
	uint64_t start = (uintptr_t)addr;

	/* On demand the device faults, and the kernel sees it. */
	if (!length || !(access & WRITABLE) || access & IBV_ACCESS_ON_DEMAND)
		return;
	MIG_LOCKED(&mig.lock);
	take_in(start, start + length < start ? UINT64_MAX : start + length);
}
