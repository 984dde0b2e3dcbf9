#include "shadow/marks.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shadow/process.h"

struct mig_mark {
	struct mig_mark *next;
	const struct mig_context *context;
	const void *object;
	const char *why;
	uint32_t times;
};

/* A program may have an address handle for each of its peers. */
#define MARK_BUCKETS 1024

static struct mig_mark *marks[MARK_BUCKETS]; /* mig.lock */

static struct mig_mark **marks_near(const void *object)
{
	return &marks[(uintptr_t)object / 16 * 0x9e3779b1u % MARK_BUCKETS];
}

static struct mig_mark **mark_find(const void *object, const char *why)
{
	struct mig_mark **at = marks_near(object);

	while (*at && ((*at)->object != object || (why && strcmp((*at)->why, why))))
		at = &(*at)->next;
	return at;
}

static struct mig_mark *mark_unlink(struct mig_mark **at)
{
	struct mig_mark *mark = *at;

	*at = mark->next;
	return mark;
}

void mig_mark(const struct mig_context *context, const void *object, const char *why)
{
	struct mig_mark *mark = malloc(sizeof(*mark));

	if (!mark) {
		mig_cannot_migrate("%s", why);
		return;
	}
	*mark = (struct mig_mark){ NULL, context, object, why, 1 };
	mig_lock(&mig.lock);
	struct mig_mark *there = *mark_find(object, why);
	if (there) {
		there->times++;
	} else {
		mig_reason_add(why, 1);
		mark->next = *marks_near(object);
		*marks_near(object) = mark;
		mark = NULL;
	}
	mig_unlock(&mig.lock);
	free(mark);
}

int mig_unmark(const void *object, const char *why)
{
	struct mig_mark *ended = NULL;

	mig_lock(&mig.lock);
	struct mig_mark **at = mark_find(object, why);
	int there = *at != NULL;
	if (there && !--(*at)->times) {
		ended = mark_unlink(at);
		mig_reason_drop(ended->why);
	}
	mig_unlock(&mig.lock);
	free(ended);
	return there;
}

const char *mig_mark_of(const void *object)
{
	MIG_LOCKED(&mig.lock);
	const struct mig_mark *mark = *mark_find(object, NULL);

	return mark ? mark->why : NULL;
}

struct mig_mark *mig_marks_take(const void *object)
{
	struct mig_mark *taken = NULL, **at;

	MIG_LOCKED(&mig.lock);
	while (*(at = mark_find(object, NULL))) {
		struct mig_mark *mark = mark_unlink(at);

		mark->next = taken;
		taken = mark;
	}
	return taken;
}

void mig_marks_settle(struct mig_mark *taken, int error)
{
	while (taken) {
		struct mig_mark *mark = taken;

		taken = mark->next;
		mig_lock(&mig.lock);
		if (error) {
			mark->next = *marks_near(mark->object);
			*marks_near(mark->object) = mark;
			mark = NULL;
		} else {
			mig_reason_drop(mark->why);
		}
		mig_unlock(&mig.lock);
		free(mark);
	}
}

void mig_marks_forget(const struct mig_context *context)
{
	struct mig_mark *taken = NULL;

	mig_lock(&mig.lock);
	for (int i = 0; i < MARK_BUCKETS; i++)
		for (struct mig_mark **at = &marks[i]; *at;) {
			if ((*at)->context != context) {
				at = &(*at)->next;
				continue;
			}
			struct mig_mark *mark = mark_unlink(at);

			mark->next = taken;
			taken = mark;
		}
	mig_unlock(&mig.lock);
	mig_marks_settle(taken, 0);
}

void mig_marks_after_fork(void)
{
	memset(marks, 0, sizeof(marks));
	mig.reasons = 0;
	mig.cannot_quiesce = 0;
}
