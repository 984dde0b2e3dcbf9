/*
 * Who may use something without the lock that everybody else takes: the thread that uses it alone. Another one that comes
 * along takes that over, which costs a grace period; when it has happened too often all take the lock, until one of
 * them has been alone for long.
 */
#ifndef MIGRRDMA_OWNER_H
#define MIGRRDMA_OWNER_H

struct mig_section;

struct mig_owner {
	struct mig_section *section; /* who was made fast last, or NULL: nobody is */
	struct mig_section *last;    /* who took the lock last */
	int changes;		     /* of the owner */
	int run;		     /* how often the last one took it in a row */
};

/*
 * The caller, who holds the lock and is in no section, becomes the owner, if anybody may be; the one before is not fast any
 * more. `fast` is what the fast way looks at; the caller may set it.
 */
void mig_owner_choose(struct mig_owner *owner, struct mig_section **fast, struct mig_section *section);

#endif
