/*
 * A process that CRIU has restored still has the memory and the doorbell's descriptor of the device it had before, and nobody
 * closes that opening: its objects are the other host's affair. After many moves it would be much. So whoever opens a device
 * looks for such openings. As long as the descriptor is what CRIU has put in the device's place, the guest library has not come to
 * its end with what was there; it closes it then, and what it closed is given back.
 */
#include <errno.h>
#include <sys/stat.h>
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

/* Whether the descriptor still is what CRIU has put there; the first look after the restore says what that is. */
static bool is_in_use(struct remote_link *remote)
{
	struct stat file = { .st_ino = 0 };

	if (!remote->was_left && remote_has_device(remote))
		return true;
	fstat(remote->link.cmd_fd, &file);
	if (!remote->was_left) {
		remote->was_left = true;
		remote->placeholder_device = file.st_dev;
		remote->placeholder = file.st_ino;
	}
	return remote->placeholder == file.st_ino && remote->placeholder_device == file.st_dev;
}

void remote_reap(void)
{
	int pid = getpid();

	pthread_mutex_lock(&lock);
	for (struct remote_link **at = &openings; *at;) {
		struct remote_link *remote = *at;

		/* In the child of a fork the parent's openings are the parent's. */
		if (remote->pid != pid || is_in_use(remote) || is_alive(remote)) {
			at = &remote->next;
			continue;
		}
		*at = remote->next;
		/* The guest library has closed them, or given their numbers to others. */
		remote->link.cmd_fd = remote->link.async_fd = -1;
		remote_free(remote);
	}
	pthread_mutex_unlock(&lock);
}
