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

/* The agent has said yes, and waits to hear what CRIU has made of it. */
static bool has_let_go;

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

/* A refusal also of our own, if a thread ends meanwhile that was to stand: CRIU would end all others for it. */
static enum agent_says wait_for_word(struct tracees *tracees)
{
	enum agent_says says;

	while ((says = agent_listen(LOOK_MS)) == AGENT_WAIT)
		if (!tracees_are_whole(tracees))
			return AGENT_REFUSE;
	return says;
}

static bool stop_all(struct tracees *tracees)
{
	bool stand = true;

	for (size_t i = 0; i < tracees->all.count; i++)
		stand &= !tracee_stop(&tracees->all.items[i]);
	return tracees_are_whole(tracees) && stand;
}

static enum agent_says decide(struct tracees *tracees)
{
	if (fault_before(PLUGIN_ASK_COMMIT) || run_control_threads(tracees) || wait_for_word(tracees) != AGENT_GO)
		return AGENT_REFUSE;
	fault_after(PLUGIN_ASK_COMMIT); /* whatever it says: what is committed goes on */
	/* It is committed, and can be given back until the agent has heard that we let go, and has said yes. */
	if (!stop_all(tracees))
		return AGENT_REFUSE;
	agent_ask_to_let_go();
	return wait_for_word(tracees);
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
		says = decide(&tracees);
	}
	if (says == AGENT_GO) {
		death_watch_let_go();
		tracees_end_with_us(&tracees, false);
		tracees_notice_ends(&tracees, true);
		has_let_go = true;
		pr_info("committed");
	} else {
		silence(root, &tracees);
		kill(root, SIGKILL);
		tracees_kill(&tracees);
		agent_close();
	}
	tracees_free(&tracees);
}

void late_end(bool succeeded)
{
	if (!has_let_go)
		return;
	has_let_go = false;
	tracees_notice_ends(NULL, false);
	agent_say_gone_on(succeeded);
	agent_close();
}
