/* Opening, closing, and the engine's sinks. */
#include "serve.h"

#include <errno.h>
#include <stdlib.h>

#include "events.h"

static void completion_event(void *process, uint64_t cookie)
{
	struct served_cq *cq = (struct served_cq *)(uintptr_t)cookie;
	struct rnic_event event = { .cookie = cq->cookie, .kind = RNIC_CQ };

	(void)process;
	if (cq->channel)
		served_events_push(cq->channel, &event);
}

static void async_event(void *process, enum ibv_event_type type, enum rnic_kind kind, uint64_t cookie)
{
	struct served *served = process;
	struct rnic_event event = { .cookie = cookie, .type = type, .kind = kind };

	if (kind == RNIC_CQ)
		event.cookie = ((struct served_cq *)(uintptr_t)cookie)->cookie;
	served_events_push(&served->async, &event);
}

int serve_open(struct served *served, const struct served_ops *ops, struct rnic_device *device,
	       const struct rnic_sinks *memory, struct rnic_events *async, int async_fd)
{
	*served = (struct served){ .ops = ops, .sinks = *memory, .device = device };
	served->sinks.completion_event = completion_event;
	served->sinks.async_event = async_event;
	served_events_init(&served->async, async, async_fd);
	served->context = rnic_open(device, &served->sinks, served);
	return served->context ? 0 : errno ? errno : ENOMEM;
}

void serve_close(struct served *served)
{
	if (served->context)
		rnic_close(served->context);
	served->context = NULL;
	served_events_forget(&served->async, 0, 0);
	for (uint32_t i = 0; i < served->cqs.room; i++)
		free(served->cqs.at[i]);
	for (uint32_t i = 0; i < served->channels.room; i++) {
		struct served_events *channel = served->channels.at[i];

		if (!channel)
			continue;
		served_events_forget(channel, 0, 0);
		served->ops->close_descriptor(served, channel->fd);
		free(channel);
	}
	free(served->cqs.at);
	free(served->channels.at);
	served->cqs = served->channels = (struct served_table){ NULL, 0 };
}

#define RNIC_CALL_TEXT(name, text) [name] = text,
static const char *const texts[RNIC_CALL_COUNT] = { RNIC_CALLS(RNIC_CALL_TEXT) };

int serve_verdict(struct served *served, const struct rnic_call *call, uint64_t *delay)
{
	char text[sizeof(call->text) + 1] = "";
	const char *name = call->name < RNIC_CALL_COUNT ? texts[call->name] : NULL;

	*delay = 0;
	if (call->name == CALL_DATA_PATH) {
		for (size_t i = 0; i < sizeof(call->text) && call->text[i]; i++)
			text[i] = call->text[i];
		name = text;
	}
	return name ? rnic_verdict(served->device, name, delay) : 0;
}
