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

static int find_reason(const char *text)
{
	int i = 0;

	while (i < mig.reasons && strncmp(mig.reason[i], text, MIG_TEXT - 1))
		i++;
	return i;
}

void mig_reason_add(const char *text, uint32_t objects)
{
	int i = find_reason(text);

	if (i == MIG_REASONS) {
		/* What is not told must refuse all the same, also when the others are gone. */
		mig.reason_objects[MIG_REASONS - 1] = MIG_FOR_EVER;
		return;
	}
	if (i == mig.reasons) {
		snprintf(mig.reason[i], MIG_TEXT, "%s", text);
		mig.reason_objects[i] = 0;
		__atomic_store_n(&mig.reasons, i + 1, __ATOMIC_RELEASE);
		mig_log(MIG_LOG_INFO, "cannot be migrated: %s", text);
	}
	if (objects >= MIG_FOR_EVER - mig.reason_objects[i])
		mig.reason_objects[i] = MIG_FOR_EVER;
	else
		mig.reason_objects[i] += objects;
}

void mig_reason_drop(const char *text)
{
	int i = find_reason(text), last = mig.reasons - 1;

	if (i > last || mig.reason_objects[i] == MIG_FOR_EVER || --mig.reason_objects[i])
		return;
	mig_log(MIG_LOG_INFO, "no more reason against a migration: %s", text);
	if (i != last) {
		memcpy(mig.reason[i], mig.reason[last], MIG_TEXT);
		mig.reason_objects[i] = mig.reason_objects[last];
	}
	__atomic_store_n(&mig.reasons, last, __ATOMIC_RELEASE);
}

static void cannot(const char *format, va_list arguments)
{
	char text[MIG_TEXT];

	vsnprintf(text, sizeof(text), format, arguments);
	MIG_LOCKED(&mig.lock);
	mig_reason_add(text, MIG_FOR_EVER);
}

void mig_cannot_migrate(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	cannot(format, arguments);
	va_end(arguments);
}

void mig_cannot_quiesce(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	cannot(format, arguments);
	va_end(arguments);
	mig.cannot_quiesce = 1;
}
