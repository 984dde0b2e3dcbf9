/* The loop: completions, operations, the other end's words, the rate; until both ends have done and heard all. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "lane.h"

#define BATCH 16
#define EVENT_PATIENCE_MS 10000

struct engine {
	struct run *run;
	FILE *out;
	unsigned unacknowledged[2]; /* events of the send and the receive CQ */
	double reported, heard;
	uint64_t reported_operations;
	bool told; /* the other end knows how many operations this one did */
	bool peer_is_content;
};

static volatile sig_atomic_t interrupted;

void engine_interrupt(void)
{
	interrupted = 1;
}

static int poll_one(struct run *run, struct ibv_cq *cq, void (*on_completion)(struct run *, const struct ibv_wc *))
{
	struct ibv_wc completions[BATCH];
	int count = ibv_poll_cq(cq, BATCH, completions);

	if (count < 0)
		fail(&run->verdict, "polling the %s CQ: %d", cq == run->device.send_cq ? "send" : "receive", count);
	for (int i = 0; i < count && !run->verdict.failed; i++)
		on_completion(run, &completions[i]);
	if (count > 0)
		run->progress = run->ticker.elapsed;
	return count;
}

static bool poll_all(struct run *run)
{
	bool received = poll_one(run, run->device.recv_cq, on_received) > 0;

	return poll_one(run, run->device.send_cq, on_sent) > 0 || received;
}

static bool post_all(struct run *run)
{
	bool posted = false;

	for (unsigned i = 0; i < run->options.qps && !run->verdict.failed; i++)
		posted |= post_sends(run, &run->lanes[i]);
	return posted;
}

static void hear_done(struct engine *engine, unsigned index, uint64_t total)
{
	struct run *run = engine->run;

	if (index >= run->options.qps) {
		fail(&run->verdict, "the other end tells of QP %u", index);
		return;
	}
	run->lanes[index].in.total = total;
	/* Without a number of its own this end goes on for as long as the other. */
	if (!run->options.operations)
		run->stopping = true;
	if (run->lanes[index].in.stream.operations > total)
		lane_fail(run, &run->lanes[index], "%" PRIu64 " operations came, the other end did %" PRIu64,
			  run->lanes[index].in.stream.operations, total);
}

static void hear(struct engine *engine)
{
	struct run *run = engine->run;
	char line[CONTROL_LINE];
	unsigned index;
	uint64_t total;

	engine->heard = run->ticker.elapsed;
	while (!engine->peer_is_content && !run->verdict.failed && control_take(&run->control, line)) {
		run->progress = run->ticker.elapsed;
		if (!strcmp(line, "stop")) {
			run->stopping = true;
		} else if (sscanf(line, "done %u %" SCNu64, &index, &total) == 2) {
			hear_done(engine, index, total);
		} else if (!strcmp(line, "verdict ok")) {
			engine->peer_is_content = true;
		} else if (!control_take_verdict(&run->control, line)) {
			fail(&run->verdict, "the other end says \"%s\"", line);
		}
	}
}

static void acknowledge(struct engine *engine, unsigned at_least)
{
	struct ibv_cq *cqs[2] = { engine->run->device.send_cq, engine->run->device.recv_cq };

	for (int i = 0; i < 2; i++)
		if (engine->unacknowledged[i] >= at_least) {
			ibv_ack_cq_events(cqs[i], engine->unacknowledged[i]);
			engine->unacknowledged[i] = 0;
		}
}

static void take_event(struct engine *engine)
{
	struct run *run = engine->run;
	struct device *device = &run->device;
	struct ibv_cq *cq;
	void *context;

	if (ibv_get_cq_event(device->channel, &cq, &context)) {
		fail(&run->verdict, "getting a completion event: %s", strerror(errno));
		return;
	}
	if ((cq != device->send_cq || context != &device->send_cq) &&
	    (cq != device->recv_cq || context != &device->recv_cq)) {
		fail(&run->verdict, "a completion event of a CQ that is not ours");
		return;
	}
	run->events++;
	engine->unacknowledged[cq == device->recv_cq]++;
	acknowledge(engine, BATCH);
}

/* Both CQs were armed and then empty: what is in them now must have raised an event. */
static void expect_event(struct engine *engine)
{
	struct run *run = engine->run;
	struct pollfd channel = { .fd = run->device.channel->fd, .events = POLLIN };

	while (poll(&channel, 1, EVENT_PATIENCE_MS) < 0 && errno == EINTR)
		;
	if (!(channel.revents & POLLIN))
		fail(&run->verdict, "a completion event is missing: there were completions after both CQs were armed");
}

static void wait_for_event(struct engine *engine)
{
	struct run *run = engine->run;
	struct pollfd sources[2] = { { .fd = run->device.channel->fd, .events = POLLIN },
				     { .fd = run->control.fd, .events = POLLIN } };
	int ready;

	if (ibv_req_notify_cq(run->device.send_cq, 0) || ibv_req_notify_cq(run->device.recv_cq, 0)) {
		fail(&run->verdict, "asking for completion events: %s", strerror(errno));
		return;
	}
	if (poll_all(run) || run->verdict.failed)
		return;
	/* The other end's verdict is the last that it says: then it may close. */
	ready = poll(sources, engine->peer_is_content ? 1 : 2, TICKER_LOOK_MS);
	if (ready < 0 && errno != EINTR)
		fail(&run->verdict, "waiting for events: %s", strerror(errno));
	else if (ready == 0 && poll_all(run))
		expect_event(engine);
	else if (ready > 0 && sources[0].revents)
		take_event(engine);
	if (ready > 0 && sources[1].revents)
		hear(engine);
}

static void report(struct engine *engine)
{
	struct run *run = engine->run;
	double period = run->ticker.elapsed - engine->reported;

	if (period < 1)
		return;
	fprintf(engine->out, "%6.0f s %6.0f ops/s  seq %" PRIu64 "\n", run->ticker.elapsed,
		(double)(run->operations - engine->reported_operations) / period, run->operations);
	engine->reported = run->ticker.elapsed;
	engine->reported_operations = run->operations;
}

/* Says what is being waited for. */
static void give_up(struct run *run)
{
	unsigned seconds = run->options.watchdog;

	for (unsigned i = 0; i < run->options.qps; i++) {
		const struct lane *lane = &run->lanes[i];

		if (lane->out.retired < lane->out.posted)
			lane_fail(run, lane,
				  "no progress for %u s: operations %" PRIu64 " to %" PRIu64 " are under way, the completion of the next signalled one is missing; message %" PRIu64 " has not come",
				  seconds, lane->out.retired, lane->out.posted - 1, lane->in.completed);
		if (lane->in.total != UINT64_MAX && !has_received_all(lane))
			lane_fail(run, lane,
				  "no progress for %u s: message %" PRIu64 " is missing, the completion of receive %" PRIu64 " has not come",
				  seconds, lane->in.completed, lane->in.completed);
	}
	fail(&run->verdict, "no progress for %u s: the other end has not told what it did", seconds);
}

static void tell(struct engine *engine)
{
	struct run *run = engine->run;

	if (interrupted && !run->stopping) {
		run->stopping = true;
		control_say(&run->control, "stop");
	}
	for (unsigned i = 0; i < run->options.qps; i++)
		if (!run->lanes[i].out.closed || run->lanes[i].out.retired < run->lanes[i].out.posted)
			return;
	if (engine->told)
		return;
	for (unsigned i = 0; i < run->options.qps; i++)
		control_say(&run->control, "done %u %" PRIu64, i, run->lanes[i].out.posted);
	engine->told = true;
}

static bool is_over(const struct engine *engine)
{
	const struct run *run = engine->run;

	for (unsigned i = 0; i < run->options.qps; i++)
		if (!has_received_all(&run->lanes[i]))
			return false;
	return engine->told;
}

static void step(struct engine *engine)
{
	struct run *run = engine->run;
	bool worked = poll_all(run);

	if (!run->verdict.failed)
		worked |= post_all(run);
	if (!worked && !run->verdict.failed) {
		if (run->options.events)
			wait_for_event(engine);
		else
			sched_yield();
	}
	ticker_look(&run->ticker);
	if (run->ticker.elapsed > engine->heard + 0.02)
		hear(engine);
	report(engine);
	tell(engine);
	if (run->ticker.elapsed > run->progress + run->options.watchdog)
		give_up(run);
}

/* Both have checked; a completion that comes now is one too many. */
static void agree(struct engine *engine)
{
	struct run *run = engine->run;

	control_say(&run->control, "verdict ok");
	while (!engine->peer_is_content && !run->verdict.failed)
		step(engine);
	poll_all(run);
}

/* As a program that forks to load data, for one. It ends with its parent. */
static void have_child(void)
{
	if (fork())
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

void engine_run(struct run *run, FILE *out)
{
	struct engine engine = { .run = run, .out = out };

	if (run->options.child)
		have_child();
	ticker_start(&run->ticker);
	run->progress = 0;
	while (!run->verdict.failed && !is_over(&engine))
		step(&engine);
	if (!run->verdict.failed)
		check_all(run);
	if (!run->verdict.failed)
		agree(&engine);
	acknowledge(&engine, 1);
}
