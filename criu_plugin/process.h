/* What the processes that CRIU is dumping hold of RDMA. */
#ifndef MIGRRDMA_PLUGIN_PROCESS_H
#define MIGRRDMA_PLUGIN_PROCESS_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "array.h"
#include "device.h"

/* TASK_COMM_LEN of the kernel, doubled: /proc escapes a backslash and a newline. */
#define COMM_NAME 33

struct process {
	pid_t pid;
	pid_t vpid; /* in the innermost pid namespace */
	char comm[COMM_NAME];
	bool has_guest; /* runs with the guest library */
};

/* A descriptor of RDMA, in one process. */
struct held_file {
	size_t process; /* index into processes */
	int fd;
	struct device device;
	dev_t number; /* of a character device */
};

/* A mapping of a uverbs device. */
struct held_mapping {
	size_t process;
	uint64_t start;
	uint64_t length;
	uint64_t offset;
	uint32_t prot;
	bool shared;
	dev_t number;
	struct device device;
};

struct holdings {
	ARRAY(struct process) processes;
	ARRAY(struct held_file) files;
	ARRAY(struct held_mapping) mappings;
	size_t cursor; /* where holdings_owner found the last one */
};

/* A folder of the process in /proc; NULL, with the reason in the log. */
DIR *process_folder(const struct process *process, const char *name);

/* Everything of all processes that this one traces: those CRIU dumps. 0, or -1 with the reason in the log. */
int holdings_collect(struct holdings *holdings, const char *sysfs);

/* Who holds the open file behind our descriptor `fd`; NULL: nobody (it is under way in a socket). */
const struct held_file *holdings_owner(struct holdings *holdings, int fd, enum device_kind kind);

void holdings_free(struct holdings *holdings);

#endif
