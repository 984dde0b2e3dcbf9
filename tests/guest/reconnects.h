/* A thread that makes, connects, uses and ends QPs for as long as the program runs. */
#ifndef RECONNECTS_H
#define RECONNECTS_H

#include <infiniband/verbs.h>

struct reconnects {
	struct ibv_context *contexts[2];
	const volatile int *finished;
	void (*complain)(const char *format, ...) __attribute__((format(printf, 1, 2)));
	unsigned long rounds;
};

void *reconnect(void *reconnects);

#endif
