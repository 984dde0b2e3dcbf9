/* The daemon's one thread. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"

#define PIECES 256     /* of work, before doorbells are looked at again */
#define TURNS 64       /* of the loop, before descriptors are looked at again */
#define SWEEP NANOSECONDS /* how long a replaced program's objects may live on when nothing else tells */

struct rnic_fabric *fabric;
uint64_t turn = 1;
bool stopping;

static int epoll = -1;

uint64_t clock_now(void *unused)
{
	struct timespec time;

	(void)unused;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * NANOSECONDS + (uint64_t)time.tv_nsec;
}

int watch_add(struct watch *watch)
{
	struct epoll_event event = { .events = EPOLLIN, .data = { .ptr = watch } };

	if (epoll < 0)
		epoll = epoll_create1(EPOLL_CLOEXEC);
	return epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, watch->fd, &event) ? errno : 0;
}

void watch_remove(struct watch *watch)
{
	if (watch->fd < 0)
		return;
	epoll_ctl(epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	close(watch->fd);
	watch->fd = -1;
}

/* One event at a time: what it leads to may end what the next one belongs to. */
static void wait_for_events(uint64_t nanoseconds)
{
	struct timespec patience = { (time_t)(nanoseconds / NANOSECONDS), (long)(nanoseconds % NANOSECONDS) };
	struct epoll_event event;

	for (int i = 0; i < 64 && epoll_pwait2(epoll, &event, 1, &patience, NULL) == 1; i++) {
		struct watch *watch = event.data.ptr;

		watch->ready(watch);
		patience = (struct timespec){ 0, 0 };
	}
}

static bool look_at_all(void)
{
	bool found = false;

	for (struct client *client = clients; client; client = client->next)
		found |= client_look(client);
	return found;
}

static void set_sleeping(uint32_t sleeping)
{
	for (struct client *client = clients; client; client = client->next)
		__atomic_store_n(&client->area->sleeping, sleeping, __ATOMIC_SEQ_CST);
}

static uint64_t until_next(void)
{
	uint64_t due = rnic_next(fabric), now = clock_now(NULL);

	for (struct client *client = clients; client; client = client->next)
		if (client_due(client) < due)
			due = client_due(client);
	if (due <= now)
		return 0;
	return due - now < SWEEP ? due - now : SWEEP;
}

void loop_run(void)
{
	uint64_t swept = clock_now(NULL);

	while (!stopping) {
		turn++;
		bool found = look_at_all();

		found |= rnic_run(fabric, PIECES);
		if (found) {
			if (turn % TURNS == 0)
				wait_for_events(0);
		} else {
			/* First the word, then the last look: whoever rings after that look finds the word. */
			set_sleeping(1);
			if (!look_at_all())
				wait_for_events(until_next());
			set_sleeping(0);
		}
		bool look = clock_now(NULL) - swept >= SWEEP;
		if (look)
			swept = clock_now(NULL);
		clients_sweep(look);
	}
}
