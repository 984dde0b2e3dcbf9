/* One host's device: device.c, settings.c, faults.c. */
#ifndef RNIC_DEVICE_H
#define RNIC_DEVICE_H

#include "fabric.h"
#include "settings.h"

#define RNIC_GIDS 128

struct rnic_gid {
	uint8_t raw[16];
	int type;
	uint32_t ifindex;
};

struct rnic_fault_point {
	struct rnic_fault_point *next;
	uint32_t nth;
	int error;
	uint64_t delay;
	char call[];
};

enum rnic_counter {
	RNIC_OVERFLOWS,
	RNIC_ERRORS,
	RNIC_EXECUTED,
	RNIC_LOST,
	RNIC_BYTES,
	RNIC_IN_FLIGHT,
	RNIC_RETRIES,
	RNIC_COUNTERS,
};

struct rnic_device {
	struct rnic_fabric *fabric;
	struct rnic_node node;
	char *name, *host;
	uint64_t settings[RNIC_SETTINGS];
	uint64_t counters[RNIC_COUNTERS];
	struct rnic_gid gids[RNIC_GIDS];
	bool port_down;
	struct rnic_node contexts;
	struct rnic_table qps, memory, srqs, cqs;
	struct rnic_numbers qpns, keys, srqns, cqns;
	struct rnic_fault_point *faults;
	struct rnic_node domains; /* XRC domains */
	struct rnic_node groups;  /* multicast */
	uint32_t group_count, last_variant;
	uint32_t made[RNIC_KINDS];
	/* The wire out of this host. */
	uint64_t wire_free;
	struct rnic_node waiting; /* QPs (member run) for the wire */
	struct rnic_event wire_event;
	struct rnic_device **parted;
	int parted_count;
};

/* Which device has that GID, or NULL. */
struct rnic_device *rnic_device_of(struct rnic_fabric *fabric, const uint8_t gid[16]);
bool rnic_reachable(const struct rnic_device *from, const struct rnic_device *to);


uint64_t rnic_setting_standard(enum rnic_setting setting);
/* Counts down to a planted fault; true: it is this one's turn. */
bool rnic_is_fault(struct rnic_device *device, enum rnic_setting fault);
#endif
