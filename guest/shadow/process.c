#include "shadow/process.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct mig_process mig = { .contexts = { &mig.contexts, &mig.contexts }, .state = MIG_STATE_RUNNING };

/* Nothing but the log's first line: what a process does not use must not cost it anything. */
__attribute__((constructor)) static void announce(void)
{
	if (getenv("MIGRRDMA_LOG"))
		mig_log(MIG_LOG_INFO, "the guest library is loaded");
}

void mig_cannot_migrate(const char *format, ...)
{
	char text[MIG_TEXT];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);

	MIG_LOCKED(&mig.lock);
	for (int i = 0; i < mig.reasons; i++)
		if (!strcmp(mig.reason[i], text))
			return;
	if (mig.reasons == (int)(sizeof(mig.reason) / sizeof(mig.reason[0])))
		return;
	memcpy(mig.reason[mig.reasons++], text, sizeof(text));
	mig_log(MIG_LOG_INFO, "cannot be migrated: %s", text);
}
