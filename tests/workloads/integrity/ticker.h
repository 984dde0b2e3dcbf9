/*
 * The time this process has been running.
 *
 * The monotonic clock may jump, forth or back, while a process is stopped and goes on elsewhere. Looked at often,
 * it gives small steps; a step that is not small is such a jump and counts as nothing.
 */
#ifndef INTEGRITY_TICKER_H
#define INTEGRITY_TICKER_H

#define TICKER_LOOK_MS 500 /* look at least this often */

struct ticker {
	double last, elapsed; /* seconds */
};

void ticker_start(struct ticker *ticker);
double ticker_look(struct ticker *ticker); /* elapsed */

#endif
