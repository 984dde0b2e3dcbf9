#include "path/grh.h"

#include <string.h>

#define IPV4 20
#define CHECKSUM 10
#define SOURCE 12
#define DESTINATION 16

static const unsigned char mapped[12] = { [10] = 0xff, [11] = 0xff };

static unsigned int sum_of(const unsigned char *ip)
{
	unsigned int sum = 0;

	for (int i = 0; i < 20; i += 2)
		sum += (unsigned int)ip[i] << 8 | ip[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static int is_ipv4(const unsigned char *grh)
{
	return grh[IPV4] == 0x45 && sum_of(grh + IPV4) == 0xffff;
}

static void from_ipv4(union ibv_gid *gid, const unsigned char *address)
{
	memcpy(gid->raw, mapped, sizeof(mapped));
	memcpy(gid->raw + sizeof(mapped), address, 4);
}

void mig_grh_read(const unsigned char *grh, union ibv_gid *from, union ibv_gid *to)
{
	if (is_ipv4(grh)) {
		from_ipv4(from, grh + IPV4 + SOURCE);
		from_ipv4(to, grh + IPV4 + DESTINATION);
	} else {
		memcpy(from->raw, grh + 8, sizeof(from->raw));
		memcpy(to->raw, grh + 24, sizeof(to->raw));
	}
}

void mig_grh_write(unsigned char *grh, const union ibv_gid *from, const union ibv_gid *to)
{
	unsigned char *ip = grh + IPV4;

	if (!is_ipv4(grh)) {
		memcpy(grh + 8, from->raw, sizeof(from->raw));
		memcpy(grh + 24, to->raw, sizeof(to->raw));
		return;
	}
	if (!memcmp(from->raw, mapped, sizeof(mapped)))
		memcpy(ip + SOURCE, from->raw + sizeof(mapped), 4);
	if (!memcmp(to->raw, mapped, sizeof(mapped)))
		memcpy(ip + DESTINATION, to->raw + sizeof(mapped), 4);
	ip[CHECKSUM] = ip[CHECKSUM + 1] = 0;
	unsigned int sum = ~sum_of(ip) & 0xffff;
	ip[CHECKSUM] = (unsigned char)(sum >> 8);
	ip[CHECKSUM + 1] = (unsigned char)sum;
}
