/* The devices of one process, and what can be done to them on command. */
#ifndef RNIC_LOCAL_H
#define RNIC_LOCAL_H

#include <pthread.h>

#include "../serve/serve.h"
#include "link.h"

#define LOCAL_DEVICES 2

struct local_link {
	struct device_link link; /* first: the library knows no more */
	struct served served;
	struct local_link *next;
};

extern pthread_mutex_t local_lock;	/* the fabric's, and that of everything here */
extern struct local_link *local_links;	/* open ones that no restore has left behind */
extern struct rnic_device *local_devices[LOCAL_DEVICES];

/* The devices, made the first time; lock held. */
int local_start(void);

/* Whether this call is to fail by local_fail; its errno. Lock held. */
int local_failure(const char *verb);

/* Nonzero once a test has asked for a failure: the data path asks for its own. */
extern uint32_t local_faults;

/* Lock held: does what can be done now, or wakes the thread that does it. */
void local_work(void);
#endif
