/*
 * Both ends of the workload in one process, a thread each, for devices that exist in one process only.
 *
 *	both_ends OUTPUT-OF-THE-SERVER OUTPUT-OF-THE-CLIENT DEVICE-OF-THE-CLIENT [the options of both]
 *
 * The exit code has bit 0 set if the server failed, bit 1 if the client did.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "integrity/integrity.h"

struct end {
	struct options options;
	FILE *out;
	int failed;
};

static void *run_end(void *argument)
{
	struct end *end = argument;

	end->failed = integrity(&end->options, end->out);
	return NULL;
}

static void on_sigterm(int signal)
{
	(void)signal;
	integrity_stop();
}

int main(int argc, char **argv)
{
	struct end ends[2];
	pthread_t threads[2];

	if (argc < 4)
		return 2;
	for (int i = 0; i < 2; i++) {
		ends[i].out = fopen(argv[1 + i], "w");
		if (!ends[i].out)
			return 2;
		setvbuf(ends[i].out, NULL, _IOLBF, 0);
	}
	if (options_parse(&ends[0].options, argc - 3, argv + 3))
		return 2;
	ends[1].options = ends[0].options;
	ends[1].options.device = argv[3];
	ends[1].options.host = "127.0.0.1";
	signal(SIGTERM, on_sigterm);
	for (int i = 0; i < 2; i++)
		if (pthread_create(&threads[i], NULL, run_end, &ends[i]))
			return 2;
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], NULL);
		fclose(ends[i].out);
	}
	return ends[0].failed | ends[1].failed << 1;
}
