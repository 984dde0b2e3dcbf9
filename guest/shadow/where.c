#include "shadow/where.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/keymap.h"
#include "base/log.h"

/* Waits are counted in steps and not by a clock, which may jump when a process lands on another host. */
#define STEP_MS 100
/* For an agent that is there and says nothing; longer than it waits for others (deadlines.peer, several times). */
#define SILENT_STEPS 400
/* For an agent that was there: it may be just being started again, and is looked for every second. */
#define GONE_STEPS 30

#define MAX_KEYS (1u << 22)

enum message_type {
#define TYPE(number, name, body, record, reply) TYPE_##name = number,
	MIG_MESSAGES(TYPE)
#undef TYPE
};

/* On the asker's stack. */
struct question {
	struct question *following;
	uint32_t id;
	uint32_t asked_on; /* which connection; 0: on none yet */
	int outdated;	   /* the connection is another one: who asks may be elsewhere by now, and have other numbers */
	int answered;	   /* futex */
	struct mig_found *found;
};

struct mig_lock mig_where_lock;

/* Lock. */
static struct question *questions;
static uint32_t last_id;
static uint32_t connection; /* counts them */
static int fd = -1;
static int called; /* there is a connection, over which the agent has not said yet whether it answers */
static int away; /* for a dump: nobody is waited for in vain */
static uint32_t silent_on; /* of this one nobody is waited for any more */
static int had_one; /* an agent that answers, since the last time that it was waited for in vain; read without the lock */

void mig_where_expect(void)
{
	__atomic_store_n(&had_one, 1, __ATOMIC_RELAXED);
}

void mig_where_called(void)
{
	MIG_LOCKED(&mig_where_lock);
	called = 1;
}

void mig_where_open(int of)
{
	MIG_LOCKED(&mig_where_lock);
	fd = of;
	connection += connection + 1 ? 1 : 2;
	__atomic_store_n(&had_one, 1, __ATOMIC_RELAXED);
	away = 0;
}

void mig_where_close(int for_a_dump)
{
	MIG_LOCKED(&mig_where_lock);
	fd = -1;
	called = 0;
	away |= for_a_dump;
}

void mig_where_nobody(void)
{
	MIG_LOCKED(&mig_where_lock);
	fd = -1;
	__atomic_store_n(&had_one, 0, __ATOMIC_RELAXED);
	away = 0;
}

void mig_where_after_fork(void)
{
	mig_where_lock.word = 0;
	questions = NULL;
	fd = -1;
	had_one = called = away = 0;
}

int mig_where_is_answered(void)
{
	return __atomic_load_n(&had_one, __ATOMIC_RELAXED);
}

/* Under the lock, so that the descriptor is what it was. What cannot be sent is sent in the next step. */
static void send_question(struct question *question, const struct mig_where *where)
{
	struct {
		struct mig_header header;
		struct mig_where where;
	} message = {
		{ .magic = MIG_CONTROL_MAGIC, .version = MIG_CONTROL_VERSION, 
		  .type = TYPE_WHERE, .id = question->id },
		*where,
	};

	if (send(fd, &message, sizeof(message), MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)sizeof(message))
		question->asked_on = connection;
}

static void forget(struct question *question)
{
	struct question **at = &questions;

	while (*at && *at != question)
		at = &(*at)->following;
	if (*at)
		*at = question->following;
}

/* Whether there is still somebody to be waited for. */
static int wait_on(struct question *question, const struct mig_where *where, int *silent, int *gone)
{
	MIG_LOCKED(&mig_where_lock);
	if (fd >= 0) {
		question->outdated = question->asked_on && question->asked_on != connection;
		if (question->outdated)
			return 0;
		if (!question->asked_on)
			send_question(question, where);
		*gone = 0;
		if (++*silent > SILENT_STEPS)
			silent_on = connection;
		return silent_on != connection;
	}
	if (called && had_one && ++*silent <= SILENT_STEPS)
		return 1;
	if (away)
		return 1;
	if (had_one && ++*gone <= GONE_STEPS)
		return 1;
	__atomic_store_n(&had_one, 0, __ATOMIC_RELAXED);
	return 0;
}

void mig_where_ask(const struct mig_where *where, struct mig_found *found)
{
	struct question question = { .found = found };
	int silent = 0, gone = 0, answered;

	memset(found, 0, sizeof(*found));
	mig_lock(&mig_where_lock);
	question.id = ++last_id;
	question.following = questions;
	questions = &question;
	mig_unlock(&mig_where_lock);
	while (wait_on(&question, where, &silent, &gone) &&
	       !__atomic_load_n(&question.answered, __ATOMIC_ACQUIRE)) {
		mig_futex_wait(&question.answered, 0, STEP_MS);
		if (__atomic_load_n(&question.answered, __ATOMIC_ACQUIRE))
			break;
	}
	mig_lock(&mig_where_lock);
	forget(&question);
	answered = question.answered;
	mig_unlock(&mig_where_lock);
	if (answered)
		return;
	if (question.outdated) {
		found->error = ESTALE;
		return;
	}
	if (silent)
		mig_log(MIG_LOG_WARN, "no agent has said where QP 0x%x is: it is taken to be where it is said to be", where->qpn);
	mig_keymap_drop(found->rkeys);
	memset(found, 0, sizeof(*found));
	found->qpn = where->qpn;
	memcpy(found->gid.raw, where->dgid, sizeof(found->gid.raw));
}

static void take_keys(struct mig_found *found, const struct mig_there *there, const struct mig_key_record *keys, uint32_t count)
{
	if (there->keys && !found->rkeys && !found->error) {
		found->rkeys = mig_keymap_new(there->keys);
		found->error = found->rkeys ? 0 : ENOMEM;
		memcpy(found->text, "its keys", sizeof("its keys"));
	}
	for (uint32_t i = 0; i < count && !found->error; i++)
		if (keys[i].vrkey != keys[i].prkey)
			found->error = mig_keymap_set(found->rkeys, keys[i].vrkey, keys[i].prkey);
}

int mig_where_answered(uint32_t id, const struct mig_there *there, const struct mig_key_record *keys, uint32_t count,
		       int more)
{
	struct question *question;

	if (there->keys > MAX_KEYS || count > there->keys || there->qpn > 0xffffff || !memchr(there->text, 0, sizeof(there->text)))
		return EPROTO;
	MIG_LOCKED(&mig_where_lock);
	for (question = questions; question && question->id != id; question = question->following)
		;
	/* Nobody waits for it any more. */
	if (!question || question->answered)
		return 0;
	struct mig_found *found = question->found;
	take_keys(found, there, keys, count);
	if (more)
		return 0;
	if (there->error || !found->error) {
		found->error = there->error;
		memcpy(found->text, there->text, sizeof(found->text));
	}
	found->qpn = there->qpn;
	found->peer = there->peer;
	memcpy(found->gid.raw, there->gid, sizeof(found->gid.raw));
	__atomic_store_n(&question->answered, 1, __ATOMIC_RELEASE);
	mig_futex_wake_all(&question->answered);
	return 0;
}
