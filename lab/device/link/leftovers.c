/*
 * A process that CRIU has restored still has the memory and the doorbell's descriptor of the device it had before, and nobody
 * closes that opening: its objects are the other host's affair. After many moves it would be much. So whoever opens a device
 * looks for such openings. What is found dead for the first time may still be looked at by the guest library, which is just
 * about to put the new one in its place; what was dead the last time is given back.
 */
#include <errno.h>
#include <unistd.h>

#include "remote.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct remote_link *openings;

void remote_remember(struct remote_link *remote)
{
	pthread_mutex_lock(&lock);
	remote->next = openings;
	openings = remote;
	pthread_mutex_unlock(&lock);
}

void remote_forget(struct remote_link *remote)
{
	pthread_mutex_lock(&lock);
	for (struct remote_link **at = &openings; *at; at = &(*at)->next)
		if (*at == remote) {
			*at = remote->next;
			break;
		}
	pthread_mutex_unlock(&lock);
}

static bool is_alive(const struct remote_link *remote)
{
	struct rnic_question question = { .version = RNIC_WIRE_VERSION, .ask = RNIC_ASK_ALIVE, .id = remote->id };
	struct rnic_answer answer;

	/* Only a daemon that answers and does not know it makes it dead. */
	return remote_ask(&question, NULL, &answer) != ENOENT || answer.error != ENOENT;
}

void remote_reap(void)
{
	int pid = getpid();

	pthread_mutex_lock(&lock);
	for (struct remote_link **at = &openings; *at;) {
		struct remote_link *remote = *at;

		/* In the child of a fork the parent's openings are the parent's. */
		if (remote->pid != pid || is_alive(remote)) {
			at = &remote->next;
		} else if (!remote->was_dead) {
			remote->was_dead = true;
			at = &remote->next;
		} else {
			*at = remote->next;
			/* The guest library has closed them, or given their numbers to others. */
			remote->link.cmd_fd = remote->link.async_fd = -1;
			remote_free(remote);
		}
	}
	pthread_mutex_unlock(&lock);
}
