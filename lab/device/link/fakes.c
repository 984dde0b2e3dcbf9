/* What a test does to the devices of its process, found by dlsym: fakes.h. */
#define _GNU_SOURCE
#include "fakes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../verbs/export.h"
#include "local.h"

static char fail_verb[64];
static int fail_nth, fail_error;

EXPORT void fake_fail(const char *verb, int nth, int error)
{
	pthread_mutex_lock(&local_lock);
	snprintf(fail_verb, sizeof(fail_verb), "%s", verb);
	fail_nth = nth;
	fail_error = error;
	__atomic_store_n(&local_faults, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&local_lock);
}

int local_failure(const char *verb)
{
	return fail_nth && !strcmp(fail_verb, verb) && --fail_nth == 0 ? fail_error : 0;
}

EXPORT void fake_set_numbers(int device, uint32_t qpn, uint32_t key)
{
	pthread_mutex_lock(&local_lock);
	if (!local_start())
		rnic_numbers(local_devices[device], qpn, key);
	pthread_mutex_unlock(&local_lock);
}

EXPORT uint64_t fake_count(const char *what)
{
	uint64_t count = 0;

	pthread_mutex_lock(&local_lock);
	for (int i = 0; i < LOCAL_DEVICES && !local_start(); i++)
		count += rnic_count(local_devices[i], what);
	pthread_mutex_unlock(&local_lock);
	return count;
}

EXPORT int fake_raise(uint32_t qpn, int type)
{
	int raised = 0;

	pthread_mutex_lock(&local_lock);
	for (int i = 0; i < LOCAL_DEVICES && !local_start(); i++)
		raised |= !rnic_raise(local_devices[i], (enum ibv_event_type)type, qpn);
	pthread_mutex_unlock(&local_lock);
	return raised;
}

static void plant(const char *fault, int nth)
{
	pthread_mutex_lock(&local_lock);
	for (int i = 0; i < LOCAL_DEVICES && !local_start(); i++)
		rnic_set(local_devices[i], fault, (uint64_t)nth);
	pthread_mutex_unlock(&local_lock);
}

EXPORT void fake_drop_completion(int nth)
{
	plant("drop_completion", nth);
}

EXPORT void fake_repeat_send(int nth)
{
	plant("repeat_send", nth);
}

EXPORT void fake_local_rkeys(int have)
{
	plant("local_rkeys", have);
}

EXPORT void fake_on_demand(int device, int has)
{
	pthread_mutex_lock(&local_lock);
	if (!local_start())
		rnic_set(local_devices[device], "on_demand", (uint64_t)has);
	pthread_mutex_unlock(&local_lock);
}

EXPORT void fake_purge(int purge)
{
	plant("purge", purge);
	pthread_mutex_lock(&local_lock);
	for (struct local_link *local = local_links; local; local = local->next)
		local->link.ways = (local->link.ways & ~(uint32_t)RNIC_PURGES) | (purge ? RNIC_PURGES : 0);
	pthread_mutex_unlock(&local_lock);
}

EXPORT void fake_reuse_numbers(int reuse)
{
	plant("reuse_numbers", reuse);
}

/* The kernel objects stay behind on the other host; numbers of descriptors are kept by placeholders. */
EXPORT void fake_restore(void)
{
	int placeholder = eventfd(0, EFD_CLOEXEC);

	pthread_mutex_lock(&local_lock);
	while (local_links) {
		struct local_link *local = local_links;
		const struct served_table *channels = &local->served.channels;

		/* A second restore must not replace what has its number by then. */
		local_links = local->next;
		__atomic_store_n(&local->link.left_behind, true, __ATOMIC_RELAXED);
		dup2(placeholder, local->link.cmd_fd);
		dup2(placeholder, local->link.async_fd);
		for (uint32_t i = 0; i < channels->room; i++)
			if (channels->at[i])
				dup2(placeholder, ((struct served_events *)channels->at[i])->fd);
		serve_close(&local->served);
	}
	pthread_mutex_unlock(&local_lock);
	close(placeholder);
}
