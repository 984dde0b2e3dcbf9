/* Looking into a client's shared memory for what it asks. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon.h"

static void answer(struct rnic_slot *slot, const struct rnic_call *call)
{
	slot->call = *call;
	__atomic_store_n(&slot->state, RNIC_SLOT_ANSWERED, __ATOMIC_RELEASE);
	syscall(SYS_futex, &slot->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* What a driver's own part of the kernel would do before the device hears of it. */
static int prepare(struct client *client, const struct rnic_call *call)
{
	const unsigned int writing = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND;

	/* Its pages are looked for when they are needed. */
	if (call->name == CALL_REG_MR && call->mr.access & IBV_ACCESS_ON_DEMAND)
		return 0;
	if (call->name == CALL_REG_MR ||
	    (call->name == CALL_REREG_MR && call->mr.flags & IBV_REREG_MR_CHANGE_TRANSLATION))
		return client_check_region(client, call->mr.address, call->mr.length, call->mr.access & writing);
	return 0;
}

static void serve(struct client *client, struct rnic_slot *slot, int verdict)
{
	/* A copy: the process could change it while it is looked at. */
	struct rnic_call call = slot->call;

	if (verdict) {
		call.error = verdict;
	} else if (call.name == CALL_AREA) {
		call.error = client_extend(client, &call);
	} else if (!(call.error = prepare(client, &call))) {
		serve_call(&client->served, &call);
		client->gone |= call.name == CALL_CLOSE;
	}
	answer(slot, &call);
}

static void take_call(struct client *client, int index)
{
	struct rnic_slot *slot = &client->area->slots[index];
	struct rnic_call call = slot->call;
	uint64_t delay;

	if (__atomic_load_n(&slot->state, __ATOMIC_ACQUIRE) != RNIC_SLOT_ASKED)
		return;
	int verdict = serve_verdict(&client->served, &call, &delay);
	if (!delay) {
		serve(client, slot, verdict);
		return;
	}
	client->due[index] = delay == RNIC_NEVER ? RNIC_NEVER : clock_now(NULL) + delay;
	client->verdict[index] = verdict;
}

static bool ring_bells(struct client *client)
{
	bool found = false;

	for (uint32_t above = 0; above < RNIC_BELL_WORDS / 64; above++) {
		uint64_t words = client->area->bells_above[above];

		if (!words)
			continue;
		words = __atomic_exchange_n(&client->area->bells_above[above], 0, __ATOMIC_SEQ_CST);
		for (; words; words &= words - 1) {
			uint32_t word = above * 64 + (uint32_t)__builtin_ctzll(words);
			uint64_t bells = __atomic_exchange_n(&client->area->bells[word], 0, __ATOMIC_SEQ_CST);

			for (; bells; bells &= bells - 1) {
				uint32_t bell = word * 64 + (uint32_t)__builtin_ctzll(bells);

				if (bell & 1)
					rnic_srq_doorbell(client->served.context, bell / 2);
				else
					rnic_doorbell(client->served.context, bell / 2);
				found = true;
			}
		}
	}
	return found;
}

bool client_look(struct client *client)
{
	bool found = false;
	uint32_t calls = 0;

	if (client->gone)
		return false;
	if (__atomic_load_n(&client->area->calls, __ATOMIC_RELAXED))
		calls = __atomic_exchange_n(&client->area->calls, 0, __ATOMIC_SEQ_CST);
	/* What was posted before a call was made is there before the call is answered. */
	found = ring_bells(client);
	for (; calls; calls &= calls - 1) {
		take_call(client, __builtin_ctz(calls) % RNIC_CALL_SLOTS);
		found = true;
	}
	if (client_due(client) <= clock_now(NULL))
		for (int i = 0; i < RNIC_CALL_SLOTS; i++)
			if (client->due[i] && client->due[i] <= clock_now(NULL)) {
				client->due[i] = 0;
				serve(client, &client->area->slots[i], client->verdict[i]);
				found = true;
			}
	return found;
}

uint64_t client_due(const struct client *client)
{
	uint64_t due = RNIC_NEVER;

	for (int i = 0; i < RNIC_CALL_SLOTS; i++)
		if (client->due[i] && client->due[i] < due)
			due = client->due[i];
	return due;
}
