/*
 * A program with an RDMA device open whose timer leaves traces everywhere, a hundred times a second.
 *
 *	leaves_traces FILE ADDRESS PORT
 *
 * Each time it writes "tick N" into FILE, to whom it is connected by TCP, and to stdout, in this order.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int file, connection;

static void tick(int signal_number)
{
	static unsigned long number;
	char line[32], digits[24];
	size_t count = 0, length = strlen("tick ");

	(void)signal_number;
	for (unsigned long rest = ++number; rest; rest /= 10)
		digits[count++] = (char)('0' + rest % 10);
	memcpy(line, "tick ", length);
	while (count)
		line[length++] = digits[--count];
	line[length++] = '\n';
	if (write(file, line, length) < 0 || write(connection, line, length) < 0 || write(1, line, length) < 0)
		_exit(1);
}

int main(int count, char **arguments)
{
	struct sockaddr_in there = { .sin_family = AF_INET };
	struct itimerval often = { { 0, 10000 }, { 0, 10000 } };

	if (count != 4 || !inet_aton(arguments[2], &there.sin_addr))
		return 2;
	there.sin_port = htons((uint16_t)atoi(arguments[3]));
	file = open(arguments[1], O_WRONLY | O_CREAT | O_APPEND, 0644);
	connection = socket(AF_INET, SOCK_STREAM, 0);
	if (file < 0 || connect(connection, (struct sockaddr *)&there, sizeof(there)))
		return 3;

	struct ibv_device **list = ibv_get_device_list(NULL);

	if (!list || !list[0] || !ibv_open_device(list[0]))
		return 4;
	struct sigaction action = { .sa_handler = tick, .sa_flags = SA_RESTART };
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	for (;;)
		pause();
}
