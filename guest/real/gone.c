/*
 * libibverbs has a way for devices that were unplugged: if a variable of its own says so (RDMAV_ALLOW_DISASSOC_DESTROY sets it), a
 * command that ends something, and fails with EIO, has succeeded, and the device's library frees what it has of the object. In a
 * restored process there is no descriptor of that device any more: commands fail, but with other errors. So they are sent to one
 * that answers everything with EIO: a terminal that has hung up.
 *
 * Where there are several libibverbs, each defines the variable, and the one that is used looks at that of any: all are set.
 */
#define _GNU_SOURCE
#include "real/gone.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/elf.h"

/* As uverbs' commands are numbered; what it is about does not matter here. */
#define ANY_COMMAND _IOWR(0x1b, 1, uint64_t[3])

static int answers_with_eio(int fd)
{
	uint64_t command[3] = { 0 };

	return ioctl(fd, ANY_COMMAND, command) == -1 && errno == EIO && write(fd, command, sizeof(command)) == -1 && errno == EIO;
}

/* The far end of a terminal that nobody has nearby; it becomes nobody's controlling one. -1: there are no terminals here. */
static int open_hung_up(void)
{
	int near = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC), far = -1, unlocked = 0;

#ifdef TIOCGPTPEER
	if (near >= 0 && !ioctl(near, TIOCSPTLCK, &unlocked))
		far = ioctl(near, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
#endif
	if (near >= 0)
		close(near);
	if (far < 0 || answers_with_eio(far))
		return far;
	close(far);
	return -1;
}

int mig_gone_begin(struct mig_gone *gone, struct ibv_context *context)
{
	int fd = -1;

	*gone = (struct mig_gone){ .context = context, .cmd_fd = context->cmd_fd };
	gone->copies = mig_elf_variables("verbs_allow_disassociate_destroy", gone->allows, MIG_GONE_COPIES);
	if (gone->copies && gone->copies <= MIG_GONE_COPIES)
		fd = open_hung_up();
	if (fd < 0)
		return ENOTSUP;
	for (uint32_t i = 0; i < gone->copies; i++) {
		_Bool *allows = gone->allows[i];

		gone->allowed[i] = *allows;
		*allows = 1;
	}
	context->cmd_fd = fd;
	return 0;
}

void mig_gone_end(struct mig_gone *gone)
{
	close(gone->context->cmd_fd);
	gone->context->cmd_fd = gone->cmd_fd;
	for (uint32_t i = 0; i < gone->copies; i++)
		*(_Bool *)gone->allows[i] = gone->allowed[i];
}
