#include "late.h"

#include <signal.h>
#include <stdlib.h>

#include "agent.h"
#include "death_watch.h"
#include "fault_points.h"
#include "log.h"
#include "silence.h"
#include "tracee.h"

/* How often a thread that was let go is looked at, while the agent says nothing. */
#define LOOK_MS 20

/* Of an image without it: the guest's thread might wait for one that stands. */
static bool all_are_proved(const struct tracees *tracees, const struct image *image)
{
	for (size_t i = 0; i < tracees->all.count; i++) {
		const struct tracee *tracee = &tracees->all.items[i];

		if (tracee->is_control && !image_is_proved(image, tracee->vpid)) {
			pr_warn("of process %d it was not proved when it was dumped that it can be connected before it goes on: "
				"the restore is committed afterwards",
				tracee->vpid);
			return false;
		}
	}
	return true;
}

static int run_control_threads(struct tracees *tracees)
{
	int count = 0;

	for (size_t i = 0; i < tracees->all.count; i++) {
		if (!tracees->all.items[i].is_control)
			continue;
		if (tracee_run(&tracees->all.items[i]))
			return -1;
		count++;
	}
	pr_info("%d threads of the guest library run alone until the restore is committed", count);
	return 0;
}

static enum agent_says wait_for_decision(struct tracees *tracees)
{
	enum agent_says says;

	while ((says = agent_listen(LOOK_MS)) == AGENT_WAIT)
		for (size_t i = 0; i < tracees->all.count; i++)
			tracee_look_after(&tracees->all.items[i]);
	return says;
}

void late_commit(pid_t root, const struct image *image)
{
	struct tracees tracees;
	enum agent_says says = AGENT_REFUSE;

	if (!agent_is_asked())
		return;
	/* Whatever goes wrong here: nothing is committed yet, and what runs uncommitted would be a second copy. */
	if (!tracees_collect(&tracees)) {
		if (!all_are_proved(&tracees, image)) {
			tracees_free(&tracees);
			return;
		}
		tracees_end_with_us(&tracees, true);
		if (!fault_before(PLUGIN_ASK_COMMIT) && !run_control_threads(&tracees))
			says = wait_for_decision(&tracees);
	}
	if (says == AGENT_GO) {
		for (size_t i = 0; i < tracees.all.count; i++)
			tracee_stop(&tracees.all.items[i]);
		fault_after(PLUGIN_ASK_COMMIT); /* whatever it says: what is committed goes on */
		death_watch_let_go();
		tracees_end_with_us(&tracees, false);
		agent_let_go();
		pr_info("committed");
	} else {
		silence(root, &tracees);
		kill(root, SIGKILL);
		tracees_kill(&tracees);
	}
	agent_close();
	tracees_free(&tracees);
}
