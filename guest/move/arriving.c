#include "move/arriving.h"

#include <errno.h>
#include <string.h>

#include "base/pages.h"

int mig_arriving_add(struct mig_arriving *arriving, const void *records, uint32_t count, size_t size, uint32_t most)
{
	if (count > most - arriving->count)
		return E2BIG;
	if (arriving->count + count > arriving->room) {
		uint32_t room = (arriving->count + count) * 2;
		void *larger = mig_pages_alloc(room * size);

		if (!larger)
			return ENOMEM;
		if (arriving->count)
			memcpy(larger, arriving->records, arriving->count * size);
		mig_pages_free(arriving->records);
		arriving->records = larger;
		arriving->room = room;
	}
	if (count)
		memcpy((char *)arriving->records + arriving->count * size, records, count * size);
	arriving->count += count;
	return 0;
}

void mig_arriving_forget(struct mig_arriving *arriving)
{
	mig_pages_free(arriving->records);
	memset(arriving, 0, sizeof(*arriving));
}
