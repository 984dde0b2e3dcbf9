#include <signal.h>

#include "integrity.h"

static void on_sigterm(int signal)
{
	(void)signal;
	integrity_stop();
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_sigterm };
	struct options options;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (options_parse(&options, argc, argv))
		return 2;
	sigemptyset(&action.sa_mask);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	return integrity(&options, stdout);
}
