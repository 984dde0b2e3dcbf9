/* What is alive: all of it in a list, and on each device by its number, so that thousands cost no more than a few. */
#include "fake.h"

struct fake_qp *fake_qps;
struct fake_mr *fake_mrs;

static uint32_t bucket(uint32_t number)
{
	return number * 2654435769u >> 16;
}

static struct fake_device *device_of(struct ibv_context *context)
{
	return fake_context(context)->device;
}

#define ALIVE(kind, number, list)                                                                          \
	void fake_add_##kind(struct fake_##kind *one)                                                      \
	{                                                                                                  \
		struct fake_##kind **chain = &device_of(one->ibv.context)->kind##s[bucket(one->ibv.number)]; \
                                                                                                           \
		one->same = *chain;                                                                        \
		*chain = one;                                                                              \
		one->next = list;                                                                          \
		one->back = &list;                                                                         \
		if (list)                                                                                  \
			list->back = &one->next;                                                           \
		list = one;                                                                                \
	}                                                                                                  \
                                                                                                           \
	void fake_remove_##kind(struct fake_##kind *one)                                                   \
	{                                                                                                  \
		struct fake_##kind **link = &device_of(one->ibv.context)->kind##s[bucket(one->ibv.number)]; \
                                                                                                           \
		if (!one->back)                                                                            \
			return;                                                                            \
		while (*link != one)                                                                       \
			link = &(*link)->same;                                                             \
		*link = one->same;                                                                         \
		*one->back = one->next;                                                                    \
		if (one->next)                                                                             \
			one->next->back = one->back;                                                       \
		one->back = NULL;                                                                          \
	}                                                                                                  \
                                                                                                           \
	struct fake_##kind *fake_find_##kind(struct fake_device *device, uint32_t wanted)                  \
	{                                                                                                  \
		struct fake_##kind *one = device->kind##s[bucket(wanted)];                                 \
                                                                                                           \
		while (one && one->ibv.number != wanted)                                                   \
			one = one->same;                                                                   \
		return one;                                                                                \
	}

ALIVE(qp, qp_num, fake_qps)
ALIVE(mr, lkey, fake_mrs)
