/*
 * A program that, having made its connections, gives up what it does not need any more, as careful ones do.
 *
 *	leaves_its_root chroot|umount
 *
 * It does so when there is a file "leave" beside it. From then on it is as quiet as lock_holders: it writes a number, finds it at the other end, and prints "tick N SECONDS".
 */
#define _GNU_SOURCE
#define main lock_holders_main
#include "lock_holders.c"
#undef main

#include <sys/mount.h>

int main(int count, char **words)
{
	const char *what = count > 1 ? words[1] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);
	set_up();
	while (access("/mnt/leave", F_OK))
		usleep(10000);
	if (!strcmp(what, "chroot")) {
		if (chroot("/usr/share/doc") || chdir("/"))
			failed("chroot");
	} else if (!strcmp(what, "umount")) {
		if (umount2("/dev/migrrdma/agent", MNT_DETACH))
			failed("umount");
	}
	be_quiet();
}
