#include "ticker.h"

#include <time.h>

/* A busy host may keep us from looking for a while: that is running time still. */
#define LARGEST_STEP 5.0

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void ticker_start(struct ticker *ticker)
{
	ticker->last = now();
	ticker->elapsed = 0;
}

double ticker_look(struct ticker *ticker)
{
	double time = now(), step = time - ticker->last;

	ticker->last = time;
	if (step > 0 && step < LARGEST_STEP)
		ticker->elapsed += step;
	return ticker->elapsed;
}
