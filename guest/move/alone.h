/*
 * A guest that hears nothing from its agent. docs/protocol.md, "When something dies".
 *
 * What is quiesced may be one end of a checkpoint that waits, so that an agent's restart must not undo it; but it
 * must not wait for ever either. All of it belongs to the control thread.
 */
#ifndef MIGRRDMA_ALONE_H
#define MIGRRDMA_ALONE_H

#include <stdint.h>

/* How long what is being quiesced may stay so without a word from an agent; 0: only while it is connected. */
void mig_alone_allow(uint32_t seconds);

/* An agent has said something. */
void mig_alone_heard(void);

/* That long again nothing was heard; `connected` or not. Goes on with the data path when it has been too long. */
void mig_alone_passed(uint32_t milliseconds, int connected);

#endif
