/* Settings by name: limits, wire, provider behaviour, planted faults. */
#include "internal.h"

static const struct {
	const char *name;
	uint64_t standard, largest;
	const char *meaning;
} settings[RNIC_SETTINGS] = {
#define ROW(identifier, name, standard, largest, meaning) [RNIC_SET_##identifier] = { #name, standard, largest, meaning },
	RNIC_SETTING_LIST(ROW)
#undef ROW
};

static int find(const char *name)
{
	for (int i = 0; i < RNIC_SETTINGS; i++)
		if (!strcmp(settings[i].name, name))
			return i;
	return -1;
}

uint64_t rnic_setting_standard(enum rnic_setting setting) { return settings[setting].standard; }

const char *rnic_setting_name(int index, const char **meaning)
{
	if (index < 0 || index >= RNIC_SETTINGS)
		return NULL;
	if (meaning)
		*meaning = settings[index].meaning;
	return settings[index].name;
}

int rnic_set(struct rnic_device *device, const char *name, uint64_t value)
{
	int index = find(name);

	if (index < 0)
		return ENOENT;
	if (value > settings[index].largest || (index == RNIC_SET_MTU && !value))
		return EINVAL;
	device->settings[index] = value;
	return 0;
}

int rnic_get(const struct rnic_device *device, const char *name, uint64_t *value)
{
	int index = find(name);

	if (index < 0)
		return ENOENT;
	*value = device->settings[index];
	return 0;
}

/* Counts down to a planted fault; true: it is this one's turn. */
bool rnic_is_fault(struct rnic_device *device, enum rnic_setting fault)
{
	return device->settings[fault] && --device->settings[fault] == 0;
}
