/* The GID table as the host's own sysfs shows it: files of a folder that is laid out by the rack. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon.h"

/* Whole files, by a name of their own first: a reader sees the old entry or the new one. */
static int write_file(const char *folder, const char *name, int index, const char *text)
{
	char path[512], fresh[520];

	if ((size_t)snprintf(path, sizeof(path), "%s/ports/1/%s/%d", folder, name, index) >= sizeof(path))
		return ENAMETOOLONG;
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	FILE *file = fopen(fresh, "we");
	if (!file)
		return errno;
	int error = fputs(text, file) < 0 ? EIO : 0;
	if (fclose(file) && !error)
		error = errno;
	return error ? error : rename(fresh, path) ? errno : 0;
}

int host_set_gid(struct host *host, int index, const uint8_t gid[16], uint32_t ifindex)
{
	static const uint8_t empty[16];
	char text[48];
	int error = rnic_gid_set(host->device, index, gid, 1, ifindex);

	if (error || !*host->shown)
		return error;
	for (int i = 0; i < 8; i++)
		snprintf(text + 5 * i, sizeof(text) - 5 * (size_t)i, "%02x%02x%c", gid[2 * i], gid[2 * i + 1],
			 i < 7 ? ':' : '\n');
	/* The type is what makes an entry one: it comes last and goes first. */
	bool used = memcmp(gid, empty, sizeof(empty)) != 0;
	if (!used)
		error = write_file(host->shown, "gid_attrs/types", index, "");
	if (!error)
		error = write_file(host->shown, "gids", index, text);
	if (!error && used)
		error = write_file(host->shown, "gid_attrs/types", index, "RoCE v2\n");
	return error;
}

int host_show(struct host *host, const char *folder)
{
	uint8_t gid[16];
	uint32_t ifindex;
	int type, error = 0;

	if (strlen(folder) >= sizeof(host->shown))
		return ENAMETOOLONG;
	strcpy(host->shown, folder);
	for (int i = 0; !error && !rnic_gid_get(host->device, i, gid, &type, &ifindex); i++)
		error = host_set_gid(host, i, gid, ifindex);
	if (error)
		*host->shown = '\0';
	return error;
}
