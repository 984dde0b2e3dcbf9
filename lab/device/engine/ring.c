/* What a consumer does with a completion queue besides polling it; links without the engine. */
#include "ring.h"

uint32_t rnic_completions_purge(struct rnic_ring *ring, uint32_t qpn)
{
	uint32_t end = __atomic_load_n(&ring->produced, __ATOMIC_ACQUIRE);
	uint32_t keep = end;

	/* From the newest to the oldest, so that what stays moves towards the producer's end. */
	for (uint32_t at = end; at != ring->consumed;) {
		struct rnic_completion *one = rnic_ring_at(ring, --at);

		if (one->qpn == qpn)
			continue;
		keep--;
		if (keep != at)
			memcpy(rnic_ring_at(ring, keep), one, sizeof(*one));
	}
	uint32_t gone = keep - ring->consumed;
	__atomic_store_n(&ring->consumed, keep, __ATOMIC_RELEASE);
	return gone;
}
