/*
 * A program with an RDMA device open that never stops to read and write its sockets.
 *
 *	talks_to_itself
 *
 * One thread waits in recv() for what another sends, by TCP; a third sends datagrams. It prints "tick N" twenty times a
 * second, and "failed WHAT: WHY" before it ends if a call fails that has no reason to.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <infiniband/verbs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
	int sending, receiving, datagrams;
} sockets;

static void __attribute__((noreturn)) failed(const char *what)
{
	printf("failed %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static void connect_both(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t length = sizeof(here);
	int listening = socket(AF_INET, SOCK_STREAM, 0);

	if (bind(listening, (struct sockaddr *)&here, sizeof(here)) || listen(listening, 1) ||
	    getsockname(listening, (struct sockaddr *)&here, &length))
		failed("listen");
	sockets.sending = socket(AF_INET, SOCK_STREAM, 0);
	if (connect(sockets.sending, (struct sockaddr *)&here, sizeof(here)))
		failed("connect");
	sockets.receiving = accept(listening, NULL, NULL);
	sockets.datagrams = socket(AF_INET, SOCK_DGRAM, 0);
	if (sockets.receiving < 0 || bind(sockets.datagrams, (struct sockaddr *)&here, sizeof(here)) ||
	    connect(sockets.datagrams, (struct sockaddr *)&here, sizeof(here)))
		failed("accept, bind, connect");
}

static void *receive(void *unused)
{
	char word[8];

	(void)unused;
	for (;;)
		if (recv(sockets.receiving, word, sizeof(word), 0) <= 0)
			failed("recv");
	return NULL;
}

static void *send_datagrams(void *unused)
{
	char word[8] = "";

	(void)unused;
	for (;; usleep(200))
		if (send(sockets.datagrams, word, sizeof(word), 0) < 0)
			failed("send");
	return NULL;
}

static void start(void *(*function)(void *))
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, function, NULL))
		failed("pthread_create");
}

int main(void)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	connect_both(); /* before the device: CRIU looks at one descriptor after the other */

	struct ibv_device **list = ibv_get_device_list(NULL);

	if (!list || !list[0] || !ibv_open_device(list[0]))
		failed("ibv_open_device");
	start(receive);
	start(send_datagrams);
	for (unsigned long number = 1;; number++) {
		if (send(sockets.sending, "word", 4, 0) != 4)
			failed("send by TCP");
		if (number % 50 == 0)
			printf("tick %lu\n", number);
		usleep(1000);
	}
}
