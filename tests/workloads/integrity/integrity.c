/*
 * An RDMA application that accounts for every byte and every completion.
 *
 * Two processes do operations on several RC QPs, which have receives of their own or share them (-r), or on pairs of QPs of
 * XRC (-X), both directions at once: SEND, SEND_WITH_IMM, WRITE, WRITE_WITH_IMM, READ and FETCH_ADD; inline and not, one SGE and two, in lists,
 * signalled and not. What an end does on a QP follows from a number (stream.h), so the other end knows what must come.
 * It checks
 *
 *	of every message	that it is the next one, every byte of it, that nothing around it changed, and its
 *				completion: wr_id, qp_num, opcode, length, immediate data
 *	of every send		that the signalled ones complete, each once and in their order
 *	of every WRITE		that a READ finds it; at the end that its memory holds the last one, seen from the target
 *	of every FETCH_ADD	what it found; at the end the sums, seen from the target
 *	of every event		(-e) that it comes
 *
 * and at the end that nothing else in registered memory changed and that the QPs, the GID and the rkey are what the
 * application has known them to be.
 */
#include "integrity.h"

#include <inttypes.h>
#include <string.h>

#include "lane.h"

void integrity_stop(void)
{
	engine_interrupt();
}

static void agree_on_options(struct run *run)
{
	const struct options *options = &run->options;
	char ours[CONTROL_LINE], theirs[CONTROL_LINE];

	snprintf(ours, sizeof(ours), "-q %u -l %u -s %u -S %" PRIu64 "%s", options->qps, options->depth, options->size,
		 options->seed, options->xrc ? " -X" : options->shared ? " -r" : "");
	control_say(&run->control, "%s", ours);
	if (control_await(&run->control, options->watchdog, theirs) && strcmp(ours, theirs))
		fail(&run->verdict, "the two ends were given different options: %.80s here, %.80s there", ours, theirs);
}

static void tell_who_we_are(struct run *run)
{
	const struct address *here = &run->device.here;
	uint64_t gid[2];

	memcpy(gid, &here->gid, sizeof(gid));
	control_say(&run->control, "port %" PRIx64 " %" PRIx64 " %u %u %u", gid[0], gid[1], here->lid, here->mtu,
		    here->reads);
	control_say(&run->control, "memory %" PRIx64 " %" PRIx32 " %" PRIx32, here->memory, here->rkey, here->srqn);
	for (unsigned i = 0; i < run->options.qps; i++)
		control_say(&run->control, "qp %u %" PRIx32 " %" PRIx32 " %" PRIx32, i, run->lanes[i].pair.number,
			    run->lanes[i].pair.psn, run->lanes[i].pair.target_number);
}

static void learn_port(struct run *run, const char *line)
{
	unsigned lid, mtu, reads;
	uint64_t gid[2];

	if (sscanf(line, "port %" SCNx64 " %" SCNx64 " %u %u %u", &gid[0], &gid[1], &lid, &mtu, &reads) != 5) {
		fail(&run->verdict, "the other end says \"%s\" instead of its port", line);
		return;
	}
	memcpy(&run->there.gid, gid, sizeof(gid));
	run->there.lid = (uint16_t)lid;
	run->there.mtu = (enum ibv_mtu)mtu;
	run->there.reads = (uint8_t)reads;
}

static void learn_who_they_are(struct run *run)
{
	char line[CONTROL_LINE];
	unsigned wait = run->options.watchdog, index;

	if (!control_await(&run->control, wait, line))
		return;
	learn_port(run, line);
	if (!control_await(&run->control, wait, line))
		return;
	if (sscanf(line, "memory %" SCNx64 " %" SCNx32 " %" SCNx32, &run->there.memory, &run->there.rkey, &run->there.srqn) != 3)
		fail(&run->verdict, "the other end says \"%s\" instead of its memory", line);
	for (unsigned i = 0; i < run->options.qps && control_await(&run->control, wait, line); i++) {
		struct pair *pair = &run->lanes[i].pair;

		if (sscanf(line, "qp %u %" SCNx32 " %" SCNx32 " %" SCNx32, &index, &pair->their_number, &pair->their_psn,
			   &pair->their_target) != 4 ||
		    index != i)
			fail(&run->verdict, "the other end says \"%s\" instead of its QP %u", line, i);
	}
}

/* When both ends are ready to receive, each may send. */
static void meet(struct run *run)
{
	char line[CONTROL_LINE];

	control_open(&run->control, &run->options, &run->verdict);
	if (!run->verdict.failed)
		agree_on_options(run);
	if (!run->verdict.failed)
		tell_who_we_are(run);
	if (!run->verdict.failed)
		learn_who_they_are(run);
	for (unsigned i = 0; i < run->options.qps && !run->verdict.failed; i++)
		pair_connect(&run->lanes[i].pair, &run->device, &run->there, &run->verdict);
	if (run->verdict.failed)
		return;
	control_say(&run->control, "ready");
	if (control_await(&run->control, run->options.watchdog, line) && strcmp(line, "ready"))
		fail(&run->verdict, "the other end says \"%s\" instead of \"ready\"", line);
}

static void print_verdict(const struct run *run, FILE *out)
{
	uint64_t by_kind[KINDS] = { 0 };

	if (run->verdict.failed) {
		fprintf(out, "integrity: FAILED: %s\n", run->verdict.text);
		return;
	}
	for (unsigned i = 0; i < run->options.qps; i++)
		for (int kind = 0; kind < KINDS; kind++)
			by_kind[kind] += run->lanes[i].out.by_kind[kind];
	fprintf(out, "integrity: ok, %" PRIu64 " operations (", run->operations);
	for (int kind = 0; kind < KINDS; kind++)
		fprintf(out, "%s%" PRIu64 " %s", kind ? ", " : "", by_kind[kind], kind_names[kind]);
	fprintf(out, "), %" PRIu64 " messages received", run->received);
	if (run->options.events)
		fprintf(out, ", %" PRIu64 " events", run->events);
	fputc('\n', out);
}

int integrity(const struct options *options, FILE *out)
{
	struct run run = { .options = *options, .control = { .fd = -1 } };

	device_open(&run.device, &run.options, exposed_size(&run.options), &run.verdict);
	if (!run.verdict.failed)
		lanes_create(&run);
	if (!run.verdict.failed)
		meet(&run);
	if (!run.verdict.failed) {
		fprintf(out, "integrity: %u QPs on %s, largest inline %u, %s\n", options->qps,
			ibv_get_device_name(run.device.context->device), run.lanes[0].pair.max_inline,
			options->events ? "completion events" : "polling");
		engine_run(&run, out);
	}
	if (run.verdict.failed && !run.verdict.from_peer && run.control.fd >= 0)
		control_say(&run.control, "verdict %s", run.verdict.text);
	control_close(&run.control);
	lanes_end(&run);
	device_close(&run.device, &run.verdict);
	print_verdict(&run, out);
	lanes_free(&run);
	return run.verdict.failed;
}
