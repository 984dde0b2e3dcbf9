#include "objects/multicast.h"

#include <errno.h>
#include <stdlib.h>

#include "base/verb_gate.h"
#include "real/export.h"
#include "shadow/places.h"

static struct mig_group **group_of(struct mig_qp *qp, const union ibv_gid *gid, uint16_t lid)
{
	struct mig_group **at = &qp->groups;

	while (*at && ((*at)->lid != lid || !mig_gid_is(&(*at)->gid, gid)))
		at = &(*at)->following;
	return at;
}

/* The kernel counts a group that is joined twice once. */
int ibv_attach_mcast(struct ibv_qp *ibv, const union ibv_gid *gid, uint16_t lid)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!qp)
		return mig_real()->ibv_attach_mcast(ibv, gid, lid);
	MIG_VERB;
	struct mig_group *group = malloc(sizeof(*group));
	if (!group)
		return ENOMEM;
	*group = (struct mig_group){ NULL, *gid, lid };
	int error = mig_real()->ibv_attach_mcast(qp->real, gid, lid);
	mig_lock(&qp->send_lock);
	struct mig_group **at = group_of(qp, gid, lid);
	if (!error && !*at) {
		*at = group;
		group = NULL;
	}
	mig_unlock(&qp->send_lock);
	free(group);
	return error;
}

int ibv_detach_mcast(struct ibv_qp *ibv, const union ibv_gid *gid, uint16_t lid)
{
	struct mig_qp *qp = mig_qp(ibv);

	if (!qp)
		return mig_real()->ibv_detach_mcast(ibv, gid, lid);
	MIG_VERB;
	int error = mig_real()->ibv_detach_mcast(qp->real, gid, lid);
	mig_lock(&qp->send_lock);
	struct mig_group **at = group_of(qp, gid, lid), *left = error ? NULL : *at;
	if (left)
		*at = left->following;
	mig_unlock(&qp->send_lock);
	free(left);
	return error;
}

int mig_groups_join_again(struct mig_qp *qp)
{
	int error = 0;

	for (const struct mig_group *group = qp->groups; group && !error; group = group->following)
		error = mig_real()->ibv_attach_mcast(qp->next, &group->gid, group->lid);
	return error;
}

void mig_groups_forget(struct mig_qp *qp)
{
	while (qp->groups) {
		struct mig_group *group = qp->groups;

		qp->groups = group->following;
		free(group);
	}
}
